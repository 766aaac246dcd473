//! Tests of the front as a process of its own. The test acts as the maker.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mayfly_summon::cause::WakeCause;
use mayfly_summon::channel::{
    ChannelError, FrontTable, Sender, ServiceAddresses, ToFront, ToMaker, pair, receive,
};
use mayfly_summon::dns::Sockets;
use mayfly_summon::fleet::ServiceId;
use mayfly_summon::names::Names;
use mayfly_summon::status::SummonStatus;

const BOUND: Duration = Duration::from_secs(20);
const WWW: ServiceId = ServiceId(1);

struct Front {
    child: Child,
    to: Sender<ToFront>,
    from: OwnedFd,
    dns: Sockets,
    page: TcpListener,
    status: UnixStream,
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Front {
    let (ours, theirs) = pair().unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_hatch-summon"))
        .arg("front")
        .stdin(Stdio::from(theirs))
        .spawn()
        .unwrap();
    let dns = Sockets::open(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let page = TcpListener::bind("127.0.0.1:0").unwrap();
    let (status, stream) = UnixStream::pair().unwrap();
    let mut to = Sender::new(ours.try_clone().unwrap());
    let mut hand = |message, descriptor: &dyn std::os::fd::AsFd| {
        let descriptor = descriptor.as_fd().try_clone_to_owned().unwrap();
        to.push(&message, Some(descriptor)).unwrap();
    };
    hand(ToFront::Udp, &dns.udp[0]);
    hand(ToFront::Listener, &dns.listeners[0]);
    hand(ToFront::Page, &page);
    hand(ToFront::Status, &stream);
    hand(ToFront::Table, &table());
    to.flush().unwrap();
    Front {
        child,
        to,
        from: ours,
        dns,
        page,
        status,
    }
}

/// A file with one service and its zone.
fn table() -> File {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = "[daemon]\nlisten = [\"127.0.0.1:53\"]\n[[services]]\nname = \"www\"\nhosts = [\"www.example.test\"]\n\
                zone = \"example.test\"\nimage = \"/image\"\nipv4 = \"192.0.2.80/24\"\n";
    fs::write(file.path(), text).unwrap();
    let config = mayfly_summon::config::SummonConfig::load(file.path()).unwrap();
    let names = Names::new(&config, &[("www".to_owned(), WWW)].into()).unwrap();
    let (pack, hosts) = names.parts();
    let place = ServiceAddresses {
        service: WWW,
        bridge: "xenbr0".into(),
        is_held_here: true,
        mac: [0, 0x16, 0x3e, 0, 0, 1],
        addresses: vec![IpAddr::from(Ipv4Addr::new(192, 0, 2, 80))],
    };
    let table = FrontTable {
        services: vec![place],
        pack,
        hosts,
        ..FrontTable::default()
    };
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&postcard::to_allocvec(&table).unwrap())
        .unwrap();
    file.rewind().unwrap();
    file
}

/// A query for the address of www.example.test.
const QUERY: &[u8] =
    b"\x12\x67\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03www\x07example\x04test\x00\x00\x01\x00\x01";

impl Front {
    fn query(&self) -> Vec<u8> {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(BOUND)).unwrap();
        let server = self.dns.udp[0].local_addr().unwrap();
        client.send_to(QUERY, server).unwrap();
        let mut answer = [0; 512];
        let length = client.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    }

    /// The front's next message, without counters.
    fn next(&self) -> ToMaker {
        let end = Instant::now() + BOUND;
        while Instant::now() < end {
            let said = receive::<ToMaker>(&self.from).unwrap();
            for said in said.into_iter().flatten() {
                if !matches!(said, ToMaker::Queries(_) | ToMaker::Counted(..)) {
                    return said;
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("the front says nothing");
    }

    fn of_proc(&self, file: &str) -> String {
        format!("/proc/{}/{file}", self.child.id())
    }
}

#[test]
fn it_serves_with_next_to_no_power_and_ends_with_the_maker() {
    let mut front = start();
    // DNS.
    let answer = front.query();
    assert_eq!((answer[3] & 15, answer[7]), (0, 1), "{answer:?}");
    let ToMaker::Wake(wake) = front.next() else {
        panic!();
    };
    assert_eq!((wake.service, wake.cause), (WWW, WakeCause::Dns));
    assert!(wake.answered.is_some() && wake.ticket.is_none());
    // The page, whose content comes from the maker.
    let status = SummonStatus {
        uptime_ms: 4711,
        ..SummonStatus::default()
    };
    let mut stream = front.status.try_clone().unwrap();
    let maker = std::thread::spawn(move || {
        stream.read_exact(&mut [0]).unwrap();
        mayfly_toolstack::line::send(&stream, &status).unwrap();
    });
    let mut client = TcpStream::connect(front.page.local_addr().unwrap()).unwrap();
    client
        .write_all(b"GET /status.json HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut page = String::new();
    client.read_to_string(&mut page).unwrap();
    assert!(page.contains("\"uptime_ms\":4711"), "{page}");
    maker.join().unwrap();
    // The front asks a guest that does not exist.
    front.to.push(&ToFront::Ask(WWW), None).unwrap();
    front.to.flush().unwrap();
    assert_eq!(front.next(), ToMaker::Said(WWW, None));

    let said = fs::read_to_string(front.of_proc("status")).unwrap();
    let line = |key: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap().trim().to_owned()
    };
    for key in ["CapEff:", "CapPrm:", "CapInh:"] {
        assert_eq!(line(key), "0000000000000000", "{key}");
    }
    assert_eq!(
        (line("NoNewPrivs:"), line("Seccomp:")),
        ("1".into(), "2".into())
    );
    for thread in fs::read_dir(front.of_proc("task")).unwrap() {
        let status = fs::read_to_string(thread.unwrap().path().join("status")).unwrap();
        assert!(status.contains("Seccomp:\t2"), "{status}");
    }
    for descriptor in fs::read_dir(front.of_proc("fd")).unwrap() {
        let leads = fs::read_link(descriptor.unwrap().path()).unwrap();
        let leads = leads.to_string_lossy().into_owned();
        assert!(
            !leads.starts_with("/dev/xen") && !leads.contains(".toml"),
            "{leads}"
        );
    }

    // Signals of a service manager or a terminal to both processes are for the maker.
    for signal in ["-HUP", "-INT", "-TERM"] {
        let number = front.child.id().to_string();
        let sent = Command::new("kill").args([signal, &number]).status();
        assert!(sent.unwrap().success());
    }
    front.query();

    let (nobody, _) = pair().unwrap();
    front.to = Sender::new(nobody.try_clone().unwrap());
    front.from = nobody;
    let end = Instant::now() + BOUND;
    while front.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn one_that_is_killed_is_seen_to_be_gone_and_the_next_has_its_sockets() {
    let mut front = start();
    front.query();
    front.next();
    front.child.kill().unwrap();
    front.child.wait().unwrap();
    let end = std::iter::repeat_with(|| receive::<ToMaker>(&front.from))
        .find_map(Result::err)
        .unwrap();
    assert!(matches!(end, ChannelError::Ended));
    // Queries in the meantime wait in the sockets.
    let (dns, page) = (&front.dns, &front.page);
    let mut next = start();
    for (message, descriptor) in [
        (ToFront::Udp, dns.udp[0].as_fd()),
        (ToFront::Page, page.as_fd()),
    ] {
        // These messages are valid only at the start: later the front ends because of them.
        let descriptor = descriptor.try_clone_to_owned().unwrap();
        next.to.push(&message, Some(descriptor)).unwrap();
    }
    next.to.flush().unwrap();
    assert!(!next.child.wait().unwrap().success());
}

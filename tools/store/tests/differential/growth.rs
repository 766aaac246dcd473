//! The cost of requests beside more and more idle domains, with our daemon and with Debian's.
//!
//! ```console
//! $ cargo test --release -p mayfly-store --test differential -- --ignored --nocapture growth
//! ```

use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mayfly_drivers::SharedPage;
use mayfly_store::core::Quota;
use mayfly_store::daemon::Daemon;
use mayfly_xenstore::wire::{self, MessageKind};

use crate::daemon::{Debian, Kind};
use crate::machine::{Fake, RSP_CONS, RSP_PROD, Requests};

/// The numbers of idle domains.
const DOMAINS: [u16; 4] = [0, 100, 1000, 10_000];
/// The time for making the domains of one step. A daemon that needs longer is given up.
const PATIENCE: Duration = Duration::from_secs(60);
/// The number of times that each request is made.
const ROUNDS: usize = 1000;

/// The paths that a usual guest watches.
const WATCHED: [&str; 3] = ["control/shutdown", "memory/target", "device"];

fn request(kind: MessageKind, transaction: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    wire::put_message(&mut bytes, [kind as u32, 1, transaction], payload);
    bytes
}

/// The first requests of a domain: its watches.
fn watches(_: u16) -> Requests {
    let requests =
        WATCHED.map(|path| request(MessageKind::Watch, 0, format!("{path}\0t\0").as_bytes()));
    Requests::honest(requests.concat())
}

/// Takes all answers and events in a ring.
fn take_all(_: u16, page: &SharedPage) {
    page.store_release(RSP_CONS, page.load_acquire(RSP_PROD));
}

struct Client(UnixStream);

impl Client {
    fn ask(&mut self, kind: MessageKind, transaction: u32, payload: &[u8]) -> Vec<u8> {
        self.0
            .write_all(&request(kind, transaction, payload))
            .unwrap();
        loop {
            let mut header = [0; wire::HEADER];
            self.0.read_exact(&mut header).unwrap();
            let mut payload = vec![0; wire::length(&header).unwrap() - wire::HEADER];
            self.0.read_exact(&mut payload).unwrap();
            let answered = u32::from_ne_bytes(header[..4].try_into().unwrap());
            assert_ne!(answered, 16, "{kind:?}: {}", payload.escape_ascii());
            if answered == kind as u32 {
                return payload;
            }
        }
    }

    fn write(&mut self, path: &str, value: &str) {
        self.ask(MessageKind::Write, 0, format!("{path}\0{value}").as_bytes());
    }

    /// The nodes of a guest with a network interface.
    fn birth(&mut self, domid: u16) {
        let home = format!("/local/domain/{domid}");
        let back = format!("/local/domain/0/backend/vif/{domid}/0");
        for (path, perms) in [
            (&home, format!("n{domid}")),
            (&back, format!("n0\0r{domid}")),
        ] {
            self.write(path, "");
            self.ask(
                MessageKind::SetPerms,
                0,
                format!("{path}\0{perms}\0").as_bytes(),
            );
        }
        for name in [
            "name",
            "domid",
            "memory/target",
            "control/shutdown",
            "device/vif/0/state",
        ] {
            self.write(&format!("{home}/{name}"), "1");
        }
        for name in [
            "frontend",
            "state",
            "mac",
            "bridge",
            "handle",
            "hotplug-status",
        ] {
            self.write(&format!("{back}/{name}"), "1");
        }
        self.ask(
            MessageKind::Introduce,
            0,
            format!("{domid}\x005\x007\0").as_bytes(),
        );
    }
}

fn median(mut act: impl FnMut()) -> f64 {
    let mut times = Vec::with_capacity(ROUNDS);
    let start = Instant::now();
    while times.len() < ROUNDS && start.elapsed() < Duration::from_secs(5) {
        let start = Instant::now();
        act();
        times.push(start.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// Returns the medians in microseconds of READ, WRITE, a transaction of one WRITE, and a connection with one READ.
fn measure(socket: &Path) -> [f64; 4] {
    let mut client = Client(UnixStream::connect(socket).unwrap());
    let path = "/local/domain/0/backend/vif/1/0/feature";
    client.write(path, "1");
    let read = format!("{path}\0");
    let write = format!("{path}\x001");
    let one = median(|| drop(client.ask(MessageKind::Read, 0, read.as_bytes())));
    let two = median(|| drop(client.ask(MessageKind::Write, 0, write.as_bytes())));
    let three = median(|| {
        let number = client.ask(MessageKind::TransactionStart, 0, b"\0");
        let number = std::str::from_utf8(&number).unwrap().trim_end_matches('\0');
        let number = number.parse().unwrap();
        client.ask(MessageKind::Write, number, write.as_bytes());
        client.ask(MessageKind::TransactionEnd, number, b"T\0");
    });
    let four = median(|| {
        let mut client = Client(UnixStream::connect(socket).unwrap());
        client.ask(MessageKind::Read, 0, read.as_bytes());
    });
    [one, two, three, four]
}

/// Prints a line of the table for each number of domains that a daemon reaches in time.
fn grow(name: &str, socket: &Path, mut introduced: impl FnMut(u16)) {
    let mut client = Client(UnixStream::connect(socket).unwrap());
    // The watches of dom0's kernel and toolstack.
    client.ask(MessageKind::Watch, 0, b"/local/domain/0/backend\0kernel\0");
    client.ask(MessageKind::Watch, 0, b"@releaseDomain\0toolstack\0");
    let mut there = 0;
    for domains in DOMAINS {
        let start = Instant::now();
        while there < domains {
            there += 1;
            client.birth(there);
            introduced(there);
            if start.elapsed() > PATIENCE {
                println!(
                    "| {name} | {domains} | not in {} s: {there} |",
                    PATIENCE.as_secs()
                );
                return;
            }
        }
        let each = start.elapsed().as_secs_f64() * 1e6 / f64::from(domains.max(1));
        let [one, two, three, four] = measure(socket);
        println!(
            "| {name} | {domains} | {one:.1} | {two:.1} | {three:.1} | {four:.1} | {each:.0} |"
        );
    }
}

/// Runs our daemon while `act` uses its socket.
pub(crate) fn with_ours(act: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    let socket: PathBuf = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let server = std::thread::spawn(move || {
        let quota = Quota::default();
        let mut daemon = Daemon::new(quota, false, Fake::new(watches, take_all), listener).unwrap();
        daemon.run(stopped.as_fd()).unwrap();
    });
    act(&socket);
    drop(stop);
    server.join().unwrap();
}

fn theirs(kind: Kind) {
    let mut daemon = Debian::start(kind);
    let socket = daemon.socket();
    let name = if kind == Kind::C {
        "xenstored"
    } else {
        "oxenstored"
    };
    (1..=10_000).for_each(|domid| daemon.set_state(domid, 1));
    grow(name, &socket, |domid| {
        for path in WATCHED {
            daemon.watches(domid, path);
        }
    });
}

#[test]
#[ignore = "needs a C compiler and Debian's packages"]
fn growth() {
    println!("| | idle domains | READ | WRITE | transaction | connection | a domain's birth |");
    println!("|---|---|---|---|---|---|---|");
    with_ours(|socket| grow("hatch xenstored", socket, |_| ()));
    theirs(Kind::C);
    theirs(Kind::Ocaml);
}

//! Tests of the server over the host's loopback, with real clients.

mod elsewhere;

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::Duration;

use domain::base::iana::{Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::config::{DaemonConfig, OnChange, SOCKET, Service, SummonConfig, SummonLimits};
use super::*;

const WWW: ServiceId = ServiceId(7);

fn config() -> SummonConfig {
    let service = Service {
        name: "www".into(),
        hosts: vec!["www.example.test".into(), "example.test".into()],
        zone: "example.test".into(),
        image: "/nowhere".into(),
        site: None,
        memory: 8,
        ipv4: Some("192.0.2.1/24".parse().unwrap()),
        ipv6: Some("2001:db8::1/64".parse().unwrap()),
        gateway: None,
        mac: [2, 0, 0, 0, 0, 1],
        bridge: "xenbr0".into(),
        cmdline: String::new(),
        idle: Duration::from_secs(20),
        idle_hard: None,
        start_timeout: Duration::from_secs(5),
        lifetime: None,
        answer: Vec::new(),
        network: super::super::config::Network::Netback,
        is_network_named: true,
        asleep: super::super::config::Asleep::Destroy,
        on_demand: true,
        on_change: OnChange::default(),
    };
    let daemon = DaemonConfig {
        bridge: "xenbr0".into(),
        listen: vec!["192.0.2.53:53".parse().unwrap()],
        status: None,
        socket: SOCKET.into(),
        ttl: 10,
        forward: None,
        forward_for: Vec::new(),
        limits: SummonLimits::default(),
        pool: 0,
        guard: true,
        network: None,
        netback_threads: Default::default(),
        on_change: OnChange::default(),
        nsid: None,
    };
    SummonConfig {
        daemon,
        services: vec![service],
        zones: BTreeMap::new(),
    }
}

fn names() -> Names {
    let ids = BTreeMap::from([("www".to_owned(), WWW)]);
    Names::new(&config(), &ids).unwrap()
}

fn query(name: &str, rtype: Rtype) -> Vec<u8> {
    let name: Name<Vec<u8>> = name.parse().unwrap();
    let mut question = MessageBuilder::new_vec().question();
    question.header_mut().set_id(4711);
    question.push((name, rtype)).unwrap();
    question.finish()
}

/// Serves until nothing more comes for a moment. Returns the services that were asked for.
fn serve(dns: &mut Dns, names: &Names) -> Vec<ServiceId> {
    let mut queries = Vec::new();
    loop {
        let ready: Vec<DnsSocket> = {
            let sources = dns.sources();
            let mut fds: Vec<PollFd<'_>> = sources
                .iter()
                .map(|(source, fd)| {
                    let flags = match dns.is_writing(*source) {
                        true => PollFlags::OUT,
                        false => PollFlags::IN,
                    };
                    PollFd::from_borrowed_fd(*fd, flags)
                })
                .collect();
            let moment = Timespec::try_from(Duration::from_millis(100)).unwrap();
            poll(&mut fds, Some(&moment)).unwrap();
            let ready = sources.iter().zip(&fds);
            ready
                .filter(|(_, fd)| !fd.revents().is_empty())
                .map(|((source, _), _)| *source)
                .collect()
        };
        if ready.is_empty() {
            return queries.iter().map(|query: &Query| query.service).collect();
        }
        for source in ready {
            dns.serve(source, names, &mut queries);
        }
    }
}

fn open(forward: Option<SocketAddr>) -> Dns {
    let sockets = Sockets::open(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let mut dns = Dns::over(sockets).unwrap();
    let clients = &["127.0.0.0/8".parse().unwrap()];
    dns.configure(
        None,
        Elsewhere {
            resolver: forward,
            clients,
        },
    )
    .unwrap();
    dns
}

/// Sends a query over UDP.
fn ask(dns: &mut Dns, name: &str, rtype: Rtype) -> (Message<Vec<u8>>, Vec<ServiceId>) {
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(dns.udp[0].local_addr().unwrap()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.send(&query(name, rtype)).unwrap();
    let woken = serve(dns, &names());
    let mut answer = vec![0; 4096];
    let length = client.recv(&mut answer).unwrap();
    answer.truncate(length);
    let answer = Message::from_octets(answer).unwrap();
    assert_eq!(answer.header().id(), 4711);
    (answer, woken)
}

fn counts(message: &Message<Vec<u8>>) -> (Rcode, u16) {
    (message.header().rcode(), message.header_counts().ancount())
}

#[test]
fn an_address_is_told_and_wanted() {
    let mut dns = open(None);
    for (name, rtype) in [
        ("www.example.test", Rtype::A),
        ("WWW.Example.Test", Rtype::AAAA),
        ("example.test", Rtype::A),
    ] {
        let (answer, woken) = ask(&mut dns, name, rtype);
        assert_eq!(counts(&answer), (Rcode::NOERROR, 1), "{name}");
        assert!(answer.header().aa());
        let record = answer.answer().unwrap().next().unwrap().unwrap();
        assert_eq!(record.ttl().as_secs(), 10);
        assert_eq!(woken, [WWW], "{name}");
    }
}

#[test]
fn what_is_no_address_of_a_service_wakes_nobody() {
    let mut dns = open(None);
    for (name, rtype, rcode) in [
        ("other.example.test", Rtype::A, Rcode::NXDOMAIN),
        ("www.example.test", Rtype::MX, Rcode::NOERROR),
        ("ns.example.test", Rtype::A, Rcode::NOERROR),
        ("www.example.org", Rtype::A, Rcode::REFUSED),
    ] {
        let (answer, woken) = ask(&mut dns, name, rtype);
        assert_eq!((answer.header().rcode(), woken), (rcode, vec![]), "{name}");
    }
    assert_eq!((dns.counts.answered, dns.counts.refused), (3, 1));
}

#[test]
fn over_tcp_too() {
    let mut dns = open(None);
    let names = names();
    let mut client = TcpStream::connect(dns.listeners[0].local_addr().unwrap()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    // Two queries at once, one of them in pieces.
    let query = query("www.example.test", Rtype::A);
    let length = u16::try_from(query.len()).unwrap().to_be_bytes();
    let both = [&length[..], &query, &length, &query].concat();
    let (first, rest) = both.split_at(query.len() + 7);
    client.write_all(first).unwrap();
    assert_eq!(serve(&mut dns, &names), [WWW]);
    client.write_all(rest).unwrap();
    assert_eq!(serve(&mut dns, &names), [WWW]);
    for _ in 0..2 {
        let mut length = [0; 2];
        client.read_exact(&mut length).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(length).into()];
        client.read_exact(&mut answer).unwrap();
        let answer = Message::from_octets(answer).unwrap();
        assert_eq!(counts(&answer), (Rcode::NOERROR, 1));
    }
    assert_eq!(dns.counts.answered, 2);
    drop(client);
    serve(&mut dns, &names);
    assert_eq!(dns.connections.iter().count(), 0);
}

#[test]
fn a_reload_that_changes_nothing_changes_nothing() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = resolver.local_addr().unwrap();
    let mut dns = open(Some(address));
    let names = names();
    let client = TcpStream::connect(dns.listeners[0].local_addr().unwrap()).unwrap();
    let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
    asker.connect(dns.udp[0].local_addr().unwrap()).unwrap();
    asker.send(&query("www.example.org", Rtype::A)).unwrap();
    serve(&mut dns, &names);
    let clients = &["127.0.0.0/8".parse().unwrap()];
    let elsewhere = Elsewhere {
        resolver: Some(address),
        clients,
    };
    dns.configure(None, elsewhere).unwrap();
    assert_eq!(dns.connections.iter().count(), 1);
    assert!(dns.forward.as_ref().unwrap().deadline().is_some());
    drop(client);
}

#[test]
fn nobody_holds_tcp_shut() {
    let mut dns = open(None);
    let names = names();
    let address = dns.listeners[0].local_addr().unwrap();
    // One network takes as many connections as it can get, from different addresses.
    let mut greedy = Vec::new();
    for n in 0..300_u16 {
        let own: SocketAddr = format!("127.0.0.{}:0", n % 250 + 2).parse().unwrap();
        greedy.push(connect_from(own, address));
        // The listener's backlog bounds the connections that wait to be accepted.
        if n % 32 == 31 {
            serve(&mut dns, &names);
        }
    }
    serve(&mut dns, &names);
    assert_eq!(dns.connections.iter().count(), 64);
    // Other networks are served, and push out connections of that network only.
    let mut others = Vec::new();
    for n in 1..=200 {
        others.push(connect_from(
            format!("127.0.{n}.1:0").parse().unwrap(),
            address,
        ));
        serve(&mut dns, &names);
    }
    assert_eq!(dns.connections.iter().count(), 256);
    let mut first = others.remove(0);
    first
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    first
        .write_all(&framed(&query("www.example.test", Rtype::A)))
        .unwrap();
    serve(&mut dns, &names);
    assert!(!unframed(&mut first).is_empty());
}

/// A connection from this address.
fn connect_from(own: SocketAddr, to: SocketAddr) -> TcpStream {
    let socket = super::socket(own, SocketType::STREAM).unwrap();
    match rustix::net::connect(&socket, &to) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => panic!("{error}"),
    }
    let stream = TcpStream::from(socket);
    stream.set_nonblocking(false).unwrap();
    stream
}

/// A message with its length before it.
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    [&length[..], message].concat()
}

fn unframed(stream: &mut TcpStream) -> Vec<u8> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut message = vec![0; u16::from_be_bytes(length).into()];
    stream.read_exact(&mut message).unwrap();
    message
}

#[test]
fn a_zone_has_what_its_file_says_and_the_services_addresses() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("zone");
    let text = "@ SOA ns.example.org. hostmaster.example.org. 2026010100 3600 600 604800 60\n\
        @ NS ns.example.org.\n@ MX 10 mail\nmail A 192.0.2.25\n@ TXT \"v=spf1 mx -all\"\n";
    std::fs::write(&file, text).unwrap();
    let mut config = config();
    config.zones.insert("example.test".into(), file.clone());
    config.services[0].answer = vec!["203.0.113.7".parse().unwrap()];
    let ids = BTreeMap::from([("www".to_owned(), WWW)]);
    let names = Names::new(&config, &ids).unwrap();
    let mut server = server(&Identity::default()).unwrap();
    let mut told = |name: &str, rtype| {
        let client = Client {
            address: "192.0.2.1".parse().unwrap(),
            transport: Transport::Udp,
        };
        let mut out = [0; 4096];
        let (asked, length) =
            names.answer(&mut server, 0, 0, client, &query(name, rtype), &mut out);
        let answer = Message::from_octets(out[..length].to_vec()).unwrap();
        let records = answer.answer().unwrap();
        let data: Vec<_> = records
            .map(|record| {
                let record = record.unwrap();
                let record = record.to_any_record::<domain::rdata::AllRecordData<_, _>>();
                record.unwrap().data().to_string()
            })
            .collect();
        (asked, data)
    };
    assert_eq!(told("example.test", Rtype::MX).1, ["10 mail.example.test."]);
    assert_eq!(told("example.test", Rtype::NS).1, ["ns.example.org."]);
    assert!(told("example.test", Rtype::SOA).1[0].contains("2026010100"));
    // The answer has the outside address, and the query wakes the service.
    let outside = (
        QueryOutcome::Answered(Some(WWW)),
        vec!["203.0.113.7".to_owned()],
    );
    assert_eq!(told("www.example.test", Rtype::A), outside);
    assert_eq!(
        told("mail.example.test", Rtype::A).0,
        QueryOutcome::Answered(None)
    );
    // Mistakes in the file are reported with their lines.
    std::fs::write(&file, "@ MX mail\n").unwrap();
    let error = Names::new(&config, &ids).err().unwrap().to_string();
    assert!(error.contains("example.test.zone"), "{error}");
}

/// The data of the records of a type that a zone without a file of its own has.
fn head_of(listen: &str, rtype: Rtype, name: &str) -> Vec<String> {
    let mut config = config();
    config.daemon.listen = vec![listen.parse().unwrap()];
    config.services[0].ipv6 = None;
    let ids = BTreeMap::from([("www".to_owned(), WWW)]);
    let names = Names::new(&config, &ids).unwrap();
    let pack = names.pack().unwrap();
    let mut text = Vec::new();
    mayfly_pack::print_records(&pack, &mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let records = text
        .lines()
        .map(|line| line.split('\t').collect::<Vec<_>>());
    let wanted = records.filter(|record| record[0] == name && record[3] == rtype.to_string());
    wanted.map(|record| record[4].to_owned()).collect()
}

#[test]
fn a_zone_names_the_daemon_where_it_can_be_asked() {
    let ns = |listen| head_of(listen, Rtype::NS, "example.test.");
    assert_eq!(ns("192.0.2.53:53"), ["ns.example.test."]);
    let told = head_of("192.0.2.53:53", Rtype::A, "ns.example.test.");
    assert_eq!(told, ["192.0.2.53"]);
    // A loopback address is of no use to clients.
    assert_eq!(ns("127.0.0.1:53"), ["localhost."]);
    // All addresses of the host: that from which it reaches the service, if there is a route to it.
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let routed = socket.connect("192.0.2.1:53").ok();
    let own = routed.map(|()| socket.local_addr().unwrap().ip().to_string());
    let told = head_of("0.0.0.0:53", Rtype::A, "ns.example.test.");
    assert_eq!(told, Vec::from_iter(own));
    let soa = head_of("192.0.2.53:53", Rtype::SOA, "example.test.");
    let serial: u64 = soa[0].split(' ').nth(2).unwrap().parse().unwrap();
    assert!(serial > 1_000_000_000, "{soa:?}");
}

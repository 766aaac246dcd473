//! Tests of queries for names outside of our zones.

use super::*;

#[test]
fn what_is_elsewhere_is_asked_there() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut dns = open(Some(resolver.local_addr().unwrap()));
    let names = names();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(dns.udp[0].local_addr().unwrap()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.send(&query("www.example.org", Rtype::A)).unwrap();
    assert_eq!(serve(&mut dns, &names), []);

    let mut asked = [0; 512];
    let (length, from) = resolver.recv_from(&mut asked).unwrap();
    asked[2] |= 0x80;
    // An answer that was not asked for comes first.
    let other = [&[asked[0] ^ 1], &asked[1..length]].concat();
    resolver.send_to(&other, from).unwrap();
    resolver.send_to(&asked[..length], from).unwrap();
    serve(&mut dns, &names);
    let mut answer = [0; 512];
    let length = client.recv(&mut answer).unwrap();
    let answer = Message::from_octets(answer[..length].to_vec()).unwrap();
    assert_eq!(answer.header().id(), 4711);
    assert_eq!(dns.counts.forwarded, 1);
    assert!(dns.forward.as_ref().unwrap().deadline().is_none());
}

#[test]
fn each_question_goes_from_a_port_of_its_own() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut dns = open(Some(resolver.local_addr().unwrap()));
    let names = names();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.connect(dns.udp[0].local_addr().unwrap()).unwrap();
    let mut ports = std::collections::BTreeSet::new();
    for _ in 0..8 {
        client.send(&query("www.example.org", Rtype::A)).unwrap();
        serve(&mut dns, &names);
        ports.insert(resolver.recv_from(&mut [0; 512]).unwrap().1.port());
    }
    assert_eq!(ports.len(), 8);
}

#[test]
fn one_network_has_its_share_of_what_is_forwarded() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut dns = open(Some(resolver.local_addr().unwrap()));
    let names = names();
    let address = dns.udp[0].local_addr().unwrap();
    let [greedy, modest] = ["127.0.0.1:0", "127.0.1.1:0"].map(|own| {
        let client = UdpSocket::bind(own).unwrap();
        client.connect(address).unwrap();
        client
    });
    for _ in 0..100 {
        greedy.send(&query("www.example.org", Rtype::A)).unwrap();
    }
    serve(&mut dns, &names);
    assert_eq!((dns.counts.forwarded, dns.counts.dropped), (32, 68));
    modest.send(&query("www.example.org", Rtype::A)).unwrap();
    serve(&mut dns, &names);
    assert_eq!(dns.counts.forwarded, 33);
}

#[test]
fn strangers_are_not_forwarded() {
    let resolver = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut dns = open(None);
    let elsewhere = Elsewhere {
        resolver: Some(resolver.local_addr().unwrap()),
        clients: &["10.0.0.0/8".parse().unwrap()],
    };
    dns.configure(None, elsewhere).unwrap();
    let (answer, _) = ask(&mut dns, "www.example.org", Rtype::A);
    assert_eq!(answer.header().rcode(), Rcode::REFUSED);
    let mut client = TcpStream::connect(dns.listeners[0].local_addr().unwrap()).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client
        .write_all(&framed(&query("www.example.org", Rtype::A)))
        .unwrap();
    serve(&mut dns, &names());
    let answer = Message::from_octets(unframed(&mut client)).unwrap();
    assert_eq!(answer.header().rcode(), Rcode::REFUSED);
    assert_eq!(dns.counts.forwarded, 0);
}

#[test]
fn a_resolver_that_is_not_there_is_a_failure_at_once() {
    let gone = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut dns = open(Some(gone));
    let (answer, _) = ask(&mut dns, "www.example.org", Rtype::A);
    assert_eq!(counts(&answer), (Rcode::SERVFAIL, 0));
}

#[test]
fn what_is_elsewhere_is_asked_there_over_tcp_too() {
    let bound = Some(Duration::from_secs(5));
    let resolver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut dns = open(Some(resolver.local_addr().unwrap()));
    let names = names();
    let mut client = TcpStream::connect(dns.listeners[0].local_addr().unwrap()).unwrap();
    client.set_read_timeout(bound).unwrap();
    let (ours, elsewhere) = (
        query("www.example.test", Rtype::A),
        query("www.example.org", Rtype::A),
    );
    let both = [framed(&ours), framed(&elsewhere), framed(&ours)].concat();
    client.write_all(&both).unwrap();
    // The next query waits for the forwarded one.
    assert_eq!(serve(&mut dns, &names), [WWW]);

    let (mut asked, _) = resolver.accept().unwrap();
    asked.set_read_timeout(bound).unwrap();
    let mut answer = unframed(&mut asked);
    // The resolver gets the same question with a message id of ours.
    assert_eq!(answer[2..], elsewhere[2..]);
    answer[2] |= 0x80;
    // The longest answer, in pieces.
    answer.resize(usize::from(u16::MAX), 0);
    let (first, rest) = answer.split_at(1000);
    asked.write_all(&u16::MAX.to_be_bytes()).unwrap();
    asked.write_all(first).unwrap();
    assert_eq!(serve(&mut dns, &names), []);
    asked.write_all(rest).unwrap();
    let reader = std::thread::spawn(move || {
        let all = [(); 3].map(|()| unframed(&mut client));
        (client, all)
    });
    assert_eq!(serve(&mut dns, &names), [WWW]);
    let (mut client, [first, second, third]) = reader.join().unwrap();
    assert_eq!(
        (&second[..2], &second[2..]),
        (&elsewhere[..2], &answer[2..])
    );
    for message in [first, third] {
        let message = Message::from_octets(message).unwrap();
        assert_eq!(counts(&message), (Rcode::NOERROR, 1));
    }
    assert_eq!((dns.counts.answered, dns.counts.forwarded), (2, 1));

    // A resolver that closes the connection, or does not exist, leads to SERVFAIL.
    client.write_all(&framed(&elsewhere)).unwrap();
    serve(&mut dns, &names);
    drop((asked, resolver.accept().unwrap()));
    serve(&mut dns, &names);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    drop(resolver);
    let mut client = TcpStream::connect(dns.listeners[0].local_addr().unwrap()).unwrap();
    client.set_read_timeout(bound).unwrap();
    client.write_all(&framed(&elsewhere)).unwrap();
    serve(&mut dns, &names);
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    assert_eq!(dns.sources().len(), 2);
}

#[test]
fn a_resolver_that_is_silent_is_not_waited_for() {
    let resolver = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut dns = open(Some(resolver.local_addr().unwrap()));
    let names = names();
    let mut client = TcpStream::connect(dns.listeners[0].local_addr().unwrap()).unwrap();
    let elsewhere = framed(&query("www.example.org", Rtype::A));
    client.write_all(&elsewhere.repeat(40)).unwrap();
    let start = Instant::now();
    serve(&mut dns, &names);
    let deadline = dns.deadline().unwrap() - start;
    assert!(deadline <= Duration::from_secs(6), "{deadline:?}");
    // The loop sleeps in the meantime, however much the client has sent.
    let sources = dns.sources();
    assert!(
        !sources
            .iter()
            .any(|(source, _)| matches!(source, DnsSocket::Connection(_)))
    );
}

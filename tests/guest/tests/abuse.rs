//! Load and abuse: memory does not grow, honest clients are answered, and the counters show the attack.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::frames::{self, ACK, PSH, Path, Question, RST, SYN, Segment};
use mayfly_guest_tests::peer::{PEER_MAC, Peer};
use mayfly_guest_tests::{GUEST4, Net, SECOND, Setup};

const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// RAM of a guest with room for a thousand connections.
const AMPLE: u64 = 250 << 20;

/// An address for each of many peers.
fn host(number: u32) -> [u8; 4] {
    let [_, _, a, b] = number.to_be_bytes();
    [198, 18, a, b]
}

/// Establishes a connection without letting time pass.
fn establish(net: &mut Net<'_>, number: u32) -> Option<Peer> {
    let port = u16::try_from(1024 + number % 60_000).unwrap();
    let mut peer = Peer::new(host(number), port, 80);
    let answers = peer.send(net, SYN, b"");
    if answers.first()?.flags != SYN | ACK {
        return None;
    }
    peer.send(net, ACK, b"");
    Some(peer)
}

/// The time that an honest client waits for a page, in virtual ms.
fn honest(net: &mut Net<'_>) -> u64 {
    let start = net.now().0;
    let answer = net.http_within(guest4(), CLOSE, 60.0);
    assert!(answer.is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200")));
    (net.now().0 - start) / 1_000_000
}

#[test]
fn ten_thousand_half_sent_requests() {
    Setup::new().ram(AMPLE).run(|net| {
        net.run_for(0.2);
        let mut waits = Vec::new();
        for number in 0..10_000 {
            if let Some(mut peer) = establish(net, number) {
                peer.send(net, ACK | PSH, b"GET / HTTP/1.1\r\nHo");
            }
            // About a thousand a second.
            net.run_for(0.000_9);
            if number % 1000 == 999 {
                waits.push(honest(net));
            }
        }
        let stats = net.guest.stack.stats();
        println!("honest clients waited {waits:?} ms; {stats:?}");
        assert!(waits.iter().all(|&wait| wait < 2_000), "{waits:?}");
        assert!(stats.evicted > 5_000);
        assert!(stats.connections.iter().sum::<usize>() <= 1328);
        let taken = net.handed_out;
        for number in 10_000..12_000 {
            establish(net, number);
        }
        assert_eq!(net.handed_out, taken, "memory is flat");
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn a_thousand_slow_readers() {
    Setup::new().ram(AMPLE).run(|net| {
        net.run_for(0.2);
        let request = b"GET /.mayfly/payload/1000000 HTTP/1.1\r\nHost: x\r\n\r\n";
        let mut peers: Vec<_> = (0..1000)
            .filter_map(|number| establish(net, number))
            .collect();
        assert_eq!(peers.len(), 1000);
        for peer in &mut peers {
            peer.window = 100;
            peer.send(net, ACK | PSH, request);
            peer.window = 0;
        }
        let mut waits = Vec::new();
        for _ in 0..5 {
            for peer in &mut peers {
                peer.send(net, ACK, b"");
            }
            waits.push(honest(net));
        }
        // A reader that takes nothing for ten seconds is disconnected.
        net.run_for(30.0);
        let [half_open, open, _] = net.guest.stack.stats().connections;
        println!("honest clients waited {waits:?} ms; {open} left");
        assert!(waits.iter().all(|&wait| wait < 2_000), "{waits:?}");
        assert_eq!((half_open, open), (0, 0));
        assert!(net.guest.stack.http().expired >= 900);
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn a_thousand_slow_writers() {
    Setup::new().ram(AMPLE).run(|net| {
        net.run_for(0.2);
        let mut peers: Vec<_> = (0..1000)
            .filter_map(|number| establish(net, number))
            .collect();
        assert_eq!(peers.len(), 1000);
        let mut waits = Vec::new();
        for at in 0..14 {
            for peer in &mut peers {
                peer.send(net, ACK | PSH, &CLOSE[at..=at]);
            }
            net.run_for(0.5);
            waits.push(honest(net));
        }
        println!("honest clients waited {waits:?} ms");
        assert!(waits.iter().all(|&wait| wait < 2_000), "{waits:?}");
        net.run_for(30.0);
        assert_eq!(net.guest.stack.stats().connections[1], 0);
        assert_eq!(net.violations(), [""; 0]);
    });
}

/// Sends `count` SYNs from as many addresses, which send nothing afterwards.
fn flood(net: &Net<'_>, first: u32, count: u32) {
    for number in first..first + count {
        let path = Path::to_guest(PEER_MAC, host(number).into(), GUEST4.into());
        let segment = Segment {
            from_port: 1024,
            to_port: 80,
            seq: number,
            flags: SYN,
            window: 1000,
            ..Segment::default()
        };
        net.deliver(&frames::tcp(&path, &segment));
    }
}

#[test]
fn ten_thousand_syns_a_second() {
    // The memory of a guest with `memory=8`, and a client on another continent.
    Setup::new().ram(5 << 20).run(|net| {
        net.run_for(0.2);
        net.client.link.delay = 50_000_000;
        let (mut taken, mut number) = (0, 0);
        for second in 0..5 {
            let start = net.now().0;
            let handle = net.client.connect(guest4(), 80);
            let mut sent = false;
            let mut answer = Vec::new();
            let mut served = None;
            // Ten in each millisecond.
            for _ in 0..1000 {
                flood(net, number, 10);
                number += 10;
                net.run_for(0.001);
                let socket = net.client.tcp(handle);
                if !sent && socket.may_send() {
                    socket.send_slice(CLOSE).unwrap();
                    sent = true;
                }
                answer.extend(net.client.read(handle));
                if answer.starts_with(b"HTTP/1.1 200") && served.is_none() {
                    served = Some((net.now().0 - start) / 1_000_000);
                }
            }
            println!("second {second}: served after {served:?} ms");
            // A handshake and a request are two round trips (ARP is a third, the first time).
            assert!(served.is_some_and(|wait| wait < 350), "{served:?}");
            if second > 0 {
                assert_eq!(net.handed_out, taken, "memory is flat");
            }
            taken = net.handed_out;
            net.client.tcp(handle).abort();
            net.run_for(0.001);
            net.client.remove(handle);
        }
        let stats = net.guest.stack.stats();
        println!("{stats:?}");
        assert!(stats.cookies_sent > 49_000, "{stats:?}");
        assert!(stats.cookies_taken >= 4, "{stats:?}");
        assert_eq!((stats.evicted, stats.refused), (0, 0));
        assert_eq!(net.violations(), [""; 0]);
        // After the flood, half-open connections end, and SYNs get slots again.
        net.run_for(60.0);
        assert_eq!(net.guest.stack.stats().connections, [0; 3]);
        let sent = stats.cookies_sent;
        honest(net);
        assert_eq!(net.guest.stack.stats().cookies_sent, sent);
    });
}

#[test]
fn clients_that_answer_no_arp_delay_nobody() {
    Setup::new().run(|net| {
        net.run_for(1.0);
        let query = frames::dns_query(&Question::a("mayfly.test"));
        let _ = net.sent();
        for number in 0..200 {
            let path = Path::to_guest(
                PEER_MAC,
                [10, 0, 2, 100 + number % 100].into(),
                GUEST4.into(),
            );
            net.deliver(&frames::udp(&path, 999, 53, &query));
        }
        net.xen.run();
        for _ in 0..8 {
            net.step();
        }
        // Each has its answer, at the MAC address that it came from, without an ARP request.
        let sent = net.sent();
        assert_eq!(sent.len(), 200);
        assert!(
            sent.iter()
                .all(|frame| frame[..6] == PEER_MAC && frame[12..14] == [8, 0])
        );
    });
}

#[test]
fn a_long_transfer_is_cut_by_the_back_end() {
    Setup::new().ram(AMPLE).run(|net| {
        net.run_for(0.5);
        let request =
            b"GET /.mayfly/payload/3000000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let whole = net.http_within(guest4(), request, 20.0).expect("an answer");
        let head = whole.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        assert_eq!(whole.len() - head, 3_000_000);
        let segmented = net.xen.with(|world| world.netback.segmented);
        assert!(segmented > 20, "{segmented}");
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn endpoints_are_served_and_switched_off() {
    let ask = |net: &mut Net<'_>, path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let answer = net.http(guest4(), request.as_bytes()).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    };
    let paths = ["boot", "metrics", "healthz", "payload/5"];
    for (endpoints, on) in [
        ("", [false, false, true, false]),
        ("endpoints=all", [true, true, true, false]),
        ("endpoints=none", [false; 4]),
        ("endpoints=healthz,boot", [true, false, true, false]),
        ("endpoints=metrics,payload:5", [false, true, false, true]),
        ("endpoints=payload:4", [false; 4]),
    ] {
        let cmdline = format!("{} {endpoints}", mayfly_guest_tests::ADDRESSES);
        Setup::new().cmdline(&cmdline).run(|net| {
            for (path, on) in paths.into_iter().zip(on) {
                let answer = ask(net, &format!("/.mayfly/{path}"));
                let status = if on { "HTTP/1.1 200" } else { "HTTP/1.1 404" };
                assert!(answer.starts_with(status), "{endpoints}: {path}: {answer}");
            }
        });
    }
    Setup::new().run(|net| {
        assert!(ask(net, "/.mayfly/healthz").ends_with("\r\n\r\nok\n"));
        assert!(ask(net, "/.mayfly/payload/4294967297").starts_with("HTTP/1.1 404"));
        assert!(ask(net, "/.mayfly/payload/+5").starts_with("HTTP/1.1 404"));
        assert!(ask(net, "/.mayfly/payload/").starts_with("HTTP/1.1 404"));
        let _ = net.dns(guest4(), &Question::a("mayfly.test"));
        let metrics = ask(net, "/.mayfly/metrics");
        for line in [
            "mayfly_dns_questions_total{type=\"A\"} 1\n",
            "mayfly_dns_responses_total{rcode=\"NOERROR\"} 1\n",
            "mayfly_http_responses_total{status=\"404\"} 3\n",
            "mayfly_http_responses_total{status=\"200\"} 1\n",
            "mayfly_boot_phase_nanoseconds{phase=\"first_dns\"}",
            "mayfly_dropped_total{cause=\"tcp_evicted\"} 0\n",
        ] {
            assert!(metrics.contains(line), "{line} in {metrics}");
        }
        // Each line is a comment or a name and a number.
        let body = metrics.split("\r\n\r\n").nth(1).unwrap();
        for line in body.lines().filter(|line| !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').expect("a value");
            assert!(name.starts_with("mayfly_"), "{line}");
            assert!(value.parse::<u64>().is_ok(), "{line}");
        }
    });
}

#[test]
fn a_segment_for_nobody_is_refused_to_where_it_came_from() {
    Setup::new().run(|net| {
        net.run_for(1.0);
        let mut peer = Peer::new([203, 0, 113, 9], 4000, 81);
        let answers = peer.send(net, SYN, b"");
        assert_eq!(answers.len(), 1);
        assert_ne!(answers[0].flags & RST, 0);
        assert_eq!(net.guest.stack.stats().nobody, 1);
        assert!(net.now().0 < 3 * SECOND);
    });
}

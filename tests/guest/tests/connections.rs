//! TCP connections: their time limits, their number, and which one is dropped for another.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

mod common;

use mayfly_guest_tests::client::{Client, guest4};
use mayfly_guest_tests::frames::{self, ACK, FIN, PSH, Path, Question, RST, SYN, Segment};
use mayfly_guest_tests::peer::{PEER_MAC, PEER4, Peer, resets};
use mayfly_guest_tests::{GUEST4, Net, SECOND, Setup};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;

const KEEP: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn open(net: &mut Net<'_>, port: u16) -> SocketHandle {
    let handle = net.client.connect(guest4(), port);
    assert!(net.until(5.0, |net| net.client.tcp(handle).may_send()));
    handle
}

/// Whether the guest has closed or reset a connection. The client never does so first.
fn is_closed(net: &mut Net<'_>, handle: SocketHandle) -> bool {
    let state = net.client.tcp(handle).state();
    matches!(state, tcp::State::CloseWait | tcp::State::Closed)
}

/// Seconds until the guest closes or resets a connection.
fn lifetime(net: &mut Net<'_>, handle: SocketHandle, at_most: f64) -> u64 {
    let start = net.now().0;
    assert!(
        net.until(at_most, |net| is_closed(net, handle)),
        "it lives on"
    );
    (net.now().0 - start) / SECOND
}

#[test]
fn requests_are_answered_in_order_on_one_connection() {
    Setup::new().run(|net| {
        let handle = open(net, 80);
        let head = b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n";
        let missing = b"GET /missing HTTP/1.1\r\nHost: x\r\n\r\n";
        net.client
            .write(handle, &[KEEP, head, missing, KEEP, CLOSE].concat());
        let mut text = Vec::new();
        assert!(net.until(5.0, |net| {
            text.extend(net.client.read(handle));
            is_closed(net, handle)
        }));
        let text = String::from_utf8_lossy(&text).into_owned();
        let status: Vec<_> = text
            .split("HTTP/1.1 ")
            .skip(1)
            .map(|answer| &answer[..3])
            .collect();
        assert_eq!(status, ["200", "200", "404", "200", "200"]);
        assert_eq!(text.matches("<html").count(), 3);
        assert_eq!(net.guest.stack.http().class(2), 4);
    });
}

#[test]
fn dns_over_tcp_with_queries_in_pieces_and_in_bunches() {
    Setup::new().run(|net| {
        let handle = open(net, 53);
        let query = frames::framed(&frames::dns_query(&Question::a("mayfly.test")));
        for byte in &query {
            net.client.write(handle, &[*byte]);
            net.run_for(0.001);
        }
        net.client.write(handle, &query.repeat(5));
        let mut answer = Vec::new();
        net.until(5.0, |net| {
            answer.extend(net.client.read(handle));
            answer
                .windows(6)
                .filter(|w| w == &[0, 4, 10, 0, 2, 80])
                .count()
                == 6
        });
        assert_eq!(net.guest.stack.dns().tcp, 6);
    });
}

#[test]
fn large_answers_go_over_tcp_whole() {
    let text = "x".repeat(200);
    let texts: String = (0..250)
        .map(|n| format!("big TXT \"{n} {text}\"\n"))
        .collect();
    let zone = format!(
        "$TTL 300\n@ SOA ns hostmaster 1 3600 900 604800 60\n@ NS ns\nns A 10.0.2.80\n{texts}"
    );
    let site = common::packed(&zone, "");
    // With 32 MiB the answer is whole; with 8 MiB it does not fit the send buffer.
    for (ram, rcode, least) in [(64 << 20, 0, 50_000), (7 << 20, 2, 12)] {
        Setup::new().ram(ram).pack(site).run(|net| {
            let handle = open(net, 53);
            let question = Question {
                name: "big.mayfly.test",
                rtype: 16,
                edns: None,
            };
            net.client
                .write(handle, &frames::framed(&frames::dns_query(&question)));
            let mut answer = Vec::new();
            assert!(net.until(5.0, |net| {
                answer.extend(net.client.read(handle));
                answer.split_first_chunk().is_some_and(|(length, rest)| {
                    rest.len() == usize::from(u16::from_be_bytes(*length))
                })
            }));
            assert!(answer.len() >= least, "{} bytes", answer.len());
            assert_eq!(answer[5] & 15, rcode);
        });
    }
}

#[test]
fn an_idle_connection_is_closed() {
    Setup::new().run(|net| {
        for port in [80, 53] {
            let handle = open(net, port);
            let seconds = lifetime(net, handle, 40.0);
            assert!((5..=20).contains(&seconds), "{port}: {seconds} s");
        }
        // A connection that has had an answer is closed, too.
        let handle = open(net, 80);
        net.client.write(handle, KEEP);
        let seconds = lifetime(net, handle, 40.0);
        assert!((14..=16).contains(&seconds), "{seconds} s");
        assert!(net.client.read(handle).starts_with(b"HTTP/1.1 200"));
    });
}

#[test]
fn a_request_that_does_not_end_is_answered_with_408() {
    Setup::new().run(|net| {
        let handle = open(net, 80);
        net.client.write(handle, b"GET / HTTP/1.1\r\nHost: x\r\n");
        let start = net.now().0;
        // One more byte each second does not help.
        while !is_closed(net, handle) && net.now().0 - start < 30 * SECOND {
            let _ = net.client.tcp(handle).send_slice(b"x");
            net.run_for(1.0);
        }
        let seconds = (net.now().0 - start) / SECOND;
        assert!((10..=12).contains(&seconds), "{seconds} s");
        assert!(net.client.read(handle).starts_with(b"HTTP/1.1 408 "));
    });
}

/// Whether a SYN gets a SYN-ACK.
fn accepts(net: &mut Net<'_>, port: u16) -> bool {
    let mut peer = Peer::new(PEER4, port, 80);
    let answers = peer.send(net, SYN, b"");
    peer.send(net, RST, b"");
    answers
        .first()
        .is_some_and(|answer| answer.flags == SYN | ACK)
}

#[test]
fn half_open_connections_time_out() {
    // Room for four HTTP connections.
    Setup::new().ram(1 << 17).run(|net| {
        for port in 0..4 {
            net.deliver(&frames::arp(1, PEER_MAC, PEER4, [0; 6], GUEST4));
            let mut peer = Peer::new(PEER4, 3000 + port, 80);
            assert_eq!(peer.send(net, SYN, b"")[0].flags, SYN | ACK);
        }
        net.run_for(25.0);
        for port in 0..4 {
            assert!(accepts(net, 4000 + port));
        }
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn the_oldest_idle_connection_makes_room() {
    Setup::new().ram(1 << 17).run(|net| {
        let mut peers = Vec::new();
        for port in 0..4 {
            peers.push(Peer::open(net, 3000 + port, 80).expect("a free socket"));
            net.run_for(0.1);
        }
        assert_eq!(net.guest.stack.stats().evicted, 0);
        // All sockets are in use, so the first connection is dropped with a reset.
        peers.push(Peer::open(net, 3004, 80).expect("room"));
        assert_eq!(net.guest.stack.stats().evicted, 1);
        assert_eq!(resets(net), [3000]);
        // The others are served.
        for peer in &mut peers[1..] {
            let answers = peer.send(net, ACK | PSH, KEEP);
            assert!(
                answers
                    .iter()
                    .any(|answer| answer.payload.starts_with(b"HTTP/1.1 200"))
            );
        }
        // No connection is dropped while its client takes an answer.
        assert!(Peer::open(net, 4000, 80).is_none());
        assert_eq!(net.guest.stack.stats().evicted, 1);
        for peer in &mut peers[1..] {
            peer.send(net, ACK, b"");
        }
        net.run_for(0.1);
        let before = net.guest.stack.stats().evicted;
        for port in 0..10 {
            assert!(Peer::open(net, 5000 + port, 80).is_some());
        }
        assert_eq!(net.guest.stack.stats().evicted - before, 10);
    });
}

#[test]
fn a_client_that_never_closes_its_half_holds_no_socket() {
    Setup::new().ram(1 << 17).run(|net| {
        let mut peers = Vec::new();
        for port in 0..3 {
            let mut peer = Peer::open(net, 3000 + port, 80).expect("a free socket");
            // The guest answers and closes; the client acknowledges and says no more.
            peer.send(net, ACK | PSH, CLOSE);
            peer.send(net, ACK, b"");
            peers.push(peer);
        }
        // It acknowledges now and then, so it does not look dead.
        for _ in 0..12 {
            net.run_for(5.0);
            for peer in &mut peers {
                peer.send(net, ACK, b"");
            }
        }
        for peer in &mut peers {
            let answers = peer.send(net, ACK, b"x");
            let reset = answers.iter().any(|answer| answer.flags & RST != 0);
            assert!(reset, "still open after a minute: {answers:?}");
        }
    });
}

#[test]
fn a_client_with_a_closed_window_holds_no_socket() {
    Setup::new().ram(1 << 17).run(|net| {
        let mut peer = Peer::open(net, 3000, 80).expect("a free socket");
        peer.window = 0;
        peer.send(net, ACK | PSH, CLOSE);
        for _ in 0..60 {
            net.run_for(1.0);
            peer.send(net, ACK, b"");
        }
        let answers = peer.send(net, ACK, b"x");
        let reset = answers.iter().any(|answer| answer.flags & RST != 0);
        assert!(reset, "still open after a minute: {answers:?}");
    });
}

#[test]
fn an_answer_that_is_lost_is_sent_again() {
    Setup::new().run(|net| {
        let handle = open(net, 80);
        net.client.write(handle, CLOSE);
        // The first answer is lost on its way.
        net.client.stack.poll(
            &mut mayfly_guest_tests::client::Wire::new(
                net.xen,
                &mut Vec::new(),
                &mut mayfly_guest_tests::netem::Link::default(),
            ),
            net.xen.with(|world| {
                smoltcp::time::Instant::from_micros(
                    i64::try_from(world.machine.now() / 1000).unwrap(),
                )
            }),
        );
        net.xen.run();
        for _ in 0..4 {
            net.step();
        }
        assert_ne!(net.sent(), [[0; 0]; 0]);
        let start = net.now().0;
        assert!(net.until(10.0, |net| is_closed(net, handle)));
        let waited = net.now().0 - start;
        assert!((SECOND / 10..2 * SECOND).contains(&waited), "{waited} ns");
        assert!(net.client.read(handle).starts_with(b"HTTP/1.1 200"));
        assert!(net.steps < 200, "{} steps", net.steps);
    });
}

#[test]
fn many_clients_at_once_are_all_served() {
    Setup::new().ram(16 << 20).run(|net| {
        let handles: Vec<_> = (0..100).map(|_| net.client.connect(guest4(), 80)).collect();
        let mut sent = vec![false; handles.len()];
        let mut answers = vec![Vec::new(); handles.len()];
        let done = net.until(30.0, |net| {
            let mut open = 0;
            for (at, &handle) in handles.iter().enumerate() {
                answers[at].extend(net.client.read(handle));
                let socket = net.client.tcp(handle);
                if !sent[at] && socket.may_send() {
                    sent[at] = true;
                    let _ = socket.send_slice(CLOSE);
                }
                open += usize::from(socket.may_recv() || socket.state() == tcp::State::SynSent);
            }
            open == 0
        });
        assert!(done);
        let served = answers
            .iter()
            .filter(|answer| answer.starts_with(b"HTTP/1.1 200"))
            .count();
        // More SYNs in one batch than sockets listen at once.
        assert_eq!(served, handles.len());
        println!(
            "{served} of 100 simultaneous connections served in {} steps",
            net.steps
        );
    });
}

#[test]
fn a_flood_on_one_service_leaves_the_other_alone() {
    Setup::new().run(|net| {
        let query = frames::dns_query(&Question::a("mayfly.test"));
        net.deliver(&frames::arp(1, PEER_MAC, PEER4, [0; 6], GUEST4));
        let handle = open(net, 80);
        net.client.write(handle, CLOSE);
        for _ in 0..500 {
            net.deliver(&frames::udp(&Peer::path(), 999, 53, &query));
        }
        let start = net.steps;
        assert!(net.until(5.0, |net| {
            for _ in 0..20 {
                net.deliver(&frames::udp(&Peer::path(), 999, 53, &query));
            }
            is_closed(net, handle)
        }));
        assert!(net.client.read(handle).starts_with(b"HTTP/1.1 200"));
        assert!(net.steps - start < 200, "{} steps", net.steps - start);
        println!("served amid the flood in {} steps", net.steps - start);
    });
}

#[test]
fn neighbors_that_do_not_answer_delay_the_others_by_a_second_at_most() {
    Setup::new().run(|net| {
        assert!(net.dns(guest4(), &Question::a("mayfly.test")).is_some());
        let query = frames::dns_query(&Question::a("mayfly.test"));
        for host in 100..140 {
            let path = Path::to_guest(PEER_MAC, [10, 0, 2, host].into(), GUEST4.into());
            net.deliver(&frames::udp(&path, 999, 53, &query));
        }
        net.run_for(0.01);
        let start = net.now().0;
        assert!(
            net.dns(guest4(), &Question::a("mayfly.test")).is_some(),
            "no answer"
        );
        let waited = net.now().0 - start;
        assert!(waited < 2 * SECOND, "{waited} ns");
        // A client that the guest does not know yet.
        net.client = Client::with_addresses(net.xen, [2, 0, 0, 0, 0, 9], [10, 0, 2, 9], 9);
        let start = net.now().0;
        assert!(
            net.dns(guest4(), &Question::a("mayfly.test")).is_some(),
            "no answer"
        );
        let waited = net.now().0 - start;
        assert!(waited < SECOND / 10, "{waited} ns");
    });
}

#[test]
fn a_long_time_wait_costs_no_steps() {
    Setup::new().run(|net| {
        let mut peer = Peer::open(net, 3000, 80).expect("a free socket");
        peer.send(net, ACK | PSH, CLOSE);
        peer.send(net, ACK, b"");
        net.run_for(15.0);
        // The guest has closed long ago. Now the client closes, and TIME-WAIT begins.
        peer.send(net, ACK | FIN, b"");
        let steps = net.steps;
        net.run_for(30.0);
        assert!(net.steps - steps < 50, "{} steps", net.steps - steps);
    });
}

#[test]
fn a_flood_of_syns_leaves_room_for_a_client() {
    for ram in [1 << 17, 1 << 20, 16 << 20] {
        Setup::new().ram(ram).run(|net| {
            net.run_for(1.0);
            let mut source = 0_u8;
            let mut waits = Vec::new();
            for _ in 0..20 {
                // 200 a second for half a second, from hosts that are not there.
                for _ in 0..100 {
                    source = source.wrapping_add(1);
                    let path = Path::to_guest(PEER_MAC, [192, 0, 2, source].into(), GUEST4.into());
                    let segment = Segment {
                        from_port: 1024 + u16::from(source),
                        to_port: 80,
                        seq: 7,
                        flags: SYN,
                        window: 1000,
                        ..Segment::default()
                    };
                    net.deliver(&frames::tcp(&path, &segment));
                    net.run_for(0.005);
                }
                let start = net.now().0;
                let answer = net.http_within(guest4(), CLOSE, 60.0);
                assert!(answer.is_some_and(|answer| answer.starts_with(b"HTTP/1.1 200")));
                waits.push((net.now().0 - start) / 1_000_000);
            }
            waits.sort_unstable();
            println!("{ram} bytes: served after {waits:?} ms");
            assert!(waits[19] < 2_000, "{waits:?}");
        });
    }
}

//! The guest is suspended, and goes on in the same domain or in a new one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_drivers::fake::Fault;
use mayfly_drivers::{Resumed, ShutdownReason};
use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::peer::initial_number;
use mayfly_guest_tests::{Net, Setup};
use smoltcp::iface::SocketHandle;

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
const BOTH: [Resumed; 2] = [Resumed::SameDomain, Resumed::NewDomain];

/// A guest that does its own handshake, and one whose network the toolstack has connected.
fn setups() -> [Setup; 2] {
    [Setup::new(), Setup::preconnected()]
}

fn suspended(net: &Net<'_>) -> u32 {
    net.xen.with(|world| world.machine.suspended)
}

fn resumes(net: &Net<'_>, outcome: Resumed) {
    net.xen.with(|world| world.machine.resumes = outcome);
}

/// The toolstack writes `suspend`; the guest must obey in half a second.
fn suspend(net: &mut Net<'_>) {
    let before = suspended(net);
    net.xen
        .with(|world| world.store.set(b"control/shutdown", b"suspend"));
    assert!(
        net.until(0.5, |net| suspended(net) > before),
        "{}",
        net.debug()
    );
}

/// A connection to the web server.
fn connect(net: &mut Net<'_>) -> SocketHandle {
    let connection = net.client.connect(guest4(), 80);
    assert!(net.until(1.0, |net| net.client.tcp(connection).may_send()));
    connection
}

/// Asks on an open connection and returns what comes within two seconds.
fn ask(net: &mut Net<'_>, connection: SocketHandle) -> Vec<u8> {
    net.client.write(connection, GET);
    let mut answer = Vec::new();
    net.until(2.0, |net| {
        answer.extend(net.client.read(connection));
        answer.ends_with(b"</html>\n") || answer.windows(7).any(|part| part == b"</html>")
    });
    answer
}

#[test]
fn an_open_connection_goes_on() {
    for (setup, outcome) in setups().into_iter().zip(BOTH.repeat(2)) {
        setup.run(|net| {
            let connection = connect(net);
            assert!(ask(net, connection).starts_with(b"HTTP/1.1 200"));
            net.run_for(2.0);
            let (links, pages) = (
                net.guest.nic.front().counters().links,
                net.xen.with(|world| world.machine.pages_allocated()),
            );
            for round in 1..=20 {
                resumes(net, outcome);
                suspend(net);
                assert!(ask(net, connection).starts_with(b"HTTP/1.1 200"), "{round}");
                let made = match outcome {
                    Resumed::SameDomain => 0,
                    Resumed::NewDomain => round,
                };
                assert_eq!(net.guest.nic.front().counters().links, links + made);
            }
            net.run_for(1.0);
            net.assert_serves();
            let now = net.xen.with(|world| world.machine.pages_allocated());
            assert_eq!(now, pages, "nothing is lost");
            assert_eq!(net.guest.nic.front().quarantined(), 0);
        });
    }
}

#[test]
fn a_download_goes_on() {
    for (setup, outcome) in setups().into_iter().zip(BOTH.repeat(2)) {
        setup.run(|net| {
            net.run_for(2.0);
            resumes(net, outcome);
            let download = connect(net);
            let size = 3_000_000;
            let request = format!(
                "GET /.mayfly/payload/{size} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            );
            net.client.write(download, request.as_bytes());
            let mut received = Vec::new();
            for part in 1..6 {
                let wanted = part * size / 6;
                let has = |net: &mut Net<'_>| {
                    received.extend(net.client.read(download));
                    received.len() >= wanted
                };
                assert!(net.until(10.0, has), "{part} of 6");
                suspend(net);
            }
            net.until(10.0, |net| {
                received.extend(net.client.read(download));
                received.len() > size
            });
            let head = received.windows(4).position(|end| end == b"\r\n\r\n");
            let body = &received[head.unwrap() + 4..];
            assert_eq!(body.len(), size);
            assert_eq!(net.violations(), [""; 0]);
        });
    }
}

#[test]
fn the_toolstack_is_answered_and_told() {
    for outcome in BOTH {
        Setup::new().run(|net| {
            net.run_for(2.0);
            for _ in 0..3 {
                assert_eq!(net.key("control/feature-suspend").as_deref(), Some("1"));
                resumes(net, outcome);
                suspend(net);
                if outcome == Resumed::SameDomain {
                    assert_eq!(net.key("control/shutdown").as_deref(), Some(""));
                }
                net.run_for(1.0);
                assert_eq!(net.key("data/mayfly/ready").as_deref(), Some("1"));
            }
            // The new watch is there.
            let poweroff = |world: &mut mayfly_drivers::fake::World| {
                world.store.set(b"control/shutdown", b"poweroff");
            };
            net.xen.with(poweroff);
            net.run_for(0.1);
            let reason = net.xen.with(|world| world.machine.shutdown);
            assert_eq!(reason, Some(ShutdownReason::Poweroff));
        });
    }
}

#[test]
fn the_event_channel_alone_is_enough() {
    for outcome in BOTH {
        Setup::preconnected().run(|net| {
            net.run_for(2.0);
            for round in 1..4 {
                let port = net.key("device/suspend/event-channel").unwrap();
                let process = net.xen.process();
                let port = process.bind(port.parse().unwrap()).unwrap();
                net.run_for(0.1);
                assert_eq!(suspended(net), round - 1, "binding is no request");
                resumes(net, outcome);
                process.notify(port);
                net.run_for(0.01);
                assert_eq!(suspended(net), round);
                net.run_for(1.0);
                net.assert_serves();
                process.unbind(port);
            }
        });
    }
}

#[test]
fn a_channel_that_the_toolstack_does_not_want_is_closed() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        // xenstore's, the channel's and the receive ring's.
        assert_eq!(net.guest.ports().len(), 3);
        // The node is not there in a new domain, and the guest may not make it.
        let key = b"device/suspend/event-channel".to_vec();
        net.xen.with(|world| world.store.refuse = Some(key));
        resumes(net, Resumed::NewDomain);
        suspend(net);
        net.run_for(1.0);
        assert_eq!(net.guest.ports().len(), 2);
        suspend(net);
        net.assert_serves();
    });
}

#[test]
fn an_acknowledgement_that_xenstored_does_not_take_is_not_waited_for() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        net.xen.with(|world| {
            // The read of the command is answered, the write is not.
            world.store.fault(None);
            world.store.fault(Some(Fault::Silent));
            world.store.set(b"control/shutdown", b"suspend");
        });
        assert!(!net.until(0.9, |net| suspended(net) > 0));
        assert!(net.until(0.5, |net| suspended(net) > 0));
        net.assert_serves();
    });
}

#[test]
fn a_new_domain_has_secrets_of_its_own() {
    let numbers = |outcome| {
        Setup::preconnected().run(|net| {
            net.run_for(2.0);
            resumes(net, outcome);
            suspend(net);
            net.run_for(1.0);
            (4000..4004)
                .map(|port| initial_number(net, port))
                .collect::<Vec<_>>()
        })
    };
    let [same, new] = BOTH.map(numbers);
    for (same, new) in same.into_iter().zip(new) {
        // The clock in a sequence number moves by 250,000 a second.
        assert!(same.abs_diff(new) > 4_000_000, "{same} {new}");
    }
}

/// The value of the key with a copy's addresses, as the toolstack has written it before the guest goes on.
fn give_addresses(net: &Net<'_>, words: &[u8]) {
    net.xen.with(|world| {
        world.store.set(b"vm-data/mayfly/addresses", words);
    });
}

#[test]
fn a_copy_takes_other_addresses_and_leaves_connections_to_the_first() {
    for setup in setups() {
        setup.run(|net| {
            let connection = connect(net);
            assert!(ask(net, connection).starts_with(b"HTTP/1.1 200"));
            net.run_for(2.0);
            give_addresses(net, b"ip=10.0.2.81/24 ip=fd00::81/64");
            resumes(net, Resumed::NewDomain);
            suspend(net);
            net.run_for(1.0);
            // Neither a reset nor a frame from the old address.
            assert!(ask(net, connection).is_empty());
            assert!(net.client.tcp(connection).may_recv());
            let other = net
                .client
                .connect(smoltcp::wire::Ipv4Address::new(10, 0, 2, 81), 80);
            assert!(net.until(1.0, |net| net.client.tcp(other).may_send()));
            assert!(ask(net, other).starts_with(b"HTTP/1.1 200"));
            let stats = net.guest.stack.stats();
            assert_eq!(stats.connections, [0, 1, 0], "the first one's slot is free");
        });
    }
}

#[test]
fn wrong_addresses_of_a_copy_are_reported_and_not_used() {
    for (words, is_wrong) in [
        (&b"ip=10.0.2.81"[..], true),
        (b"gw=10.0.2.2", true),
        (b"\xff", true),
        (b"ip=10.0.2.81/24 ip=10.0.2.81/24", true),
        (b"", false),
        (b"ip=dhcp", false),
    ] {
        Setup::new().run(|net| {
            net.run_for(2.0);
            give_addresses(net, words);
            resumes(net, Resumed::NewDomain);
            suspend(net);
            net.run_for(1.0);
            net.assert_serves();
            let is_reported = net.debug().contains("vm-data/mayfly/addresses: ");
            assert_eq!(is_reported, is_wrong, "{}", net.debug());
        });
    }
}

#[test]
fn a_guest_that_goes_on_in_its_own_domain_keeps_its_addresses() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        give_addresses(net, b"ip=10.0.2.81/24");
        resumes(net, Resumed::SameDomain);
        suspend(net);
        net.run_for(1.0);
        net.assert_serves();
    });
}

//! ARP, ICMP and neighbour discovery, frame by frame, and the announcements.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use mayfly_guest_tests::frames::{self, BROADCAST, Path};
use mayfly_guest_tests::{GUEST_MAC, GUEST4, Net, SECOND, Setup};

const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const PEER4: [u8; 4] = [10, 0, 2, 7];
const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x80);
const GUEST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0x216, 0x3eff, 0xfe00, 1);
const PEER_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7);

/// The guest's answers to a frame, its announcements left out.
fn answers(net: &mut Net<'_>, frame: &[u8]) -> Vec<Vec<u8>> {
    let _ = net.sent();
    net.deliver(frame);
    for _ in 0..3 {
        net.xen.run();
        if let Some(wake) = net.step() {
            let now = net.now();
            net.sleep(wake, now);
        }
    }
    let mut sent = net.sent();
    sent.retain(|frame| frame[..6] == PEER_MAC);
    sent
}

/// Boots, and lets the announcements pass.
fn quiet<T>(test: impl FnOnce(&mut Net<'_>) -> T) -> T {
    Setup::new().run(|net| {
        net.run_for(2.0);
        let value = test(net);
        assert_eq!(net.violations(), [""; 0]);
        value
    })
}

fn solicited_node(target: Ipv6Addr) -> ([u8; 6], Ipv6Addr) {
    let [.., x, y, z] = target.octets();
    let group = Ipv6Addr::new(
        0xff02,
        0,
        0,
        0,
        0,
        1,
        0xff00 | u16::from(x),
        u16::from_be_bytes([y, z]),
    );
    ([0x33, 0x33, 0xff, x, y, z], group)
}

#[test]
fn an_arp_request_is_answered() {
    quiet(|net| {
        let request = frames::arp(1, PEER_MAC, PEER4, [0; 6], GUEST4);
        let expected = frames::arp(2, GUEST_MAC, GUEST4, PEER_MAC, PEER4);
        assert_eq!(answers(net, &request), [expected]);
        // One for somebody else is not.
        let other = frames::arp(1, PEER_MAC, PEER4, [0; 6], [10, 0, 2, 81]);
        assert_eq!(answers(net, &other), [[0; 0]; 0]);
    });
}

#[test]
fn an_echo_request_is_answered_over_ipv4() {
    quiet(|net| {
        answers(net, &frames::arp(1, PEER_MAC, PEER4, [0; 6], GUEST4));
        for payload in [&b""[..], b"mayfly", &[7; 1472]] {
            let path = Path::to_guest(PEER_MAC, PEER4.into(), GUEST4.into());
            let answer = answers(net, &frames::echo_request(&path, 9, payload));
            assert_eq!(answer.len(), 1);
            let mut fixed = answer[0].clone();
            frames::fix_checksums(&mut fixed);
            assert_eq!(fixed, answer[0], "checksums are right");
            assert_eq!(answer[0][26..34], [GUEST4, PEER4].concat());
            assert_eq!(answer[0][34..36], [0, 0], "an echo reply");
            assert!(answer[0].ends_with(payload));
        }
    });
}

#[test]
fn a_neighbor_solicitation_is_answered_for_each_address() {
    quiet(|net| {
        for (from, target) in [(PEER6, GUEST6), (PEER_LINK_LOCAL, GUEST_LINK_LOCAL)] {
            let (to_mac, to) = solicited_node(target);
            for path in [
                Path {
                    mac: PEER_MAC,
                    to_mac,
                    from: from.into(),
                    to: to.into(),
                },
                Path::to_guest(PEER_MAC, from.into(), target.into()),
            ] {
                let answer = answers(net, &frames::neighbor(&path, 135, target.into()));
                assert_eq!(answer.len(), 1, "{path:?}");
                assert_eq!(answer[0][54], 136, "an advertisement");
                assert_eq!(answer[0][62..78], target.octets());
                assert!(answer[0].ends_with(&GUEST_MAC));
                let mut fixed = answer[0].clone();
                frames::fix_checksums(&mut fixed);
                assert_eq!(fixed, answer[0], "checksums are right");
            }
        }
        let (to_mac, to) = solicited_node(PEER6);
        let path = Path {
            mac: PEER_MAC,
            to_mac,
            from: PEER_LINK_LOCAL.into(),
            to: to.into(),
        };
        let for_another = frames::neighbor(&path, 135, PEER6.into());
        assert_eq!(answers(net, &for_another), [[0; 0]; 0]);
    });
}

#[test]
fn an_echo_request_is_answered_over_ipv6_and_link_local() {
    quiet(|net| {
        for (from, to) in [(PEER6, GUEST6), (PEER_LINK_LOCAL, GUEST_LINK_LOCAL)] {
            let path = Path::to_guest(PEER_MAC, from.into(), to.into());
            answers(net, &frames::neighbor(&path, 135, to.into()));
            let answer = answers(net, &frames::echo_request(&path, 9, b"mayfly"));
            assert_eq!(answer.len(), 1);
            assert_eq!(answer[0][54..56], [129, 0], "an echo reply");
            assert_eq!(answer[0][22..54], [to.octets(), from.octets()].concat());
            assert!(answer[0].ends_with(b"mayfly"));
        }
    });
}

/// When each address was announced, by frame.
fn announcements(net: &mut Net<'_>, seconds: f64) -> Vec<(u64, IpAddr)> {
    let start = net.now().0;
    net.client.log.clear();
    net.run_for(seconds);
    let log = std::mem::take(&mut net.client.log);
    log.into_iter()
        .filter_map(|(at, frame)| {
            assert_eq!(frame[6..12], GUEST_MAC);
            let at = at - start;
            match frame[12..14] {
                [8, 6] if frame[28..32] == frame[38..42] => {
                    assert_eq!(frame[..6], BROADCAST);
                    let octets = <[u8; 4]>::try_from(&frame[28..32]).unwrap();
                    Some((at, Ipv4Addr::from(octets).into()))
                }
                [0x86, 0xdd] if frame[54] == 136 => {
                    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
                    let octets = <[u8; 16]>::try_from(&frame[62..78]).unwrap();
                    Some((at, Ipv6Addr::from(octets).into()))
                }
                _ => None,
            }
        })
        .collect()
}

fn assert_announced(sent: &[(u64, IpAddr)]) {
    for address in [IpAddr::from(GUEST4), GUEST6.into(), GUEST_LINK_LOCAL.into()] {
        let times: Vec<_> = sent.iter().filter(|(_, a)| *a == address).collect();
        assert!(times.len() >= 4, "{address}: {sent:?}");
        assert!(
            times[0].0 < SECOND / 100,
            "the first comes at once: {times:?}"
        );
        assert!(times[3].0 < SECOND, "four within a second: {times:?}");
    }
}

#[test]
fn addresses_are_announced_at_boot_and_after_a_reconnection() {
    Setup::new().run(|net| {
        assert_announced(&announcements(net, 2.0));
        assert_eq!(announcements(net, 10.0), [], "and then no more");
        net.xen
            .with(|world| world.netback.unload(&mut world.machine, &mut world.store));
        assert_eq!(announcements(net, 2.0), []);
        net.xen.with(|world| world.netback.load(&mut world.store));
        assert_announced(&announcements(net, 2.0));
        assert_eq!(net.violations(), [""; 0]);
    });
}

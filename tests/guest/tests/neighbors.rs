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

/// The guest's answers to a frame, without its announcements.
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

/// Boots a guest and runs a test after the announcements.
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
        // A request for another host is not answered.
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

/// The times of the announcements, with their addresses.
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
                    let bytes = <[u8; 4]>::try_from(&frame[28..32]).unwrap();
                    Some((at, Ipv4Addr::from(bytes).into()))
                }
                [0x86, 0xdd] if frame[20] == 58 && frame[54] == 136 => {
                    assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 1]);
                    let bytes = <[u8; 16]>::try_from(&frame[62..78]).unwrap();
                    Some((at, Ipv6Addr::from(bytes).into()))
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

#[test]
fn an_arp_request_from_outside_of_the_network_is_answered() {
    quiet(|net| {
        // Hosts behind an address translator, as with podman's port publishing, and a probe (RFC 5227).
        for from in [[192, 168, 7, 9], [169, 254, 1, 1], [0; 4]] {
            let request = frames::arp(1, PEER_MAC, from, [0; 6], GUEST4);
            let expected = frames::arp(2, GUEST_MAC, GUEST4, PEER_MAC, from);
            assert_eq!(answers(net, &request), [expected]);
        }
        // Requests for another address, or from a group or broadcast address, are not answered.
        let other = frames::arp(1, PEER_MAC, [192, 168, 7, 9], [0; 6], [10, 0, 2, 81]);
        assert_eq!(answers(net, &other), [[0; 0]; 0]);
        for from in [[224, 0, 0, 1], [255; 4]] {
            let request = frames::arp(1, PEER_MAC, from, [0; 6], GUEST4);
            assert_eq!(answers(net, &request), [[0; 0]; 0]);
        }
        assert_eq!(net.guest.stack.stats().conflicts, 0);
    });
}

#[test]
fn an_address_that_another_has_is_reported_and_defended() {
    quiet(|net| {
        for (number, claim) in [
            frames::arp(1, PEER_MAC, GUEST4, [0; 6], GUEST4),
            frames::arp(2, PEER_MAC, GUEST4, GUEST_MAC, [0; 4]),
            frames::neighbor(
                &Path {
                    mac: PEER_MAC,
                    to_mac: [0x33, 0x33, 0, 0, 0, 1],
                    from: GUEST6.into(),
                    to: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
                },
                136,
                GUEST6.into(),
            ),
        ]
        .iter()
        .enumerate()
        {
            net.client.log.clear();
            // A storm of conflicts is counted, and answered once in ten seconds.
            for _ in 0..50 {
                net.deliver(claim);
                net.run_for(0.01);
            }
            let stats = net.guest.stack.stats();
            assert_eq!(stats.conflicts, 50 * (number as u64 + 1));
            let sent = net.client.log.len();
            assert!((1..=5).contains(&sent), "{number}: {sent} frames");
            net.run_for(11.0);
        }
        let lines = net.debug();
        let told: Vec<_> = lines
            .lines()
            .filter(|line| line.contains("is in use by 02:00:00:00:00:07 too"))
            .collect();
        assert_eq!(told.len(), 3, "{lines}");
        assert!(told[0].contains("10.0.2.80") && told[2].contains("fd00::80"));
        // Our own announcements, reflected by a bridge, are no conflict.
        let own = frames::arp(1, GUEST_MAC, GUEST4, [0; 6], GUEST4);
        net.deliver(&own);
        net.run_for(0.1);
        assert_eq!(net.guest.stack.stats().conflicts, 150);
    });
}

#[test]
fn a_host_that_has_the_address_already_is_asked_and_reported() {
    Setup::new().run(|net| {
        // The host only answers probes, as Linux does.
        let mut seen = 0;
        net.until(2.0, |net| {
            let new = net.client.log[seen..].to_vec();
            seen = net.client.log.len();
            for (_, frame) in new {
                if frame[12..14] == [8, 6] && frame[28..32] == [0; 4] {
                    assert_eq!(frame[38..42], GUEST4);
                    net.deliver(&frames::arp(2, PEER_MAC, GUEST4, GUEST_MAC, [0; 4]));
                }
            }
            net.guest.stack.stats().conflicts > 0
        });
        assert_eq!(net.guest.stack.stats().conflicts, 1);
        assert!(net.debug().contains("10.0.2.80 is in use by"));
    });
}

/// A solicitation from `::`, by a host that wants the address.
fn duplicate_detection(target: Ipv6Addr) -> Vec<u8> {
    let (to_mac, to) = solicited_node(target);
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    let path = Path {
        mac: PEER_MAC,
        to_mac,
        from: Ipv6Addr::UNSPECIFIED.into(),
        to: to.into(),
    };
    frames::icmp(&path, 255, message)
}

#[test]
fn duplicate_address_detection_is_answered_to_all() {
    quiet(|net| {
        for target in [GUEST6, GUEST_LINK_LOCAL] {
            net.client.log.clear();
            net.deliver(&duplicate_detection(target));
            net.run_for(0.1);
            let is_defence = |frame: &[u8]| {
                frame[12..14] == [0x86, 0xdd]
                    && frame[54] == 136
                    && frame[62..78] == target.octets()
                    && frame[..6] == [0x33, 0x33, 0, 0, 0, 1]
            };
            let answers = &net.client.log;
            assert!(answers.iter().any(|(_, frame)| is_defence(frame)));
        }
        net.client.log.clear();
        net.deliver(&duplicate_detection(PEER6));
        net.run_for(0.1);
        assert!(net.client.log.is_empty());
        // A storm of solicitations does not lead to a storm of answers.
        for _ in 0..2000 {
            net.deliver(&duplicate_detection(GUEST6));
            net.run_for(0.000_5);
        }
        let answers = net.client.log.len();
        assert!(answers < 4 * 250, "{answers} frames");
    });
}

/// The groups that the guest reports in a frame: by MLDv2 with the kind of record, or by MLDv1.
fn reported(frame: &[u8]) -> Vec<(u8, Ipv6Addr)> {
    if frame[12..14] != [0x86, 0xdd] || frame[20] != 0 {
        return Vec::new();
    }
    assert_eq!(frame[21], 1, "hop limit");
    assert_eq!(frame[22..24], [0xfe, 0x80], "from a link-local address");
    assert_eq!(frame[54..62], [58, 0, 5, 2, 0, 0, 1, 0], "a router alert");
    // The checksum, over the message behind the hop-by-hop header.
    let message = &frame[62..];
    let mut sum: u32 = 58 + u32::try_from(message.len()).unwrap();
    for pair in frame[22..54].chunks(2).chain(message.chunks(2)) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff, "checksum");
    let group = |bytes: &[u8]| Ipv6Addr::from(<[u8; 16]>::try_from(bytes).unwrap());
    match message[0] {
        143 => {
            assert_eq!(frame[..6], [0x33, 0x33, 0, 0, 0, 0x16]);
            let count = usize::from(message[7]);
            assert_eq!(message.len(), 8 + 20 * count);
            let records = message[8..].chunks(20);
            records.map(|r| (r[0], group(&r[4..]))).collect()
        }
        131 => {
            assert_eq!(frame[38..54], message[8..24], "to the group itself");
            vec![(131, group(&message[8..24]))]
        }
        other => panic!("type {other}"),
    }
}

/// A query of MLD version 1 or 2 for all groups.
fn query(version: u8, from: Ipv6Addr) -> Vec<u8> {
    let all: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let path = Path {
        mac: PEER_MAC,
        to_mac: [0x33, 0x33, 0, 0, 0, 1],
        from: from.into(),
        to: all.into(),
    };
    let mut message = vec![130, 0, 0, 0, 0x03, 0xe8, 0, 0];
    message.extend([0; 16]);
    if version == 2 {
        message.extend([0x02, 125, 0, 0]);
    }
    // The checksum does not cover the hop-by-hop header, which is inserted afterwards.
    let whole = frames::icmp(&path, 1, message);
    let (headers, message) = whole.split_at(54);
    let mut frame = [headers, &[58, 0, 5, 2, 0, 0, 1, 0], message].concat();
    frame[20] = 0;
    let length = u16::try_from(frame.len() - 54).unwrap();
    frame[18..20].copy_from_slice(&length.to_be_bytes());
    frame
}

#[test]
fn groups_are_reported_at_boot_and_to_a_querier() {
    let groups = [GUEST6, GUEST_LINK_LOCAL].map(|address| solicited_node(address).1);
    Setup::new().run(|net| {
        net.run_for(2.0);
        let log = std::mem::take(&mut net.client.log);
        let joins: Vec<_> = log.iter().flat_map(|(_, frame)| reported(frame)).collect();
        for group in groups {
            let count = joins.iter().filter(|join| **join == (4, group)).count();
            assert!(count >= 2, "{group}: {joins:?}");
        }
        // MLDv2: records of type 2. MLDv1: a message of type 131 for each group.
        for (version, kind) in [(2, 2), (1, 131)] {
            net.client.log.clear();
            net.deliver(&query(version, PEER_LINK_LOCAL));
            net.deliver(&query(version, PEER_LINK_LOCAL));
            net.run_for(1.1);
            let log = &net.client.log;
            let mut found: Vec<_> = log.iter().flat_map(|(_, frame)| reported(frame)).collect();
            found.sort_unstable();
            let mut expected = groups.map(|group| (kind, group));
            expected.sort_unstable();
            assert_eq!(found, expected);
        }
        // A query that no neighbour can have sent is not answered.
        net.client.log.clear();
        net.deliver(&query(2, PEER6));
        let mut far = query(2, PEER_LINK_LOCAL);
        far[21] = 2;
        net.deliver(&far);
        let mut broken = query(2, PEER_LINK_LOCAL);
        broken[70] ^= 1;
        net.deliver(&broken);
        for length in 54..90 {
            net.deliver(&query(2, PEER_LINK_LOCAL)[..length]);
        }
        net.run_for(11.0);
        assert!(net.client.log.is_empty(), "{:?}", net.client.log);
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn errors_of_icmp_are_limited() {
    quiet(|net| {
        for (from, to) in [
            (IpAddr::from(PEER4), IpAddr::from(GUEST4)),
            (PEER6.into(), GUEST6.into()),
        ] {
            // The guest learns the peer's MAC address.
            answers(net, &frames::arp(1, PEER_MAC, PEER4, [0; 6], GUEST4));
            let path = Path::to_guest(PEER_MAC, from, to);
            answers(net, &frames::neighbor(&path, 135, to));
            net.run_for(2.0);
            net.client.log.clear();
            net.deliver(&frames::udp(&path, 999, 5353, b"one"));
            net.run_for(0.01);
            let is_error = |frame: &[u8]| {
                frame[12..14] == [8, 0] && frame[34..36] == [3, 3]
                    || frame[12..14] == [0x86, 0xdd] && frame[54..56] == [1, 4]
            };
            let errors = |net: &Net<'_>| {
                let log = net.client.log.iter();
                log.filter(|(_, frame)| is_error(frame)).count()
            };
            assert_eq!(errors(net), 1, "one is told");
            for number in 0..2000_u16 {
                net.deliver(&frames::udp(&path, 1000 + number, 5353, b"many"));
                net.run_for(0.000_5);
            }
            let sent = errors(net);
            assert!((50..200).contains(&sent), "{sent} errors in a second");
            // Echo replies are not limited.
            let echo = frames::echo_request(&path, 9, b"mayfly");
            assert_eq!(answers(net, &echo).len(), 1);
        }
    });
}

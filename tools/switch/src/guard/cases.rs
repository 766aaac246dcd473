//! Frames that the guard passes, and frames that it drops. The rules are written twice: in the switch as plain code, and in `hatch summon`
//! as a program for the kernel. The tests of both include this file, and give it `is_let_pass`.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::{Identity, is_let_pass, link_local};

const MAC: [u8; 6] = [0x00, 0x16, 0x3e, 1, 2, 3];
const OTHER: [u8; 6] = [0x00, 0x16, 0x3e, 9, 9, 9];
const HOST: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const ALL: [u8; 6] = [0xff; 6];
const V4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 80);
const OTHER4: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 81);
const V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x80);
const OTHER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 2, 0, 0, 0, 0, 0, 0x81);
const GROUP6: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

const IDENTITY: Identity = Identity {
    mac: MAC,
    ipv4: Some(V4),
    ipv6: Some(V6),
    host: HOST,
};

#[track_caller]
fn passes(frame: &[u8]) {
    assert!(is_let_pass(&IDENTITY, frame), "{frame:02x?}");
    // Without the address it is dropped.
    let nobody = Identity {
        ipv4: None,
        ipv6: None,
        ..IDENTITY
    };
    assert!(!is_let_pass(&nobody, frame));
    let mut tagged = frame.to_vec();
    tagged.splice(12..12, [0x81, 0, 0, 1]);
    drops(&tagged);
    let mut from_other = frame.to_vec();
    from_other[6..12].copy_from_slice(&OTHER);
    drops(&from_other);
}

#[track_caller]
fn drops(frame: &[u8]) {
    assert!(!is_let_pass(&IDENTITY, frame), "{frame:02x?}");
}

fn ethernet(to: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &MAC, &kind.to_be_bytes(), payload].concat()
}

fn arp(operation: u8, mac: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let payload = [&head[..], &mac, &sender.octets(), &[0; 6], &target.octets()].concat();
    ethernet(ALL, 0x0806, &payload)
}

/// An IPv4 packet with this many bytes of options, and a fragment field.
fn ipv4_with(
    to: [u8; 6],
    from: Ipv4Addr,
    protocol: u8,
    options: u8,
    fragment: u16,
    data: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0x45 + options / 4, 0, 0, 0, 0, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(from.octets());
    packet.extend([10, 0, 2, 15]);
    packet.extend(vec![1; options.into()]);
    packet.extend(data);
    ethernet(to, 0x0800, &packet)
}

fn ipv4(to: [u8; 6], protocol: u8, data: &[u8]) -> Vec<u8> {
    ipv4_with(to, V4, protocol, 0, 0, data)
}

fn ipv6(to: [u8; 6], from: Ipv6Addr, next: u8, data: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 255];
    packet.extend(from.octets());
    packet.extend(Ipv6Addr::LOCALHOST.octets());
    packet.extend(data);
    ethernet(to, 0x86dd, &packet)
}

fn udp(from: u16, to: u16) -> Vec<u8> {
    [from.to_be_bytes(), to.to_be_bytes(), [0, 8], [0, 0]].concat()
}

fn tcp(flags: u8) -> Vec<u8> {
    let mut segment = vec![0; 20];
    segment[12] = 0x50;
    segment[13] = flags;
    segment
}

/// An ICMPv6 message about an address.
fn icmpv6(kind: u8, target: Ipv6Addr) -> Vec<u8> {
    [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat()
}

#[test]
fn a_bridge_of_vifs_alone_has_their_address() {
    let vif = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];
    let alone = Identity {
        host: vif,
        ..IDENTITY
    };
    for (flags, alone_too) in [(0x12, true), (0x02, false)] {
        let frame = ipv4(vif, 6, &tcp(flags));
        assert_eq!(is_let_pass(&alone, &frame), alone_too);
        drops(&frame);
    }
}

#[test]
fn arp_of_its_own() {
    for operation in [1, 2] {
        passes(&arp(operation, MAC, V4, OTHER4));
        // Announcements and probes, RFC 5227.
        passes(&arp(operation, MAC, V4, V4));
        passes(&arp(operation, MAC, Ipv4Addr::UNSPECIFIED, V4));
        drops(&arp(operation, MAC, OTHER4, V4));
        drops(&arp(operation, OTHER, V4, OTHER4));
        drops(&arp(operation, MAC, Ipv4Addr::UNSPECIFIED, OTHER4));
    }
    // RARP's and InARP's operations, other hardware, cut.
    drops(&arp(3, MAC, V4, V4));
    drops(&arp(8, MAC, V4, V4));
    let mut other = arp(1, MAC, V4, OTHER4);
    other[15] = 6;
    drops(&other);
    drops(&arp(1, MAC, V4, OTHER4)[..41]);
}

#[test]
fn ipv4_from_its_own() {
    let web = tcp(0x02);
    passes(&ipv4(OTHER, 6, &web));
    passes(&ipv4(OTHER, 17, &udp(40_000, 53)));
    passes(&ipv4(OTHER, 1, &[8, 0, 0, 0]));
    drops(&ipv4_with(OTHER, OTHER4, 6, 0, 0, &web));
    drops(&ipv4_with(
        OTHER,
        Ipv4Addr::UNSPECIFIED,
        17,
        0,
        0,
        &udp(68, 67),
    ));
    // To groups.
    drops(&ipv4(ALL, 17, &udp(53, 4000)));
    drops(&ipv4([1, 0, 0x5e, 0, 0, 1], 2, &[0x16; 8]));
    // An invalid version, and a header that is too short.
    for start in [0x44, 0x50, 0x65, 0x05] {
        let mut frame = ipv4(OTHER, 6, &web);
        frame[14] = start;
        drops(&frame);
    }
}

#[test]
fn no_dhcp_server() {
    for options in [0, 4, 40] {
        drops(&ipv4_with(OTHER, V4, 17, options, 0, &udp(67, 68)));
        drops(&ipv4_with(OTHER, V4, 17, options, 0x2000, &udp(67, 68)));
        passes(&ipv4_with(OTHER, V4, 17, options, 0, &udp(53, 68)));
        // Later fragments have no ports.
        passes(&ipv4_with(OTHER, V4, 17, options, 1, &udp(67, 68)));
        // A cut header without its ports.
        drops(&ipv4_with(OTHER, V4, 17, options, 0, &[0, 53, 0]));
    }
    // A header whose length exceeds the frame.
    let mut frame = ipv4(OTHER, 17, &udp(53, 68));
    frame[14] = 0x4f;
    drops(&frame);
    drops(&ipv6(OTHER, V6, 17, &udp(547, 546)));
    drops(&ipv6(OTHER, V6, 17, &[2, 3]));
}

#[test]
fn dom0_gets_answers() {
    for to in [HOST, OTHER] {
        let check = |frame: &[u8]| {
            if to == OTHER {
                passes(frame);
            } else {
                drops(frame);
            }
        };
        for options in [0, 40] {
            let v4 = |protocol, data: &[u8]| ipv4_with(to, V4, protocol, options, 0, data);
            for flags in [0x12, 0x10, 0x18, 0x11, 0x14, 0x04] {
                passes(&v4(6, &tcp(flags)));
            }
            for flags in [0x02, 0xc2, 0x03, 0x2a] {
                check(&v4(6, &tcp(flags)));
            }
            passes(&v4(17, &udp(53, 1024)));
            check(&v4(17, &udp(53, 1023)));
            check(&v4(17, &udp(1024, 40_000)));
            for kind in [0, 3, 11, 12] {
                passes(&v4(1, &[kind, 0, 0, 0]));
            }
            for kind in [5, 8, 9, 13] {
                check(&v4(1, &[kind, 0, 0, 0]));
            }
            check(&v4(47, &[0; 20]));
            check(&v4(6, &tcp(0x10)[..13]));
            for fragment in [0x2000, 1, 0x2001] {
                check(&ipv4_with(to, V4, 17, options, fragment, &udp(53, 1024)));
            }
        }
        passes(&ipv6(to, V6, 6, &tcp(0x12)));
        check(&ipv6(to, V6, 6, &tcp(0x02)));
        check(&ipv6(to, V6, 6, &tcp(0x12)[..13]));
        passes(&ipv6(to, V6, 17, &udp(53, 1024)));
        check(&ipv6(to, V6, 17, &udp(1024, 53)));
        for kind in [1, 2, 3, 4, 129] {
            passes(&ipv6(to, V6, 58, &[kind, 0, 0, 0]));
        }
        check(&ipv6(to, V6, 58, &[128, 0, 0, 0]));
        passes(&arp(2, MAC, V4, OTHER4));
    }
    // The address of dom0's side of each vif, which leads to dom0 as well.
    drops(&ipv4([0xfe, 0xff, 0xff, 0xff, 0xff, 0xff], 6, &tcp(0x12)));
    passes(&ipv4([0xfe, 0xff, 0xff, 0xff, 0xff, 0xfe], 6, &tcp(0x12)));
}

#[test]
fn ipv6_from_its_own() {
    let link_local = link_local(MAC);
    assert_eq!(link_local.to_string(), "fe80::216:3eff:fe01:203");
    for from in [V6, link_local] {
        passes(&ipv6(OTHER, from, 6, &tcp(0x02)));
        passes(&ipv6(OTHER, from, 17, &udp(546, 547)));
        passes(&ipv6(OTHER, from, 58, &[128, 0, 0, 0]));
        // Headers behind which no rule can look: routing, fragment, destination options, ESP.
        for next in [43, 44, 60, 50] {
            drops(&ipv6(
                OTHER,
                from,
                next,
                &[58, 0, 0, 0, 0, 0, 0, 0, 134, 0, 0, 0],
            ));
        }
        drops(&ipv6(GROUP6, from, 17, &udp(53, 5353)));
        drops(&ipv6(GROUP6, from, 58, &[128, 0, 0, 0]));
    }
    for index in 0..16 {
        let mut near = V6.octets();
        near[index] ^= 1;
        drops(&ipv6(OTHER, near.into(), 6, &tcp(0x02)));
    }
    let mut frame = ipv6(OTHER, V6, 6, &tcp(0x02));
    frame[14] = 0x45;
    drops(&frame);
}

#[test]
fn neighbour_discovery_of_its_own() {
    let link_local = link_local(MAC);
    for to in [OTHER, GROUP6, HOST] {
        for from in [V6, link_local] {
            passes(&ipv6(to, from, 58, &icmpv6(135, OTHER6)));
            passes(&ipv6(to, from, 58, &icmpv6(133, V6)));
            for target in [V6, link_local] {
                passes(&ipv6(to, from, 58, &icmpv6(136, target)));
            }
            drops(&ipv6(to, from, 58, &icmpv6(136, OTHER6)));
            drops(&ipv6(to, from, 58, &icmpv6(136, V6)[..23]));
            drops(&ipv6(to, from, 58, &icmpv6(134, V6)));
            drops(&ipv6(to, from, 58, &icmpv6(137, V6)));
        }
        drops(&ipv6(to, OTHER6, 58, &icmpv6(136, V6)));
        let nobody = Ipv6Addr::UNSPECIFIED;
        passes(&ipv6(to, nobody, 58, &icmpv6(135, V6)));
        passes(&ipv6(to, nobody, 58, &icmpv6(135, link_local)));
        drops(&ipv6(to, nobody, 58, &icmpv6(135, OTHER6)));
        drops(&ipv6(to, nobody, 58, &icmpv6(135, V6)[..20]));
        drops(&ipv6(to, nobody, 58, &icmpv6(136, V6)));
        drops(&ipv6(to, nobody, 17, &udp(53, 1024)));
        for from in [V6, link_local, nobody] {
            for kind in [131, 132, 143] {
                passes(&ipv6(to, from, 0, &[58, 0, 5, 2, 0, 0, 0, 0, kind, 0]));
                drops(&ipv6(to, from, 0, &[58, 1, 5, 2, 0, 0, 0, 0, kind, 0]));
                drops(&ipv6(to, from, 0, &[17, 0, 5, 2, 0, 0, 0, 0, kind, 0]));
            }
            for kind in [130, 134, 136, 137] {
                drops(&ipv6(to, from, 0, &[58, 0, 5, 2, 0, 0, 0, 0, kind, 0]));
            }
            drops(&ipv6(to, from, 0, &[58, 0, 5, 2, 0, 0, 0, 0]));
        }
    }
}

#[test]
fn other_kinds_of_frames() {
    // 802.3's length with spanning tree, VLANs in a VLAN, LLDP, PPPoE.
    for kind in [38, 0x8100, 0x88a8, 0x88cc, 0x8863] {
        drops(&ethernet(OTHER, kind, &[0; 46]));
    }
    drops(&[]);
    drops(&ethernet(OTHER, 0x0800, &[0x45])[..14]);
}

#[test]
fn one_family_alone() {
    let v4 = Identity {
        ipv6: None,
        ..IDENTITY
    };
    let v6 = Identity {
        ipv4: None,
        ..IDENTITY
    };
    let (four, six) = (ipv4(OTHER, 6, &tcp(2)), ipv6(OTHER, V6, 6, &tcp(2)));
    assert!(is_let_pass(&v4, &four) && !is_let_pass(&v4, &six));
    assert!(!is_let_pass(&v6, &four) && is_let_pass(&v6, &six));
    assert!(!is_let_pass(&v6, &arp(1, MAC, V4, OTHER4)));
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    /// No frame is read beyond its end, and every passed frame has the guest as its sender.
    #[test]
    fn any_frame(
        kind in prop_oneof![Just(0x0806u16), Just(0x0800), Just(0x86dd)],
        start in prop_oneof![Just(0x45u8), Just(0x4f), Just(0x60), any::<u8>()],
        protocol in prop_oneof![Just(0u8), Just(1), Just(6), Just(17), Just(58), any::<u8>()],
        to in prop_oneof![Just(HOST), Just(OTHER), Just(ALL)],
        own in any::<bool>(),
        mut payload in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        for (at, bytes) in [
            (0, &[start][..]),
            (if kind == 0x0800 { 9 } else { 6 }, &[protocol]),
            (12, &V4.octets()),
        ] {
            if let Some(place) = payload.get_mut(at..at + bytes.len()).filter(|_| own || at == 0) {
                place.copy_from_slice(bytes);
            }
        }
        if kind == 0x86dd && own && let Some(place) = payload.get_mut(8..24) {
            place.copy_from_slice(&V6.octets());
        }
        let frame = ethernet(to, kind, &payload);
        if is_let_pass(&IDENTITY, &frame) && kind == 0x0800 {
            prop_assert_eq!(&payload[12..16], &V4.octets());
        }
    }
}

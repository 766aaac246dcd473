//! Valid and malformed frames.

use super::*;
use proptest::prelude::*;
use std::net::Ipv4Addr;

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 1];
const SERVICE: [u8; 6] = [2, 0, 0, 0, 0, 2];
const FROM: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
const TO: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
const FROM6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const TO6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), payload].concat()
}

fn arp(operation: u8, from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4, 0, operation];
    let payload = [
        &head[..],
        &CLIENT,
        &from.octets(),
        &[0; 6],
        &to.octets(),
        // As short frames are padded.
        &[0; 18],
    ]
    .concat();
    ethernet([0xff; 6], CLIENT, 0x0806, &payload)
}

fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(20 + payload.len()).unwrap().to_be_bytes();
    let head = [
        0x45, 0, length[0], length[1], 0, 0, 0x40, 0, 64, protocol, 0, 0,
    ];
    let packet = [&head[..], &FROM.octets(), &TO.octets(), payload].concat();
    ethernet(SERVICE, CLIENT, 0x0800, &packet)
}

fn ipv6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap().to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], protocol, 255];
    let packet = [&head[..], &from.octets(), &to.octets(), payload].concat();
    ethernet(SERVICE, CLIENT, 0x86dd, &packet)
}

fn tcp(flags: u8, data: &[u8]) -> Vec<u8> {
    let head = [
        0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x10, 0, 0, 0, 0, 0,
    ];
    [&head[..], data].concat()
}

const UDP: [u8; 9] = [0x30, 0x39, 0, 53, 0, 9, 0, 0, 1];

/// A neighbour solicitation with its checksum.
fn solicitation(from: Ipv6Addr) -> Vec<u8> {
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 2);
    let repr = Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit {
        target_addr: TO6,
        lladdr: Some(EthernetAddress(CLIENT).into()),
    });
    let mut payload = vec![0; repr.buffer_len()];
    repr.emit(
        &from,
        &group,
        &mut Icmpv6Packet::new_unchecked(&mut payload[..]),
        &Default::default(),
    );
    ipv6(from, group, 58, &payload)
}

#[test]
fn what_wakes() {
    let seen = |frame: &[u8]| look(frame).map(|seen| (seen.kind, seen.to, seen.from));
    let v4 = |what| Some((what, IpAddr::from(TO), IpAddr::from(FROM)));
    let v6 = |what| Some((what, IpAddr::from(TO6), IpAddr::from(FROM6)));
    assert_eq!(seen(&arp(1, FROM, TO)), v4(FrameKind::Arp));
    assert_eq!(seen(&arp(2, FROM, TO)), v4(FrameKind::Other));
    // An announcement.
    let own = Some((FrameKind::Other, IpAddr::from(FROM), IpAddr::from(FROM)));
    assert_eq!(seen(&arp(1, FROM, FROM)), own);
    assert_eq!(seen(&ipv4(6, &tcp(0x02, b""))), v4(FrameKind::Syn));
    // SYN-ACK, ACK, RST.
    for flags in [0x12, 0x10, 0x04, 0x06] {
        assert_eq!(seen(&ipv4(6, &tcp(flags, b""))), v4(FrameKind::Other));
    }
    assert_eq!(seen(&ipv4(17, &UDP)), v4(FrameKind::Datagram));
    assert_eq!(seen(&ipv4(1, &[8, 0, 0, 0])), v4(FrameKind::Other));
    assert_eq!(
        seen(&ipv6(FROM6, TO6, 6, &tcp(0x02, b""))),
        v6(FrameKind::Syn)
    );
    assert_eq!(seen(&ipv6(FROM6, TO6, 17, &UDP)), v6(FrameKind::Datagram));
    assert_eq!(seen(&solicitation(FROM6)), v6(FrameKind::Solicitation));
    let mut later_fragment = ipv4(17, &UDP);
    later_fragment[14 + 7] = 1;
    assert_eq!(seen(&later_fragment), v4(FrameKind::Other));
    assert_eq!(seen(&ethernet(SERVICE, CLIENT, 0x8100, &[0; 46])), None);
}

#[test]
fn an_arp_reply() {
    let reply = answer(&arp(1, FROM, TO), SERVICE).unwrap();
    let payload = [
        &[0, 1, 8, 0, 6, 4, 0, 2][..],
        &SERVICE,
        &TO.octets(),
        &CLIENT,
        &FROM.octets(),
    ]
    .concat();
    assert_eq!(reply, ethernet(CLIENT, SERVICE, 0x0806, &payload));
}

#[test]
fn a_neighbour_advertisement() {
    for (asker, to, to_mac, flags) in [
        (FROM6, FROM6, CLIENT, 0x60),
        (Ipv6Addr::UNSPECIFIED, ALL_NODES, ALL_NODES_MAC.0, 0x20),
    ] {
        let reply = answer(&solicitation(asker), SERVICE).unwrap();
        assert_eq!((&reply[..6], &reply[6..12]), (&to_mac[..], &SERVICE[..]));
        let packet = Ipv6Packet::new_checked(&reply[14..]).unwrap();
        assert_eq!((packet.src_addr(), packet.dst_addr()), (TO6, to));
        assert_eq!(packet.hop_limit(), 255);
        let message = Icmpv6Packet::new_checked(packet.payload()).unwrap();
        assert!(message.verify_checksum(&TO6, &to));
        assert_eq!((packet.payload()[0], packet.payload()[4]), (136, flags));
        assert_eq!(message.target_addr(), TO6);
    }
    assert_eq!(answer(&ipv4(17, &UDP), SERVICE), None);
}

#[test]
fn a_segment_of_no_connection_is_reset() {
    for (frame, is_v6) in [
        (ipv4(6, &tcp(0x18, b"data")), false),
        (ipv6(FROM6, TO6, 6, &tcp(0x18, b"data")), true),
    ] {
        let reply = reset(&frame).unwrap();
        assert_eq!((&reply[..6], &reply[6..12]), (&CLIENT[..], &SERVICE[..]));
        let at = 14 + if is_v6 { 40 } else { 20 };
        let segment = TcpPacket::new_checked(&reply[at..]).unwrap();
        let (from, to): (IpAddress, IpAddress) = match is_v6 {
            true => (TO6.into(), FROM6.into()),
            false => (TO.into(), FROM.into()),
        };
        assert!(segment.verify_checksum(&from, &to));
        assert!(segment.rst() && !segment.ack());
        assert_eq!((segment.src_port(), segment.dst_port()), (80, 12345));
        assert_eq!(segment.seq_number(), TcpSeqNumber(0));
        if !is_v6 {
            let packet = Ipv4Packet::new_checked(&reply[14..]).unwrap();
            assert!(packet.verify_checksum() && packet.src_addr() == TO);
        }
    }
    // Without ACK, as a scanner sends it: the RST acknowledges the segment.
    let reply = reset(&ipv4(6, &tcp(0x01, b"ab"))).unwrap();
    let segment = TcpPacket::new_checked(&reply[34..]).unwrap();
    assert!(segment.rst() && segment.ack());
    assert_eq!(segment.ack_number(), TcpSeqNumber(1 + 3));
    assert_eq!(reset(&ipv4(6, &tcp(0x04, b""))), None);
    assert_eq!(reset(&ipv4(17, &UDP)), None);
}

#[test]
fn signs_of_life() {
    let out = |protocol, payload: &[u8]| {
        let mut frame = ipv4(protocol, payload);
        frame[..6].copy_from_slice(&CLIENT);
        frame[6..12].copy_from_slice(&SERVICE);
        sign(&frame, SERVICE)
    };
    assert_eq!(out(6, &tcp(0x12, b"")), Some(Sign::SynAck));
    assert_eq!(out(6, &tcp(0x10, b"")), Some(Sign::Frame));
    assert_eq!(out(6, &tcp(0x18, b"HTTP")), Some(Sign::Answer));
    assert_eq!(out(17, &UDP), Some(Sign::Answer));
    assert_eq!(out(1, &[0; 8]), Some(Sign::Frame));
    assert_eq!(sign(&ipv4(6, &tcp(0x02, b"")), SERVICE), None);
    assert_eq!(sign(&ipv4(6, &tcp(0x10, b"")), SERVICE), None);
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    #[test]
    fn any_bytes(mut frame in proptest::collection::vec(any::<u8>(), 0..120), kind in 0usize..4) {
        let kinds: [u16; 4] = [0x0806, 0x0800, 0x86dd, 0x8100];
        if frame.len() > 20 {
            frame[12..14].copy_from_slice(&kinds[kind].to_be_bytes());
            frame[14] = if kind == 2 { 0x60 } else { 0x45 };
        }
        let _ = (look(&frame), answer(&frame, SERVICE), reset(&frame), sign(&frame, SERVICE));
    }

    /// A frame with a small change gets further.
    #[test]
    fn any_change(at in 0usize..80, to in any::<u8>(), cut in 0usize..80) {
        for mut frame in [arp(1, FROM, TO), ipv4(6, &tcp(2, b"")), solicitation(FROM6), ipv6(FROM6, TO6, 17, &UDP)] {
            if let Some(byte) = frame.get_mut(at) {
                *byte = to;
            }
            frame.truncate(frame.len().saturating_sub(cut));
            let _ = (look(&frame), answer(&frame, SERVICE), reset(&frame), sign(&frame, SERVICE));
        }
    }
}

//! Transport checksums: blank ones of the same host pass, wrong ones of a wire do not.

use std::net::{IpAddr, Ipv6Addr};

use mayfly_guest_tests::frames::{self, Path, Question, SYN, Segment};
use mayfly_guest_tests::{GUEST4, Net, Setup};

const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];
const PEER4: [u8; 4] = [10, 0, 2, 7];
const PEER6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 7);
const GUEST6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x80);
const DATA_VALIDATED: u16 = 1;
const CSUM_BLANK: u16 = 2;

fn paths() -> [Path; 2] {
    [(PEER4.into(), GUEST4.into()), (PEER6.into(), GUEST6.into())]
        .map(|(from, to): (IpAddr, IpAddr)| Path::to_guest(PEER_MAC, from, to))
}

/// Whether the guest answers a frame to the peer's port 999.
fn is_answered(net: &mut Net<'_>, frame: &[u8], flags: u16) -> bool {
    for path in paths() {
        let hello = match (path.from, path.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                frames::arp(1, PEER_MAC, from.octets(), [0; 6], to.octets())
            }
            _ => frames::neighbor(&path, 135, path.to),
        };
        net.deliver(&hello);
    }
    net.run_for(0.01);
    let _ = net.sent();
    net.deliver_flagged(frame, flags);
    net.xen.run();
    net.step();
    let sent = net.sent();
    sent.iter().any(|frame| frame[..6] == PEER_MAC)
}

fn query(path: &Path) -> Vec<u8> {
    frames::udp(
        path,
        999,
        53,
        &frames::dns_query(&Question::a("mayfly.test")),
    )
}

fn syn(path: &Path, port: u16) -> Vec<u8> {
    let segment = Segment {
        from_port: port,
        to_port: 80,
        flags: SYN,
        window: 1000,
        ..Segment::default()
    };
    frames::tcp(path, &segment)
}

#[test]
fn only_unverified_checksums_are_verified() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        let mut bad = 0;
        for path in paths() {
            for flags in [0, DATA_VALIDATED, CSUM_BLANK, CSUM_BLANK | DATA_VALIDATED] {
                let pairs = [
                    [query(&path), query(&path)],
                    [syn(&path, 1000 + flags), syn(&path, 2000 + flags)],
                ];
                for [good, mut wrong] in pairs {
                    frames::spoil_transport_checksum(&mut wrong);
                    assert!(is_answered(net, &good, flags), "{path:?} {flags}");
                    assert_eq!(
                        is_answered(net, &wrong, flags),
                        flags != 0,
                        "{path:?} {flags}"
                    );
                    bad += u64::from(flags == 0);
                    assert_eq!(net.guest.nic.bad_checksums(), bad);
                }
            }
        }
        assert_eq!(net.violations(), [""; 0]);
    });
}

#[test]
fn a_datagram_without_a_checksum_passes_over_ipv4_only() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        let [v4, v6] = paths().map(|path| query(&path));
        let blank = |mut frame: Vec<u8>, at: usize| {
            frame[at..at + 2].fill(0);
            frame
        };
        assert!(is_answered(net, &blank(v4, 14 + 20 + 6), 0), "RFC 768");
        assert!(
            !is_answered(net, &blank(v6, 14 + 40 + 6), 0),
            "RFC 8200, section 8.1"
        );
    });
}

/// Puts a hop-by-hop header with padding before the message of an IPv6 frame.
fn behind_hop_by_hop(frame: &[u8]) -> Vec<u8> {
    let mut longer = frame[..54].to_vec();
    longer.extend([frame[20], 0, 1, 4, 0, 0, 0, 0]);
    longer.extend(&frame[54..]);
    longer[20] = 0;
    let length = u16::from_be_bytes([frame[18], frame[19]]) + 8;
    longer[18..20].copy_from_slice(&length.to_be_bytes());
    longer
}

#[test]
fn an_extension_header_hides_no_wrong_checksum() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        let [_, path] = paths();
        for good in [query(&path), syn(&path, 1000)] {
            assert!(is_answered(net, &behind_hop_by_hop(&good), 0));
            let mut wrong = good.clone();
            frames::spoil_transport_checksum(&mut wrong);
            assert!(!is_answered(net, &behind_hop_by_hop(&wrong), 0));
        }
    });
}

#[test]
fn frames_of_the_guest_are_complete() {
    Setup::new().run(|net| {
        net.run_for(2.0);
        for path in paths() {
            for frame in [
                query(&path),
                syn(&path, 1000),
                frames::echo_request(&path, 1, b"x"),
            ] {
                assert!(is_answered(net, &frame, 0));
                net.deliver(&frame);
            }
        }
        net.run_for(1.0);
        assert!(net.client.log.len() > 6);
        for (_, frame) in &net.client.log {
            let mut fixed = frame.clone();
            frames::fix_checksums(&mut fixed);
            assert_eq!(fixed, *frame);
        }
    });
}

//! Packets that are completed here, and invalid packets.

use super::*;
use proptest::prelude::*;

/// A packet whose checksum is blank, with so many bytes of payload.
fn packet(family: Family, protocol: u8, payload: usize) -> Vec<u8> {
    let header = if protocol == TCP {
        TCP_HEADER
    } else {
        UDP_HEADER
    };
    let length = u16::try_from(header + payload).unwrap();
    let mut frame = vec![2; 12];
    match family {
        Family::V4 => {
            frame.extend(IPV4.to_be_bytes());
            frame.extend([0x45, 0]);
            frame.extend((20 + length).to_be_bytes());
            frame.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
            frame.extend([10, 0, 2, 80, 10, 0, 2, 2]);
            complete(&mut frame, 14..34, 10);
        }
        Family::V6 => {
            frame.extend(IPV6.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(length.to_be_bytes());
            frame.extend([protocol, 64]);
            frame.extend([0xfd; 16]);
            frame.extend([0xfe; 16]);
        }
    }
    let start = frame.len();
    frame.extend(vec![0; header]);
    if protocol == TCP {
        frame[start + 4..start + 8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
        frame[start + 12] = 0x50;
        frame[start + 13] = FIN | PSH | CWR | 0x10;
    } else {
        frame[start + 4..start + 6].copy_from_slice(&length.to_be_bytes());
    }
    frame.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap()));
    Transport::of(&frame).unwrap().blank(&mut frame);
    frame
}

/// Verified as a receiver does, word by word.
fn is_right(frame: &[u8]) -> bool {
    let found = Transport::of(frame).unwrap();
    let mut words = u64::from(found.pseudo(frame, found.end - found.start));
    for pair in frame[found.start..found.end].chunks(2) {
        words += u64::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    fold(words) == 0xffff
}

#[test]
fn blank_checksums_are_filled_in() {
    for family in [Family::V4, Family::V6] {
        for protocol in [TCP, UDP] {
            for payload in [0, 1, 2, 3, 1459, 1460] {
                let mut frame = packet(family, protocol, payload);
                frame.extend([0xaa; 5]);
                let found = Transport::of(&frame).unwrap();
                assert_eq!((found.family, found.protocol), (family, protocol));
                assert!(!is_right(&frame));
                found.complete(&mut frame);
                assert!(is_right(&frame), "{family:?} {protocol} {payload}");
                assert!(!found.has_none(&frame));
            }
        }
    }
}

#[test]
fn a_datagram_that_sums_up_to_nothing_says_so_in_another_way() {
    for last in 0..=u16::MAX {
        let mut frame = packet(Family::V4, UDP, 2);
        let end = frame.len();
        frame[end - 2..].copy_from_slice(&last.to_be_bytes());
        let found = Transport::of(&frame).unwrap();
        found.complete(&mut frame);
        assert!(is_right(&frame) && !found.has_none(&frame));
    }
}

#[test]
fn what_is_cut_is_what_it_was() {
    for family in [Family::V4, Family::V6] {
        for (payload, size, count) in [
            (1000, 1000, 1),
            (1001, 1000, 2),
            (60_000, 1460, 42),
            (0, 10, 1),
            (9, 1, 9),
        ] {
            let whole = packet(family, TCP, payload);
            let found = Transport::of(&whole).unwrap();
            let mut out = Vec::new();
            let ends = cut(&whole, &found, size, &mut out);
            assert_eq!(ends.len(), count);
            let at = found.payload(&whole).unwrap();
            let (mut start, mut data) = (0, Vec::new());
            for (index, end) in ends.iter().enumerate() {
                let mut segment = out[start..*end].to_vec();
                start = *end;
                let found = Transport::of(&segment).unwrap();
                found.complete(&mut segment);
                assert!(is_right(&segment));
                if family == Family::V4 {
                    assert_eq!(fold(sum(&segment[14..34])), 0xffff);
                    let id = 0x1234 + u16::try_from(index).unwrap();
                    assert_eq!(half(&segment, 18), Some(id));
                }
                let number = u32::from_be_bytes(segment[at - 16..at - 12].try_into().unwrap());
                let offset = u32::try_from(data.len()).unwrap();
                assert_eq!(number, 0xffff_ff00_u32.wrapping_add(offset));
                let flags = segment[at - 7];
                let is_last = index + 1 == count;
                assert_eq!(flags & (FIN | PSH) != 0, is_last);
                assert_eq!(flags & CWR != 0, index == 0);
                data.extend_from_slice(&segment[at..]);
            }
            assert_eq!(data, whole[at..]);
        }
    }
}

#[test]
fn what_is_no_transport() {
    let right = packet(Family::V4, TCP, 10);
    let changes: [(usize, u8); 6] = [
        // Another version, a short header, a fragment, more fragments, another protocol, a packet that is longer than the frame.
        (14, 0x65),
        (14, 0x44),
        (21, 1),
        (20, 0x20),
        (23, 1),
        (17, 100),
    ];
    for (at, value) in changes {
        let mut frame = right.clone();
        frame[at] = value;
        assert_eq!(Transport::of(&frame), None, "{at}");
    }
    for length in 0..right.len() {
        assert_eq!(Transport::of(&right[..length]), None);
    }
    let mut frame = packet(Family::V6, TCP, 100);
    frame[20] = 44;
    assert_eq!(Transport::of(&frame), None, "a fragment");
    // Behind options it is found, and behind too many it is not.
    let mut frame = packet(Family::V6, TCP, 0);
    frame[20] = 60;
    frame.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    frame[19] += 8;
    assert_eq!(Transport::of(&frame).unwrap().start, 62);
    let mut frame = packet(Family::V6, TCP, 200);
    frame[20] = 60;
    for at in 0..20 {
        frame[54 + 8 * at] = 60;
        frame[55 + 8 * at] = 0;
    }
    assert_eq!(Transport::of(&frame), None);
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    #[test]
    fn any_bytes(
        kind in prop_oneof![Just(IPV4), Just(IPV6)],
        start in prop_oneof![Just(0x45u8), Just(0x60), any::<u8>()],
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        size in any::<u16>(),
        total in any::<bool>(),
    ) {
        let length = u16::try_from(bytes.len()).unwrap();
        if let [first, _, high, low, high6, low6, ..] = bytes.as_mut_slice() {
            *first = start;
            if total {
                (*high, *low) = (0, length.to_be_bytes()[1]);
                (*high6, *low6) = (0, length.saturating_sub(40).to_be_bytes()[1]);
            }
        }
        let mut frame = [&[2; 12][..], &kind.to_be_bytes(), &bytes].concat();
        if let Some(found) = Transport::of(&frame) {
            prop_assert!(found.start + found.checksum_offset() + 2 <= found.end);
            prop_assert!(found.end <= frame.len());
            let mut out = Vec::new();
            let ends = cut(&frame, &found, size, &mut out);
            prop_assert_eq!(ends.last().copied().unwrap_or(0), out.len());
            found.blank(&mut frame);
            found.complete(&mut frame);
            prop_assert!(is_right(&frame));
        }
    }
}

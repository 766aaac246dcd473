//! Headers from the bridge and to the bridge.

use super::*;
use proptest::prelude::*;

fn tcp() -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 140, 0, 0, 0, 0, 64, 6, 0, 0]);
    frame.extend([10, 0, 2, 80, 10, 0, 2, 2]);
    frame.extend([0; 12]);
    frame.extend([0x50, 0x10, 0, 0, 0, 0, 0, 0]);
    frame.extend([7; 100]);
    frame
}

fn header(flags: u8, kind: u8, size: u16, start: u16, offset: u16) -> [u8; SIZE] {
    let mut header = [flags, kind, 0, 0, 0, 0, 0, 0, 0, 0];
    for (at, value) in [(4, size), (6, start), (8, offset)] {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    header
}

#[test]
fn what_is_written_is_read() {
    for checksum in [Checksum::Unknown, Checksum::Valid, Checksum::Blank] {
        for cut in [None, Some((Family::V4, 50))] {
            if cut.is_some() && checksum != Checksum::Blank {
                continue;
            }
            let mut frame = tcp();
            let mut offload = Offload { checksum, cut };
            let header = {
                let length = frame.len();
                encode(&mut frame, length, &mut offload)
            };
            // The kernel can't be told that a checksum is right.
            let wanted = match checksum {
                Checksum::Valid => Checksum::Blank,
                other => other,
            };
            assert_eq!(offload.checksum, wanted);
            assert_eq!(decode(header, &mut frame), Ok(offload));
        }
    }
}

#[test]
fn what_contradicts_the_frame() {
    let right = header(1, 1, 50, 34, 16);
    assert!(decode(right, &mut tcp()).is_ok());
    for wrong in [
        // Cut by another protocol, of UDP, into nothing, without a blank checksum, with the checksum elsewhere, beyond the end.
        header(1, 4, 50, 34, 16),
        header(1, 3, 50, 34, 16),
        header(1, 5, 50, 34, 16),
        header(1, 1, 0, 34, 16),
        header(0, 1, 50, 0, 0),
        header(1, 1, 50, 34, 6),
        header(1, 0, 0, 140, 16),
        header(1, 0, 0, u16::MAX, u16::MAX),
    ] {
        assert_eq!(decode(wrong, &mut tcp()), Err(Contradiction), "{wrong:?}");
    }
}

#[test]
fn a_checksum_of_another_protocol_is_filled_in() {
    // SCTP has none of these, but whatever sits at 34 is summed up from there.
    let mut frame = tcp();
    frame[23] = 89;
    frame[34..].fill(0);
    frame[34] = 1;
    let offload = decode(header(1, 0, 0, 34, 2), &mut frame).unwrap();
    assert_eq!(offload.checksum, Checksum::Valid);
    assert_eq!(frame[36..38], [0xfe, 0xff]);
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    #[test]
    fn any_header_and_frame(
        raw in any::<[u8; SIZE]>(),
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        is_tcp in any::<bool>(),
    ) {
        if is_tcp {
            bytes = [&tcp()[..], &bytes].concat();
        }
        if let Ok(mut offload) = decode(raw, &mut bytes) {
            prop_assert!(offload.cut.is_none() || offload.checksum == Checksum::Blank);
            let length = bytes.len();
            let _ = encode(&mut bytes, length, &mut offload);
        }
    }
}

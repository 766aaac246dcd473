//! Changes to frames and payloads.

use crate::frames;
use crate::random::Random;

/// Numbers at which lengths and counts are often handled wrongly.
const EDGES: [u16; 12] = [0, 1, 2, 7, 8, 15, 0x7f, 0xff, 0x100, 0x7fff, 0x8000, 0xffff];

/// Changes bytes in a few places.
pub(super) fn bytes(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        let length = bytes.len();
        let at = random.below(length);
        match random.below(9) {
            0 if length > 0 => bytes[at] ^= 1 << random.below(8),
            1 if length > 0 => bytes[at] = random.byte(),
            2 if at + 2 <= length => {
                let edge = random.pick(&EDGES).to_be_bytes();
                bytes[at..at + 2].copy_from_slice(&edge);
            }
            3 if length > 0 => {
                let near = bytes[at].wrapping_add(random.pick(&[1, 255]));
                bytes[at] = near;
            }
            4 => bytes.truncate(at),
            5 => {
                let count = 1 + random.below(40);
                let fill = random.byte();
                bytes.resize(length + count, fill);
            }
            6 if length > 0 => {
                // Repeats a piece.
                let end = at + random.below((length - at).min(40)) + 1;
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            7 if length > 0 => {
                let end = at + random.below((length - at).min(20)) + 1;
                bytes.drain(at..end);
            }
            _ => {
                let piece = random.noise(9);
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes.truncate(1500);
}

/// Changes a frame, mostly in its headers, and mostly makes its checksums right again.
pub(super) fn frame(random: &mut Random, frame: &mut Vec<u8>, other: &[u8]) {
    match random.below(12) {
        // A header field: Ethernet 0..14, IP from 14, the message from 34 or 54.
        0..=5 => {
            for _ in 0..=random.below(2) {
                let first = random.pick(&[0, 12, 14, 14, 14, 34, 34, 54, 54]);
                let at = first + random.below(24);
                if let Some(byte) = frame.get_mut(at) {
                    *byte = match random.below(4) {
                        0 => *byte ^ 1 << random.below(8),
                        1 => byte.wrapping_add(1),
                        2 => random.pick(&[0, 1, 0x45, 0x60, 0x80, 0xff]),
                        _ => random.byte(),
                    };
                }
            }
        }
        6 => {
            let at = random.below(frame.len());
            frame.truncate(at.max(1));
        }
        7 => {
            let count = 1 + random.below(200);
            frame.resize(frame.len() + count, 0);
        }
        // Joins the head of one frame and the tail of another.
        8 => {
            let at = random.pick(&[14, 34, 42, 54, 62]);
            let from = random.pick(&[14, 34, 42, 54, 62]);
            frame.truncate(at);
            frame.extend(other.get(from..).unwrap_or_default());
        }
        _ => bytes(random, frame),
    }
    if frame.is_empty() {
        frame.push(0);
    }
    frame.truncate(2000);
    if !random.one_in(5) {
        frames::fix_checksums(frame);
    }
}

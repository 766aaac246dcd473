//! Frames that are almost valid, for the switch's guard and its checks of offloads.

use crate::random::Random;

/// The first three bytes of every source MAC address that is not the guest's own: locally administered, so no other
/// host of a lab has such an address.
pub(crate) const FORGED: [u8; 3] = [0x02, 0x6c, 0x69];
/// The length of the frames' bytes that are written; frames may be longer.
pub(crate) const LENGTH: usize = 128;

const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// The address of the guest that serves, and the one that this guest says is its own.
const SERVER: [u8; 4] = [10, 0, 2, 80];
const OWN: [u8; 4] = [10, 0, 2, 81];

/// Composes a frame. One in four has the guest's own MAC address.
pub(crate) fn compose(random: &mut Random, own: [u8; 6]) -> [u8; LENGTH] {
    let mut frame = [0; LENGTH];
    for word in frame.as_chunks_mut().0 {
        *word = random.u64().to_le_bytes();
    }
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = frame.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    let to = match random.below(4) {
        0 => [0xff; 6],
        1 => own,
        2 => [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff],
        _ => [0x00, 0x16, 0x3e, 0x00, 0x00, random.u8() & 7],
    };
    put(0, &to);
    let [a, b, c] = FORGED;
    let from = match random.once_in(4) {
        true => own,
        false => [a, b, c, random.u8(), random.u8(), random.u8()],
    };
    put(6, &from);
    match random.below(4) {
        // ARP that claims an address of anybody.
        0 => {
            put(12, &ARP);
            put(14, &[0, 1, 8, 0, 6, 4, 0]);
        }
        1 => {
            put(12, &IPV4);
            // TCP or UDP, or any other; the lengths are random.
            let protocol = [1, 6, 17, random.u8()][usize::from(random.u8() % 4)];
            put(14, &[0x45]);
            put(23, &[protocol]);
            put(26, &OWN);
            put(30, &SERVER);
        }
        2 => {
            put(12, &IPV6);
            put(14, &[0x60]);
            put(20, &[[6, 17, 58, 0][usize::from(random.u8() % 4)]]);
        }
        // Of a random kind.
        _ => {}
    }
    frame
}

/// A valid question for the server's MAC address, whose answer goes into this guest's receive ring.
pub(crate) fn question(own: [u8; 6]) -> [u8; 60] {
    let mut frame = [0; 60];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = frame.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, &[0xff; 6]);
    put(6, &own);
    put(12, &ARP);
    put(14, &[0, 1, 8, 0, 6, 4, 0, 1]);
    put(22, &own);
    put(28, &OWN);
    put(38, &SERVER);
    frame
}

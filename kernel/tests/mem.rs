//! The memory functions of `machine/mem.s`, under other names, beside those of `core`: every length, alignment and
//! overlap that takes a way of its own, and what stands around.
#![cfg(target_arch = "x86_64")]
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "patterns, and ISO C's conversion"
)]

use std::cmp::Ordering;

core::arch::global_asm!(
    ".macro function name",
    ".global guest_\\name",
    "guest_\\name:",
    ".endm",
    include_str!("../src/machine/mem.s"),
    options(att_syntax)
);

unsafe extern "C" {
    fn guest_memcpy(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn guest_memmove(to: *mut u8, from: *const u8, length: usize) -> *mut u8;
    fn guest_memset(to: *mut u8, byte: i32, length: usize) -> *mut u8;
    fn guest_memcmp(one: *const u8, other: *const u8, length: usize) -> i32;
    fn guest_bcmp(one: *const u8, other: *const u8, length: usize) -> i32;
}

const AROUND: usize = 64;
const ALIGNMENTS: [usize; 6] = [0, 1, 3, 7, 8, 15];

/// Lengths on both sides of every branch, and all the short ones.
fn lengths() -> impl Iterator<Item = usize> {
    (0..=70)
        .chain(240..=280)
        .chain([511, 512, 1000, 4095, 4096, 4097])
}

/// Bytes that differ from their neighbours.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + at / 251) as u8).collect()
}

#[test]
fn memcpy_copies_and_touches_nothing_else() {
    for length in lengths() {
        for (to, from) in ALIGNMENTS
            .iter()
            .flat_map(|to| ALIGNMENTS.map(|from| (*to, from)))
        {
            let source = pattern(length + from);
            let mut target = vec![0xaa; AROUND + to + length + AROUND];
            let mut expected = target.clone();
            expected[AROUND + to..][..length].copy_from_slice(&source[from..]);
            let at = target[AROUND + to..].as_mut_ptr();
            // SAFETY: both ranges lie inside of vectors of this function, and apart.
            let result = unsafe { guest_memcpy(at, source[from..].as_ptr(), length) };
            assert!(target == expected, "{length} {to} {from}");
            assert_eq!(result, at);
        }
    }
}

#[test]
fn memmove_moves_over_itself() {
    for length in lengths() {
        let distances = (0..=40).chain([length / 2, length.saturating_sub(1), length, length + 1]);
        for distance in distances {
            for (to, from) in [(distance, 0), (0, distance)] {
                let mut bytes = pattern(AROUND + length + distance + AROUND);
                let mut expected = bytes.clone();
                expected.copy_within(AROUND + from..AROUND + from + length, AROUND + to);
                let base = bytes[AROUND..].as_mut_ptr();
                // SAFETY: both ranges lie inside of the vector.
                let result = unsafe {
                    guest_memmove(
                        base.wrapping_add(to),
                        base.wrapping_add(from).cast_const(),
                        length,
                    )
                };
                assert!(bytes == expected, "{length} {to} {from}");
                assert_eq!(result, bytes[AROUND + to..].as_mut_ptr());
            }
        }
    }
}

#[test]
fn memset_fills_and_touches_nothing_else() {
    for length in lengths() {
        for (to, byte) in ALIGNMENTS
            .iter()
            .flat_map(|to| [0, 0x5a, 0xff, 0x1_23].map(|byte| (*to, byte)))
        {
            let mut target = vec![0xaa; AROUND + to + length + AROUND];
            let mut expected = target.clone();
            // ISO C 7.24.6.1: the value is converted to unsigned char.
            expected[AROUND + to..][..length].fill((byte & 0xff) as u8);
            let at = target[AROUND + to..].as_mut_ptr();
            // SAFETY: the range lies inside of the vector.
            let result = unsafe { guest_memset(at, byte, length) };
            assert!(target == expected, "{length} {to} {byte}");
            assert_eq!(result, at);
        }
    }
}

#[test]
fn memcmp_orders_as_unsigned_bytes() {
    for length in 0..=40 {
        for start in ALIGNMENTS {
            let one = pattern(start + length + 1);
            let compare = |other: &[u8]| {
                let (one, other) = (&one[start..], &other[start..]);
                // SAFETY: both slices have `length` bytes and more.
                let order = unsafe { guest_memcmp(one.as_ptr(), other.as_ptr(), length) };
                // SAFETY: as above.
                let differs = unsafe { guest_bcmp(one.as_ptr(), other.as_ptr(), length) };
                assert_eq!(differs != 0, order != 0);
                assert_eq!(
                    order.cmp(&0),
                    one[..length].cmp(&other[..length]),
                    "{length} {start}"
                );
                order.cmp(&0)
            };
            let mut other = one.clone();
            // What lies behind does not count.
            other[start + length] ^= 0xff;
            assert_eq!(compare(&other), Ordering::Equal);
            for at in start..start + length {
                for bit in [1, 0x80] {
                    let mut other = one.clone();
                    other[at] ^= bit;
                    assert_ne!(compare(&other), Ordering::Equal);
                    // The first byte that differs decides, whatever follows.
                    other[start + length - 1] ^= 0x7f;
                    compare(&other);
                }
            }
        }
    }
}

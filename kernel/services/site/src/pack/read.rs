//! The checked reader through which all of the pack is read, and the hash.

use super::PROBES;
use crate::Broken;

/// `length` bytes at an offset.
pub(super) fn part(bytes: &[u8], at: usize, length: usize) -> Result<&[u8], Broken> {
    let tail = bytes.get(at..).ok_or(Broken)?;
    tail.get(..length).ok_or(Broken)
}

/// `N` bytes at an offset, as an array.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Broken> {
    let tail = bytes.get(at..).ok_or(Broken)?;
    tail.first_chunk().copied().ok_or(Broken)
}

/// The byte at an offset.
pub(super) fn u8_at(bytes: &[u8], at: usize) -> Result<u8, Broken> {
    bytes.get(at).copied().ok_or(Broken)
}

/// The number of 16 bits at an offset.
pub(super) fn u16_at(bytes: &[u8], at: usize) -> Result<u16, Broken> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// The number of 32 bits at an offset.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, Broken> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// The number of 64 bits at an offset.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> Result<u64, Broken> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// The `index`th entry of a run of entries of `N` bytes each that begins with the entry `first`.
pub(super) fn entry<const N: usize>(
    bytes: &[u8],
    first: u32,
    index: usize,
) -> Result<[u8; N], Broken> {
    let at = usize::try_from(first).ok().and_then(|first| {
        let index = first.checked_add(index)?;
        index.checked_mul(N)
    });
    array(bytes, at.ok_or(Broken)?)
}

/// Binary search in `count` sorted entries: the number of entries before the place that is looked for. `goes_on(i)`
/// says whether entry `i` is before that place.
pub(super) fn search(
    count: usize,
    mut goes_on: impl FnMut(usize) -> Result<bool, Broken>,
) -> Result<usize, Broken> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low + (high - low) / 2;
        if goes_on(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(low)
}

/// Multiplies to 128 bits and folds them: a step of the hash.
fn fold(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ word) * 0x9e37_79b9_7f4a_7c15;
    ((product ^ (product >> 64)) & 0xffff_ffff_ffff_ffff) as u64
}

/// The hash of bytes. They are taken as 64-bit words, little endian, and a last word: the number of all bytes, followed
/// by the remaining bytes, big endian.
#[must_use]
pub fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let (words, left) = bytes.as_chunks::<8>();
    let mut hash = seed;
    for word in words {
        hash = fold(hash, u64::from_le_bytes(*word));
    }
    let mut last = bytes.len() as u64;
    for byte in left {
        last = (last << 8) | u64::from(*byte);
    }
    fold(fold(hash, last), seed)
}

/// Whether two names are equal but for the case of ASCII letters; quick when they are equal.
pub(super) fn same_name(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let (words, left) = one.as_chunks::<8>();
    let (other_words, other_left) = other.as_chunks::<8>();
    let mut odd = 0;
    for (word, other) in words.iter().zip(other_words) {
        odd |= u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other);
    }
    for (byte, other) in left.iter().zip(other_left) {
        odd |= u64::from(byte ^ other);
    }
    // Upper and lower case letters differ in one bit.
    odd == 0 || odd & !0x2020_2020_2020_2020 == 0 && one.eq_ignore_ascii_case(other)
}

/// The hash fragment that a slot stores: the lower 32 bits.
#[must_use]
pub fn tag(hash: u64) -> u32 {
    (hash & 0xffff_ffff) as u32
}

/// The home slot of a hash in a table with `homes` homes.
#[must_use]
pub fn home(hash: u64, homes: u32) -> u32 {
    (((hash >> 32) * u64::from(homes)) >> 32 & 0xffff_ffff) as u32
}

/// A hash table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    slots: &'a [u8],
    homes: u32,
}

impl<'a> Table<'a> {
    pub(super) fn new(slots: &'a [u8]) -> Self {
        let homes = (slots.len() / 8).saturating_sub(PROBES - 1);
        let homes = u32::try_from(homes).unwrap_or(0);
        Self { slots, homes }
    }

    pub(super) fn slots(&self) -> &'a [u8] {
        self.slots
    }

    /// The first result of `is_it` for the records with this hash.
    pub(super) fn find<T>(
        &self,
        hash: u64,
        mut is_it: impl FnMut(u32) -> Result<Option<T>, Broken>,
    ) -> Result<Option<T>, Broken> {
        let tag = tag(hash);
        let at = home(hash, self.homes) as usize * 8;
        let near = self.slots.get(at..).unwrap_or_default();
        let near = near.get(..PROBES * 8).unwrap_or_default();
        let (near, _) = near.as_chunks::<8>();
        for [a, b, c, d, record @ ..] in near {
            let record = u32::from_le_bytes(*record);
            if record == 0 {
                break;
            }
            if u32::from_le_bytes([*a, *b, *c, *d]) == tag
                && let Some(found) = is_it(record)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

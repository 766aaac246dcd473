//! A cache of the sections after the answer section.
//!
//! Below one apex the authority and additional sections of most answers are the same, except for the targets of their
//! compression pointers: the apex in the question, or a name in these sections themselves. So they are composed once,
//! then copied with their pointers moved. A zone for which [`Zones::unchanging`] returns nothing is composed each time.
//!
//! [`Zones::unchanging`]: mayfly_site::Zones::unchanging

use core::ops::Range;

use heapless::Vec;

use super::compose::Writer;
use super::pointer::target_of;
use super::wire::{HEADER_LEN, is_below, label_before, name_length, rtype};

/// The length of the longest cached tail, in bytes.
const OCTETS_MAX: usize = 512;
/// The most pointers in a cached tail.
const POINTERS_MAX: usize = 32;
/// The most names in a cached tail.
const NAMES_MAX: usize = 16;
/// The number of cached tails.
const SLOTS: usize = 8;

/// The key of a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Id {
    /// The zone.
    pub(super) zone: u32,
    /// The type of the only RRset in the authority section: NS, or SOA in a negative answer.
    pub(super) rtype: u16,
    /// Whether the client wants signatures.
    pub(super) dnssec: bool,
    /// Whether AAAA records come before A records.
    pub(super) ipv6: bool,
}

impl Id {
    fn slot(self) -> usize {
        // Nodes are at multiples of 8.
        let zone = (self.zone >> 3) as usize;
        let kind = usize::from(self.rtype == rtype::NS) << 2
            | usize::from(self.dnssec) << 1
            | usize::from(self.ipv6);
        (zone ^ kind) % SLOTS
    }
}

/// The part of the message that a pointer points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    /// The apex in the question.
    Apex,
    /// The tail.
    Tail,
}

#[derive(Clone, Copy, Debug)]
struct Pointer {
    /// The pointer's offset in the tail.
    at: u16,
    base: Base,
    /// The target's offset from the base.
    to: u16,
}

#[derive(Clone, Debug)]
struct Tail {
    id: Id,
    bytes: Vec<u8, OCTETS_MAX>,
    pointers: Vec<Pointer, POINTERS_MAX>,
    /// The labels right below the apex in the names of the tail. A question with one of them shares more with that name
    /// than the apex, so its tail is composed.
    labels: Vec<Label, NAMES_MAX>,
    /// The numbers of records in the authority and the additional section.
    counts: [u16; 2],
}

/// A label's length, its first byte and its last: equal for equal labels, and almost always different for others.
type Label = [u8; 3];

fn label(bytes: &[u8]) -> Option<Label> {
    let (length, rest) = bytes.split_first()?;
    let rest = rest.get(..usize::from(*length))?;
    let (first, last) = (rest.first()?, rest.last()?);
    Some([
        *length,
        first.to_ascii_lowercase(),
        last.to_ascii_lowercase(),
    ])
}

/// The label of `name` right below `apex`, if it is below.
fn label_below(name: &[u8], apex: &[u8]) -> Option<Label> {
    let end = name.len().checked_sub(apex.len())?;
    if end == 0 || !is_below(name, apex) {
        return None;
    }
    label(name.get(label_before(name, end)?..)?)
}

/// The cached tails.
#[derive(Clone, Debug)]
pub(super) struct Tails {
    slots: [Option<Tail>; SLOTS],
    /// The number of tails that were appended.
    #[cfg(test)]
    pub(super) hits: usize,
}

impl Tails {
    pub(super) const fn new() -> Self {
        Self {
            slots: [const { None }; SLOTS],
            #[cfg(test)]
            hits: 0,
        }
    }

    /// Appends the tail, if it is cached and fits. `apex` is the offset of the apex in the question, and `below` the
    /// bytes of the question from the label right below it on.
    pub(super) fn append(
        &mut self,
        id: Id,
        apex: usize,
        below: &[u8],
        message: &mut Writer<'_>,
    ) -> Option<[u16; 2]> {
        let tail = self.slots.get(id.slot())?.as_ref()?;
        let label = label(below)?;
        if tail.id != id || tail.labels.contains(&label) {
            return None;
        }
        let start = message.len();
        message.bytes(&tail.bytes).ok()?;
        for pointer in &tail.pointers {
            let base = match pointer.base {
                Base::Apex => apex,
                Base::Tail => start,
            };
            let at = start + usize::from(pointer.at);
            if !message.point(at, base + usize::from(pointer.to)) {
                message.shorten(start);
                return None;
            }
        }
        #[cfg(test)]
        {
            self.hits += 1;
        }
        Some(tail.counts)
    }

    /// Caches the bytes from `start` on, if they can be split into names and the rest. `apex` is the offset of the apex
    /// in the question, and its name; `names` are the names in RDATA that may have been compressed.
    pub(super) fn keep<'n>(
        &mut self,
        id: Id,
        apex: (usize, &[u8]),
        names: impl Iterator<Item = &'n [u8]>,
        start: usize,
        counts: [u16; 2],
        message: &Writer<'_>,
    ) {
        let made = (|| {
            let written = message.written();
            let bytes = written.get(start..)?;
            let mut labels = Vec::new();
            for other in names {
                if let Some(label) = label_below(other, apex.1) {
                    labels.push(label).ok()?;
                }
            }
            Some(Tail {
                id,
                bytes: Vec::from_slice(bytes).ok()?,
                pointers: pointers(bytes, start, apex.0..apex.0 + apex.1.len(), counts)?,
                labels,
                counts,
            })
        })();
        if let (Some(slot), Some(tail)) = (self.slots.get_mut(id.slot()), made) {
            *slot = Some(tail);
        }
    }
}

/// The offsets of the pointers in the records that were written from `start` on.
fn pointers(
    bytes: &[u8],
    start: usize,
    apex: Range<usize>,
    counts: [u16; 2],
) -> Option<Vec<Pointer, POINTERS_MAX>> {
    let mut found = Vec::new();
    let mut name = |mut at: usize| -> Option<usize> {
        loop {
            match bytes.get(at..)? {
                [0, ..] => return Some(at + 1),
                [length @ 1..64, ..] => at += 1 + usize::from(*length),
                [high, low, ..] if *high >= 0xc0 => {
                    let target = target_of(*high, *low);
                    let (base, to) = if target >= start {
                        (Base::Tail, target - start)
                    } else if apex.contains(&target) {
                        (Base::Apex, target - apex.start)
                    } else {
                        return None;
                    };
                    let (at16, to) = (u16::try_from(at).ok()?, u16::try_from(to).ok()?);
                    found.push(Pointer { at: at16, base, to }).ok()?;
                    return Some(at + 2);
                }
                _ => return None,
            }
        }
    };
    let mut at = 0;
    for _ in 0..counts.iter().map(|count| u32::from(*count)).sum::<u32>() {
        at = name(at)?;
        let [t0, t1, .., l0, l1] = *bytes.get(at..)?.first_chunk::<10>()?;
        at += 10;
        let end = at + usize::from(u16::from_be_bytes([l0, l1]));
        match u16::from_be_bytes([t0, t1]) {
            rtype::NS => at = name(at)?,
            rtype::SOA => {
                at = name(at)?;
                at = name(at)? + 20;
            }
            // Their names are not compressed.
            rtype::A | rtype::AAAA | rtype::RRSIG => at = end,
            _ => return None,
        }
        if at != end {
            return None;
        }
    }
    (at == bytes.len() && start >= HEADER_LEN).then_some(found)
}

/// The names in RDATA of a set that a tail begins with.
pub(super) fn names(rtype: u16, rdata: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = match rtype {
        rtype::NS => 1,
        rtype::SOA => 2,
        _ => 0,
    };
    let mut rest = rdata;
    core::iter::repeat_with(move || {
        let (name, tail) = rest.split_at_checked(name_length(rest)?)?;
        rest = tail;
        Some(name)
    })
    .take(count)
    .flatten()
}

//! The bytes of the frames that a guest sends: copied into the arena, but for the tails of long ones.

use std::ops::Range;

use mayfly_drivers::abi::NetTxFlags;

use super::{Parsed, Part, Room, Transmit};
use crate::arena::{Arena, Frame};
use crate::offload::{Checksum, Offload, Transport};
use crate::xen::{Pages, Piece, Xen};

/// The bytes of a long frame that are copied, if the others may be left in the guest's pages: enough for all headers.
const HEAD: u16 = 256;

/// A frame that a guest has sent.
pub(crate) struct Taken {
    /// Its place in the arena. If it has a tail, the bytes of that are not there yet.
    pub(crate) frame: Frame,
    /// The bytes that are still in the guest's pages only. They may change there at any time, so nothing is decided by
    /// them.
    pub(crate) tail: Option<Tail>,
}

/// The end of a frame, valid until frames are taken again.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// The number of bytes of the frame that are in the arena.
    pub(crate) head: usize,
    /// The others, as a range of [`Transmit::parts`].
    parts: Range<usize>,
}

impl Tail {
    /// The number of its pieces.
    pub(crate) fn count(&self) -> usize {
        self.parts.len()
    }
}

/// A frame that is being copied, and may still be refused.
pub(super) struct Copied {
    pub(super) taken: Taken,
    parsed: Parsed,
    pub(super) is_good: bool,
}

impl<M: Pages> Transmit<M> {
    /// Copies the parts into the arena, now or with the next [`Window::flush`]; of a long frame only the headers, if the
    /// tail may be left in pages that are mapped.
    pub(super) fn copy(
        &mut self,
        xen: &impl Xen<Mapping = M>,
        room: &mut Room<'_>,
        (parsed, number): (Parsed, usize),
        may_leave: bool,
    ) -> Option<Copied> {
        let parts = self.parts.get(parsed.parts.clone()).unwrap_or_default();
        let length = parts.iter().map(|part| usize::from(part.size)).sum();
        let range = room.arena.take(length)?;
        let tail = match may_leave && parsed.gso.is_some() {
            true => self.headers(room.arena, &parsed, &range),
            false => None,
        };
        let parts = self.parts.get(parsed.parts.clone()).unwrap_or_default();
        let mut at = range.start;
        for part in parts.iter().filter(|part| tail.is_none() && part.size != 0) {
            let segment = part.segment(at);
            at += usize::from(part.size);
            let bytes = room.arena.bytes();
            if self.window.copy(xen, room.domain, segment, bytes).is_some() {
                self.copies.push(number);
            }
        }
        let offload = Offload::NONE;
        Some(Copied {
            taken: Taken {
                frame: Frame { range, offload },
                tail,
            },
            parsed,
            is_good: true,
        })
    }

    /// Copies only the headers of a frame into its place in the arena, and returns the tail; `None` if a page is not
    /// mapped, or if the headers are not all among the first bytes.
    fn headers(
        &mut self,
        arena: &mut Arena,
        parsed: &Parsed,
        range: &Range<usize>,
    ) -> Option<Tail> {
        let parts = self.parts.get_mut(parsed.parts.clone())?;
        let is_mapped = |part: &Part| self.window.page(part.reference).is_some();
        if !parts.iter().all(is_mapped) {
            return None;
        }
        let first = parts.first_mut()?;
        let size = first.size.min(HEAD);
        let head = usize::from(size);
        let place = range.start..range.start + head;
        let page = self.window.page(first.reference)?;
        page.copy_out(first.offset.into(), arena.frame_mut(&place));
        let bytes = arena.frame(&place);
        let payload = Transport::of_head(bytes, range.len())?.payload(bytes)?;
        if payload > head {
            return None;
        }
        first.offset += size;
        first.size -= size;
        let parts = parsed.parts.clone();
        Some(Tail { head, parts })
    }

    /// The tail of a frame that was taken last.
    pub(in crate::port) fn left(&self, tail: &Tail) -> impl Iterator<Item = Piece<'_>> {
        let parts = self.parts.get(tail.parts.clone()).unwrap_or_default();
        parts.iter().filter_map(|part| {
            let page = self.window.page(part.reference)?;
            let start = usize::from(part.offset);
            Piece::of_page(page, start..start + usize::from(part.size))
        })
    }

    /// Determines the offload that a frame still needs, or drops it.
    pub(super) fn judge(&mut self, mut one: Copied, room: &mut Room<'_>, frames: &mut Vec<Taken>) {
        if !one.is_good {
            room.counters.bad_grant += 1;
            return self.refuse(&one.parsed);
        }
        let Taken { frame, tail } = &mut one.taken;
        let length = frame.range.len();
        let there = tail.as_ref().map_or(length, |tail| tail.head);
        let bytes = room
            .arena
            .frame_mut(&(frame.range.start..frame.range.start + there));
        match offload(bytes, length, &one.parsed) {
            Some(offload) => frame.offload = offload,
            None => {
                room.counters.bad_offload += 1;
                return self.refuse(&one.parsed);
            }
        }
        room.counters.from_guest.frames += 1;
        room.counters.from_guest.bytes += length as u64;
        frames.push(one.taken);
    }
}

/// The offload that a frame of `length` bytes still needs, by its requests; `None` if it is invalid. Only its headers
/// need to be there.
fn offload(frame: &mut [u8], length: usize, parsed: &Parsed) -> Option<Offload> {
    let is_blank = parsed.flags.contains(NetTxFlags::CSUM_BLANK);
    if !is_blank && parsed.gso.is_none() {
        let is_valid = parsed.flags.contains(NetTxFlags::DATA_VALIDATED);
        let checksum = if is_valid {
            Checksum::Valid
        } else {
            Checksum::Unknown
        };
        return Some(Offload {
            checksum,
            cut: None,
        });
    }
    let transport = Transport::of_head(frame, length)?;
    let blank = Offload {
        checksum: Checksum::Blank,
        cut: None,
    };
    let Some((family, size)) = parsed.gso else {
        return Some(blank);
    };
    let payload = transport
        .payload(frame)
        .filter(|_| transport.family == family)?;
    if !is_blank {
        // Old front ends send it so; netback makes the checksum blank.
        transport.blank(frame);
    }
    // A frame that is one segment already is not cut.
    let is_long = transport.end - payload > usize::from(size);
    Some(Offload {
        cut: is_long.then_some((family, size)),
        ..blank
    })
}

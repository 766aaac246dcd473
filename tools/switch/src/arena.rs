//! The buffer that frames are moved through. It is reused from its start in each turn.

use std::ops::Range;

use crate::offload::Offload;
use crate::vnet;

/// The bytes before each frame: the header for the bridge is written there, and frames begin at a multiple of 16.
const HEADROOM: usize = 16;
/// The longest frame, in bytes: the length in a request has 16 bits.
pub const FRAME_MAX: usize = u16::MAX as usize;
/// The size of the buffer, in bytes.
const SIZE: usize = 8 * (FRAME_MAX + HEADROOM + 1);

/// The bytes that one of the [`Arena::rooms`] takes.
fn room_size(length: usize) -> usize {
    HEADROOM + length.next_multiple_of(HEADROOM)
}

/// A frame in the arena, with the offload that is still to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The frame's bytes in the arena.
    pub range: Range<usize>,
    /// The offload that is still to be done.
    pub offload: Offload,
}

/// The buffer.
#[derive(Debug)]
pub struct Arena {
    bytes: Vec<u8>,
    used: usize,
}

impl Default for Arena {
    fn default() -> Self {
        Self {
            bytes: vec![0; SIZE],
            used: 0,
        }
    }
}

impl Arena {
    /// Forgets all frames.
    pub fn clear(&mut self) {
        self.used = 0;
    }

    /// Whether there is room for one more frame of any length and one that is made from it.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.used + 2 * (HEADROOM + FRAME_MAX + 1) <= self.bytes.len()
    }

    /// The position of the next frame, for [`Arena::forget_from`].
    pub(crate) fn mark(&self) -> usize {
        self.used
    }

    /// Forgets the frames that were taken since the mark.
    pub(crate) fn forget_from(&mut self, mark: usize) {
        self.used = self.used.min(mark);
    }

    /// Room for a frame of `length` bytes, whose contents are undefined; `None` if there is none.
    pub fn take(&mut self, length: usize) -> Option<Range<usize>> {
        let start = self.used + HEADROOM;
        let end = start.checked_add(length)?;
        if end > self.bytes.len() {
            return None;
        }
        self.used = end.next_multiple_of(HEADROOM);
        Some(start..end)
    }

    /// Appends a copy of a frame.
    pub fn push(&mut self, frame: &[u8]) -> Option<Range<usize>> {
        let range = self.take(frame.len())?;
        self.bytes.get_mut(range.clone())?.copy_from_slice(frame);
        Some(range)
    }

    /// Appends a copy of a frame that is here already.
    pub fn duplicate(&mut self, range: &Range<usize>) -> Option<Range<usize>> {
        let to = self.take(range.len())?;
        // The new range is inside the buffer, and after all earlier ones.
        self.bytes.copy_within(range.clone(), to.start);
        Some(to)
    }

    /// Room for at most `count` frames from a bridge, of at most `length` bytes each: for each of them its header, and
    /// right after it the frame. One more frame of any length has room after them.
    pub(crate) fn rooms(&mut self, length: usize, count: usize) -> impl Iterator<Item = &mut [u8]> {
        let end = self.bytes.len().saturating_sub(HEADROOM + FRAME_MAX + 1);
        let free = self.bytes.get_mut(self.used..end).unwrap_or_default();
        let rooms = free.chunks_exact_mut(room_size(length)).take(count);
        rooms.filter_map(move |room| room.get_mut(HEADROOM - vnet::SIZE..HEADROOM + length))
    }

    /// Takes the first `count` of the [`Arena::rooms`] for frames of this length; returns where the first frame begins,
    /// and how far each begins after the one before it.
    pub(crate) fn take_rooms(&mut self, length: usize, count: usize) -> (usize, usize) {
        let first = self.used + HEADROOM;
        self.used += room_size(length) * count;
        (first, room_size(length))
    }

    /// The header and the frame of `length` bytes, both together, that were read to one of the [`Arena::rooms`]; `None`
    /// if they are shorter than a header.
    pub(crate) fn was_read(
        &self,
        start: usize,
        length: usize,
    ) -> Option<([u8; vnet::SIZE], Range<usize>)> {
        let end = start + length.checked_sub(vnet::SIZE)?;
        let header = *self.bytes.get(start - vnet::SIZE..end)?.first_chunk()?;
        Some((header, start..end))
    }

    /// A frame.
    #[must_use]
    pub fn frame(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// A frame, mutable.
    pub fn frame_mut(&mut self, range: &Range<usize>) -> &mut [u8] {
        self.bytes.get_mut(range.clone()).unwrap_or_default()
    }

    /// The whole buffer: grant copies write to it and read from it.
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Writes the header for the bridge before a frame, and returns where both are; or the header and the `head` of a
    /// frame, if only that many bytes of it are here. The frame's checksum may be blank afterwards.
    pub(crate) fn with_header(&mut self, frame: &mut Frame, head: Option<usize>) -> Range<usize> {
        let length = frame.range.len();
        let there = frame.range.start..frame.range.start + head.unwrap_or(length);
        let header = vnet::encode(self.frame_mut(&there), length, &mut frame.offload);
        let start = there.start - vnet::SIZE;
        if let Some(place) = self.bytes.get_mut(start..there.start) {
            place.copy_from_slice(&header);
        }
        start..there.end
    }
}

//! Copies bytes between frames and the guest's pages.
//!
//! By a grant copy, which is one call for a batch and holds nothing. A front end that grants its buffers once and for as long as the link lives
//! says so (`is_persistent`), and then pages that are used again and again are mapped, because a copy costs 3,500 instructions of the kernel
//! and Xen, and to map one of many 4,000, once. A front end that ends its grants frame by frame (as Linux' does) must never find one mapped, so
//! for these it stays with copies.

use crate::xen::{Access, Direction, Pages, Segment, Xen};

/// Grant references that are mapped together.
const CHUNK: u32 = 16;
/// A grant reference that is beyond this is never mapped: buffers of both rings, and those before.
const LIMIT: u32 = 1024;
/// How often pages of a chunk are copied before it is mapped. When it can't be, because the guest has not granted all of it yet, it is tried
/// again after four times as many.
const PATIENCE: u16 = 3;
const PATIENCE_MAX: u16 = 4096;

enum Chunk<M> {
    /// So many copies were made, of so many before it is tried to be mapped.
    Copied(u16, u16),
    Mapped(M),
    /// It can't be mapped.
    Never,
}

/// The pages behind the requests of one ring.
pub(super) struct Window<M> {
    access: Access,
    is_persistent: bool,
    chunks: Vec<Chunk<M>>,
    /// Copies that are to be made by Xen.
    segments: Vec<Segment>,
}

impl<M: Pages> Window<M> {
    pub(super) fn new(access: Access, is_persistent: bool) -> Self {
        Self {
            access,
            is_persistent,
            chunks: Vec::new(),
            segments: Vec::new(),
        }
    }

    /// Copies at once if the page is mapped, and else with the others ([`Window::flush`]). Gives the number of the copy among those.
    pub(super) fn copy(
        &mut self,
        xen: &impl Xen<Mapping = M>,
        domain: u16,
        segment: Segment,
        buffer: &mut [u8],
    ) -> Option<usize> {
        if self.is_persistent && segment.reference < LIMIT {
            let index = (segment.reference / CHUNK) as usize;
            if index >= self.chunks.len() {
                self.chunks
                    .resize_with(index + 1, || Chunk::Copied(0, PATIENCE));
            }
            if let Some(chunk) = self.chunks.get_mut(index)
                && chunk.copy(xen, domain, self.access, &segment, buffer)
            {
                return None;
            }
        }
        self.segments.push(segment);
        Some(self.segments.len() - 1)
    }

    /// Makes the copies that wait, and says of each whether it was done.
    pub(super) fn flush(
        &mut self,
        xen: &impl Xen<Mapping = M>,
        domain: u16,
        buffer: &mut [u8],
    ) -> impl Iterator<Item = bool> {
        if !self.segments.is_empty() {
            let direction = match self.access {
                Access::Read => Direction::FromGuest,
                Access::Write => Direction::ToGuest,
            };
            // What the call did not reach is not done.
            let _ = xen.copy(domain, direction, &mut self.segments, buffer);
        }
        self.segments.drain(..).map(|segment| segment.is_done)
    }

    /// Pages that are mapped.
    pub(super) fn mapped(&self) -> usize {
        let is_mapped = |chunk: &&Chunk<M>| matches!(chunk, Chunk::Mapped(_));
        self.chunks.iter().filter(is_mapped).count() * CHUNK as usize
    }
}

impl<M: Pages> Chunk<M> {
    /// Copies if the chunk is mapped, or can be by now; says whether it has.
    fn copy(
        &mut self,
        xen: &impl Xen<Mapping = M>,
        domain: u16,
        access: Access,
        segment: &Segment,
        buffer: &mut [u8],
    ) -> bool {
        match self {
            Self::Never => return false,
            Self::Mapped(_) => {}
            Self::Copied(times, patience) if *times < *patience => {
                *times += 1;
                return false;
            }
            Self::Copied(_, patience) => {
                let first = segment.reference / CHUNK * CHUNK;
                let references: Vec<u32> = (first..first + CHUNK).collect();
                *self = match xen.map(domain, &references, access) {
                    Ok(mapping) => Self::Mapped(mapping),
                    Err(_) if *patience < PATIENCE_MAX => Self::Copied(0, *patience * 4),
                    Err(_) => Self::Never,
                };
            }
        }
        let Self::Mapped(mapping) = self else {
            return false;
        };
        let (offset, length) = (usize::from(segment.offset), usize::from(segment.length));
        let place = buffer.get_mut(segment.at..segment.at + length);
        let page = mapping.page((segment.reference % CHUNK) as usize);
        let (Some(place), Some(page)) = (place, page) else {
            return false;
        };
        match access {
            Access::Read => page.copy_out(offset, place),
            Access::Write => page.copy_in(offset, place),
        }
        true
    }
}

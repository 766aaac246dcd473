//! Copies bytes between frames and the guest's pages.
//!
//! By default by grant copies, which are one call for a batch and hold no grant. A front end that grants its buffers
//! once and for the lifetime of the link declares that (`is_persistent`). Then pages that are used again and again are
//! mapped, because a copy costs 3,500 instructions of the kernel and Xen, and mapping one page of many costs 4,000,
//! once. A front end that ends its grants frame by frame, as Linux' does, must never find one mapped, so its pages are
//! always copied.

use crate::xen::{Access, Direction, Pages, Segment, Xen};

/// The number of grant references that are mapped together.
const CHUNK: u32 = 16;
/// Grant references from this one on are never mapped. Those below are the buffers of both rings, and the reserved
/// ones.
const LIMIT: u32 = 1024;
/// The number of copies of a chunk's pages before it is mapped. If it cannot be mapped, because the guest has not
/// granted all of it yet, it is tried again after four times as many.
const PATIENCE: u16 = 3;
const PATIENCE_MAX: u16 = 4096;

enum Chunk<M> {
    /// The number of copies so far, and the number after which mapping is tried.
    Copied(u16, u16),
    Mapped(M),
    /// It cannot be mapped.
    Never,
}

/// The pages of the requests of one ring.
pub(super) struct Window<M> {
    access: Access,
    is_persistent: bool,
    chunks: Vec<Chunk<M>>,
    /// The copies that Xen has to make.
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

    /// Copies at once if the page is mapped, otherwise with the next [`Window::flush`]. Returns the number of the copy
    /// among those.
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

    /// Makes the waiting copies, and returns for each whether it was done.
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
            // Copies that the call did not reach are not done.
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
    /// Copies if the chunk is mapped, or can be mapped by now; returns whether it has copied.
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

//! Copies bytes between frames and the guest's pages.
//!
//! By default by grant copies, which are one call for a batch and hold no grant. A front end that grants its buffers
//! once and for the lifetime of the link declares that (`is_persistent`). Then pages that are used again and again are
//! mapped, because a copy costs 3,500 instructions of the kernel and Xen, and mapping one page of many costs 4,000,
//! once. A front end that ends its grants frame by frame, as Linux' does, must never find one mapped, so its pages are
//! always copied.

use mayfly_drivers::SharedPage;

use crate::xen::{Access, Direction, Pages, Segment, Xen};

/// The number of grant references that are mapped together.
const CHUNK: u32 = 16;
/// Grant references from this one on are never mapped. Those below are the buffers of both rings, and the reserved
/// ones.
const LIMIT: u32 = 1024;
/// The number of copies of a chunk's pages before it is mapped. If it cannot be mapped, because the guest has not
/// granted all of it yet, it is tried again after four times as many, and in the end page by page: mapping a page by
/// itself costs four times as much.
const PATIENCE: u16 = 3;
const PATIENCE_MAX: u16 = 192;

enum Chunk<M> {
    /// The number of copies so far, and the number after which mapping is tried.
    Copied(u16, u16),
    Mapped(M),
    /// Not all of it is granted, so each page is mapped by itself.
    Pages(Vec<Page<M>>),
}

enum Page<M> {
    /// The number of copies so far.
    Copied(u16),
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
            if let Some(chunk) = self.chunks.get_mut(index) {
                chunk.used(xen, domain, self.access, segment.reference);
                let place = segment.at..segment.at + usize::from(segment.length);
                if let (Some(page), Some(place)) =
                    (chunk.page(segment.reference), buffer.get_mut(place))
                {
                    match self.access {
                        Access::Read => page.copy_out(segment.offset.into(), place),
                        Access::Write => page.copy_in(segment.offset.into(), place),
                    }
                    return None;
                }
            }
        }
        self.segments.push(segment);
        Some(self.segments.len() - 1)
    }

    /// A page, if it is mapped.
    pub(super) fn page(&self, reference: u32) -> Option<&SharedPage> {
        let chunk = self.chunks.get((reference / CHUNK) as usize)?;
        chunk.page(reference)
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
        self.chunks.iter().map(Chunk::mapped).sum()
    }
}

impl<M: Pages> Chunk<M> {
    /// A page, if it is mapped.
    fn page(&self, reference: u32) -> Option<&SharedPage> {
        let index = (reference % CHUNK) as usize;
        match self {
            Self::Copied(..) => None,
            Self::Mapped(mapping) => mapping.page(index),
            Self::Pages(pages) => match pages.get(index)? {
                Page::Mapped(mapping) => mapping.page(0),
                Page::Copied(_) | Page::Never => None,
            },
        }
    }

    /// Notes that a page is about to be copied, and maps it if it is time for that.
    fn used(&mut self, xen: &impl Xen<Mapping = M>, domain: u16, access: Access, reference: u32) {
        let first = reference / CHUNK * CHUNK;
        match self {
            Self::Mapped(_) => {}
            Self::Copied(times, patience) if *times < *patience => *times += 1,
            Self::Copied(_, patience) => {
                let references: Vec<u32> = (first..first + CHUNK).collect();
                *self = match xen.map(domain, &references, access) {
                    Ok(mapping) => Self::Mapped(mapping),
                    Err(_) if *patience < PATIENCE_MAX => Self::Copied(0, *patience * 4),
                    Err(_) => Self::Pages((0..CHUNK).map(|_| Page::Copied(0)).collect()),
                };
            }
            Self::Pages(pages) => {
                let Some(page) = pages.get_mut((reference - first) as usize) else {
                    return;
                };
                match page {
                    Page::Mapped(_) | Page::Never => {}
                    Page::Copied(times) if *times < PATIENCE => *times += 1,
                    Page::Copied(_) => {
                        let mapping = xen.map(domain, &[reference], access);
                        *page = mapping.map_or(Page::Never, Page::Mapped);
                    }
                }
            }
        }
    }

    fn mapped(&self) -> usize {
        match self {
            Self::Copied(..) => 0,
            Self::Mapped(_) => CHUNK as usize,
            Self::Pages(pages) => {
                let is_mapped = |page: &&Page<M>| matches!(page, Page::Mapped(_));
                pages.iter().filter(is_mapped).count()
            }
        }
    }
}

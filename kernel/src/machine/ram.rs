//! Guest RAM: pages for rings from the bottom, bytes for sockets from the top; and
//! places above it for Xen's own frames.
//!
//! Ownership: [`Ram::take`] is called once, with the RAM that neither the image
//! nor the domain builder's data occupies (`mayfly_boot::memory`). From then on
//! this file alone decides who gets which part, and gives each part once.

use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::ptr::NonNull;

use alloc::vec::Vec;
use mayfly::report::Memory;
use mayfly::stack::Sizing;
use mayfly_drivers::abi::PAGE_SIZE;
use mayfly_drivers::{SharedPage, TransmitPages};

use super::heap;

/// The RAM that is left after the heap: pages from the bottom, bytes from the top.
pub(crate) struct Ram {
    end: u64,
    gap: Cell<u64>,
    gap_end: u64,
    bottom: Cell<u64>,
    top: Cell<u64>,
    sizing: Sizing,
    /// What there was at first, and of that what a packed site occupies.
    size: u64,
    pack: u64,
    freed: RefCell<Vec<SharedPage>>,
}

impl Ram {
    /// Takes `free` and sets up the heap in it; `None` when it is too small for the heap. `pack` is the bytes of the
    /// packed site, which lies elsewhere.
    ///
    /// # Safety
    /// `free` is page-aligned RAM, identity mapped read-write, not page 0, in
    /// use by nothing; `gap` is pages that are neither RAM nor in use; and this
    /// is the only call.
    pub(super) unsafe fn take(free: Range<u64>, gap: Range<u64>, pack: u64) -> Option<Self> {
        let sizing = Sizing::for_memory(free.end - free.start);
        let heap_start = free.end.checked_sub(sizing.heap as u64)? & !15;
        if heap_start <= free.start {
            return None;
        }
        let block = core::ptr::with_exposed_provenance_mut(usize::try_from(heap_start).ok()?);
        // SAFETY: the top of `free`, which by contract is ours; it is given to
        // nothing else, for `top` starts below it. This is the only call, by our contract.
        unsafe { heap::init(block, sizing.heap) };
        Some(Self {
            end: free.end.max(gap.end),
            gap: Cell::new(gap.start),
            gap_end: gap.end,
            bottom: Cell::new(free.start),
            top: Cell::new(heap_start),
            sizing,
            size: free.end - free.start,
            pack,
            freed: RefCell::new(Vec::new()),
        })
    }

    /// How many buffers and connections the guest has room for.
    pub(crate) fn sizing(&self) -> Sizing {
        self.sizing
    }

    /// How much memory there is, and how much of it is in use.
    pub(crate) fn memory(&self) -> Memory {
        let (heap, heap_free) = heap::usage();
        Memory {
            ram: self.size,
            ram_free: self.available(),
            heap,
            heap_free,
            pack: self.pack,
        }
    }

    /// Bytes not given out yet.
    fn available(&self) -> u64 {
        self.top.get() - self.bottom.get()
    }

    /// Where it ends: nothing of ours lies above.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// A page, its content whatever it held.
    pub(crate) fn page(&self) -> Option<SharedPage> {
        if let Some(page) = self.freed.borrow_mut().pop() {
            return Some(page);
        }
        let address = self.bottom.get();
        if self.available() < PAGE_SIZE as u64 {
            return None;
        }
        self.bottom.set(address + PAGE_SIZE as u64);
        // SAFETY: RAM between `bottom` and `top`, given to nobody; moving
        // `bottom` above it keeps it so.
        Some(unsafe { shared_page(address) })
    }

    /// Consecutive pages for good, which other domains will only read.
    pub(crate) fn transmit_pages(&self, count: usize) -> Option<TransmitPages> {
        let start = self.bottom.get();
        let end = start.checked_add(count.checked_mul(PAGE_SIZE)? as u64)?;
        if end > self.top.get() {
            return None;
        }
        self.bottom.set(end);
        let base = core::ptr::with_exposed_provenance_mut(usize::try_from(start).ok()?);
        // SAFETY: RAM between `bottom` and `top`, given to nobody; moving `bottom` above it keeps
        // it so. RAM always holds some value. Only `grant_transmit` grants these pages, to be read.
        NonNull::new(base).map(|base| unsafe { TransmitPages::from_raw(base, count) })
    }

    /// A place for a frame that Xen is going to map there.
    pub(crate) fn place_for_xen(&self) -> Option<SharedPage> {
        let address = self.gap.get();
        if address >= self.gap_end {
            return self.page();
        }
        self.gap.set(address + PAGE_SIZE as u64);
        // SAFETY: below 4 GiB and not RAM, so no Rust object lies there; the
        // next call gives the next page.
        Some(unsafe { shared_page(address) })
    }

    /// Takes a page back for the next [`Ram::page`].
    pub(crate) fn give_back(&self, page: SharedPage) {
        self.freed.borrow_mut().push(page);
    }

    /// `len` bytes for good, their content whatever they held: nothing is
    /// spent on zeroing what a ring buffer overwrites.
    pub(crate) fn bytes(&self, len: usize) -> Option<&'static mut [u8]> {
        let start = self.top.get().checked_sub(len as u64)? & !15;
        if start < self.bottom.get() {
            return None;
        }
        self.top.set(start);
        let base = core::ptr::with_exposed_provenance_mut(usize::try_from(start).ok()?);
        // SAFETY: between `bottom` and `top`, so RAM that was given to nobody;
        // moving `top` below it keeps it so. RAM always holds some value.
        Some(unsafe { core::slice::from_raw_parts_mut(base, len) })
    }
}

/// The page at a physical address.
///
/// # Safety
/// The page-aligned, non-zero address lies below 4 GiB, so that it is identity
/// mapped, and no Rust object lies in the page; the caller hands it out once.
pub(super) unsafe fn shared_page(address: u64) -> SharedPage {
    const { assert!(size_of::<usize>() == size_of::<u64>()) };
    #[allow(
        clippy::cast_possible_truncation,
        reason = "asserted: both are 64 bits"
    )]
    let base = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    let base = NonNull::new(base).unwrap_or(NonNull::dangling());
    // SAFETY: by this function's contract.
    unsafe { SharedPage::from_raw(base) }
}

//! Guest RAM: pages for rings from the bottom, bytes for sockets from the top, and places above it for Xen's own
//! frames. [`Ranges`] has the free parts.
//!
//! Ownership: [`Ram::take`] is called once, with the RAM that neither the image
//! nor the domain builder's data occupies (`mayfly_boot::memory`). From then on
//! this file alone decides who gets which part, and gives each part once.

use core::cell::{Cell, RefCell};
use core::ops::Range;
use core::ptr::NonNull;

use mayfly::ranges::Ranges;
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
    free: RefCell<Ranges>,
    sizing: Sizing,
    /// The bytes that were free at first, and the bytes of the packed site.
    size: u64,
    pack: u64,
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
        // nothing else, for `Ranges` ends below it. This is the only call, by our contract.
        unsafe { heap::init(block, sizing.heap) };
        Some(Self {
            end: free.end.max(gap.end),
            gap: Cell::new(gap.start),
            gap_end: gap.end,
            free: RefCell::new(Ranges::new(free.start..heap_start)),
            sizing,
            size: free.end - free.start,
            pack,
        })
    }

    /// The numbers of buffers and connections that the guest has room for.
    pub(crate) fn sizing(&self) -> Sizing {
        self.sizing
    }

    /// The figures of memory, for the report.
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

    /// The number of free bytes.
    fn available(&self) -> u64 {
        self.free.borrow().free()
    }

    /// The end of RAM: no memory of the guest lies above it.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Takes a page. Its content is undefined.
    pub(crate) fn page(&self) -> Option<SharedPage> {
        let address = self.free.borrow_mut().take_pages(1)?;
        // SAFETY: RAM that was free, so given to nobody; `Ranges` gives it once, until it comes back.
        Some(unsafe { shared_page(address) })
    }

    /// Takes consecutive pages for good. Other domains will only read them.
    pub(crate) fn transmit_pages(&self, count: usize) -> Option<TransmitPages> {
        let start = self.free.borrow_mut().take_pages(count)?;
        let base = core::ptr::with_exposed_provenance_mut(usize::try_from(start).ok()?);
        // SAFETY: RAM that was free, so given to nobody, and taken for good. RAM always holds some
        // value. Only `grant_transmit` grants these pages, to be read.
        NonNull::new(base).map(|base| unsafe { TransmitPages::from_raw(base, count) })
    }

    /// Takes an address at which Xen can map a frame.
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

    /// Gives a page back to the free RAM.
    pub(crate) fn give_back(&self, page: SharedPage) {
        let address = page.address().addr().get() as u64;
        self.free.borrow_mut().give_back(address);
    }

    /// Takes `len` bytes for good. Their content is undefined: a ring buffer overwrites it anyway.
    pub(crate) fn bytes(&self, len: usize) -> Option<&'static mut [u8]> {
        let start = self.free.borrow_mut().take_bytes(len)?;
        let base = core::ptr::with_exposed_provenance_mut(usize::try_from(start).ok()?);
        // SAFETY: RAM that was free, so given to nobody and granted to no other domain, and taken for
        // good. RAM always holds some value.
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

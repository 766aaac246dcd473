//! The pages of a network that the toolstack has connected: the guest adopts them one by one.

use core::cell::Cell;
use core::ops::Range;

use mayfly_drivers::abi::PAGE_SIZE;
use mayfly_drivers::{Gfn, SharedPage};

use super::ram::shared_page;

/// The pages that were not taken yet.
pub(crate) struct NetworkPages {
    /// The address of the next page.
    next: Cell<u64>,
    end: u64,
}

impl NetworkPages {
    /// The pages at these addresses; none for an empty range.
    ///
    /// # Safety
    /// They are page-aligned RAM below 4 GiB, not page 0, that no Rust object lies in and nobody else hands out.
    pub(super) unsafe fn new(addresses: Range<u64>) -> Self {
        Self {
            next: Cell::new(addresses.start),
            end: addresses.end,
        }
    }

    /// Takes the page of a frame. Pages are taken in ascending order.
    pub(crate) fn page(&self, gfn: Gfn) -> Option<SharedPage> {
        let address = self.next.get();
        if address >= self.end || gfn.0.checked_mul(PAGE_SIZE as u64)? != address {
            return None;
        }
        self.next.set(address + PAGE_SIZE as u64);
        // SAFETY: by the contract of `new`, RAM that no Rust object lies in; moving `next` above
        // it gives it once.
        Some(unsafe { shared_page(address) })
    }
}

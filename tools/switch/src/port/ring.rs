//! The back end's side of a ring: its indices and the notification rules.
//!
//! Source: Xen 4.17 public/io/ring.h. The back end's own indices are kept here. Those in the shared page can be written
//! by the guest; they are read once for each decision and bounded by the ring's size.

use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::sring;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Shut;

/// The number of entries of a ring of one page, the same for both rings.
pub(super) const SIZE: u32 = mayfly_drivers::abi::NET_TX_RING_SIZE;
const _: () = assert!(SIZE == mayfly_drivers::abi::NET_RX_RING_SIZE);

/// One ring. Requests are answered in order and at once, so one index is both the number taken and the number answered.
#[derive(Debug)]
pub(super) struct Ring {
    /// The size of an entry, in bytes.
    entry: usize,
    /// The number of requests that were taken and answered.
    pub(super) taken: u32,
    /// The number of responses that were published.
    published: u32,
}

impl Ring {
    /// A ring that another process may have served before: requests that were answered were taken.
    pub(super) fn adopt(page: &SharedPage, entry: usize) -> Self {
        let published = page.load_acquire(sring::RSP_PROD);
        Self {
            entry,
            taken: published,
            published,
        }
    }

    /// The number of waiting requests.
    pub(super) fn waiting(&self, page: &SharedPage) -> Result<u32, Shut> {
        let waiting = page.load_acquire(sring::REQ_PROD).wrapping_sub(self.taken);
        // More than the ring has: the index went backwards, or too far. The entries of requests that were taken and not
        // answered yet count as well.
        let room = SIZE - self.taken.wrapping_sub(self.published).min(SIZE);
        if waiting > room {
            Err(Shut::Index)
        } else {
            Ok(waiting)
        }
    }

    fn at(&self, index: u32) -> usize {
        sring::RING + (index % SIZE) as usize * self.entry
    }

    /// Copies the entry that is `ahead` entries after the next one.
    pub(super) fn read<T: FromBytes + IntoBytes>(&self, page: &SharedPage, ahead: u32) -> T {
        page.read(self.at(self.taken.wrapping_add(ahead)))
    }

    /// Answers the next request.
    pub(super) fn answer<T: IntoBytes + Immutable>(&mut self, page: &SharedPage, answer: &T) {
        page.write(self.at(self.taken), answer);
        self.taken = self.taken.wrapping_add(1);
    }

    /// Publishes the responses; returns whether the guest asked to be notified
    /// (`RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`).
    pub(super) fn publish(&mut self, page: &SharedPage) -> bool {
        let old = std::mem::replace(&mut self.published, self.taken);
        if old == self.taken {
            return false;
        }
        page.store_fence(sring::RSP_PROD, self.taken);
        let event = page.load_acquire(sring::RSP_EVENT);
        self.taken.wrapping_sub(event) < self.taken.wrapping_sub(old)
    }

    /// Asks to be notified when `wanted` requests wait; returns the number that wait now
    /// (`RING_FINAL_CHECK_FOR_REQUESTS`).
    pub(super) fn ask(&self, page: &SharedPage, wanted: u32) -> Result<u32, Shut> {
        page.store_fence(sring::REQ_EVENT, self.taken.wrapping_add(wanted));
        self.waiting(page)
    }
}

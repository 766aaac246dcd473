//! The back end's side of a ring: indices, and the rules of who notifies whom.
//!
//! Source: Xen 4.17 public/io/ring.h. Our own indices are kept here; those in the shared page are the guest's to write, and are read once for each
//! decision and bounded by the ring's size.

use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::sring;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::Shut;

/// Entries of either ring, which has one page.
pub(super) const SIZE: u32 = mayfly_drivers::abi::NET_TX_RING_SIZE;
const _: () = assert!(SIZE == mayfly_drivers::abi::NET_RX_RING_SIZE);

/// One ring. Requests are answered in their order and at once, so one index tells how many were taken and how many were answered.
#[derive(Debug)]
pub(super) struct Ring {
    /// Bytes of an entry.
    entry: usize,
    /// Requests taken, and with them answered.
    pub(super) taken: u32,
    /// Answers that the guest can see.
    published: u32,
}

impl Ring {
    /// The ring as it was left by whoever served it before: what is answered was taken.
    pub(super) fn adopt(page: &SharedPage, entry: usize) -> Self {
        let published = page.load_acquire(sring::RSP_PROD);
        Self {
            entry,
            taken: published,
            published,
        }
    }

    /// How many requests wait.
    pub(super) fn waiting(&self, page: &SharedPage) -> Result<u32, Shut> {
        let waiting = page.load_acquire(sring::REQ_PROD).wrapping_sub(self.taken);
        // More than the ring has: the index went back, or too far. Those that are taken and not answered yet have their entries as well.
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

    /// Copies the entry out that is so far behind the next one.
    pub(super) fn read<T: FromBytes + IntoBytes>(&self, page: &SharedPage, ahead: u32) -> T {
        page.read(self.at(self.taken.wrapping_add(ahead)))
    }

    /// Answers the next request.
    pub(super) fn answer<T: IntoBytes + Immutable>(&mut self, page: &SharedPage, answer: &T) {
        page.write(self.at(self.taken), answer);
        self.taken = self.taken.wrapping_add(1);
    }

    /// Publishes the answers; says whether the guest wants to know (`RING_PUSH_RESPONSES_AND_CHECK_NOTIFY`).
    pub(super) fn publish(&mut self, page: &SharedPage) -> bool {
        let old = std::mem::replace(&mut self.published, self.taken);
        if old == self.taken {
            return false;
        }
        page.store_fence(sring::RSP_PROD, self.taken);
        let event = page.load_acquire(sring::RSP_EVENT);
        self.taken.wrapping_sub(event) < self.taken.wrapping_sub(old)
    }

    /// Asks to be notified when there are so many requests that wait, and tells how many there are by now
    /// (`RING_FINAL_CHECK_FOR_REQUESTS`).
    pub(super) fn ask(&self, page: &SharedPage, wanted: u32) -> Result<u32, Shut> {
        page.store_fence(sring::REQ_EVENT, self.taken.wrapping_add(wanted));
        self.waiting(page)
    }
}

//! The transmit ring and its buffers.
//!
//! Frames are composed in pages that the back end can read and not write. Each is granted
//! when it is first used and stays granted, so no frame costs a grant operation. A frame lies in
//! consecutive pages; each of them is one request, whose id is the page's number. What
//! the back end is to cut into segments has an extra-info slot behind its first request.

use alloc::vec::Vec;
use core::mem::size_of;

use super::ring::{Granted, available, push};
use super::{Counters, ETHERNET_HEADER, LinkError, Offload, RingError, SendError};
use crate::abi::{
    NET_TX_RING_SIZE, NETIF_RSP_NULL, NETIF_RSP_OKAY, NetTxFlags, PAGE_SIZE,
    XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4, XEN_NETIF_NR_SLOTS_MIN, netif_extra_gso,
    netif_tx_request, netif_tx_response, sring,
};
use crate::grant::{GrantError, GrantTable};
use crate::{DomId, GrantRef, Hypervisor, TransmitPages};

/// Pages of a frame at most. (Its length has to fit 16 bits as well.)
pub(super) const FRAME_PAGES: usize = 16;
const _: () = assert!(FRAME_PAGES <= XEN_NETIF_NR_SLOTS_MIN);

/// One bit for each page.
type Set = [u64; (NET_TX_RING_SIZE / 64) as usize];

/// The bits of `count` pages in the word that they lie in.
fn mask(page: usize, count: usize) -> u64 {
    (u64::MAX >> (64 - count.clamp(1, 64))) << (page % 64)
}

/// The pages that frames are composed in. They outlive a link.
#[derive(Debug)]
pub(super) struct Buffers {
    pages: TransmitPages,
    /// The grant of each page that has one.
    grants: Vec<Option<GrantRef>>,
    /// Pages that an earlier back end has not let go of.
    held: Set,
    /// Zero each page before it is granted.
    scrub: bool,
}

impl Buffers {
    /// Takes `count` consecutive pages from the kernel, 256 at most.
    pub(super) fn new(xen: &impl Hypervisor, count: usize) -> Result<Self, LinkError> {
        let count = count.clamp(1, NET_TX_RING_SIZE as usize);
        let pages = xen.transmit_pages(count).ok_or(LinkError::NoMemory)?;
        let mut grants = Vec::with_capacity(count);
        grants.resize(count, None);
        Ok(Self {
            pages,
            grants,
            held: Set::default(),
            scrub: false,
        })
    }

    /// Pages of the longest frame that is let out: a few of them have room at once.
    pub(super) fn frame_pages(&self) -> usize {
        (self.grants.len() / 4).clamp(1, FRAME_PAGES)
    }

    fn grant(
        &mut self,
        xen: &impl Hypervisor,
        grants: &mut GrantTable,
        domain: DomId,
        page: usize,
    ) -> Result<GrantRef, GrantError> {
        match self.grants.get(page) {
            Some(Some(grant)) => return Ok(*grant),
            Some(None) => {}
            None => return Err(GrantError::Frame),
        }
        if self.scrub {
            self.pages.bytes(page, PAGE_SIZE).fill(0);
        }
        let grant = grants.grant_transmit(xen, domain, &self.pages, page)?;
        if let Some(slot) = self.grants.get_mut(page) {
            *slot = Some(grant);
        }
        Ok(grant)
    }

    /// Ends all grants; a page that is still mapped is held back until it is not.
    pub(super) fn revoke(&mut self, grants: &mut GrantTable) {
        self.held = Set::default();
        for (page, slot) in self.grants.iter_mut().enumerate() {
            let Some(grant) = *slot else { continue };
            if grants.end(grant).is_ok() {
                *slot = None;
            } else if let Some(word) = self.held.get_mut(page / 64) {
                *word |= mask(page, 1);
            }
        }
        self.scrub = true;
    }

    /// Pages that are held back.
    pub(super) fn held(&self) -> usize {
        self.held
            .iter()
            .map(|word| word.count_ones() as usize)
            .sum()
    }

    /// The pages that can be used.
    fn usable(&self) -> Set {
        let mut set = Set::default();
        for (index, word) in set.iter_mut().enumerate() {
            let count = self.grants.len().saturating_sub(64 * index).min(64);
            if count > 0 {
                *word = mask(0, count);
            }
        }
        for (word, held) in set.iter_mut().zip(self.held) {
            *word &= !held;
        }
        set
    }
}

/// The transmit ring.
#[derive(Debug)]
pub(super) struct Transmit {
    pub(super) ring: Granted,
    pub(super) prod: u32,
    pub(super) published: u32,
    pub(super) cons: u32,
    buffers: Buffers,
    /// Pages that can be used, in flight or not.
    usable: Set,
    /// Pages that are not in flight.
    free: Set,
    /// Pages that somebody asked for and that were not free.
    wanted: usize,
}

impl Transmit {
    pub(super) fn new(ring: Granted, mut buffers: Buffers, grants: &mut GrantTable) -> Self {
        // What an earlier back end held it may have let go of by now.
        buffers.revoke(grants);
        let usable = buffers.usable();
        Self {
            ring,
            prod: 0,
            published: 0,
            cons: 0,
            usable,
            free: usable,
            buffers,
            wanted: 0,
        }
    }

    /// Gives the ring and the buffers back.
    pub(super) fn into_parts(self) -> (Granted, Buffers) {
        (self.ring, self.buffers)
    }

    pub(super) fn buffers(&self) -> &Buffers {
        &self.buffers
    }

    pub(super) fn entry(index: u32) -> usize {
        sring::RING + (index % NET_TX_RING_SIZE) as usize * size_of::<netif_tx_request>()
    }

    /// Requests and extra-info slots without a response.
    fn in_flight(&self) -> u32 {
        self.prod.wrapping_sub(self.cons)
    }

    /// How many completions we let pass before the back end wakes us.
    fn wake_after(&self) -> u32 {
        (self
            .usable
            .iter()
            .map(|word| word.count_ones())
            .sum::<u32>()
            / 2)
        .max(1)
    }

    /// Publishes what was sent; says whether the back end wants to know.
    #[inline]
    pub(super) fn push(&mut self) -> bool {
        push(&self.ring.0, &mut self.published, self.prod)
    }

    /// Takes completed pages back.
    pub(super) fn reap(&mut self, counters: &mut Counters) -> Result<bool, RingError> {
        let mut progress = false;
        // Every round takes at least `wake_after` responses but the last, so the
        // requests in flight bound the loop.
        loop {
            let count = available(&self.ring.0, self.cons, self.published)?;
            for _ in 0..count {
                let response: netif_tx_response = self.ring.0.read(Self::entry(self.cons));
                self.cons = self.cons.wrapping_add(1);
                self.complete(response, counters);
            }
            progress |= count != 0;
            if self.cons == self.prod {
                // All requests are answered, maybe some under ids that were not theirs.
                self.free = self.usable;
            }
            if count == 0 {
                return Ok(progress);
            }
            let event = self.cons.wrapping_add(self.wake_after());
            self.ring.0.store_fence(sring::RSP_EVENT, event);
            // If it has passed the new index already, it will not notify.
            let behind = event.wrapping_sub(self.ring.0.load_acquire(sring::RSP_PROD));
            if behind != 0 && behind <= NET_TX_RING_SIZE {
                return Ok(progress);
            }
        }
    }

    fn complete(&mut self, response: netif_tx_response, counters: &mut Counters) {
        if response.status == NETIF_RSP_NULL {
            // Of an extra-info slot: it has no id.
            return;
        }
        let id = usize::from(response.id);
        let bit = mask(id, 1);
        match (self.free.get_mut(id / 64), self.usable.get(id / 64)) {
            (Some(free), Some(usable)) if !*free & *usable & bit != 0 => {
                *free |= bit;
                if response.status != NETIF_RSP_OKAY {
                    counters.tx_errors += 1;
                }
            }
            _ => counters.tx_bad_id += 1,
        }
    }

    /// Asks to be notified of an index that the requests in flight do reach, and
    /// says whether it is reached by now. The one that [`Transmit::reap`] asked
    /// for may be beyond them.
    pub(super) fn wake_for_room(&self) -> Result<bool, RingError> {
        let in_flight = self.published.wrapping_sub(self.cons);
        let after = self.wake_after().min(in_flight).max(1);
        let event = self.cons.wrapping_add(after);
        self.ring.0.store_fence(sring::RSP_EVENT, event);
        Ok(available(&self.ring.0, self.cons, self.published)? >= after)
    }

    /// The first of `count` consecutive free pages.
    fn find(&self, count: usize) -> Option<usize> {
        // A frame of several pages has an extra-info slot as well.
        let slots = count + usize::from(count > 1);
        if self.in_flight() as usize + slots > NET_TX_RING_SIZE as usize {
            return None;
        }
        if count <= 1 {
            // The lowest, which are used the most, are in the cache.
            let (index, word) = self.free.iter().enumerate().find(|(_, word)| **word != 0)?;
            return Some(64 * index + word.trailing_zeros() as usize);
        }
        let mut words = self.free.iter().enumerate().rev();
        words.find_map(|(index, &word)| {
            // A bit stays where the pages above it are free as well.
            let run = (1..count).fold(word, |run, above| run & word >> above);
            (run != 0).then(|| 64 * index + 63 - run.leading_zeros() as usize)
        })
    }

    /// Whether a frame of so many pages has room; if not, somebody wants it.
    #[inline]
    pub(super) fn has_room(&mut self, pages: usize) -> bool {
        let found = self.find(pages).is_some();
        if !found {
            self.wanted = self.wanted.max(pages);
        } else if pages >= self.wanted {
            self.wanted = 0;
        }
        found
    }

    /// Whether there is room for a frame of one page.
    pub(super) fn find_one(&self) -> bool {
        self.find(1).is_some()
    }

    /// The pages that somebody wanted in vain since this was last asked.
    pub(super) fn take_wanted(&mut self) -> usize {
        core::mem::take(&mut self.wanted)
    }

    /// Room for a frame of so many bytes in granted pages.
    #[inline]
    pub(super) fn frame<'t>(
        &'t mut self,
        xen: &impl Hypervisor,
        grants: &mut GrantTable,
        domain: DomId,
        length: usize,
        counters: &'t mut Counters,
    ) -> Option<TxFrame<'t>> {
        let pages = length.div_ceil(PAGE_SIZE).max(1);
        let first = self.find(pages)?;
        for page in first..first + pages {
            if self.buffers.grant(xen, grants, domain, page).is_err() {
                self.give_up_ungranted();
                self.wanted = self.wanted.max(pages);
                return None;
            }
        }
        Some(TxFrame {
            transmit: self,
            counters,
            first,
            length,
        })
    }

    /// Grants all buffers, or as many as there are grants for.
    pub(super) fn grant_buffers(
        &mut self,
        xen: &impl Hypervisor,
        grants: &mut GrantTable,
        domain: DomId,
    ) {
        for page in 0..self.buffers.grants.len() {
            if self.buffers.grant(xen, grants, domain, page).is_err() {
                self.give_up_ungranted();
                return;
            }
        }
    }

    /// No grant is left: goes on with the pages that have one.
    fn give_up_ungranted(&mut self) {
        for (page, _) in self
            .buffers
            .grants
            .iter()
            .enumerate()
            .filter(|(_, grant)| grant.is_none())
        {
            if let Some(word) = self.usable.get_mut(page / 64) {
                *word &= !mask(page, 1);
            }
        }
        for (free, usable) in self.free.iter_mut().zip(self.usable) {
            *free &= usable;
        }
    }

    /// Queues the requests for a frame of `length` bytes in its pages.
    fn queue(&mut self, first: usize, length: u16, offload: Offload) {
        let (blank, gso) = match offload {
            Offload::None => (false, None),
            Offload::Checksum => (true, None),
            Offload::Segment(size) => (true, Some(size)),
        };
        // A complete checksum was made by us, so it need not be verified.
        let mut flags = NetTxFlags::DATA_VALIDATED;
        flags.set(NetTxFlags::CSUM_BLANK, blank);
        flags.set(NetTxFlags::EXTRA_INFO, gso.is_some());
        let mut left = usize::from(length);
        let mut page = first;
        while left > 0 {
            let here = left.min(PAGE_SIZE);
            let more = left > PAGE_SIZE;
            let is_first = page == first;
            flags.set(NetTxFlags::MORE_DATA, more);
            let Some(Some(grant)) = self.buffers.grants.get(page) else {
                return;
            };
            #[allow(clippy::cast_possible_truncation, reason = "a page, of at most 256")]
            let request = netif_tx_request {
                gref: grant.0,
                offset: 0,
                flags: flags.bits(),
                id: page as u16,
                // The first request has the length of the whole.
                size: if is_first { length } else { here as u16 },
            };
            self.write(&request);
            if let Some(size) = gso.filter(|_| is_first) {
                let extra = netif_extra_gso {
                    type_: XEN_NETIF_EXTRA_TYPE_GSO,
                    flags: 0,
                    size,
                    gso_type: XEN_NETIF_GSO_TYPE_TCPV4,
                    pad: 0,
                    features: 0,
                    unused: 0,
                };
                self.write(&extra);
            }
            flags = NetTxFlags::empty();
            left -= here;
            page += 1;
        }
        if let Some(word) = self.free.get_mut(first / 64) {
            *word &= !mask(first, page - first);
        }
    }

    fn write<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, slot: &T) {
        self.ring.0.write(Self::entry(self.prod), slot);
        self.prod = self.prod.wrapping_add(1);
    }
}

/// Room for a frame. Nothing has happened until it is sent.
#[derive(Debug)]
pub struct TxFrame<'t> {
    transmit: &'t mut Transmit,
    counters: &'t mut Counters,
    first: usize,
    length: usize,
}

impl TxFrame<'_> {
    /// Where the frame is composed; the bytes hold whatever was there.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        self.transmit.buffers.pages.bytes(self.first, self.length)
    }

    /// Queues the first `length` bytes as a frame. It leaves with the next flush.
    ///
    /// # Errors
    /// [`SendError::Size`] when they are more than there are, or less than an Ethernet header.
    #[inline]
    pub fn send(self, length: usize, offload: Offload) -> Result<(), SendError> {
        match u16::try_from(length) {
            Ok(size) if (ETHERNET_HEADER..=self.length).contains(&length) => {
                self.transmit.queue(self.first, size, offload);
                self.counters.tx_frames += 1;
                self.counters.tx_bytes += u64::from(size);
                Ok(())
            }
            _ => {
                self.counters.tx_dropped += 1;
                Err(SendError::Size)
            }
        }
    }
}

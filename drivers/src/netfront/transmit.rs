//! The transmit ring.
//!
//! A frame lies in consecutive pages of the [`Buffers`]. Each page is one request, whose id is the number of the page.
//! A frame that the back end is to cut into segments has an extra-info slot after its first request.

use core::mem::size_of;

use super::buffers::{Buffers, PageSet};
use super::sring::{Granted, available, push};
use super::types::{Counters, ETHERNET_HEADER, Offload, RingError, SendError};
use crate::abi::{
    NET_TX_RING_SIZE, NETIF_RSP_NULL, NETIF_RSP_OKAY, NetTxFlags, PAGE_SIZE,
    XEN_NETIF_EXTRA_TYPE_GSO, XEN_NETIF_GSO_TYPE_TCPV4, netif_extra_gso, netif_tx_request,
    netif_tx_response, sring,
};
use crate::grant::GrantTable;
use crate::{DomId, Hypervisor};

/// The ring slots and buffer pages that a frame needs. Ordered by size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Room {
    /// Consecutive pages, each with a slot of its own.
    pages: usize,
    /// Slots for extra information.
    extra: usize,
}

impl Room {
    /// The room for a frame of `length` bytes; `segmented` if the back end is to cut it into segments.
    #[inline]
    pub(super) fn new(length: usize, segmented: bool) -> Self {
        Self {
            pages: length.div_ceil(PAGE_SIZE).max(1),
            extra: usize::from(segmented),
        }
    }

    /// The number of ring slots.
    #[inline]
    fn slots(self) -> usize {
        self.pages + self.extra
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
    usable: PageSet,
    /// Pages that are not in flight.
    free: PageSet,
    /// The room that was asked for and not available.
    wanted: Room,
}

impl Transmit {
    /// An empty ring over the buffers that no earlier back end keeps mapped.
    pub(super) fn new(ring: Granted, buffers: Buffers) -> Self {
        let usable = buffers.usable();
        Self {
            ring,
            prod: 0,
            published: 0,
            cons: 0,
            usable,
            free: usable,
            buffers,
            wanted: Room::default(),
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

    /// Whether the ring has this many free slots. A slot without a response must not be overwritten, and netback
    /// disables an interface for good if it has more requests than the ring has slots (`RING_REQUEST_PROD_OVERFLOW`,
    /// io/ring.h).
    #[inline]
    fn has_slots(&self, slots: usize) -> bool {
        self.prod.wrapping_sub(self.cons) as usize + slots <= NET_TX_RING_SIZE as usize
    }

    /// The number of completions after which the back end notifies us.
    #[allow(clippy::cast_possible_truncation, reason = "256 pages at most")]
    fn wake_after(&self) -> u32 {
        (self.usable.len() as u32 / 2).max(1)
    }

    /// Publishes the queued requests. Returns whether the back end asked for a notification.
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
                // All requests are answered, some perhaps with wrong ids.
                self.free = self.usable;
            }
            if count == 0 {
                return Ok(progress);
            }
            let event = self.cons.wrapping_add(self.wake_after());
            self.ring.0.store_fence(sring::RSP_EVENT, event);
            // If the back end has passed the new index already, it will not notify.
            let behind = event.wrapping_sub(self.ring.0.load_acquire(sring::RSP_PROD));
            if behind != 0 && behind <= NET_TX_RING_SIZE {
                return Ok(progress);
            }
        }
    }

    fn complete(&mut self, response: netif_tx_response, counters: &mut Counters) {
        if response.status == NETIF_RSP_NULL {
            // The response to an extra-info slot, which has no id.
            return;
        }
        let id = usize::from(response.id);
        if !self.free.return_page(id, &self.usable) {
            counters.tx_bad_id += 1;
        } else if response.status != NETIF_RSP_OKAY {
            counters.tx_errors += 1;
        }
    }

    /// Asks for a notification at an index that the requests in flight do reach, and returns whether it is reached by
    /// now. The index that [`Transmit::reap`] asked for may be beyond them.
    pub(super) fn wake_for_room(&self) -> Result<bool, RingError> {
        let in_flight = self.published.wrapping_sub(self.cons);
        let after = self.wake_after().min(in_flight).max(1);
        let event = self.cons.wrapping_add(after);
        self.ring.0.store_fence(sring::RSP_EVENT, event);
        Ok(available(&self.ring.0, self.cons, self.published)? >= after)
    }

    /// The first page of a free run for a frame.
    #[inline]
    fn find(&self, room: Room) -> Option<usize> {
        self.has_slots(room.slots())
            .then(|| self.free.find(room.pages))
            .flatten()
    }

    /// Whether there is room for a frame. If not, the room is recorded as wanted.
    #[inline]
    pub(super) fn has_room(&mut self, room: Room) -> bool {
        let found = self.find(room).is_some();
        if !found {
            self.wanted = self.wanted.max(room);
        } else if room >= self.wanted {
            self.wanted = Room::default();
        }
        found
    }

    /// Whether there is room for a frame of one page.
    pub(super) fn find_one(&self) -> bool {
        self.find(Room::new(PAGE_SIZE, false)).is_some()
    }

    /// Takes the room that was asked for and not available since the last call.
    pub(super) fn take_wanted(&mut self) -> Option<Room> {
        let wanted = core::mem::take(&mut self.wanted);
        (wanted != Room::default()).then_some(wanted)
    }

    /// Room for a frame of `length` bytes in granted pages.
    #[inline]
    pub(super) fn frame<'t>(
        &'t mut self,
        xen: &impl Hypervisor,
        grants: &mut GrantTable,
        domain: DomId,
        (length, room): (usize, Room),
        counters: &'t mut Counters,
    ) -> Option<TxFrame<'t>> {
        let first = self.find(room)?;
        for page in first..first + room.pages {
            if self.buffers.grant(xen, grants, domain, page).is_err() {
                self.give_up_ungranted();
                self.wanted = self.wanted.max(room);
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

    /// Grants all buffers, or as many as the grant table has entries for.
    pub(super) fn grant_buffers(
        &mut self,
        xen: &impl Hypervisor,
        grants: &mut GrantTable,
        domain: DomId,
    ) {
        if self.buffers.grant_all(xen, grants, domain).is_err() {
            self.give_up_ungranted();
        }
    }

    /// Gives up the pages without a grant, because no grant is left.
    fn give_up_ungranted(&mut self) {
        self.buffers.give_up_ungranted();
        self.usable = self.buffers.usable();
        self.free = self.free.and(&self.usable);
    }

    /// Makes pages usable that an earlier back end has unmapped or that had no grant.
    pub(super) fn reclaim(&mut self, grants: &mut GrantTable) {
        self.buffers.reclaim(grants);
        let usable = self.buffers.usable();
        self.free = self.free.or(&usable.without(&self.usable));
        self.usable = usable;
    }

    /// Queues the requests for a frame of `length` bytes in its pages.
    fn queue(&mut self, first: usize, length: u16, offload: Offload) {
        let (blank, gso) = match offload {
            Offload::None => (false, None),
            Offload::Checksum => (true, None),
            Offload::Segment(size) => (true, Some(size)),
        };
        // A complete checksum was computed by us, so it need not be verified.
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
            let Some(grant) = self.buffers.granted(page) else {
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
        self.free.remove(first, page - first);
    }

    fn write<T: zerocopy::IntoBytes + zerocopy::Immutable>(&mut self, slot: &T) {
        self.ring.0.write(Self::entry(self.prod), slot);
        self.prod = self.prod.wrapping_add(1);
    }
}

/// Room for a frame. It has no effect until the frame is sent.
#[derive(Debug)]
pub struct TxFrame<'t> {
    transmit: &'t mut Transmit,
    counters: &'t mut Counters,
    first: usize,
    length: usize,
}

impl TxFrame<'_> {
    /// The bytes in which the frame is composed. Their content is undefined.
    #[inline]
    pub fn bytes(&mut self) -> &mut [u8] {
        self.transmit.buffers.bytes(self.first, self.length)
    }

    /// Queues the first `length` bytes as a frame. It leaves with the next flush.
    ///
    /// # Errors
    /// [`SendError::Size`] if `length` exceeds the room or is less than an Ethernet header. [`SendError::Full`] if the
    /// frame is to be cut into segments, room was asked for without that, and the ring has no slot for the extra info.
    #[inline]
    pub fn send(self, length: usize, offload: Offload) -> Result<(), SendError> {
        let Self {
            transmit, counters, ..
        } = self;
        let size = match u16::try_from(length) {
            Ok(size) if (ETHERNET_HEADER..=self.length).contains(&length) => size,
            _ => {
                counters.tx_dropped += 1;
                return Err(SendError::Size);
            }
        };
        let room = Room::new(length, matches!(offload, Offload::Segment(_)));
        if !transmit.has_slots(room.slots()) {
            counters.tx_dropped += 1;
            transmit.wanted = transmit.wanted.max(room);
            return Err(SendError::Full);
        }
        transmit.queue(self.first, size, offload);
        counters.tx_frames += 1;
        counters.tx_bytes += u64::from(size);
        Ok(())
    }
}

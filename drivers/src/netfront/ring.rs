//! The two rings of a network interface.
//!
//! Source: Xen 4.17 public/io/ring.h and io/netif.h. Pages are granted once and
//! stay granted: receive pages writable when they are first posted, transmit
//! pages read-only when their slot is first used. Frames are copied, so no
//! packet costs a grant operation.

use alloc::vec::Vec;
use core::mem::size_of;

use super::{Checksum, Counters, LinkError, RingError, RxFrame, SendError};
use crate::abi::{
    NET_RX_RING_SIZE, NET_TX_RING_SIZE, NETIF_RSP_OKAY, NetRxFlags, PAGE_SIZE, netif_rx_request,
    netif_rx_response, netif_tx_request, netif_tx_response, sring,
};
use crate::grant::{Access, GrantTable};
use crate::{DomId, EventPort, GrantRef, Hypervisor, SharedPage};

/// Bytes of an Ethernet header: no frame is shorter, and netback refuses such a one.
pub const ETHERNET_HEADER: usize = 14;
/// `XEN_NETIF_EXTRA_FLAG_MORE` (io/netif.h), in the second byte of `struct netif_extra_info`.
const EXTRA_FLAG_MORE: u8 = 1;

/// Pages of a link besides its receive buffers: two rings and the first transmit buffer.
const FIXED_PAGES: usize = 3;

/// A page and its grant.
type Granted = (SharedPage, GrantRef);

fn grant_page<H: Hypervisor>(
    xen: &H,
    grants: &mut GrantTable,
    domain: DomId,
    access: Access,
    scrub: bool,
) -> Result<Granted, LinkError> {
    let page = xen.alloc_page().ok_or(LinkError::NoMemory)?;
    if scrub {
        page.zero();
    }
    match grants.grant(xen, domain, xen.gfn(&page), access) {
        Ok(grant) => Ok((page, grant)),
        Err(error) => {
            xen.free_page(page);
            Err(LinkError::Grant(error))
        }
    }
}

/// A fresh ring page.
///
/// `req_event` is 0 where SHARED_RING_INIT has 1: the back end always looks at
/// the ring when it connects and then writes the index at which it wants to be
/// notified. Until then a notification would be a hypercall for nothing.
/// `rsp_event` is 1 on both rings: the first response says that frames move.
fn ring_page<H: Hypervisor>(
    xen: &H,
    grants: &mut GrantTable,
    domain: DomId,
    scrub: bool,
) -> Result<Granted, LinkError> {
    let ring = grant_page(xen, grants, domain, Access::ReadWrite, scrub)?;
    // The entries count only once an index covers them.
    for offset in (0..sring::RING).step_by(8) {
        ring.0.store64(offset, 0);
    }
    ring.0.store_release(sring::RSP_EVENT, 1);
    Ok(ring)
}

/// Publishes requests up to `prod`; says whether the back end wants to know.
#[inline]
fn push(page: &SharedPage, published: &mut u32, prod: u32) -> bool {
    let old = *published;
    if old == prod {
        return false;
    }
    page.store_fence(sring::REQ_PROD, prod);
    *published = prod;
    // RING_PUSH_REQUESTS_AND_CHECK_NOTIFY: was req_event passed by this push?
    let event = page.load_acquire(sring::REQ_EVENT);
    prod.wrapping_sub(event) < prod.wrapping_sub(old)
}

/// Responses that wait between our index and the back end's.
#[inline]
fn available(page: &SharedPage, cons: u32, published: u32) -> Result<u32, RingError> {
    let count = page.load_acquire(sring::RSP_PROD).wrapping_sub(cons);
    // More responses than requests: the index went back, or too far.
    if count > published.wrapping_sub(cons) {
        return Err(RingError::Index);
    }
    Ok(count)
}

/// The transmit ring.
#[derive(Debug)]
struct Transmit {
    ring: Granted,
    prod: u32,
    published: u32,
    cons: u32,
    /// Buffers in use or used before; the id of a request is the index here.
    buffers: Vec<Granted>,
    limit: usize,
    free: Vec<u16>,
    in_flight: [u64; (NET_TX_RING_SIZE / 64) as usize],
}

impl Transmit {
    fn entry(index: u32) -> usize {
        sring::RING + (index % NET_TX_RING_SIZE) as usize * size_of::<netif_tx_request>()
    }

    /// How many completions we let pass before the back end wakes us.
    fn wake_after(limit: usize) -> u32 {
        #[allow(clippy::cast_possible_truncation, reason = "at most 256")]
        let half = (limit / 2).max(1) as u32;
        half
    }

    /// Takes completed slots back.
    fn reap(&mut self, counters: &mut Counters) -> Result<bool, RingError> {
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
            if self.cons == self.prod && self.free.len() < self.buffers.len() {
                // All requests are answered, some under ids that were not theirs.
                self.in_flight = Default::default();
                self.free.clear();
                #[allow(clippy::cast_possible_truncation, reason = "at most 256")]
                self.free.extend(0..self.buffers.len() as u16);
            }
            if count == 0 {
                return Ok(progress);
            }
            let event = self.cons.wrapping_add(Self::wake_after(self.limit));
            self.ring.0.store_fence(sring::RSP_EVENT, event);
            // If it has passed the new index already, it will not notify.
            let behind = event.wrapping_sub(self.ring.0.load_acquire(sring::RSP_PROD));
            if behind != 0 && behind <= NET_TX_RING_SIZE {
                return Ok(progress);
            }
        }
    }

    fn complete(&mut self, response: netif_tx_response, counters: &mut Counters) {
        let id = usize::from(response.id);
        let bit = 1 << (id % 64);
        match self.in_flight.get_mut(id / 64) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                self.free.push(response.id);
                if response.status != NETIF_RSP_OKAY {
                    counters.tx_errors += 1;
                }
            }
            _ => counters.tx_bad_id += 1,
        }
    }

    /// Asks to be notified of an index that the requests in flight do reach, and
    /// says whether it is reached by now. The one that [`Transmit::reap`] asked
    /// for may be beyond them, as `limit` may have shrunk since.
    fn wake_for_slot(&self) -> Result<bool, RingError> {
        let in_flight = self.published.wrapping_sub(self.cons);
        let after = Self::wake_after(self.limit).min(in_flight).max(1);
        let event = self.cons.wrapping_add(after);
        self.ring.0.store_fence(sring::RSP_EVENT, event);
        Ok(available(&self.ring.0, self.cons, self.published)? >= after)
    }

    #[inline]
    fn has_slot(&self) -> bool {
        !self.free.is_empty() || self.buffers.len() < self.limit
    }
}

/// What the next receive response is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    /// The first slot of a packet.
    Packet,
    /// An `extra_info` slot; then more slots of the same packet if `more`.
    Extra { more: bool },
    /// A further slot of a packet that is being dropped.
    Rest,
}

/// The receive ring.
#[derive(Debug)]
struct Receive {
    ring: Granted,
    prod: u32,
    published: u32,
    cons: u32,
    /// A power of two: the request at index `i` has buffer and id `i` modulo their number.
    ///
    /// Back ends answer receive requests in order and in place (an extra-info slot
    /// has no id at all), so the buffer that a response frees is the one that is
    /// posted next.
    buffers: Vec<Granted>,
    expect: Expect,
}

impl Receive {
    #[inline]
    fn entry(index: u32) -> usize {
        sring::RING + (index % NET_RX_RING_SIZE) as usize * size_of::<netif_rx_request>()
    }

    #[inline]
    fn slot(&self, index: u32) -> usize {
        index as usize & (self.buffers.len() - 1)
    }

    /// Posts the next buffer.
    #[inline]
    fn post(&mut self) {
        let slot = self.slot(self.prod);
        if let Some((_, grant)) = self.buffers.get(slot) {
            #[allow(clippy::cast_possible_truncation, reason = "at most 256 buffers")]
            let request = netif_rx_request {
                id: slot as u16,
                pad: 0,
                gref: grant.0,
            };
            self.ring.0.write(Self::entry(self.prod), &request);
            self.prod = self.prod.wrapping_add(1);
        }
    }

    /// Takes one response; a frame, if it is a good one.
    fn take(&mut self, frame: &mut [u8], counters: &mut Counters) -> Option<RxFrame> {
        let entry = Self::entry(self.cons);
        let response: netif_rx_response = self.ring.0.read(entry);
        let slot = self.slot(self.cons);
        self.cons = self.cons.wrapping_add(1);
        let flags = NetRxFlags::from_bits_retain(response.flags);
        match self.expect {
            Expect::Extra { more } => {
                counters.rx_extra += 1;
                // The slot is a `netif_extra_info`: type, then flags.
                let [_, extra_flags] = response.id.to_le_bytes();
                if extra_flags & EXTRA_FLAG_MORE == 0 {
                    self.expect = if more { Expect::Rest } else { Expect::Packet };
                }
                return None;
            }
            Expect::Rest => {
                if !flags.contains(NetRxFlags::MORE_DATA) {
                    self.expect = Expect::Packet;
                }
                return None;
            }
            Expect::Packet => {}
        }
        let more = flags.contains(NetRxFlags::MORE_DATA);
        if flags.contains(NetRxFlags::EXTRA_INFO) {
            self.expect = Expect::Extra { more };
        } else if more {
            self.expect = Expect::Rest;
        }
        if usize::from(response.id) != slot {
            counters.rx_bad_id += 1;
            return None;
        }
        let Ok(length) = usize::try_from(response.status) else {
            counters.rx_errors += 1;
            return None;
        };
        if more || flags.contains(NetRxFlags::GSO_PREFIX) {
            // We advertise neither feature-sg nor any GSO.
            counters.rx_chains += 1;
            return None;
        }
        let offset = usize::from(response.offset);
        if length < ETHERNET_HEADER || offset + length > PAGE_SIZE || length > frame.len() {
            counters.rx_bad_size += 1;
            return None;
        }
        let (page, _) = self.buffers.get(slot)?;
        page.copy_out(offset, frame.get_mut(..length)?);
        counters.rx_frames += 1;
        let checksum = if flags.contains(NetRxFlags::CSUM_BLANK) {
            Checksum::Blank
        } else if flags.contains(NetRxFlags::DATA_VALIDATED) {
            Checksum::Validated
        } else {
            Checksum::Unknown
        };
        Some(RxFrame {
            len: length,
            checksum,
        })
    }
}

/// Both rings, their buffers and their event channel: all that is shared with one back end.
#[derive(Debug)]
pub(super) struct Link {
    domain: DomId,
    port: EventPort,
    tx: Transmit,
    rx: Receive,
    /// Zero each page before it is granted.
    scrub: bool,
    broken: Option<RingError>,
    active: bool,
}

impl Link {
    /// Allocates the event channel, grants the rings and posts the receive buffers.
    ///
    /// `rx_buffers` is rounded down to a power of two, and further if memory is
    /// out. Pages are zeroed first when `scrub` says that memory has been used before.
    pub(super) fn new<H: Hypervisor>(
        xen: &H,
        grants: &mut GrantTable,
        domain: DomId,
        rx_buffers: usize,
        tx_buffers: usize,
        scrub: bool,
    ) -> Result<Self, LinkError> {
        let tx_limit = tx_buffers.clamp(1, NET_TX_RING_SIZE as usize);
        let rx_limit = rx_buffers.clamp(1, NET_RX_RING_SIZE as usize);
        let mut held: Vec<Granted> = Vec::with_capacity(FIXED_PAGES + rx_limit);
        let outcome = (|| {
            held.push(ring_page(xen, grants, domain, scrub)?);
            held.push(ring_page(xen, grants, domain, scrub)?);
            // One transmit buffer now, so that a guest without memory fails here and not at its first frame.
            held.push(grant_page(xen, grants, domain, Access::Read, scrub)?);
            for posted in 0..rx_limit {
                match grant_page(xen, grants, domain, Access::ReadWrite, scrub) {
                    Ok(buffer) => held.push(buffer),
                    Err(error) if posted == 0 => return Err(error),
                    Err(_) => break,
                }
            }
            xen.evtchn_alloc_unbound(domain).map_err(LinkError::Port)
        })();
        let port = match outcome {
            Ok(port) => port,
            Err(error) => {
                release(xen, grants, held);
                return Err(error);
            }
        };
        let mut rx_buffers = held.split_off(FIXED_PAGES);
        let power_of_two = 1 << rx_buffers.len().ilog2();
        release(xen, grants, rx_buffers.split_off(power_of_two));
        let mut tx_buffers = Vec::with_capacity(tx_limit);
        tx_buffers.extend(held.pop());
        let (Some(rx_ring), Some(tx_ring)) = (held.pop(), held.pop()) else {
            return Err(LinkError::NoMemory);
        };
        let mut free = Vec::with_capacity(tx_limit);
        free.push(0);
        let mut rx = Receive {
            ring: rx_ring,
            prod: 0,
            published: 0,
            cons: 0,
            buffers: rx_buffers,
            expect: Expect::Packet,
        };
        for _ in 0..power_of_two {
            rx.post();
        }
        // Nobody listens yet, so this never asks for a notification.
        push(&rx.ring.0, &mut rx.published, rx.prod);
        Ok(Self {
            domain,
            port,
            tx: Transmit {
                ring: tx_ring,
                prod: 0,
                published: 0,
                cons: 0,
                buffers: tx_buffers,
                limit: tx_limit,
                free,
                in_flight: Default::default(),
            },
            rx,
            scrub,
            broken: None,
            active: false,
        })
    }

    /// Ends the grants, closes the port and frees the pages; what is still mapped is quarantined.
    pub(super) fn close<H: Hypervisor>(self, xen: &H, grants: &mut GrantTable) {
        // It can fail only if the port is closed already.
        let _ = xen.evtchn_close(self.port);
        release(xen, grants, [self.tx.ring, self.rx.ring]);
        release(xen, grants, self.tx.buffers);
        release(xen, grants, self.rx.buffers);
    }

    pub(super) fn port(&self) -> EventPort {
        self.port
    }

    pub(super) fn tx_ring(&self) -> GrantRef {
        self.tx.ring.1
    }

    pub(super) fn rx_ring(&self) -> GrantRef {
        self.rx.ring.1
    }

    /// Receive buffers that are posted.
    pub(super) fn rx_buffers(&self) -> usize {
        self.rx.buffers.len()
    }

    /// What the back end did wrong, if it did.
    pub(super) fn broken(&self) -> Option<RingError> {
        self.broken
    }

    /// Whether the back end has ever answered.
    pub(super) fn active(&self) -> bool {
        self.active
            || self.tx.ring.0.load_acquire(sring::RSP_PROD) != self.tx.cons
            || self.rx.ring.0.load_acquire(sring::RSP_PROD) != self.rx.cons
    }

    /// Copies the next good frame out and posts its buffer again.
    #[inline]
    pub(super) fn receive(&mut self, frame: &mut [u8], counters: &mut Counters) -> Option<RxFrame> {
        if self.broken.is_some() {
            return None;
        }
        // A ring's worth of bad responses at most: `available` is bounded by what was posted.
        let mut count = self.check(available(&self.rx.ring.0, self.rx.cons, self.rx.published))?;
        while count > 0 {
            self.active = true;
            count -= 1;
            let received = self.rx.take(frame, counters);
            self.rx.post();
            if received.is_some() {
                return received;
            }
        }
        None
    }

    /// Whether [`Link::send`] has a slot.
    #[inline]
    pub(super) fn can_send(&mut self, counters: &mut Counters) -> bool {
        if self.broken.is_some() {
            return false;
        }
        if !self.tx.has_slot() {
            let reaped = self.tx.reap(counters);
            self.active |= self.check(reaped) == Some(true);
        }
        self.broken.is_none() && self.tx.has_slot()
    }

    /// Copies a frame into a slot. It goes out with the next [`Link::flush`].
    #[inline]
    pub(super) fn send<H: Hypervisor>(
        &mut self,
        xen: &H,
        grants: &mut GrantTable,
        frame: &[u8],
        counters: &mut Counters,
    ) -> Result<(), SendError> {
        let size = match u16::try_from(frame.len()) {
            Ok(size) if (ETHERNET_HEADER..=PAGE_SIZE).contains(&frame.len()) => size,
            _ => return Err(SendError::Size),
        };
        if !self.can_send(counters) {
            return Err(SendError::Full);
        }
        let id = match self.tx.free.pop() {
            Some(id) => id,
            None => self.add_tx_buffer(xen, grants).ok_or(SendError::Full)?,
        };
        let index = usize::from(id);
        let Some((page, grant)) = self.tx.buffers.get(index) else {
            return Err(SendError::Full);
        };
        page.copy_in(0, frame);
        let request = netif_tx_request {
            gref: grant.0,
            offset: 0,
            flags: 0,
            id,
            size,
        };
        self.tx
            .ring
            .0
            .write(Transmit::entry(self.tx.prod), &request);
        self.tx.prod = self.tx.prod.wrapping_add(1);
        if let Some(word) = self.tx.in_flight.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
        counters.tx_frames += 1;
        Ok(())
    }

    /// Publishes what was sent and posted since the last flush, with one notification at most.
    #[inline]
    pub(super) fn flush<H: Hypervisor>(&mut self, xen: &H, counters: &mut Counters) {
        let rx = push(&self.rx.ring.0, &mut self.rx.published, self.rx.prod);
        let tx = push(&self.tx.ring.0, &mut self.tx.published, self.tx.prod);
        if rx | tx {
            counters.notifications += 1;
            // It can fail only if the toolstack closed the channel; xenstore then says so as well.
            let _ = xen.evtchn_send(self.port);
        }
    }

    /// Asks to be notified of the next frame and of transmit slots that come
    /// free; `true` if there is work already, so the guest must not sleep.
    pub(super) fn prepare_sleep(&mut self, counters: &mut Counters) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let full = !self.tx.has_slot();
        let reaped = self.tx.reap(counters);
        self.active |= self.check(reaped) == Some(true);
        // RING_FINAL_CHECK_FOR_RESPONSES.
        let event = self.rx.cons.wrapping_add(1);
        self.rx.ring.0.store_fence(sring::RSP_EVENT, event);
        let waiting = available(&self.rx.ring.0, self.rx.cons, self.rx.published);
        let waiting = self.check(waiting).unwrap_or(0) != 0;
        if self.tx.has_slot() {
            // Who found the ring full has to look again: there may be no further completion.
            return waiting || full;
        }
        let answered = self.tx.wake_for_slot();
        self.check(answered) == Some(true)
    }

    fn add_tx_buffer<H: Hypervisor>(&mut self, xen: &H, grants: &mut GrantTable) -> Option<u16> {
        match grant_page(xen, grants, self.domain, Access::Read, self.scrub) {
            Ok(buffer) => {
                let id = u16::try_from(self.tx.buffers.len()).ok()?;
                self.tx.buffers.push(buffer);
                Some(id)
            }
            Err(_) => {
                // Memory is out: go on with the slots there are.
                self.tx.limit = self.tx.buffers.len();
                None
            }
        }
    }

    /// Keeps an error: the back end is not to be trusted from here on.
    #[inline]
    fn check<T>(&mut self, result: Result<T, RingError>) -> Option<T> {
        result.map_err(|error| self.broken = Some(error)).ok()
    }
}

fn release<H: Hypervisor>(
    xen: &H,
    grants: &mut GrantTable,
    pages: impl IntoIterator<Item = Granted>,
) {
    for (page, grant) in pages {
        grants.release(xen, grant, page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeXen;

    /// Starts both rings at an index, as after that many frames.
    fn start_at(link: &mut Link, index: u32) {
        for page in [&link.tx.ring.0, &link.rx.ring.0] {
            page.store_release(sring::REQ_PROD, index);
            page.store_release(sring::RSP_PROD, index);
            page.store_release(sring::REQ_EVENT, index);
            page.store_release(sring::RSP_EVENT, index.wrapping_add(1));
        }
        (link.tx.prod, link.tx.published, link.tx.cons) = (index, index, index);
        (link.rx.prod, link.rx.published, link.rx.cons) = (index, index, index);
        for _ in 0..link.rx.buffers.len() {
            link.rx.post();
        }
    }

    #[test]
    fn indices_wrap_at_two_to_the_32() {
        let xen = FakeXen::new();
        let mut grants = GrantTable::new(&xen).unwrap();
        let mut counters = Counters::default();
        let mut link = Link::new(&xen, &mut grants, DomId(0), 16, 16, false).unwrap();
        start_at(&mut link, u32::MAX - 100);
        link.flush(&xen, &mut counters);
        let (tx, rx) = (link.tx.ring.0.alias(), link.rx.ring.0.alias());
        for number in 0_u8..200 {
            let frame = [number; 60];
            link.send(&xen, &mut grants, &frame, &mut counters).unwrap();
            link.flush(&xen, &mut counters);
            // The back end answers one request on each ring.
            let index = tx.load_acquire(sring::RSP_PROD);
            let request: netif_tx_request = tx.read(Transmit::entry(index));
            let response = netif_tx_response {
                id: request.id,
                status: NETIF_RSP_OKAY,
            };
            tx.write(Transmit::entry(index), &response);
            tx.store_release(sring::RSP_PROD, index.wrapping_add(1));
            let index = rx.load_acquire(sring::RSP_PROD);
            let request: netif_rx_request = rx.read(Receive::entry(index));
            let response = netif_rx_response {
                id: request.id,
                offset: 0,
                flags: 0,
                status: 60,
            };
            rx.write(Receive::entry(index), &response);
            rx.store_release(sring::RSP_PROD, index.wrapping_add(1));
            let mut buffer = [0; 64];
            let received = link.receive(&mut buffer, &mut counters).unwrap();
            assert_eq!(received.len, 60);
            assert!(link.receive(&mut buffer, &mut counters).is_none());
        }
        assert_eq!(link.broken, None);
        assert_eq!((counters.tx_frames, counters.rx_frames), (200, 200));
        assert_eq!((counters.tx_bad_id, counters.rx_bad_id), (0, 0));
        assert!(rx.load_acquire(sring::REQ_PROD) < 1000, "it has wrapped");
    }
}

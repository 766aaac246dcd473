//! A link: the two rings of a network interface, their buffers and their event channels.
//!
//! Source: Xen 4.17 public/io/netif.h.

use alloc::vec::Vec;

use super::buffers::Buffers;
use super::receive::Receive;
use super::sring::{Granted, available, grant_page, release, start_ring};
use super::transmit::{Room, Transmit, TxFrame};
use super::types::{Counters, LinkError, RingError, RxFrame};
use crate::abi::{NET_RX_RING_SIZE, sring};
use crate::grant::GrantTable;
use crate::{DomId, Errno, EventPort, Gfn, GrantRef, Hypervisor};
use mayfly_handoff::network::Preconnected;

/// The number of ring pages of a link.
pub(super) const RINGS: usize = 2;

/// The event channels of a link, one for each ring (feature-split-event-channels).
///
/// One channel is not enough: Linux' netback can lose the only event channel of a front end that queues frames before
/// it connects. The interrupt that comes with the binding finds work, and netback leaves the end of the interrupt to
/// the thread that does that work. When netback's receive thread runs before `queue->rx_irq` is set, it ends the
/// interrupt of irq 0 instead (drivers/net/xen-netback/rx.c, `xenvif_wait_for_rx_work`, Linux 6.1), and the channel
/// stays masked for good. The receive thread never ends the interrupt of the transmit ring's own channel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ports {
    /// The port of the transmit ring; of both rings, with a back end that knows one channel only.
    pub(super) tx: EventPort,
    /// The port of the receive ring.
    pub(super) rx: EventPort,
}

impl Ports {
    fn new<H: Hypervisor>(xen: &H, domain: DomId) -> Result<Self, Errno> {
        let tx = xen.evtchn_alloc_unbound(domain)?;
        match xen.evtchn_alloc_unbound(domain) {
            Ok(rx) => Ok(Self { tx, rx }),
            Err(error) => {
                let _ = xen.evtchn_close(tx);
                Err(error)
            }
        }
    }

    /// Notifies the back end. This fails only if the toolstack closed a channel, which xenstore reports too.
    fn notify<H: Hypervisor>(self, xen: &H, tx: bool, rx: bool) {
        // Rare: netback asks for it when it had no receive buffers left.
        let rx_has_its_own = rx && xen.evtchn_is_bound(self.rx);
        if rx_has_its_own {
            let _ = xen.evtchn_send(self.rx);
        }
        if tx || rx && !rx_has_its_own {
            let _ = xen.evtchn_send(self.tx);
        }
    }
}

/// All that is shared with one back end: both rings, their buffers and their event channels.
#[derive(Debug)]
pub(super) struct Link {
    domain: DomId,
    ports: Ports,
    tx: Transmit,
    rx: Receive,
    broken: Option<RingError>,
    active: bool,
    /// The back end notifies of the receive ring on its own port.
    is_split: bool,
    /// The guest sleeps until there is room to send.
    waits_for_room: bool,
}

impl Link {
    /// Allocates the event channels, grants the rings and posts the receive buffers.
    ///
    /// `rx_buffers` is rounded down to a power of two, and further if memory is exhausted. Pages are zeroed first if
    /// `scrub` says that memory has been used before. `buffers` are taken only if the link can be made.
    pub(super) fn new<H: Hypervisor>(
        xen: &H,
        grants: &mut GrantTable,
        domain: DomId,
        rx_buffers: usize,
        buffers: &mut Option<Buffers>,
        scrub: bool,
    ) -> Result<Self, LinkError> {
        let rx_limit = rx_buffers.clamp(1, NET_RX_RING_SIZE as usize);
        let mut held: Vec<Granted> = Vec::with_capacity(RINGS + rx_limit);
        let outcome = (|| {
            for number in 0..RINGS + rx_limit {
                match grant_page(xen, grants, domain, scrub) {
                    Ok(page) => held.push(page),
                    Err(error) if number <= RINGS => return Err(error),
                    Err(_) => break,
                }
            }
            Ports::new(xen, domain).map_err(LinkError::Port)
        })();
        let ports = match outcome {
            Ok(ports) => ports,
            Err(error) => {
                release(xen, grants, held);
                return Err(error);
            }
        };
        let Some(buffers) = buffers.take() else {
            release(xen, grants, held);
            return Err(LinkError::NoMemory);
        };
        // Which page is what does not matter, and so hundreds of entries stay where they are. There are more than two.
        let (tx_ring, rx_ring) = (held.swap_remove(0), held.swap_remove(0));
        start_ring(&tx_ring.0);
        start_ring(&rx_ring.0);
        let mut rx_buffers = held;
        let power_of_two = 1 << rx_buffers.len().ilog2();
        release(xen, grants, rx_buffers.split_off(power_of_two));
        Ok(Self {
            domain,
            ports,
            tx: Transmit::new(tx_ring, buffers),
            rx: Receive::new(rx_ring, rx_buffers),
            broken: None,
            active: false,
            is_split: false,
            waits_for_room: false,
        })
    }

    /// Takes over a link that the toolstack has made. `buffers` are taken only if there is enough memory.
    pub(super) fn adopt<H: Hypervisor>(
        xen: &H,
        network: &Preconnected,
        buffers: &mut Option<Buffers>,
    ) -> Result<Self, LinkError> {
        let mut next = network.first.0;
        let mut page = || {
            let page = xen.preconnected_page(Gfn(next));
            next = next.saturating_add(1);
            page.ok_or(LinkError::NoMemory)
        };
        let (tx_ring, rx_ring) = ((page()?, network.tx_ring), (page()?, network.rx_ring));
        // With room for all at once: hundreds of pages are adopted before the first frame.
        let mut rx_buffers = Vec::with_capacity(network.rx_buffers);
        for grant in (network.rx_first.0..).take(network.rx_buffers) {
            rx_buffers.push((page()?, GrantRef(grant)));
        }
        let buffers = buffers.take().ok_or(LinkError::NoMemory)?;
        Ok(Self {
            domain: network.domain,
            ports: Ports {
                tx: network.tx_port,
                rx: network.rx_port,
            },
            tx: Transmit::new(tx_ring, buffers),
            rx: Receive::adopt(rx_ring, rx_buffers),
            broken: None,
            active: false,
            is_split: true,
            waits_for_room: false,
        })
    }

    /// Ends the grants, closes the ports and frees the pages; pages that are still mapped are quarantined. Returns the
    /// transmit buffers for the next link.
    pub(super) fn close<H: Hypervisor>(self, xen: &H, grants: &mut GrantTable) -> Buffers {
        // This fails only if the port is closed already.
        let _ = xen.evtchn_close(self.ports.tx);
        let _ = xen.evtchn_close(self.ports.rx);
        self.abandon(xen, grants)
    }

    /// The same for a link whose ports are gone with the domain that they belonged to.
    pub(super) fn abandon<H: Hypervisor>(self, xen: &H, grants: &mut GrantTable) -> Buffers {
        let (tx_ring, mut buffers) = self.tx.into_parts();
        buffers.revoke(grants);
        release(xen, grants, [tx_ring, self.rx.ring]);
        release(xen, grants, self.rx.buffers);
        buffers
    }

    pub(super) fn ports(&self) -> Ports {
        self.ports
    }

    pub(super) fn tx_ring(&self) -> GrantRef {
        self.tx.ring.1
    }

    pub(super) fn rx_ring(&self) -> GrantRef {
        self.rx.ring.1
    }

    pub(super) fn buffers(&self) -> &Buffers {
        self.tx.buffers()
    }

    /// The number of posted receive buffers.
    pub(super) fn rx_buffers(&self) -> usize {
        self.rx.buffers.len()
    }

    /// Whether the back end has the transmit ring's event channel bound.
    pub(super) fn is_bound<H: Hypervisor>(&self, xen: &H) -> bool {
        xen.evtchn_is_bound(self.ports.tx)
    }

    /// Learns whether a connected back end has a port for each ring.
    pub(super) fn look_at_ports<H: Hypervisor>(&mut self, xen: &H) {
        self.is_split = xen.evtchn_is_bound(self.ports.rx);
    }

    /// Whether the guest has to sleep for events of the transmit ring's port too: it waits for room, or the port is that
    /// of both rings.
    pub(super) fn wakes_by_tx(&self) -> bool {
        self.waits_for_room || !self.is_split
    }

    /// The error of the back end, if it made one.
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
        // At most one ring of bad responses: `available` is bounded by the posted requests.
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

    /// Whether there is room for a frame.
    #[inline]
    pub(super) fn has_room(&mut self, room: Room, counters: &mut Counters) -> bool {
        if self.broken.is_some() {
            return false;
        }
        if self.tx.has_room(room) {
            return true;
        }
        let reaped = self.tx.reap(counters);
        self.active |= self.check(reaped) == Some(true);
        self.broken.is_none() && self.tx.has_room(room)
    }

    /// Grants all transmit buffers.
    pub(super) fn grant_buffers<H: Hypervisor>(&mut self, xen: &H, grants: &mut GrantTable) {
        self.tx.grant_buffers(xen, grants, self.domain);
    }

    /// Makes transmit buffers usable that an earlier back end has unmapped.
    pub(super) fn reclaim(&mut self, grants: &mut GrantTable) {
        self.tx.reclaim(grants);
    }

    /// Room to compose a frame of `length` bytes; `segmented` if the back end is to cut it into segments.
    #[inline]
    pub(super) fn frame<'l, H: Hypervisor>(
        &'l mut self,
        xen: &H,
        grants: &mut GrantTable,
        length: usize,
        segmented: bool,
        counters: &'l mut Counters,
    ) -> Option<TxFrame<'l>> {
        let room = Room::new(length, segmented);
        if !self.has_room(room, counters) {
            return None;
        }
        self.tx
            .frame(xen, grants, self.domain, (length, room), counters)
    }

    /// Publishes the requests queued since the last flush, with one notification of each ring at most.
    #[inline]
    pub(super) fn flush<H: Hypervisor>(&mut self, xen: &H, counters: &mut Counters) {
        let rx = self.rx.push();
        let tx = self.tx.push();
        if rx | tx {
            counters.notifications += 1;
            self.ports.notify(xen, tx, rx);
        }
    }

    /// Asks for a notification of the next received frame, and of transmit room if it was asked for and not available.
    /// Returns `true` if there is work already: then the guest must not sleep.
    pub(super) fn prepare_sleep(&mut self, counters: &mut Counters) -> bool {
        if self.broken.is_some() {
            return false;
        }
        let wanted = self.tx.take_wanted();
        self.waits_for_room = wanted.is_some();
        let reaped = self.tx.reap(counters);
        self.active |= self.check(reaped) == Some(true);
        // RING_FINAL_CHECK_FOR_RESPONSES.
        let event = self.rx.cons.wrapping_add(1);
        self.rx.ring.0.store_fence(sring::RSP_EVENT, event);
        let waiting = available(&self.rx.ring.0, self.rx.cons, self.rx.published);
        let waiting = self.check(waiting).unwrap_or(0) != 0;
        let Some(wanted) = wanted else {
            return waiting;
        };
        if self.tx.has_room(wanted) {
            // The caller who found no room has to look again: there may be no further completion.
            return true;
        }
        let answered = self.tx.wake_for_room();
        let answered = self.check(answered) == Some(true);
        // A frame waits in its ring while there is no room to answer it.
        answered || waiting && self.tx.find_one()
    }

    /// Records an error: from here on the back end is not trusted.
    #[inline]
    fn check<T>(&mut self, result: Result<T, RingError>) -> Option<T> {
        result.map_err(|error| self.broken = Some(error)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi::{
        NETIF_RSP_OKAY, netif_rx_request, netif_rx_response, netif_tx_request, netif_tx_response,
    };
    use crate::fake::FakeXen;
    use crate::netfront::Offload;

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
        let mut buffers = Some(Buffers::new(&xen, 16).unwrap());
        let mut link = Link::new(&xen, &mut grants, DomId(0), 16, &mut buffers, false).unwrap();
        start_at(&mut link, u32::MAX - 100);
        link.flush(&xen, &mut counters);
        let (tx, rx) = (link.tx.ring.0.alias(), link.rx.ring.0.alias());
        for number in 0_u8..200 {
            let frame = [number; 60];
            let mut room = link
                .frame(&xen, &mut grants, 60, false, &mut counters)
                .unwrap();
            room.bytes().copy_from_slice(&frame);
            room.send(60, Offload::None).unwrap();
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

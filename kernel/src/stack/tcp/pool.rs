//! The slots of one service, and their assignment to connections.
//!
//! As long as fewer than half of the slots are half open, a SYN gets a free slot, a new one, or the slot of a
//! connection that is closing. Otherwise it gets a cookie ([`super::cookie`]), which takes no slot. (It is ignored if
//! all slots are in use and none of their connections may be dropped.) Only a peer that has completed its handshake,
//! which proves its address, makes the guest drop another connection.

use alloc::vec;
use alloc::vec::Vec;

use mayfly_drivers::Hypervisor;
use smoltcp::iface::{SocketSet, SocketStorage};
use smoltcp::socket::tcp;
use smoltcp::storage::RingBuffer;
use smoltcp::time::{Duration, Instant};

use super::path::hash;
use super::slot::{Service, Slot, SlotPhase};
use super::{Connections, Wire};
use crate::stack::list::List;
use crate::stack::path::Path;
use crate::stack::sizing::LARGE;
use crate::stack::{Memory, StackStats, millis};
use mayfly_stream::Millis;

/// The time after which a peer that does not answer loses its socket.
const TCP_TIMEOUT: Duration = Duration::from_secs(20);
/// The time in milliseconds after which a connection may be dropped in the middle of a request or an answer, because
/// its peer has not done its part.
const SLOW: Millis = 250;
/// The number of connections that are searched for an idle one.
const SEARCH: usize = 16;

/// The slots of one service.
pub(super) struct Pool {
    max: usize,
    made: usize,
    tx_bytes: usize,
    tx_bytes_large: usize,
    /// The free slots, those used last at the end.
    free: Vec<u16>,
    pub(super) half_open: List,
    pub(super) open: List,
    pub(super) closing: List,
}

impl Pool {
    pub(super) fn new(max: usize, tx_bytes: usize, tx_bytes_large: usize) -> Self {
        Self {
            max,
            made: 0,
            tx_bytes,
            tx_bytes_large,
            free: Vec::with_capacity(max),
            half_open: List::EMPTY,
            open: List::EMPTY,
            closing: List::EMPTY,
        }
    }

    fn list(&mut self, phase: SlotPhase) -> Option<&mut List> {
        match phase {
            SlotPhase::Free => None,
            SlotPhase::HalfOpen => Some(&mut self.half_open),
            SlotPhase::Open => Some(&mut self.open),
            SlotPhase::Closing => Some(&mut self.closing),
        }
    }

    /// Whether the greatest allowed number of connections is half open.
    pub(super) fn is_flooded(&self) -> bool {
        self.half_open.len() >= (self.max / 2).max(1)
    }
}

/// A connection that can be dropped for another.
pub(super) enum Spare {
    /// It waits for its peer, which gets a reset.
    Open(u16),
    /// Its handshake is not complete. The peer gets no reset.
    HalfOpen(u16),
}

impl Connections<'_> {
    pub(super) fn pool(&mut self, service: Service) -> &mut Pool {
        match service {
            Service::Dns => &mut self.dns,
            Service::Http => &mut self.http,
        }
    }

    /// Moves a slot to the end of the list of a phase.
    pub(super) fn enter(&mut self, slot: u16, phase: SlotPhase) {
        let Some(this) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        let before = core::mem::replace(&mut this.phase, phase);
        let pool = match this.service {
            Service::Dns => &mut self.dns,
            Service::Http => &mut self.http,
        };
        if let Some(list) = pool.list(before) {
            list.remove(&mut self.slots, slot, Slot::links);
        }
        match pool.list(phase) {
            Some(list) => list.push(&mut self.slots, slot, Slot::links),
            None => pool.free.push(slot),
        }
    }

    /// Takes a slot for a SYN, if there is one for which no open connection must be dropped.
    pub(super) fn take(&mut self, service: Service, memory: &mut Memory<'_>) -> Option<u16> {
        if self.pool(service).is_flooded() {
            return None;
        }
        let free = self.pool(service).free.pop();
        free.or_else(|| self.make(service, memory))
            .or_else(|| self.take_closing(service))
    }

    /// Takes a slot for a peer that has completed its handshake. If necessary, another connection is dropped.
    pub(super) fn claim<H: Hypervisor>(
        &mut self,
        service: Service,
        wire: &mut Wire<'_, '_, H>,
        memory: &mut Memory<'_>,
        stats: &mut StackStats,
    ) -> Option<u16> {
        let mut slot = self.pool(service).free.pop();
        if slot.is_none() {
            slot = self.make(service, memory);
        }
        if slot.is_none() {
            slot = self.take_closing(service);
        }
        if slot.is_none() {
            self.make_room(service, wire, stats);
            slot = self.pool(service).free.pop();
        }
        slot
    }

    /// Lets the slot listen for the SYN of a connection.
    pub(super) fn open(
        &mut self,
        slot: u16,
        now: Instant,
        path: &Path,
        hash: u64,
        mss: u16,
    ) -> Option<()> {
        let this = self.slots.get_mut(usize::from(slot))?;
        this.path = *path;
        this.since = millis(now);
        this.mtu = usize::MAX;
        let port = this.service.port();
        let socket = this.socket();
        // Ends what is left of the slot's last connection, without a reset.
        socket.abort();
        let _ = socket.listen(port);
        this.start(mss);
        let (slots, seeds) = (&self.slots, self.seeds);
        let rehash = |&slot: &u16| {
            let slot = slots.get(usize::from(slot));
            slot.map_or(0, |slot| self::hash(seeds, &slot.path))
        };
        self.by_path.insert_unique(hash, slot, rehash);
        self.enter(slot, SlotPhase::HalfOpen);
        Some(())
    }

    /// Makes another slot, if the greatest number is not reached.
    fn make(&mut self, service: Service, memory: &mut Memory<'_>) -> Option<u16> {
        let rx_bytes = self.tcp_rx;
        if self.scratch.is_empty() {
            self.scratch = memory(rx_bytes)?;
        }
        let slot = u16::try_from(self.slots.len()).ok()?;
        let pool = self.pool(service);
        if pool.made >= pool.max {
            return None;
        }
        let is_large = pool.made < LARGE;
        let tx_bytes = if is_large {
            pool.tx_bytes_large
        } else {
            pool.tx_bytes
        };
        let (Some(rx), Some(tx)) = (memory(rx_bytes), memory(tx_bytes)) else {
            // Memory is exhausted: no more slots are made.
            pool.max = pool.made;
            return None;
        };
        pool.made += 1;
        let mut socket = tcp::Socket::new(RingBuffer::new(rx), RingBuffer::new(tx));
        socket.set_timeout(Some(TCP_TIMEOUT));
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(vec![SocketStorage::EMPTY]);
        let socket = sockets.add(socket);
        self.slots.push(Slot::new(sockets, socket, service));
        Some(slot)
    }

    /// Takes the slot of the connection that has been closing for longest. Only TCP's own timers are left of it.
    fn take_closing(&mut self, service: Service) -> Option<u16> {
        let over = self.pool(service).closing.first()?;
        self.release(over);
        self.pool(service).free.pop()
    }

    /// The connection to drop for another, if one may be dropped.
    pub(super) fn spare(&mut self, service: Service, now: Instant) -> Option<Spare> {
        let pool = self.pool(service);
        let (open, half_open) = (pool.open, pool.half_open.first());
        // The first choice is a connection between two requests, among those that wait longest for their peers.
        let mut idle = open.iter(&self.slots, |slot| slot.links).take(SEARCH);
        let idle = idle.find(|&slot| {
            let slot = self.slots.get(usize::from(slot));
            slot.is_some_and(Slot::is_idle)
        });
        let slow = || {
            let slot = open.first()?;
            let since = self.slots.get(usize::from(slot))?.since;
            (millis(now) >= since.saturating_add(SLOW)).then_some(slot)
        };
        let open = idle.or_else(slow).map(Spare::Open);
        open.or_else(|| half_open.map(Spare::HalfOpen))
    }

    /// Drops the connection that [`Connections::spare`] finds, and frees its slot.
    fn make_room<H: Hypervisor>(
        &mut self,
        service: Service,
        wire: &mut Wire<'_, '_, H>,
        stats: &mut StackStats,
    ) {
        match self.spare(service, wire.now) {
            Some(Spare::Open(slot)) => {
                stats.evicted += 1;
                if let Some(this) = self.slots.get_mut(usize::from(slot)) {
                    this.socket().abort();
                    wire.send(this, 1, false);
                }
                self.release(slot);
            }
            Some(Spare::HalfOpen(slot)) => {
                stats.half_open_evicted += 1;
                self.release(slot);
            }
            None => {}
        }
    }
}

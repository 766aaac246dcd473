//! TCP: connections, and who gets the next one.
//!
//! smoltcp looks through all sockets of a set for each segment and for each turn to send. Here each
//! connection has a set of its own, and is found by its addresses and ports in a hash table: a
//! segment costs the same with one connection as with a thousand, and only connections to which
//! something has happened get a turn.
//!
//! A slot is a socket with its buffers, made when it is first needed and kept for good. It is free,
//! half open (a SYN has come), open, or closing (only TCP's own waiting is left). When none is free
//! for a SYN, one that is closing goes, or else the connection that can best be spared; and half-open
//! ones never have more than half of the slots, so that a flood of SYNs replaces itself.

mod path;
mod slot;

use alloc::vec;
use alloc::vec::Vec;

use hashbrown::HashTable;
use mayfly_drivers::Hypervisor;
use smoltcp::iface::{Interface, PollResult, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{self, State};
use smoltcp::storage::RingBuffer;
use smoltcp::time::{Duration, Instant};

use super::frame::{Path, Segment};
use super::list::List;
use super::sizing::{LARGE, Sizing};
use super::{Memory, Stats, millis};
use crate::nic::{Ip, Tx};
use mayfly_site::Pages;
use mayfly_stream::Millis;

use path::{hash, is_same};
use slot::{CLOSING, Connection, NEVER, Phase, Service, Slot};
pub(super) use slot::{SLOT_SIZE, Services};

/// A peer that is gone, or never completed its handshake, loses its socket after this.
const TCP_TIMEOUT: Duration = Duration::from_secs(20);
/// A connection with a request in the making, or an answer on its way, can be spared when its peer
/// has not done its part for so long.
const SLOW: Millis = 250;
/// Connections that are looked at for one that is idle.
const SEARCH: usize = 16;
/// Frames that a connection sends before the next one gets its turn.
const EGRESS_BATCH: usize = 8;

/// The slots of one service.
struct Pool {
    max: usize,
    made: usize,
    tx_bytes: usize,
    tx_bytes_large: usize,
    /// The ones used last on top.
    free: Vec<u16>,
    half_open: List,
    open: List,
    closing: List,
}

impl Pool {
    fn new(max: usize, tx_bytes: usize, tx_bytes_large: usize) -> Self {
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

    fn list(&mut self, phase: Phase) -> Option<&mut List> {
        match phase {
            Phase::Free => None,
            Phase::HalfOpen => Some(&mut self.half_open),
            Phase::Open => Some(&mut self.open),
            Phase::Closing => Some(&mut self.closing),
        }
    }
}

/// All TCP connections.
pub(super) struct Connections<'a> {
    slots: Vec<Slot<'a>>,
    by_path: HashTable<u16>,
    seeds: [u64; 2],
    dns: Pool,
    http: Pool,
    tcp_rx: usize,
    /// Slots to which something has happened.
    active: Vec<u16>,
    /// Slots that get their turn at the moment.
    turn: Vec<u16>,
    /// No slot wants its turn before.
    earliest: Instant,
    /// No socket at all: what answers a segment for nobody.
    nobody: SocketSet<'static>,
    /// What a connection has received, in one piece; taken from memory with the first slot.
    scratch: &'static mut [u8],
}

impl<'a> Connections<'a> {
    pub(super) fn new(sizing: &Sizing, seed: u64) -> Self {
        let max = sizing.http + sizing.dns_tcp;
        Self {
            // All at once: to grow later is to copy, and may find no room.
            slots: Vec::with_capacity(max),
            by_path: HashTable::with_capacity(max),
            seeds: [seed | 1, seed.rotate_left(32) ^ 0x9e37_79b9_7f4a_7c15],
            dns: Pool::new(sizing.dns_tcp, sizing.dns_tx, sizing.dns_tx_large),
            http: Pool::new(sizing.http, sizing.http_tx, sizing.http_tx_large),
            tcp_rx: sizing.tcp_rx,
            active: Vec::with_capacity(max),
            turn: Vec::with_capacity(max),
            earliest: NEVER,
            nobody: SocketSet::new(Vec::new()),
            scratch: &mut [],
        }
    }

    /// Connections that are half open, open and closing.
    pub(super) fn counts(&self) -> [usize; 3] {
        let sum = |count: fn(&Pool) -> usize| count(&self.dns) + count(&self.http);
        [
            sum(|pool| pool.half_open.len()),
            sum(|pool| pool.open.len()),
            sum(|pool| pool.closing.len()),
        ]
    }

    /// Whether a connection waits for its turn.
    pub(super) fn is_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Whether a connection of HTTP may be served in the next turn.
    pub(super) fn is_http_active(&self) -> bool {
        let http = |slot: &u16| {
            let slot = self.slots.get(usize::from(*slot));
            slot.is_some_and(|slot| slot.service == Service::Http)
        };
        self.active.iter().any(http)
    }

    /// When a connection wants its turn at the latest.
    pub(super) fn wake(&self) -> Option<Instant> {
        (self.earliest != NEVER).then_some(self.earliest)
    }

    /// Gives all connections their turn: something has happened that concerns each.
    pub(super) fn activate_all(&mut self) {
        for slot in 0..self.slots.len() {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "as many as there are numbers"
            )]
            self.activate(slot as u16);
        }
    }

    /// Takes a segment: for its connection, for a new one, or for nobody.
    pub(super) fn receive<H: Hypervisor>(
        &mut self,
        now: Instant,
        segment: &Segment<'_>,
        iface: &mut Interface,
        tx: &mut Tx<'_, H>,
        memory: &mut Memory<'_>,
        stats: &mut Stats,
    ) {
        let hash = hash(self.seeds, &segment.path);
        let mut slot = self.find(hash, &segment.path);
        if let Some(old) = slot
            && segment.is_opening
            && self.phase(old) == Phase::Closing
        {
            // The same ports again: the old connection is over (RFC 9293 section 3.6.1, MAY-2).
            self.release(old);
            slot = None;
        }
        if slot.is_none() && segment.is_opening {
            match Service::of_port(segment.path.to_port) {
                Some(service) => {
                    slot = self.open(service, now, &segment.path, hash, iface, tx, memory, stats);
                    if slot.is_none() {
                        // The peer will try again.
                        stats.refused += 1;
                        return;
                    }
                }
                None => stats.nobody += 1,
            }
        }
        let mut device = Ip::new(Some(segment.packet), tx, segment.path.mac);
        match slot.and_then(|slot| self.slots.get_mut(usize::from(slot))) {
            Some(this) => {
                this.path.mac = segment.path.mac;
                iface.poll_ingress_single(now, &mut device, &mut this.sockets);
            }
            None => {
                iface.poll_ingress_single(now, &mut device, &mut self.nobody);
            }
        }
        if let Some(slot) = slot {
            self.activate(slot);
        }
    }

    /// Gives each connection its turn to which something has happened or whose time has come.
    pub(super) fn serve<H: Hypervisor, P: Pages>(
        &mut self,
        now: Instant,
        iface: &mut Interface,
        tx: &mut Tx<'_, H>,
        services: &mut Services<'_, 'a, P>,
    ) {
        if self.earliest <= now {
            self.expire(now);
        }
        core::mem::swap(&mut self.turn, &mut self.active);
        let mut turn = core::mem::take(&mut self.turn);
        let mut exhausted = false;
        for slot in turn.drain(..) {
            if let Some(this) = self.slots.get_mut(usize::from(slot)) {
                this.is_active = false;
            }
            // Without room to send, the others wait for their turn.
            if exhausted {
                self.activate(slot);
            } else {
                exhausted = self.turn(slot, now, iface, tx, services);
            }
        }
        self.turn = turn;
    }

    fn pool(&mut self, service: Service) -> &mut Pool {
        match service {
            Service::Dns => &mut self.dns,
            Service::Http => &mut self.http,
        }
    }

    fn phase(&self, slot: u16) -> Phase {
        let slot = self.slots.get(usize::from(slot));
        slot.map_or(Phase::Free, |slot| slot.phase)
    }

    fn find(&self, hash: u64, path: &Path) -> Option<u16> {
        let is_it = |slot: &u16| {
            let slot = self.slots.get(usize::from(*slot));
            slot.is_some_and(|slot| is_same(&slot.path, path))
        };
        self.by_path.find(hash, is_it).copied()
    }

    fn activate(&mut self, slot: u16) {
        if let Some(this) = self.slots.get_mut(usize::from(slot))
            && this.phase != Phase::Free
            && !core::mem::replace(&mut this.is_active, true)
        {
            self.active.push(slot);
        }
    }

    /// Activates the slots whose time has come.
    fn expire(&mut self, now: Instant) {
        self.earliest = NEVER;
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get(index) else {
                break;
            };
            if slot.wake <= now {
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "as many as there are numbers"
                )]
                self.activate(index as u16);
            } else {
                self.earliest = self.earliest.min(slot.wake);
            }
        }
    }

    /// Moves a slot to the end of the list of a phase.
    fn enter(&mut self, slot: u16, phase: Phase) {
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

    /// Makes a slot free. Nothing more is sent for its connection.
    fn release(&mut self, slot: u16) {
        let Some(this) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        if this.phase == Phase::Free {
            return;
        }
        this.connection = Connection::None;
        this.wake = NEVER;
        let path = this.path;
        let hash = hash(self.seeds, &path);
        if let Ok(entry) = self.by_path.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
        self.enter(slot, Phase::Free);
    }

    /// A slot that listens, for a SYN.
    #[expect(clippy::too_many_arguments, reason = "what the one caller has")]
    fn open<H: Hypervisor>(
        &mut self,
        service: Service,
        now: Instant,
        path: &Path,
        hash: u64,
        iface: &mut Interface,
        tx: &mut Tx<'_, H>,
        memory: &mut Memory<'_>,
        stats: &mut Stats,
    ) -> Option<u16> {
        let pool = self.pool(service);
        if pool.half_open.len() >= (pool.max / 2).max(1)
            && let Some(oldest) = pool.half_open.first()
        {
            stats.half_open_evicted += 1;
            self.release(oldest);
        }
        let mut slot = self.pool(service).free.pop();
        if slot.is_none() {
            slot = self.make(service, memory);
        }
        if slot.is_none() {
            self.make_room(service, now, iface, tx, stats);
            slot = self.pool(service).free.pop();
        }
        let slot = slot?;
        let this = self.slots.get_mut(usize::from(slot))?;
        this.path = *path;
        this.since = millis(now);
        let socket = this.socket();
        // Whatever is left of its last connection ends here, silently.
        socket.abort();
        let _ = socket.listen(service.port());
        let (slots, seeds) = (&self.slots, self.seeds);
        let rehash = |&slot: &u16| {
            let slot = slots.get(usize::from(slot));
            slot.map_or(0, |slot| self::hash(seeds, &slot.path))
        };
        self.by_path.insert_unique(hash, slot, rehash);
        self.enter(slot, Phase::HalfOpen);
        Some(slot)
    }

    /// Makes another slot, if there may be one more.
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
            // Memory is out: go on with the slots there are.
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

    /// Frees the slot that can best be spared, if there is one.
    fn make_room<H: Hypervisor>(
        &mut self,
        service: Service,
        now: Instant,
        iface: &mut Interface,
        tx: &mut Tx<'_, H>,
        stats: &mut Stats,
    ) {
        let pool = self.pool(service);
        if let Some(over) = pool.closing.first() {
            self.release(over);
            return;
        }
        // Of those that wait for their peer the longest, one that is between two requests.
        let (open, half_open) = (pool.open, pool.half_open.first());
        let links = |slot: &Slot<'a>| slot.links;
        let idle = open.iter(&self.slots, links).take(SEARCH);
        let idle = idle.into_iter().find(|&slot| {
            let slot = self.slots.get(usize::from(slot));
            slot.is_some_and(Slot::is_idle)
        });
        let slow = || {
            let slot = open.first()?;
            let since = self.slots.get(usize::from(slot))?.since;
            (millis(now) >= since.saturating_add(SLOW)).then_some(slot)
        };
        if let Some(spared) = idle.or_else(slow) {
            stats.evicted += 1;
            if let Some(this) = self.slots.get_mut(usize::from(spared)) {
                this.socket().abort();
                let mut device = Ip::new(None, tx, this.path.mac);
                iface.poll_egress(now, &mut device, &mut this.sockets);
            }
            self.release(spared);
        } else if let Some(oldest) = half_open {
            stats.half_open_evicted += 1;
            self.release(oldest);
        }
    }

    /// Lets a connection read, write and send. Returns whether there was no room to send.
    fn turn<H: Hypervisor, P: Pages>(
        &mut self,
        slot: u16,
        now: Instant,
        iface: &mut Interface,
        tx: &mut Tx<'_, H>,
        services: &mut Services<'_, 'a, P>,
    ) -> bool {
        let head_max = self.tcp_rx;
        let Some(this) = self.slots.get_mut(usize::from(slot)) else {
            return false;
        };
        if this.phase == Phase::Free {
            return false;
        }
        let since = this.since;
        this.serve(millis(now), services, self.scratch, head_max);

        let mut device = Ip::new(None, tx, this.path.mac);
        let mut frames = 0;
        while frames < EGRESS_BATCH
            && iface.poll_egress(now, &mut device, &mut this.sockets)
                == PollResult::SocketStateChanged
        {
            frames += 1;
        }
        let exhausted = device.is_exhausted();

        let is_connected = !matches!(this.connection, Connection::None);
        let closing_deadline = this.since.saturating_add(CLOSING);
        let mut deadline = this.connection.deadline();
        let socket = this.socket();
        let phase = match socket.state() {
            // The handshake was refused or reset.
            State::Listen => Phase::Free,
            State::Closed if socket.remote_endpoint().is_none() => Phase::Free,
            State::SynReceived => Phase::HalfOpen,
            State::TimeWait => Phase::Closing,
            _ if is_connected => Phase::Open,
            state => {
                deadline = Some(closing_deadline);
                if state == State::FinWait2 {
                    Phase::Closing
                } else {
                    Phase::Open
                }
            }
        };
        if phase == Phase::Free {
            self.release(slot);
            return exhausted;
        }
        let wake = iface.poll_at(now, &this.sockets).unwrap_or(NEVER);
        let deadline = deadline.map_or(NEVER, |at| {
            Instant::from_millis(i64::try_from(at).unwrap_or(i64::MAX / 1000))
        });
        let is_due = exhausted || wake <= now;
        // What is due now has its turn in any case.
        this.wake = if is_due { deadline } else { wake.min(deadline) };
        self.earliest = self.earliest.min(this.wake);
        if phase != this.phase || phase == Phase::Open && since != this.since {
            self.enter(slot, phase);
        }
        if is_due {
            self.activate(slot);
        }
        exhausted
    }
}

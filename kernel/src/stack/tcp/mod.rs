//! TCP: the connections and their slots.
//!
//! smoltcp searches all sockets of a set for each segment and for each turn to send. Here each connection has a set of
//! its own, and a hash table finds it by its addresses and ports. So a segment costs the same with one connection as
//! with a thousand, and only connections with work get a turn.
//!
//! A slot ([`slot`]) is a socket with its buffers, made when it is first needed and kept for good. It is free, half
//! open (a SYN has come), open, or closing (only TCP's own timers are left). [`pool`] decides which connection gets a
//! slot.

mod cookie;
mod opening;
mod path;
mod pool;
mod sequence;
mod slot;

use alloc::vec::Vec;
use core::ops::ControlFlow;

use hashbrown::HashTable;
use mayfly_drivers::Hypervisor;
use smoltcp::iface::{Interface, PollResult, SocketSet};
use smoltcp::phy::{Device, TxToken};
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant;
use smoltcp::wire::IpAddress;

use super::frame::Segment;
use super::path::Path;
use super::sizing::Sizing;
use super::too_big::TooBig;
use super::{Memory, StackStats, millis};
use crate::nic::{IPV4_HEADER, IPV6_HEADER, Ip, Mac, Tx};
use crate::secrets::{Purpose, Root};
use mayfly_site::Pages;

use cookie::{Cookies, Opened};
use opening::Opening;
use path::{hash, is_same};
use pool::Pool;
use sequence::Sequence;
pub(super) use slot::Services;
use slot::{CLOSING, Connection, NEVER, Service, Slot, SlotPhase};

/// The number of frames that a connection sends before the next one gets its turn.
const EGRESS_BATCH: usize = 8;
/// Bytes of a TCP header without options.
const TCP_HEADER: usize = 20;

/// The way of segments in and out: smoltcp's interface and the device, at one time.
pub(super) struct Wire<'w, 'h, H: Hypervisor> {
    pub(super) now: Instant,
    pub(super) iface: &'w mut Interface,
    pub(super) tx: &'w mut Tx<'h, H>,
}

impl<H: Hypervisor> Wire<'_, '_, H> {
    /// Gives a packet from this MAC address to the sockets.
    #[inline(never)]
    fn receive(&mut self, packet: &[u8], from: Mac, sockets: &mut SocketSet<'_>) {
        let mut device = Ip::new(Some(packet), self.tx, from);
        self.iface
            .poll_ingress_single(self.now, &mut device, sockets);
    }

    /// Lets a slot's socket send up to `most` packets, or drop them if `nowhere` is set. Returns whether there was no
    /// room for a packet.
    #[inline(never)]
    fn send(&mut self, slot: &mut Slot<'_>, most: usize, nowhere: bool) -> bool {
        let is_narrow = slot.mtu < self.tx.mtu();
        let mut device = if nowhere {
            Ip::nowhere(self.tx)
        } else {
            Ip::new(None, self.tx, slot.path.mac).with_mtu(slot.mtu)
        };
        // smoltcp knows only the MTU of an interface, so a path with a smaller MTU gets an interface of its own.
        let mut narrow = is_narrow.then(|| sequence::anew(self.iface, &mut device, 0, self.now));
        let iface = narrow.as_mut().unwrap_or(self.iface);
        for _ in 0..most {
            let result = iface.poll_egress(self.now, &mut device, &mut slot.sockets);
            if result != PollResult::SocketStateChanged {
                break;
            }
        }
        if let Some(sent) = device.sent() {
            slot.sent = sent;
        }
        device.is_exhausted()
    }

    /// Sets the initial sequence number of the connection that the next SYN opens.
    #[inline(never)]
    fn prepare(&mut self, number: u32) {
        let mut device = Ip::new(None, self.tx, [0; 6]);
        sequence::prepare(self.iface, &mut device, number, self.now);
    }

    /// Answers a SYN with a cookie.
    #[inline(never)]
    fn answer(&mut self, path: &Path, number: u32, next: u32, window: u16) {
        let header = match path.to {
            IpAddress::Ipv4(_) => IPV4_HEADER,
            IpAddress::Ipv6(_) => IPV6_HEADER,
        };
        let mss = self.tx.mtu().saturating_sub(header + TCP_HEADER);
        let mss = u16::try_from(mss).unwrap_or(u16::MAX);
        let answer = Opening::answer(path, number, next, mss, window);
        // An answer that finds no room is lost, as on any wire. The peer tries again.
        if let Some(token) = Ip::new(None, self.tx, path.mac).transmit(self.now) {
            token.consume(answer.length(), |packet| answer.write(packet));
        }
    }
}

/// All TCP connections.
pub(super) struct Connections<'a> {
    slots: Vec<Slot<'a>>,
    by_path: HashTable<u16>,
    /// The keys of [`hash`].
    seeds: [u64; 2],
    sequence: Sequence,
    cookies: Cookies,
    dns: Pool,
    http: Pool,
    tcp_rx: usize,
    /// Slots that have work.
    active: Vec<u16>,
    /// Slots that are being served at the moment.
    serving: Vec<u16>,
    /// The earliest time at which a slot has work again.
    earliest: Instant,
    /// An empty set of sockets, with which smoltcp answers segments that belong to no connection.
    nobody: SocketSet<'static>,
    /// A buffer for a connection's received bytes in one piece; taken from memory with the first slot.
    scratch: &'static mut [u8],
}

impl<'a> Connections<'a> {
    pub(super) fn new(sizing: &Sizing, root: &Root) -> Self {
        let max = sizing.http + sizing.dns_tcp;
        let [one, two] = root.numbers(Purpose::Connections);
        Self {
            // Allocated in full: growing later would copy the slots, and might find no memory.
            slots: Vec::with_capacity(max),
            by_path: HashTable::with_capacity(max),
            // Odd, so that no multiplication in `hash` has the factor 0.
            seeds: [one | 1, two | 1],
            sequence: Sequence::new(root.key(Purpose::Sequence)),
            cookies: Cookies::new(root.clone()),
            dns: Pool::new(sizing.dns_tcp, sizing.dns_tx, sizing.dns_tx_large),
            http: Pool::new(sizing.http, sizing.http_tx, sizing.http_tx_large),
            tcp_rx: sizing.tcp_rx,
            active: Vec::with_capacity(max),
            serving: Vec::with_capacity(max),
            earliest: NEVER,
            nobody: SocketSet::new(Vec::new()),
            scratch: &mut [],
        }
    }

    /// Takes another root key for what is made with a secret from here on. The table of connections keeps its own.
    pub(super) fn renew_secrets(&mut self, root: &Root) {
        self.sequence = Sequence::new(root.key(Purpose::Sequence));
        self.cookies = Cookies::new(root.clone());
    }

    /// The numbers of connections that are half open, open, and closing.
    pub(super) fn counts(&self) -> [usize; 3] {
        let sum = |count: fn(&Pool) -> usize| count(&self.dns) + count(&self.http);
        [
            sum(|pool| pool.half_open.len()),
            sum(|pool| pool.open.len()),
            sum(|pool| pool.closing.len()),
        ]
    }

    /// Whether a connection has work.
    pub(super) fn is_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// Whether the next turn may serve a connection of HTTP.
    pub(super) fn is_http_active(&self) -> bool {
        let http = |slot: &u16| {
            let slot = self.slots.get(usize::from(*slot));
            slot.is_some_and(|slot| slot.service == Service::Http)
        };
        self.active.iter().any(http)
    }

    /// The earliest time at which a connection has work again.
    pub(super) fn wake(&self) -> Option<Instant> {
        (self.earliest != NEVER).then_some(self.earliest)
    }

    /// Gives all connections a turn, after an event that concerns each of them.
    pub(super) fn activate_all(&mut self) {
        for slot in 0..self.slots.len() {
            #[allow(
                clippy::cast_possible_truncation,
                reason = "as many as there are numbers"
            )]
            self.activate(slot as u16);
        }
    }

    /// Handles a segment: gives it to its connection, opens a connection, or answers with a reset.
    pub(super) fn receive<H: Hypervisor>(
        &mut self,
        segment: &Segment<'_>,
        wire: &mut Wire<'_, '_, H>,
        memory: &mut Memory<'_>,
        stats: &mut StackStats,
    ) {
        let path = &segment.path;
        let hash = hash(self.seeds, path);
        let mut slot = self.find(hash, path);
        if let Some(old) = slot
            && segment.is_opening
            && self.phase(old) == SlotPhase::Closing
        {
            // The peer uses the same ports again: the old connection is over (RFC 9293 section 3.6.1, MAY-2).
            self.release(old);
            slot = None;
        }
        if slot.is_none() {
            slot = match self.admit(segment, hash, wire, memory, stats) {
                ControlFlow::Continue(slot) => slot,
                ControlFlow::Break(()) => return,
            };
        }
        match slot.and_then(|slot| self.slots.get_mut(usize::from(slot))) {
            Some(this) => {
                this.path.mac = path.mac;
                // The socket may also listen again because of a reset.
                if segment.is_opening && this.socket().state() == State::Listen {
                    wire.prepare(self.sequence.initial(wire.now, path));
                }
                if !this.only_repeats_acknowledgement(segment.message) {
                    wire.receive(segment.packet, path.mac, &mut this.sockets);
                }
            }
            None => wire.receive(segment.packet, path.mac, &mut self.nobody),
        }
        if let Some(slot) = slot {
            self.activate(slot);
        }
    }

    /// Lowers the MTU of the connection whose segment was too long for a router, if the connection exists.
    pub(super) fn narrow(&mut self, told: &TooBig) {
        let slot = self.find(hash(self.seeds, &told.path), &told.path);
        let Some(slot) = slot.and_then(|slot| self.slots.get_mut(usize::from(slot))) else {
            return;
        };
        // The quoted sequence number must be of data in flight (RFC 5927 section 7.2), which a blind attacker does not
        // know.
        let ago = slot.sent.wrapping_sub(told.number);
        let most = slot.socket().send_capacity();
        if ago > 0 && usize::try_from(ago).is_ok_and(|ago| ago <= most) {
            slot.mtu = slot.mtu.min(told.mtu);
        }
    }

    /// Finds a slot for a segment that may open a connection. Returns `Continue(None)` if it opens none, `Break` if the
    /// segment was answered or dropped.
    #[inline(never)]
    fn admit<H: Hypervisor>(
        &mut self,
        segment: &Segment<'_>,
        hash: u64,
        wire: &mut Wire<'_, '_, H>,
        memory: &mut Memory<'_>,
        stats: &mut StackStats,
    ) -> ControlFlow<(), Option<u16>> {
        let path = &segment.path;
        let Some(service) = Service::of_port(path.to_port) else {
            stats.nobody += u64::from(segment.is_opening);
            return ControlFlow::Continue(None);
        };
        if segment.is_opening {
            let Some(slot) = self.take(service, memory) else {
                if !self.pool(service).is_flooded() && self.spare(service, wire.now).is_none() {
                    // The SYN is dropped. The peer will try again.
                    stats.refused += 1;
                    return ControlFlow::Break(());
                }
                stats.cookies_sent += 1;
                let (number, next) = self.cookies.make(wire.now, segment);
                let window = u16::try_from(self.tcp_rx).unwrap_or(u16::MAX);
                wire.answer(path, number, next, window);
                return ControlFlow::Break(());
            };
            self.open(slot, wire.now, path, hash, cookie::mss(segment));
            return ControlFlow::Continue(Some(slot));
        }
        let Some(opened) = self.cookies.check(wire.now, segment) else {
            return ControlFlow::Continue(None);
        };
        let Some(slot) = self.claim(service, wire, memory, stats) else {
            stats.refused += 1;
            return ControlFlow::Break(());
        };
        stats.cookies_taken += 1;
        self.open(slot, wire.now, path, hash, opened.mss);
        self.replay(slot, &opened, wire);
        ControlFlow::Continue(Some(slot))
    }

    /// Gives the slot's socket the SYN that the cookie was made of, and drops its SYN-ACK, which was sent before.
    fn replay<H: Hypervisor>(&mut self, slot: u16, opened: &Opened, wire: &mut Wire<'_, '_, H>) {
        let Some(this) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        let syn = Opening::syn(&this.path, opened.peer, opened.mss);
        let mut packet = [0; Opening::LENGTH_MAX];
        let Some(packet) = packet.get_mut(..syn.length()) else {
            return;
        };
        syn.write(packet);
        wire.prepare(opened.number);
        wire.receive(packet, this.path.mac, &mut this.sockets);
        wire.send(this, 1, true);
    }

    /// Serves each connection that has work or whose time has come.
    pub(super) fn serve<H: Hypervisor, P: Pages>(
        &mut self,
        wire: &mut Wire<'_, '_, H>,
        services: &mut Services<'_, 'a, P>,
    ) {
        if self.earliest <= wire.now {
            self.expire(wire.now);
        }
        core::mem::swap(&mut self.serving, &mut self.active);
        let mut serving = core::mem::take(&mut self.serving);
        let mut exhausted = false;
        for slot in serving.drain(..) {
            if let Some(this) = self.slots.get_mut(usize::from(slot)) {
                this.is_active = false;
            }
            // Without room to send, the others wait for the next call.
            if exhausted {
                self.activate(slot);
            } else {
                exhausted = self.serve_one(slot, wire, services);
            }
        }
        self.serving = serving;
    }

    fn phase(&self, slot: u16) -> SlotPhase {
        let slot = self.slots.get(usize::from(slot));
        slot.map_or(SlotPhase::Free, |slot| slot.phase)
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
            && this.phase != SlotPhase::Free
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

    /// Frees a slot. Nothing more is sent for its connection.
    fn release(&mut self, slot: u16) {
        let Some(this) = self.slots.get_mut(usize::from(slot)) else {
            return;
        };
        if this.phase == SlotPhase::Free {
            return;
        }
        this.connection = Connection::None;
        this.wake = NEVER;
        let path = this.path;
        let hash = hash(self.seeds, &path);
        if let Ok(entry) = self.by_path.find_entry(hash, |&other| other == slot) {
            entry.remove();
        }
        self.enter(slot, SlotPhase::Free);
    }

    /// Frees the slots of all connections but those whose path is to be kept.
    pub(super) fn release_unless(&mut self, is_kept: impl Fn(&Path) -> bool) {
        for index in 0..self.slots.len() {
            if self
                .slots
                .get(index)
                .is_some_and(|slot| !is_kept(&slot.path))
            {
                #[allow(
                    clippy::cast_possible_truncation,
                    reason = "as many as there are numbers"
                )]
                self.release(index as u16);
            }
        }
    }

    /// Lets a connection read, write and send. Returns whether there was no room to send.
    fn serve_one<H: Hypervisor, P: Pages>(
        &mut self,
        slot: u16,
        wire: &mut Wire<'_, '_, H>,
        services: &mut Services<'_, 'a, P>,
    ) -> bool {
        let head_max = self.tcp_rx;
        let Some(this) = self.slots.get_mut(usize::from(slot)) else {
            return false;
        };
        if this.phase == SlotPhase::Free {
            return false;
        }
        let since = this.since;
        this.serve(millis(wire.now), services, self.scratch, head_max);

        let exhausted = wire.send(this, EGRESS_BATCH, false);

        let is_connected = !matches!(this.connection, Connection::None);
        let closing_deadline = this.since.saturating_add(CLOSING);
        let mut deadline = this.connection.deadline();
        let socket = this.socket();
        let phase = match socket.state() {
            // The handshake was refused or reset.
            State::Listen => SlotPhase::Free,
            State::Closed if socket.remote_endpoint().is_none() => SlotPhase::Free,
            State::SynReceived => SlotPhase::HalfOpen,
            State::TimeWait => SlotPhase::Closing,
            _ if is_connected => SlotPhase::Open,
            state => {
                deadline = Some(closing_deadline);
                if state == State::FinWait2 {
                    SlotPhase::Closing
                } else {
                    SlotPhase::Open
                }
            }
        };
        if phase == SlotPhase::Free {
            self.release(slot);
            return exhausted;
        }
        let wake = wire.iface.poll_at(wire.now, &this.sockets).unwrap_or(NEVER);
        let deadline = deadline.map_or(NEVER, |at| {
            Instant::from_millis(i64::try_from(at).unwrap_or(i64::MAX / 1000))
        });
        let is_due = exhausted || wake <= wire.now;
        // Work that is due now activates the slot below, so it does not count here.
        this.wake = if is_due { deadline } else { wake.min(deadline) };
        self.earliest = self.earliest.min(this.wake);
        if phase != this.phase || phase == SlotPhase::Open && since != this.since {
            self.enter(slot, phase);
        }
        if is_due {
            self.activate(slot);
        }
        exhausted
    }
}

//! The services on smoltcp: sockets, connections, addresses, announcements.
//!
//! [`Stack::poll`] does a bounded amount of work and says when it wants to be
//! called again; the caller sleeps in between. It knows nothing of Xen: the
//! device is any smoltcp [`Device`], memory comes from the caller.

use alloc::vec::Vec;

use smoltcp::iface::{Config as IfaceConfig, Interface, PollIngressSingleResult, PollResult};
use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::phy::Device;
use smoltcp::socket::{Socket, dhcpv4, tcp, udp};
use smoltcp::storage::RingBuffer;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, IpAddress, IpCidr, Ipv4Address, Ipv6Address, Ipv6Cidr,
};

use crate::announce::Announcer;
use crate::cmdline::Config;
use crate::services::dns::{self, Transport};
use crate::services::http::{self, RENDERED_MAX};
use crate::services::site::{BuiltIn, Pages};
use crate::services::{Input, Next, Progress};
use crate::timeline::{Phase, Timeline};

/// Frames taken from the device before the services and the transmit side get their turn.
const INGRESS_BATCH: usize = 64;
/// Sockets of a service that stay in LISTEN, so that as many SYNs can come at once.
const BACKLOG: usize = 8;
/// A peer that is gone, or never completed its handshake, loses its socket after this.
const TCP_TIMEOUT: Duration = Duration::from_secs(20);
/// Milliseconds in which a connection that the guest has closed must come to its
/// end, whatever the peer sends meanwhile.
const CLOSING_MILLIS: u64 = 20_000;
/// A client that takes longer for its handshake may have to make room for another.
const HANDSHAKE_MILLIS: u64 = 1_000;
/// A device without room says when it has some; timers of the sockets are late by this at most.
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// How long an answer over UDP waits for the neighbour that it goes to. It holds
/// up all others, because the socket's queue is one.
const NEIGHBOR_PATIENCE: Duration = Duration::from_millis(100);
/// What one call of a connection may look at and write. Both are larger than
/// any request head that is taken and any DNS answer that is built in.
const SCRATCH: usize = 2048;

/// Bytes of Ethernet, IPv6 and UDP headers.
const UDP_HEADERS: usize = 14 + 40 + 8;

/// How much the stack may hold, from the guest's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizing {
    /// Receive buffers on the netif ring.
    pub rx_pages: usize,
    /// Transmit buffers on the netif ring.
    pub tx_pages: usize,
    /// HTTP connections.
    pub http: usize,
    /// DNS connections over TCP.
    pub dns_tcp: usize,
    /// Bytes of each TCP send buffer.
    pub tcp_tx: usize,
    /// Bytes of each of the UDP socket's two buffers.
    pub udp: usize,
    /// Bytes of heap that suffice when all of that is in use at once.
    pub heap: usize,
}

/// Bytes of a socket and its connection in the tables, rounded up.
const TABLE_ENTRY: usize = size_of::<SocketStorage<'_>>()
    + size_of::<Slot<http::Connection<'_>>>()
    + size_of::<Slot<dns::Connection>>();
/// The front ends' queues and messages, and what fragmentation wastes.
const FRONT_ENDS: usize = 64 * 1024;
/// Bytes of UDP buffer for which there is metadata of one packet.
const UDP_PACKET: usize = 256;
/// Bytes of each TCP receive buffer, which bounds a request head.
pub const TCP_RX: usize = 2048;

impl Sizing {
    /// Sizes for `free` bytes of RAM: a quarter for receive pages, an eighth
    /// for transmit pages, and half of the rest for sockets, within bounds.
    #[must_use]
    pub fn for_memory(free: u64) -> Self {
        const PAGE: usize = 4096;
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        let tcp_tx = if free >= 32 << 20 {
            32 * 1024
        } else {
            8 * 1024
        };
        let connections = free / 4 / (TCP_RX + tcp_tx);
        let http = (connections * 3 / 4).clamp(4, 192);
        let dns_tcp = (connections / 4).clamp(2, 64);
        let udp = (free / 64).clamp(4096, 64 * 1024);
        // Each socket and connection in its table, each HTTP client with a page
        // made for it, the UDP queues' metadata; and what the front ends queue.
        let tables = (http + dns_tcp + 2) * TABLE_ENTRY;
        let pages = http * RENDERED_MAX;
        let metadata = 2 * (udp / UDP_PACKET) * size_of::<udp::PacketMetadata>();
        Self {
            rx_pages: (free / 4 / PAGE).clamp(8, 256),
            tx_pages: (free / 8 / PAGE).clamp(8, 256),
            http,
            dns_tcp,
            tcp_tx,
            udp,
            heap: tables + pages + metadata + FRONT_ENDS,
        }
    }
}

/// Counters, which wrap.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// DNS.
    pub dns: dns::Stats,
    /// HTTP.
    pub http: http::Stats,
    /// Idle and half-open connections that were dropped to make room for another.
    pub evicted: u32,
    /// DNS answers that found no room in the send buffer.
    pub udp_full: u32,
    /// Times that the send buffer was emptied, because its first answer went to
    /// a neighbour that does not answer.
    pub udp_stuck: u32,
}

/// What the stack takes buffers from: bytes for good, their content undefined.
pub type Memory<'m> = dyn FnMut(usize) -> Option<&'static mut [u8]> + 'm;

/// A TCP service: how a connection of it behaves.
trait Service {
    type Connection;
    fn accept(&self, now: u64) -> Self::Connection;
    fn process(
        &mut self,
        connection: &mut Self::Connection,
        now: u64,
        input: Input<'_>,
        out: &mut [u8],
    ) -> Progress;
    fn deadline(connection: &Self::Connection) -> u64;
    /// Whether dropping the connection loses no request.
    fn is_idle(connection: &Self::Connection) -> bool;
}

struct Slot<C> {
    socket: SocketHandle,
    connection: Option<C>,
    /// When the socket last listened, then when its connection was accepted, then when it was closed.
    since: u64,
}

/// The sockets of one TCP service.
struct Listener<C> {
    port: u16,
    slots: Vec<Slot<C>>,
    max: usize,
    tx_bytes: usize,
}

/// The sockets and everything that is served on them.
pub struct Stack<'a, P: Pages> {
    iface: Interface,
    sockets: SocketSet<'static>,
    udp: SocketHandle,
    /// Since when an answer waits for its neighbour.
    udp_waits_since: Option<Instant>,
    dhcp: Option<SocketHandle>,
    dns_tcp: Listener<dns::Connection>,
    http: Listener<http::Connection<'a>>,
    announcer: Announcer,
    mtu: usize,
    seed: u64,
    gateways: Gateways,
    zone: BuiltIn,
    pages: &'a P,
    timeline: &'a Timeline,
    stats: Stats,
    out: [u8; SCRATCH],
}

/// Why a stack could not be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutOfMemory;

struct DnsService<'s> {
    zone: &'s BuiltIn,
    stats: &'s mut Stats,
    timeline: &'s Timeline,
}

impl Service for DnsService<'_> {
    type Connection = dns::Connection;

    fn accept(&self, now: u64) -> dns::Connection {
        dns::Connection::new(now)
    }

    fn process(
        &mut self,
        connection: &mut dns::Connection,
        now: u64,
        input: Input<'_>,
        out: &mut [u8],
    ) -> Progress {
        let room = SCRATCH / 2;
        let progress = connection.process(now, self.zone, input, out, room, &mut self.stats.dns);
        if progress.written > 0 {
            self.timeline.first(Phase::FirstDns);
        }
        progress
    }

    fn deadline(connection: &dns::Connection) -> u64 {
        connection.deadline()
    }

    fn is_idle(_: &dns::Connection) -> bool {
        true
    }
}

struct HttpService<'s, 'a, P> {
    pages: &'a P,
    unix_seconds: u64,
    stats: &'s mut Stats,
    timeline: &'s Timeline,
}

impl<'a, P: Pages> Service for HttpService<'_, 'a, P> {
    type Connection = http::Connection<'a>;

    fn accept(&self, now: u64) -> http::Connection<'a> {
        http::Connection::new(now, TCP_RX)
    }

    fn process(
        &mut self,
        connection: &mut http::Connection<'a>,
        now: u64,
        input: Input<'_>,
        out: &mut [u8],
    ) -> Progress {
        let stats = &mut self.stats.http;
        let progress = connection.process(now, self.unix_seconds, input, out, self.pages, stats);
        if progress.written > 0 {
            self.timeline.first(Phase::FirstHttp);
        }
        progress
    }

    fn deadline(connection: &http::Connection<'a>) -> u64 {
        connection.deadline()
    }

    fn is_idle(connection: &http::Connection<'a>) -> bool {
        connection.is_idle()
    }
}

/// The default gateways of IPv4 and IPv6.
type Gateways = (Option<Ipv4Address>, Option<Ipv6Address>);

/// What stands for the MAC address until xenstore has told it.
const UNKNOWN_MAC: [u8; 6] = [0; 6];

fn interface(
    device: &mut (impl Device + ?Sized),
    address: HardwareAddress,
    seed: u64,
    now: Instant,
) -> Interface {
    let mut config = IfaceConfig::new(address);
    config.random_seed = seed;
    Interface::new(config, device, now)
}

fn set_gateways(iface: &mut Interface, (gw4, gw6): Gateways) {
    iface.routes_mut().remove_default_ipv4_route();
    iface.routes_mut().remove_default_ipv6_route();
    // There is room for both: the table holds two routes.
    if let Some(gateway) = gw4 {
        let _ = iface.routes_mut().add_default_ipv4_route(gateway);
    }
    if let Some(gateway) = gw6 {
        let _ = iface.routes_mut().add_default_ipv6_route(gateway);
    }
}

/// The link-local address that goes with a MAC address (RFC 4291, 2.5.6 and appendix A).
fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Cidr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&[0xfe, 0x80]);
    octets[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Cidr::new(Ipv6Address::from(octets), 64)
}

/// Time as the services count it.
fn millis(now: Instant) -> u64 {
    u64::try_from(now.total_millis()).unwrap_or(0)
}

fn is_host(address: Ipv4Address) -> bool {
    IpAddress::from(address).is_unicast()
}

/// A TCP socket on fresh buffers.
fn tcp_socket(memory: &mut Memory<'_>, tx_bytes: usize) -> Option<tcp::Socket<'static>> {
    let rx = memory(TCP_RX)?;
    let tx = memory(tx_bytes)?;
    let mut socket = tcp::Socket::new(RingBuffer::new(rx), RingBuffer::new(tx));
    socket.set_timeout(Some(TCP_TIMEOUT));
    socket.set_nagle_enabled(false);
    Some(socket)
}

impl<C> Listener<C> {
    fn new(port: u16, max: usize, tx_bytes: usize) -> Self {
        Self {
            port,
            // All at once: to grow later is to copy, and may find no room.
            slots: Vec::with_capacity(max),
            max,
            tx_bytes,
        }
    }

    /// Adds sockets until `count` of them listen, or the bound or memory is reached.
    fn listen(&mut self, sockets: &mut SocketSet<'static>, memory: &mut Memory<'_>, count: usize) {
        let mut listening = 0;
        for slot in &self.slots {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(slot.socket);
            // A socket whose connection is over goes back to work.
            if slot.connection.is_none() && socket.state() == tcp::State::Closed {
                let _ = socket.listen(self.port);
            }
            listening += usize::from(socket.state() == tcp::State::Listen);
        }
        while listening < count && self.slots.len() < self.max {
            let Some(mut socket) = tcp_socket(memory, self.tx_bytes) else {
                break;
            };
            let _ = socket.listen(self.port);
            let socket = sockets.add(socket);
            self.slots.push(Slot {
                socket,
                connection: None,
                since: 0,
            });
            listening += 1;
        }
    }

    /// Sockets that listen, will listen again, or can be added.
    fn free(&self, sockets: &SocketSet<'static>) -> usize {
        let mut free = self.max.saturating_sub(self.slots.len());
        for slot in &self.slots {
            let state = sockets.get::<tcp::Socket<'_>>(slot.socket).state();
            free += usize::from(matches!(state, tcp::State::Listen | tcp::State::Closed));
        }
        free
    }

    /// Drops what can be spared until some sockets are free for a burst of SYNs,
    /// and more than that for the last one. Returns how many clients lost a connection.
    fn make_room<S: Service<Connection = C>>(
        &mut self,
        sockets: &mut SocketSet<'static>,
        now: u64,
    ) -> u32 {
        let reserve = (self.max / 4).clamp(1, BACKLOG);
        let mut evicted = 0;
        loop {
            let free = self.free(sockets);
            if free >= reserve {
                return evicted;
            }
            match self.evict::<S>(sockets, now, free == 0) {
                Some(lost) => evicted += u32::from(lost),
                None => return evicted,
            }
        }
    }

    /// Drops the connection that is over but for the peer's FIN or its TIME-WAIT,
    /// or else one whose handshake takes too long, or else, if it must, the oldest
    /// that is half open or idle. Returns whether a client lost a connection.
    fn evict<S: Service<Connection = C>>(
        &mut self,
        sockets: &mut SocketSet<'static>,
        now: u64,
        must: bool,
    ) -> Option<bool> {
        let spare = |slot: &Slot<C>| {
            let socket = sockets.get::<tcp::Socket<'_>>(slot.socket);
            let quiet = socket.recv_queue() == 0 && socket.send_queue() == 0;
            socket.state() == tcp::State::SynReceived
                || quiet && slot.connection.as_ref().is_some_and(S::is_idle)
        };
        // The only one is the newcomer that room was made for, unless it does nothing for long.
        let several = self.slots.iter().filter(|slot| spare(slot)).count() > 1;
        let (rank, _, slot) = self
            .slots
            .iter_mut()
            .filter_map(|slot| {
                let late = now >= slot.since.saturating_add(HANDSHAKE_MILLIS);
                let state = sockets.get::<tcp::Socket<'_>>(slot.socket).state();
                let rank = match state {
                    tcp::State::TimeWait | tcp::State::FinWait2 => 0,
                    tcp::State::SynReceived if late => 1,
                    _ if must && (several || late) && spare(slot) => 2,
                    _ => return None,
                };
                // Of two that are as old, the one that has had its turn goes.
                let since = (slot.since, slot.connection.is_none());
                Some((rank, since, slot))
            })
            .min_by_key(|&(rank, since, _)| (rank, since))?;
        slot.connection = None;
        sockets.get_mut::<tcp::Socket<'_>>(slot.socket).abort();
        Some(rank > 0)
    }

    /// Moves every connection on. Returns the earliest deadline.
    fn serve<S: Service<Connection = C>>(
        &mut self,
        service: &mut S,
        sockets: &mut SocketSet<'static>,
        now: u64,
        scratch: &mut [u8],
    ) -> Option<u64> {
        let mut earliest: Option<u64> = None;
        for slot in &mut self.slots {
            let socket = sockets.get_mut::<tcp::Socket<'_>>(slot.socket);
            match socket.state() {
                tcp::State::Listen => {
                    slot.since = now;
                    continue;
                }
                tcp::State::SynReceived => continue,
                tcp::State::Closed => {
                    slot.connection = None;
                    continue;
                }
                _ => {}
            }
            if slot.connection.is_none() {
                // Its connection has ended; only TCP's own closing is left.
                if !socket.may_send() {
                    let deadline = slot.since.saturating_add(CLOSING_MILLIS);
                    if socket.state() == tcp::State::TimeWait {
                        // It ends by itself.
                    } else if now >= deadline {
                        socket.abort();
                    } else {
                        earliest = Some(earliest.map_or(deadline, |e| e.min(deadline)));
                    }
                    continue;
                }
                slot.connection = Some(service.accept(now));
                slot.since = now;
            }
            let Some(connection) = &mut slot.connection else {
                continue;
            };
            let next = serve_one(service, connection, socket, now, scratch);
            if next != Next::Keep {
                slot.connection = None;
                slot.since = now;
                if next == Next::Close {
                    socket.close()
                } else {
                    socket.abort()
                }
                continue;
            }
            let deadline = S::deadline(connection);
            earliest = Some(earliest.map_or(deadline, |e| e.min(deadline)));
        }
        earliest
    }
}

/// Lets a connection read and write until it can do neither.
fn serve_one<S: Service>(
    service: &mut S,
    connection: &mut S::Connection,
    socket: &mut tcp::Socket<'static>,
    now: u64,
    scratch: &mut [u8],
) -> Next {
    loop {
        let received = socket.peek_slice(scratch).unwrap_or(0);
        let ended = !socket.may_recv() && received == socket.recv_queue();
        let input = Input {
            octets: scratch.get(..received).unwrap_or(&[]),
            ended,
        };
        let progress = socket.send(|out| {
            let progress = service.process(connection, now, input, out);
            (progress.written, progress)
        });
        // The send half is closed: nothing can be answered any more.
        let Ok(progress) = progress else {
            return Next::Abort;
        };
        // In two parts, where the ring buffer wraps.
        let mut left = progress.consumed;
        while left > 0 {
            let taken = socket.recv(|octets| {
                let n = left.min(octets.len());
                (n, n)
            });
            match taken {
                Ok(n) if n > 0 => left -= n,
                _ => break,
            }
        }
        let moved = progress.consumed > 0 || progress.written > 0;
        if progress.next != Next::Keep || !moved {
            return progress.next;
        }
    }
}

impl<'a, P: Pages> Stack<'a, P> {
    /// The stack for these addresses, silent until [`Stack::link_up`], with one
    /// socket listening on each port; the rest follow in [`Stack::poll`].
    ///
    /// # Errors
    /// When memory is too small even for that.
    #[allow(
        clippy::too_many_arguments,
        reason = "the boot path's one call, each a thing of its own"
    )]
    pub fn new(
        device: &mut (impl Device + ?Sized),
        config: &Config,
        seed: u64,
        sizing: &Sizing,
        pages: &'a P,
        timeline: &'a Timeline,
        memory: &mut Memory<'_>,
        now: Instant,
    ) -> Result<Self, OutOfMemory> {
        let mut iface = interface(device, EthernetAddress(UNKNOWN_MAC).into(), seed, now);
        iface.update_ip_addrs(|addresses| {
            for cidr in config.addresses() {
                let _ = addresses.push(IpCidr::new(cidr.address.into(), cidr.prefix_len));
            }
        });
        let gateways = (config.gw4, config.gw6);
        set_gateways(&mut iface, gateways);

        let mut sockets = SocketSet::new(Vec::with_capacity(sizing.http + sizing.dns_tcp + 2));
        let mut udp_buffer = || -> Option<udp::PacketBuffer<'static>> {
            let bytes = memory(sizing.udp)?;
            let packets = sizing.udp / UDP_PACKET;
            let metadata: Vec<_> = (0..packets).map(|_| udp::PacketMetadata::EMPTY).collect();
            Some(udp::PacketBuffer::new(metadata, bytes))
        };
        let rx = udp_buffer().ok_or(OutOfMemory)?;
        let tx = udp_buffer().ok_or(OutOfMemory)?;
        let mut udp = udp::Socket::new(rx, tx);
        let _ = udp.bind(53);
        let udp = sockets.add(udp);
        let dhcp = config.dhcp.then(|| sockets.add(dhcpv4::Socket::new()));

        let mut dns_tcp = Listener::new(53, sizing.dns_tcp, 4096);
        let mut http = Listener::new(80, sizing.http, sizing.tcp_tx);
        dns_tcp.listen(&mut sockets, memory, 1);
        http.listen(&mut sockets, memory, 1);
        if dns_tcp.slots.is_empty() || http.slots.is_empty() {
            return Err(OutOfMemory);
        }
        Ok(Self {
            mtu: device.capabilities().max_transmission_unit,
            seed,
            gateways,
            iface,
            sockets,
            udp,
            udp_waits_since: None,
            dhcp,
            dns_tcp,
            http,
            announcer: Announcer::new(UNKNOWN_MAC),
            zone: BuiltIn::new(config.ipv4(), config.ipv6()),
            pages,
            timeline,
            stats: Stats::default(),
            out: [0; SCRATCH],
        })
    }

    /// The counters.
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// Takes the device's MAC address and MTU as they are now, and announces the
    /// addresses: on the first link and on every new one.
    pub fn link_up(&mut self, device: &mut (impl Device + ?Sized), mac: [u8; 6], now: Instant) {
        let address = EthernetAddress(mac);
        self.iface
            .set_hardware_addr(HardwareAddress::Ethernet(address));
        self.follow_mtu(device, now);
        self.iface.update_ip_addrs(|addresses| {
            addresses.retain(
                |cidr| !matches!(cidr, IpCidr::Ipv6(v6) if v6.address().is_unicast_link_local()),
            );
            if addresses.iter().any(|cidr| matches!(cidr, IpCidr::Ipv6(_))) {
                let _ = addresses.push(IpCidr::Ipv6(link_local(mac)));
            }
        });
        self.announcer = Announcer::new(mac);
        self.announcer.restart(now);
    }

    /// Takes the device's MTU as it is now: xenstore tells it after the first packet.
    fn follow_mtu(&mut self, device: &mut (impl Device + ?Sized), now: Instant) {
        let mtu = device.capabilities().max_transmission_unit;
        if mtu == self.mtu {
            return;
        }
        // smoltcp reads the MTU when an interface is made, so it is made anew.
        let mut iface = interface(device, self.iface.hardware_addr(), self.seed, now);
        iface.update_ip_addrs(|addresses| {
            addresses.clear();
            let _ = addresses.extend_from_slice(self.iface.ip_addrs());
        });
        set_gateways(&mut iface, self.gateways);
        self.iface = iface;
        self.mtu = mtu;
        // Another interface begins with other sequence numbers.
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
    }

    /// Announces what is due, and lets DHCP speak. The boot path's first frame.
    pub fn transmit(&mut self, device: &mut (impl Device + ?Sized), now: Instant) {
        self.announcer.poll(device, self.iface.ip_addrs(), now);
        self.iface.poll_egress(now, device, &mut self.sockets);
    }

    /// Receives, serves and transmits, all bounded. Returns when to call again
    /// at the latest: at once if work is left; never, without a packet, if `None`.
    pub fn poll(
        &mut self,
        device: &mut (impl Device + ?Sized),
        memory: &mut Memory<'_>,
        unix_seconds: u64,
        now: Instant,
    ) -> Option<Instant> {
        self.follow_mtu(device, now);
        let mut received = 0;
        while received < INGRESS_BATCH {
            match self
                .iface
                .poll_ingress_single(now, device, &mut self.sockets)
            {
                PollIngressSingleResult::None => break,
                PollIngressSingleResult::PacketProcessed
                | PollIngressSingleResult::SocketStateChanged => received += 1,
            }
            if received % BACKLOG == 0 {
                // These may all have been SYNs.
                self.listen(memory);
            }
        }
        self.iface.poll_maintenance(now);

        self.serve_udp();
        let deadline = self.serve_tcp(now, unix_seconds);
        self.poll_dhcp(now);
        self.make_room(now);
        self.transmit(device, now);
        while self.iface.poll_egress(now, device, &mut self.sockets)
            == PollResult::SocketStateChanged
        {}
        let patience = self.unblock_udp(device, now);

        self.listen(memory);

        if received == INGRESS_BATCH {
            return Some(now);
        }
        let connections =
            deadline.map(|at| Instant::from_millis(i64::try_from(at).unwrap_or(i64::MAX)));
        let mut sockets = self.iface.poll_at(now, &self.sockets);
        if device.transmit(now).is_none() {
            // What is due can't be sent: the back end's next event ends the sleep.
            sockets = sockets.map(|at| at.max(now + NO_ROOM_PAUSE));
        }
        [sockets, self.announcer.poll_at(), connections, patience]
            .into_iter()
            .flatten()
            .min()
    }

    fn serve_udp(&mut self) {
        // Nothing is fragmented: what does not fit the MTU is truncated.
        let room = self.mtu.saturating_sub(UDP_HEADERS).min(SCRATCH);
        let out = self.out.get_mut(..room).unwrap_or(&mut []);
        let socket = self.sockets.get_mut::<udp::Socket<'_>>(self.udp);
        while let Ok((query, metadata)) = socket.recv() {
            // A query to a group or to a broadcast address has no address to be answered from.
            if metadata
                .local_address
                .is_some_and(|address| !self.iface.has_ip_addr(address))
            {
                continue;
            }
            let answer = dns::answer(&self.zone, query, Transport::Udp, out, &mut self.stats.dns);
            let Some(answer) = answer.and_then(|n| out.get(..n)) else {
                continue;
            };
            match socket.send_slice(answer, metadata) {
                Ok(()) => self.timeline.first(Phase::FirstDns),
                Err(_) => self.stats.udp_full = self.stats.udp_full.wrapping_add(1),
            }
        }
    }

    /// Gives up the answers that wait behind one to a neighbour that does not
    /// answer. Returns when that will be.
    fn unblock_udp(
        &mut self,
        device: &mut (impl Device + ?Sized),
        now: Instant,
    ) -> Option<Instant> {
        let socket = self.sockets.get::<udp::Socket<'_>>(self.udp);
        if socket.send_queue() == 0 || device.transmit(now).is_none() {
            self.udp_waits_since = None;
            return None;
        }
        let deadline = *self.udp_waits_since.get_or_insert(now) + NEIGHBOR_PATIENCE;
        if now < deadline {
            return Some(deadline);
        }
        self.udp_waits_since = None;
        self.stats.udp_stuck = self.stats.udp_stuck.wrapping_add(1);
        // The set remembers for whom a socket waits: only a socket that is new to it does not.
        if let Socket::Udp(mut socket) = self.sockets.remove(self.udp) {
            socket.close();
            let _ = socket.bind(53);
            self.udp = self.sockets.add(socket);
        }
        None
    }

    fn serve_tcp(&mut self, now: Instant, unix_seconds: u64) -> Option<u64> {
        let now = millis(now);
        let mut dns = DnsService {
            zone: &self.zone,
            stats: &mut self.stats,
            timeline: self.timeline,
        };
        let dns = self
            .dns_tcp
            .serve(&mut dns, &mut self.sockets, now, &mut self.out);
        let mut http = HttpService {
            pages: self.pages,
            unix_seconds,
            stats: &mut self.stats,
            timeline: self.timeline,
        };
        let http = self
            .http
            .serve(&mut http, &mut self.sockets, now, &mut self.out);
        [dns, http].into_iter().flatten().min()
    }

    fn make_room(&mut self, now: Instant) {
        let now = millis(now);
        let http = self
            .http
            .make_room::<HttpService<'_, 'a, P>>(&mut self.sockets, now);
        let dns = self
            .dns_tcp
            .make_room::<DnsService<'_>>(&mut self.sockets, now);
        self.stats.evicted = self.stats.evicted.wrapping_add(http).wrapping_add(dns);
    }

    /// Sees to it that sockets listen.
    fn listen(&mut self, memory: &mut Memory<'_>) {
        self.dns_tcp
            .listen(&mut self.sockets, memory, BACKLOG.min(self.dns_tcp.max));
        self.http
            .listen(&mut self.sockets, memory, BACKLOG.min(self.http.max));
    }

    fn poll_dhcp(&mut self, now: Instant) {
        let Some(handle) = self.dhcp else { return };
        let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle);
        let lease = match socket.poll() {
            None => return,
            // A server that is no host can't be asked to renew: smoltcp would panic.
            Some(dhcpv4::Event::Configured(lease)) if !is_host(lease.server.address) => {
                socket.reset();
                return;
            }
            Some(dhcpv4::Event::Configured(lease)) => Some((lease.address, lease.router)),
            Some(dhcpv4::Event::Deconfigured) => None,
        };
        self.iface.update_ip_addrs(|addresses| {
            addresses.retain(|cidr| matches!(cidr, IpCidr::Ipv6(_)));
            if let Some((address, _)) = lease {
                let _ = addresses.push(IpCidr::Ipv4(address));
            }
        });
        // The same goes for a router.
        self.gateways.0 = lease
            .and_then(|(_, router)| router)
            .filter(|&router| is_host(router));
        set_gateways(&mut self.iface, self.gateways);
        self.zone
            .set_ipv4(lease.map(|(address, _)| address.address()));
        self.announcer.restart(now);
    }

    /// The addresses in use.
    pub fn addresses(&self) -> &[IpCidr] {
        self.iface.ip_addrs()
    }
}

//! The services on the network: DNS over UDP, TCP connections, addresses, announcements.
//!
//! A received frame goes one of three ways (`frame.rs`): a DNS query over UDP is answered at once (`udp.rs`), a TCP
//! segment goes to its connection (`tcp/`), and the interface handles the rest (`interface.rs`): ARP, neighbour
//! discovery, ICMP, DHCP.
//!
//! [`Stack::poll`] does a bounded amount of work and returns when it has to be called again. The caller sleeps in
//! between and supplies the memory.

mod auto;
mod dhcp;
mod frame;
mod interface;
mod late;
mod limit;
mod list;
mod listener;
mod neighbors;
mod path;
mod sizing;
mod snapshot;
mod tcp;
mod too_big;
mod udp;

use alloc::vec::Vec;
use core::cell::RefCell;

use mayfly_drivers::Hypervisor;
use mayfly_drivers::netfront::Features;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::Device;
use smoltcp::socket::dhcpv4;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, Ipv4Address, Ipv6Address, Ipv6Cidr};

use crate::announce::Announcer;
use crate::cmdline::GuestConfig;
use crate::nic::{Ethernet, Ip, Mac, Nic, Tx};
use crate::secrets::{Purpose, Root};
use crate::timeline::{BootPhase, Timeline};
use frame::Frame;
use late::LateServer;
use limit::Limit;
use mayfly_dns as dns;
use mayfly_http as http;
use mayfly_site::{Pages, Site};
use mayfly_stream::Millis;
pub use sizing::{LARGE, Sizing};
pub use snapshot::Snapshot;
use tcp::{Connections, Services, Wire};

/// The number of frames taken from the device before connections and the transmit side get their turn.
const INGRESS_BATCH: usize = 64;
/// The greatest delay of the sockets' timers while the device has no room. (It sends an event when it has room again.)
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);

/// Counters of the stack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StackStats {
    /// Idle and slow connections that were dropped to make room for another.
    pub evicted: u64,
    /// Half-open connections that were dropped to make room for another.
    pub half_open_evicted: u64,
    /// SYNs for which there was no room, and connections opened by a cookie for which there was none.
    pub refused: u64,
    /// SYNs that were answered with a cookie.
    pub cookies_sent: u64,
    /// Connections that a cookie has opened.
    pub cookies_taken: u64,
    /// SYNs to ports that nobody listens on.
    pub nobody: u64,
    /// Frames that were malformed or for another host.
    pub ignored: u64,
    /// Messages in which another host claims an address of ours.
    pub conflicts: u64,
    /// The numbers of connections that are half open, open, and closing.
    pub connections: [usize; 3],
}

/// The allocator of the stack's buffers: gives bytes for good, with undefined content; `None` if memory is exhausted.
pub type Memory<'m> = dyn FnMut(usize) -> Option<&'static mut [u8]> + 'm;

/// The default gateways of IPv4 and IPv6.
type Gateways = (Option<Ipv4Address>, Option<Ipv6Address>);

/// The placeholder of the MAC address until xenstored has told it.
const UNKNOWN_MAC: Mac = [0; 6];

/// The network stack with its services.
pub struct Stack<'a, P: Pages> {
    /// smoltcp's interface for the protocols of the link.
    iface: Interface,
    /// smoltcp's interface for TCP, which answers to the MAC address from which a segment came.
    ip: Interface,
    sockets: SocketSet<'static>,
    dhcp: Option<SocketHandle>,
    /// The time since which there is no lease.
    dhcp_since: Instant,
    /// Values of the DHCP server's last messages.
    dhcp_said: dhcp::Said,
    /// The end of a lease from an earlier link, which is used until a server answers on this one.
    dhcp_kept: Option<Instant>,
    /// The time at which `iface` has to be polled.
    iface_wake: Option<Instant>,
    connections: Connections<'a>,
    dns: LateServer,
    http: http::Shared,
    announcer: Announcer,
    /// The MLD report that is still to be sent.
    groups: listener::Due,
    conflicts: neighbors::Conflicts,
    /// The address from router advertisements, with `ip=auto`.
    auto: Option<auto::Auto>,
    /// The limit of ICMP errors and advertisements, which any host's frames can cause.
    errors: Limit,
    mtu: usize,
    features: Features,
    /// The seed of smoltcp's random numbers, except for sequence numbers.
    seed: u64,
    gateways: Gateways,
    served: Served<'a, P>,
    stats: StackStats,
}

/// The content that the stack serves, and the records that it keeps.
pub struct Served<'a, P> {
    /// The DNS zones.
    pub zones: Site<'a>,
    /// The HTTP pages.
    pub pages: &'a P,
    /// The boot timeline, in which the first packets are stamped.
    pub timeline: &'a Timeline,
    /// The counters, updated before a page with them may be served.
    pub snapshot: &'a RefCell<Snapshot>,
}

fn interface(
    device: &mut impl Device,
    address: HardwareAddress,
    seed: u64,
    now: Instant,
) -> Interface {
    let mut config = Config::new(address);
    config.random_seed = seed;
    Interface::new(config, device, now)
}

/// The addresses of an interface.
type Addresses = heapless::Vec<IpCidr, { smoltcp::config::IFACE_MAX_ADDR_COUNT }>;

/// Changes the addresses of both interfaces.
fn set_addresses(iface: &mut Interface, ip: &mut Interface, update: impl FnOnce(&mut Addresses)) {
    iface.update_ip_addrs(update);
    let addresses = iface.ip_addrs();
    ip.update_ip_addrs(|own| {
        own.clear();
        let _ = own.extend_from_slice(addresses);
    });
}

/// Adds the static addresses of a configuration.
fn add_static(addresses: &mut Addresses, config: &GuestConfig) {
    for cidr in config.addresses() {
        let _ = addresses.push(IpCidr::new(cidr.address.into(), cidr.prefix_len));
    }
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

/// The link-local address of a MAC address (RFC 4291 section 2.5.6 and appendix A).
fn link_local([a, b, c, d, e, f]: Mac) -> Ipv6Cidr {
    let mut bytes = [0; 16];
    bytes[..2].copy_from_slice(&[0xfe, 0x80]);
    bytes[8..].copy_from_slice(&[a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    Ipv6Cidr::new(Ipv6Address::from(bytes), 64)
}

/// Converts a time to the services' milliseconds.
fn millis(now: Instant) -> Millis {
    u64::try_from(now.total_millis()).unwrap_or(0)
}

impl<'a, P: Pages> Stack<'a, P> {
    /// A stack with the addresses of a configuration. It sends nothing until [`Stack::link_up`].
    pub fn new<H: Hypervisor>(
        nic: &mut Nic<'_, H>,
        config: &GuestConfig,
        root: &Root,
        sizing: &Sizing,
        served: Served<'a, P>,
        now: Instant,
    ) -> Self {
        let (_, tx) = nic.split();
        tx.limit_mtu(config.mtu);
        let mac = EthernetAddress(UNKNOWN_MAC).into();
        let seed = root.number(Purpose::Smoltcp);
        let mut iface = interface(&mut Ethernet::new(None, tx), mac, seed, now);
        let mut ip = ip_interface(tx, now);
        set_addresses(&mut iface, &mut ip, |addresses| {
            add_static(addresses, config)
        });
        let gateways = (config.gw4, config.gw6);
        set_gateways(&mut iface, gateways);
        let mut sockets = SocketSet::new(Vec::with_capacity(usize::from(config.dhcp)));
        let dhcp = config.dhcp.then(|| {
            let mut socket = dhcpv4::Socket::new();
            socket.set_parameter_request_list(dhcp::WANTED);
            sockets.add(socket)
        });
        Self {
            mtu: tx.mtu(),
            features: tx.features(),
            iface,
            ip,
            sockets,
            dhcp,
            dhcp_since: now,
            dhcp_said: dhcp::Said::default(),
            dhcp_kept: None,
            iface_wake: Some(now),
            connections: Connections::new(sizing, root),
            dns: LateServer::new(root.clone(), |secret| config.dns(secret)),
            http: http::Shared::default(),
            announcer: Announcer::new(UNKNOWN_MAC),
            groups: listener::Due::default(),
            conflicts: neighbors::Conflicts::default(),
            auto: config.auto.then(auto::Auto::default),
            errors: Limit::FULL,
            seed,
            gateways,
            served,
            stats: StackStats::default(),
        }
    }

    /// Takes another root key: from here on, nothing is made with a secret of the old one. Connections stay.
    pub fn renew_secrets(&mut self, root: &Root) {
        self.seed = root.number(Purpose::Smoltcp);
        self.connections.renew_secrets(root);
        self.dns.renew_secrets(root.clone());
    }

    /// The counters.
    pub fn stats(&self) -> StackStats {
        StackStats {
            connections: self.connections.counts(),
            ..self.stats
        }
    }

    /// The counters of DNS.
    pub fn dns(&self) -> dns::QueryCounts {
        self.dns.stats()
    }

    /// The counters of HTTP.
    pub fn http(&self) -> &http::RequestCounts {
        &self.http.stats
    }

    /// The addresses in use.
    pub fn addresses(&self) -> &[IpCidr] {
        self.iface.ip_addrs()
    }

    fn update_addresses(&mut self, update: impl FnOnce(&mut Addresses)) {
        set_addresses(&mut self.iface, &mut self.ip, update);
    }

    /// Starts to use a link: takes the device's MAC address and MTU, and announces the addresses. To be called on the
    /// first link and on every new one.
    pub fn link_up<H: Hypervisor>(&mut self, nic: &mut Nic<'_, H>, mac: Mac, now: Instant) {
        let address = HardwareAddress::Ethernet(EthernetAddress(mac));
        let is_same_interface = self.iface.hardware_addr() == address;
        self.iface.set_hardware_addr(address);
        self.follow(nic, now);
        // The new link may be on another network.
        let old = self
            .auto
            .as_mut()
            .and_then(|auto| core::mem::take(auto).address());
        let is_auto = self.auto.is_some();
        self.update_addresses(|addresses| {
            addresses.retain(|cidr| match cidr {
                IpCidr::Ipv6(v6) => !v6.address().is_unicast_link_local() && Some(*v6) != old,
                IpCidr::Ipv4(_) => true,
            });
            if is_auto || addresses.iter().any(|cidr| matches!(cidr, IpCidr::Ipv6(_))) {
                let _ = addresses.push(IpCidr::Ipv6(link_local(mac)));
            }
        });
        self.restart_dhcp(is_same_interface, now);
        self.announcer = Announcer::new(mac);
        self.announcer.restart(now);
        self.iface_wake = Some(now);
    }

    /// Takes the device's present MTU and features, which become known after the first packet.
    fn follow<H: Hypervisor>(&mut self, nic: &mut Nic<'_, H>, now: Instant) {
        let (_, tx) = nic.split();
        let (mtu, features) = (tx.mtu(), tx.features());
        if (mtu, features) == (self.mtu, self.features) {
            return;
        }
        // smoltcp reads them only when an interface is made, so both interfaces are made again.
        let mac = self.iface.hardware_addr();
        let addresses = self.iface.ip_addrs();
        let mut ip = ip_interface(tx, now);
        ip.update_ip_addrs(|own| {
            let _ = own.extend_from_slice(addresses);
        });
        self.ip = ip;
        if mtu != self.mtu {
            let mut device = Ethernet::new(None, tx);
            let mut iface = interface(&mut device, mac, self.seed, now);
            iface.update_ip_addrs(|own| {
                let _ = own.extend_from_slice(addresses);
            });
            set_gateways(&mut iface, self.gateways);
            self.iface = iface;
        }
        (self.mtu, self.features) = (mtu, features);
        self.connections.activate_all();
    }

    /// Sends the announcement that is due, and DHCP's messages. This sends the first frame of the boot.
    pub fn transmit<H: Hypervisor>(&mut self, nic: &mut Nic<'_, H>, now: Instant) {
        let (_, tx) = nic.split();
        let mut device = Ethernet::new(None, tx);
        let mut due = self.groups.take(now);
        if self.announcer.poll(&mut device, self.iface.ip_addrs(), now) {
            due = Some(listener::Report::Joined);
            self.solicit(tx, now);
        }
        self.expire(now);
        let mut device = Ethernet::new(None, tx);
        self.iface.poll_egress(now, &mut device, &mut self.sockets);
        if let Some(report) = due {
            listener::report(report, self.iface.ip_addrs(), tx);
        }
    }

    /// Receives, serves and transmits a bounded number of frames. Returns the latest time of the next call: now if work
    /// is left, `None` if only an event can bring more.
    pub fn poll<H: Hypervisor>(
        &mut self,
        nic: &mut Nic<'_, H>,
        memory: &mut Memory<'_>,
        unix_seconds: Option<u64>,
        now: Instant,
    ) -> Option<Instant> {
        self.follow(nic, now);
        let mut received = 0;
        let own = nic.tx.mac();
        while received < INGRESS_BATCH && nic.receive() {
            received += 1;
            let (frame, tx) = nic.split();
            match Frame::read(frame, own, self.iface.ip_addrs()) {
                Frame::Query(path, query) => {
                    let (server, zones) = (self.dns.get(), &self.served.zones);
                    let seconds = unix_seconds.unwrap_or(0);
                    if udp::answer(server, zones, millis(now), seconds, &path, query, tx) {
                        self.served.timeline.first(BootPhase::FirstDns);
                    }
                }
                Frame::Segment(segment) => {
                    let iface = &mut self.ip;
                    let mut wire = Wire { now, iface, tx };
                    self.connections
                        .receive(&segment, &mut wire, memory, &mut self.stats);
                }
                Frame::Dhcp(from, address, payload) => {
                    match dhcp::Message::read(payload, address, own) {
                        Some(message) => self.lease(message, from, tx, now),
                        None => self.stats.ignored += 1,
                    }
                }
                Frame::Group(packet) => {
                    if let Some((delay, report)) = listener::query(packet, own) {
                        self.groups.ask(now + delay, report);
                        let wake = [self.iface_wake, self.groups.at()];
                        self.iface_wake = wake.into_iter().flatten().min();
                    }
                }
                Frame::TooBig(told) => self.connections.narrow(&told),
                Frame::Unwanted if !self.errors.take(now) => self.stats.ignored += 1,
                Frame::Other | Frame::Unwanted => self.other(frame, tx, now),
                Frame::Nothing => self.stats.ignored += 1,
            }
        }

        if self.iface_wake.is_some_and(|at| at <= now) {
            self.poll_dhcp(now);
            self.transmit(nic, now);
            let sockets = self.iface.poll_at(now, &self.sockets);
            let ends = self.auto.and_then(|auto| auto.ends());
            let wake = [
                sockets,
                self.announcer.poll_at(),
                self.groups.at(),
                ends,
                self.dhcp_kept,
            ];
            self.iface_wake = wake.into_iter().flatten().min();
        }
        self.serve(nic, unix_seconds, now);

        if received == INGRESS_BATCH {
            return Some(now);
        }
        let due = self.connections.is_active().then_some(now);
        let mut wake = [due, self.connections.wake(), self.iface_wake]
            .into_iter()
            .flatten()
            .min();
        if wake.is_some_and(|at| at <= now) && self.is_blocked(nic) {
            // The frame that is due finds no room, and an event of the back end will end the sleep.
            wake = Some(now + NO_ROOM_PAUSE);
        }
        wake
    }

    /// Whether there is no room for the longest frame.
    fn is_blocked<H: Hypervisor>(&self, nic: &mut Nic<'_, H>) -> bool {
        let (_, tx) = nic.split();
        Ip::new(None, tx, UNKNOWN_MAC)
            .transmit(Instant::ZERO)
            .is_none()
    }

    fn serve<H: Hypervisor>(
        &mut self,
        nic: &mut Nic<'_, H>,
        unix_seconds: Option<u64>,
        now: Instant,
    ) {
        if self.connections.is_http_active() {
            // The request may be for a page of figures.
            *self.served.snapshot.borrow_mut() = Snapshot {
                now,
                stack: self.stats(),
                dns: self.dns.stats(),
                http: self.http.stats,
                bad_checksums: nic.bad_checksums(),
                front: nic.front().counters(),
                quarantined: nic.front().quarantined(),
            };
        }
        let (_, tx) = nic.split();
        let mut services = Services {
            dns: &mut self.dns,
            http: &mut self.http,
            zones: &self.served.zones,
            pages: self.served.pages,
            unix_seconds,
            timeline: self.served.timeline,
        };
        let iface = &mut self.ip;
        let mut wire = Wire { now, iface, tx };
        self.connections.serve(&mut wire, &mut services);
    }
}

/// The interface for TCP. Each connection sets its seed (`tcp/sequence.rs`).
fn ip_interface<H: Hypervisor>(tx: &mut Tx<'_, H>, now: Instant) -> Interface {
    let mut device = Ip::new(None, tx, UNKNOWN_MAC);
    interface(&mut device, HardwareAddress::Ip, 0, now)
}

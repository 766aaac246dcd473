//! A smoltcp client at netback's end of the wire.

use mayfly_drivers::Hypervisor;
use mayfly_drivers::fake::FakeXen;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::socket::{tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr, IpEndpoint};

use crate::frames::{self, Question};
use crate::netem::Link;
use crate::{GUEST4, Net};

/// The client's MAC address.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The size of each socket buffer, in bytes.
const BUFFER: usize = 64 * 1024;

/// The frames of the guest that a client has received, with their times.
pub type Log = Vec<(u64, Vec<u8>)>;

/// netback, with the link to it, as a smoltcp device.
pub struct Wire<'w> {
    xen: &'w FakeXen,
    log: &'w mut Log,
    link: &'w mut Link,
}

impl<'w> Wire<'w> {
    /// The wire of the guest on `xen`; received frames are also noted in `log`.
    pub fn new(xen: &'w FakeXen, log: &'w mut Log, link: &'w mut Link) -> Self {
        Self { xen, log, link }
    }
}

/// A frame from the guest.
pub struct RxToken(Vec<u8>);

/// Room for a frame to the guest.
pub struct TxToken<'w>(&'w FakeXen, &'w mut Link);

impl smoltcp::phy::RxToken for RxToken {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl smoltcp::phy::TxToken for TxToken<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.1.send(self.0, frame);
        result
    }
}

impl Device for Wire<'_> {
    type RxToken<'t>
        = RxToken
    where
        Self: 't;
    type TxToken<'t>
        = TxToken<'t>
    where
        Self: 't;

    fn receive(&mut self, _: Instant) -> Option<(RxToken, TxToken<'_>)> {
        let frame = self.link.receive(self.xen)?;
        self.log.push((self.xen.now().0, frame.clone()));
        Some((RxToken(frame), TxToken(self.xen, self.link)))
    }

    fn transmit(&mut self, _: Instant) -> Option<TxToken<'_>> {
        Some(TxToken(self.xen, self.link))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// The client's interface and sockets.
pub struct ClientStack {
    iface: Interface,
    sockets: SocketSet<'static>,
    next_port: u16,
}

impl ClientStack {
    /// Receives, answers and sends. Returns the time of the next call.
    pub fn poll(&mut self, wire: &mut Wire<'_>, now: Instant) -> Option<Instant> {
        self.iface.poll(now, wire, &mut self.sockets);
        self.iface.poll_at(now, &self.sockets)
    }
}

/// The client.
pub struct Client {
    /// The interface and the sockets.
    pub stack: ClientStack,
    /// The frames that the guest has sent.
    pub log: Log,
    /// The link between the two.
    pub link: Link,
}

impl Client {
    /// A client with addresses in the guest's networks: 10.0.2.2, fd00::2 and fe80::2.
    #[must_use]
    pub fn new(xen: &FakeXen) -> Self {
        Self::with_addresses(xen, MAC, [10, 0, 2, 2], 2)
    }

    /// A client with these addresses; the last group of the IPv6 ones is `host`.
    #[must_use]
    pub fn with_addresses(xen: &FakeXen, mac: [u8; 6], v4: [u8; 4], host: u16) -> Self {
        let mut config = Config::new(EthernetAddress(mac).into());
        config.random_seed = u64::from(host) + 77;
        let (mut log, mut link) = (Vec::new(), Link::default());
        let wire = &mut Wire::new(xen, &mut log, &mut link);
        let mut iface = Interface::new(config, wire, Instant::ZERO);
        let [a, b, c, d] = v4;
        iface.update_ip_addrs(|addresses| {
            for cidr in [
                IpCidr::new(IpAddress::v4(a, b, c, d), 24),
                IpCidr::new(IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, host), 64),
                IpCidr::new(IpAddress::v6(0xfe80, 0, 0, 0, 0, 0, 0, host), 64),
            ] {
                addresses.push(cidr).expect("there is room for three");
            }
        });
        Self {
            stack: ClientStack {
                iface,
                sockets: SocketSet::new(Vec::new()),
                next_port: 40_000 + host,
            },
            log,
            link,
        }
    }

    fn port(&mut self) -> u16 {
        self.stack.next_port = self.stack.next_port.wrapping_add(1).max(1024);
        self.stack.next_port
    }

    /// Begins a connection.
    pub fn connect(&mut self, to: impl Into<IpAddress>, port: u16) -> SocketHandle {
        self.connect_with(to, port, BUFFER)
    }

    /// Begins a connection with a receive buffer of this many bytes.
    pub fn connect_with(
        &mut self,
        to: impl Into<IpAddress>,
        port: u16,
        rx_bytes: usize,
    ) -> SocketHandle {
        let buffer = |bytes| tcp::SocketBuffer::new(vec![0; bytes]);
        let mut socket = tcp::Socket::new(buffer(rx_bytes), buffer(BUFFER));
        socket.set_nagle_enabled(false);
        let local = self.port();
        socket
            .connect(
                self.stack.iface.context(),
                IpEndpoint::new(to.into(), port),
                local,
            )
            .expect("a fresh socket connects");
        self.stack.sockets.add(socket)
    }

    /// A connection.
    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.stack.sockets.get_mut(handle)
    }

    /// Takes all unread bytes of a connection.
    pub fn read(&mut self, handle: SocketHandle) -> Vec<u8> {
        let socket = self.tcp(handle);
        let mut all = Vec::new();
        while socket.can_recv() {
            let _ = socket.recv(|bytes| {
                all.extend_from_slice(bytes);
                (bytes.len(), ())
            });
        }
        all
    }

    /// Queues bytes on a connection.
    pub fn write(&mut self, handle: SocketHandle, bytes: &[u8]) {
        let sent = self.tcp(handle).send_slice(bytes);
        assert_eq!(sent, Ok(bytes.len()));
    }

    /// A datagram socket on a port of its own.
    pub fn datagrams(&mut self) -> SocketHandle {
        let buffer =
            || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 64], vec![0; BUFFER]);
        let mut socket = udp::Socket::new(buffer(), buffer());
        socket.bind(self.port()).expect("a fresh socket binds");
        self.stack.sockets.add(socket)
    }

    /// Queues a datagram.
    pub fn send_to(&mut self, handle: SocketHandle, to: IpEndpoint, bytes: &[u8]) {
        let socket = self.stack.sockets.get_mut::<udp::Socket<'_>>(handle);
        socket.send_slice(bytes, to).expect("there is room");
    }

    /// Takes a datagram.
    pub fn receive_from(&mut self, handle: SocketHandle) -> Option<(Vec<u8>, IpEndpoint)> {
        let socket = self.stack.sockets.get_mut::<udp::Socket<'_>>(handle);
        let (bytes, metadata) = socket.recv().ok()?;
        Some((bytes.to_vec(), metadata.endpoint))
    }

    /// Removes a socket.
    pub fn remove(&mut self, handle: SocketHandle) {
        self.stack.sockets.remove(handle);
    }
}

/// The guest's IPv4 address.
#[must_use]
pub fn guest4() -> IpAddress {
    let [a, b, c, d] = GUEST4;
    IpAddress::v4(a, b, c, d)
}

/// The guest's IPv6 address.
#[must_use]
pub fn guest6() -> IpAddress {
    IpAddress::v6(0xfd00, 0, 0, 0, 0, 0, 0, 0x80)
}

/// The guest's link-local address, which follows from its MAC address.
#[must_use]
pub fn guest_link_local() -> IpAddress {
    IpAddress::v6(0xfe80, 0, 0, 0, 0x0216, 0x3eff, 0xfe00, 0x0001)
}

/// A request for the site's page on a connection that is closed after it.
pub const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

impl Net<'_> {
    /// Checks that the guest answers over DNS and HTTP at both addresses, and has broken no rule.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn assert_serves(&mut self) {
        for address in [guest4(), guest6()] {
            let answer = self.dns(address, &Question::a("mayfly.test"));
            assert!(answer.is_some(), "no answer over DNS from {address}");
            let page = self.http(address, GET).unwrap_or_default();
            assert!(
                page.starts_with(b"HTTP/1.1 200"),
                "no page from {address}: {}",
                page.escape_ascii()
            );
        }
        assert_eq!(self.violations(), [""; 0]);
    }

    /// Asks over UDP, up to three times, and returns the answer.
    pub fn dns(&mut self, to: IpAddress, question: &Question<'_>) -> Option<Vec<u8>> {
        self.dns_within(to, question, 3.0)
    }

    /// Asks over UDP once a second, for this many seconds.
    pub fn dns_within(
        &mut self,
        to: IpAddress,
        question: &Question<'_>,
        seconds: f64,
    ) -> Option<Vec<u8>> {
        let socket = self.client.datagrams();
        let query = frames::dns_query(question);
        let end = self.after(seconds);
        let mut answer = None;
        while answer.is_none() && self.now() < end {
            self.client.send_to(socket, IpEndpoint::new(to, 53), &query);
            self.until(1.0, |net| {
                answer = net.client.receive_from(socket);
                answer.is_some()
            });
        }
        self.client.remove(socket);
        let (bytes, from) = answer?;
        assert_eq!(from, IpEndpoint::new(to, 53));
        Some(bytes)
    }

    /// Sends a request on a new connection and returns all bytes until the guest closes.
    pub fn http(&mut self, to: IpAddress, request: &[u8]) -> Option<Vec<u8>> {
        self.http_within(to, request, 30.0)
    }

    /// Does the same, and opens new connections while they are refused, for this many seconds.
    pub fn http_within(&mut self, to: IpAddress, request: &[u8], seconds: f64) -> Option<Vec<u8>> {
        let end = self.after(seconds);
        while self.now() < end {
            let handle = self.client.connect(to, 80);
            self.client
                .tcp(handle)
                .set_timeout(Some(smoltcp::time::Duration::from_secs(5)));
            let (mut sent, mut answer) = (false, Vec::new());
            self.until(20.0, |net| {
                let socket = net.client.tcp(handle);
                if !sent && socket.can_send() {
                    let _ = socket.send_slice(request);
                    sent = true;
                }
                answer.extend(net.client.read(handle));
                let socket = net.client.tcp(handle);
                !socket.may_recv() && socket.state() != tcp::State::SynSent
            });
            answer.extend(self.client.read(handle));
            self.client.tcp(handle).abort();
            self.run_for(0.01);
            self.client.remove(handle);
            if !answer.is_empty() {
                return Some(answer);
            }
            self.run_for(1.0);
        }
        None
    }
}

//! The network interface: the front end with its frames, and smoltcp's [`Device`]s over it.
//!
//! A received frame is copied out of its shared page once, into a private buffer, so that the back end cannot change it
//! any more. A frame to send is composed in the page from which the back end reads it. The back end cannot write that
//! page.
//!
//! There are two devices. [`Ethernet`] is for the protocols of the link: ARP, neighbour discovery, ICMP, DHCP. [`Ip`]
//! is for TCP and is made for one peer at a time. It sends to the MAC address from which the peer's last segment came,
//! without ARP or neighbour discovery.
//!
//! Checksums: the back end passes frames of its own host with blank transport checksums (`NETRXF_csum_blank`), and says
//! of other frames whether it has verified them. [`Nic::receive`] verifies the rest, and smoltcp verifies none. The
//! back end fills in the TCP and UDP checksums of sent frames, once it has advertised that it can.

use alloc::vec;
use core::num::NonZeroUsize;

use mayfly_drivers::Hypervisor;
use mayfly_drivers::netfront::{
    Checksum as FrameChecksum, ETHERNET_HEADER, Features, NetFront, Offload, TxFrame,
};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, PacketMeta};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6Packet,
    TcpPacket, UdpPacket,
};

use crate::checksum::{Protocol, Sum, finish};
use crate::timeline::{BootPhase, Timeline};

/// Room for the longest frame without scatter-gather, a VLAN tag included.
const FRAME_MAX: usize = 1536;
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of an IPv6 header.
pub const IPV6_HEADER: usize = 40;

/// A MAC address.
pub type Mac = [u8; 6];

/// The network interface, and the frame that it received last.
pub struct Nic<'h, H: Hypervisor> {
    /// Where frames are sent.
    pub tx: Tx<'h, H>,
    frame: [u8; FRAME_MAX],
    length: usize,
    bad_checksums: u64,
}

/// The sending side.
pub struct Tx<'h, H: Hypervisor> {
    front: NetFront<'h, H>,
    timeline: &'h Timeline,
    /// The greatest MTU, from the command line.
    mtu_max: Option<u16>,
}

impl<'h, H: Hypervisor> Nic<'h, H> {
    /// An interface over a front end in any state.
    pub fn new(front: NetFront<'h, H>, timeline: &'h Timeline) -> Self {
        Self {
            tx: Tx {
                front,
                timeline,
                mtu_max: None,
            },
            frame: [0; FRAME_MAX],
            length: 0,
            bad_checksums: 0,
        }
    }

    /// The front end.
    pub fn front(&mut self) -> &mut NetFront<'h, H> {
        &mut self.tx.front
    }

    /// Frames dropped for a wrong TCP or UDP checksum.
    pub fn bad_checksums(&self) -> u64 {
        self.bad_checksums
    }

    /// Takes the next frame. Returns `false` if there is none, or if there is no room to answer it: then it stays in
    /// its ring.
    #[inline]
    pub fn receive(&mut self) -> bool {
        if !self.tx.front.can_send() {
            return false;
        }
        while let Some(received) = self.tx.front.receive(&mut self.frame) {
            self.length = received.len;
            self.tx.timeline.first(BootPhase::FirstRx);
            if received.checksum != FrameChecksum::Unknown
                || transport_checksum_holds(self.split().0)
            {
                return true;
            }
            self.bad_checksums += 1;
        }
        false
    }

    /// The frame that was received last, and the sending side.
    #[inline]
    pub fn split(&mut self) -> (&[u8], &mut Tx<'h, H>) {
        let frame = self.frame.get(..self.length).unwrap_or(&[]);
        (frame, &mut self.tx)
    }
}

impl<H: Hypervisor> Tx<'_, H> {
    /// Our MAC address.
    #[inline]
    pub fn mac(&self) -> Mac {
        self.front.mac()
    }

    /// The MTU, in bytes of IP packet.
    pub fn mtu(&self) -> usize {
        let mtu = self.front.mtu();
        usize::from(self.mtu_max.map_or(mtu, |most| mtu.min(most)))
    }

    /// Sets the greatest MTU.
    pub fn limit_mtu(&mut self, most: Option<u16>) {
        self.mtu_max = most;
    }

    /// The transmit offloads of the back end.
    pub fn features(&self) -> Features {
        self.front.features()
    }

    /// The longest TCP frame that the back end cuts into segments, in bytes.
    fn longest_frame(&self) -> usize {
        self.front.longest_frame()
    }

    /// Room to compose a frame in.
    #[inline]
    pub fn frame(&mut self, length: usize) -> Option<TxFrame<'_>> {
        self.front.frame(length, false)
    }

    /// Stamps the first frame in the boot timeline. To be called after a frame was sent.
    #[inline]
    pub fn sent(&self) {
        self.timeline.first(BootPhase::FirstTxQueued);
    }

    /// Composes a frame in its pages and sends it.
    #[inline]
    fn compose<R>(
        &mut self,
        length: usize,
        segmented: bool,
        f: impl FnOnce(&mut [u8]) -> (R, Offload),
    ) -> R {
        let Some(mut room) = self.front.frame(length, segmented) else {
            // There was room when smoltcp asked. A frame that finds none now is lost, as on any wire.
            return f(&mut vec![0; length]).0;
        };
        let (result, offload) = f(room.bytes());
        if room.send(length, offload).is_ok() {
            self.sent();
        }
        result
    }
}

/// The device for the protocols of the link, with the received frame if there is one.
pub struct Ethernet<'n, 'h, H: Hypervisor> {
    frame: Option<&'n [u8]>,
    tx: &'n mut Tx<'h, H>,
}

impl<'n, 'h, H: Hypervisor> Ethernet<'n, 'h, H> {
    /// The device, with a frame if there is one.
    pub fn new(frame: Option<&'n [u8]>, tx: &'n mut Tx<'h, H>) -> Self {
        Self { frame, tx }
    }
}

/// The device for one TCP peer, with the IP packet that was received from it.
pub struct Ip<'n, 'h, H: Hypervisor> {
    packet: Option<&'n [u8]>,
    tx: &'n mut Tx<'h, H>,
    peer: Mac,
    /// Whether the back end cuts frames into segments.
    is_cut: bool,
    /// The longest frame that it cuts, in bytes.
    longest: usize,
    /// Whether there was no room for a frame.
    exhausted: bool,
    /// Whether all that is sent is dropped.
    is_nowhere: bool,
    /// The MTU of the path to the peer.
    mtu: usize,
    /// The sequence number after the last byte sent.
    sent: Option<u32>,
}

impl<'n, 'h, H: Hypervisor> Ip<'n, 'h, H> {
    /// The device for the peer at a MAC address, with an IP packet of it if there is one.
    pub fn new(packet: Option<&'n [u8]>, tx: &'n mut Tx<'h, H>, peer: Mac) -> Self {
        // smoltcp asks several times for each packet.
        let is_cut = tx.features().segment;
        let longest = if is_cut {
            tx.longest_frame()
        } else {
            FRAME_MAX
        };
        Self {
            packet,
            peer,
            is_cut,
            longest,
            exhausted: false,
            is_nowhere: false,
            mtu: tx.mtu(),
            sent: None,
            tx,
        }
    }

    /// The device with the MTU of a path, at most the interface's. A smoltcp interface reads the MTU only when it is
    /// made.
    #[must_use]
    pub fn with_mtu(self, mtu: usize) -> Self {
        Self {
            mtu: self.mtu.min(mtu),
            ..self
        }
    }

    /// The sequence number after the last byte sent; `None` if no segment with data was sent.
    pub fn sent(&self) -> Option<u32> {
        self.sent
    }

    /// A device that drops all that is sent. (As a type of its own it would make a second copy of smoltcp's transmit
    /// code in the image.)
    pub fn nowhere(tx: &'n mut Tx<'h, H>) -> Self {
        Self {
            is_nowhere: true,
            ..Self::new(None, tx, [0; 6])
        }
    }

    /// Whether there was no room for a frame.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted
    }
}

/// A received frame or packet.
pub struct RxToken<'a>(&'a [u8]);

impl smoltcp::phy::RxToken for RxToken<'_> {
    #[inline]
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

/// Room for a frame to send.
pub struct EthernetToken<'a, 'h, H: Hypervisor>(&'a mut Tx<'h, H>);

impl<H: Hypervisor> smoltcp::phy::TxToken for EthernetToken<'_, '_, H> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        self.0
            .compose(length, false, |frame| (f(frame), Offload::None))
    }
}

impl<'n, 'h, H: Hypervisor> Device for Ethernet<'n, 'h, H> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = EthernetToken<'a, 'h, H>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, EthernetToken<'_, 'h, H>)> {
        let frame = self.frame.take()?;
        Some((RxToken(frame), EthernetToken(self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<EthernetToken<'_, 'h, H>> {
        self.tx.front.can_send().then_some(EthernetToken(self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.tx.mtu() + ETHERNET_HEADER;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}

/// Room for a TCP segment, or for a long one that the back end cuts.
pub struct IpToken<'a, 'h, H: Hypervisor> {
    tx: &'a mut Tx<'h, H>,
    peer: Mac,
    segment: Option<u16>,
    is_nowhere: bool,
    sent: &'a mut Option<u32>,
}

impl<H: Hypervisor> smoltcp::phy::TxToken for IpToken<'_, '_, H> {
    #[inline]
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let Self {
            tx,
            peer,
            segment,
            is_nowhere,
            sent,
        } = self;
        if is_nowhere {
            return f(&mut vec![0; length]);
        }
        let (mac, features) = (tx.mac(), tx.features());
        tx.compose(ETHERNET_HEADER + length, segment.is_some(), |frame| {
            let (header, packet) = frame.split_at_mut(ETHERNET_HEADER);
            let result = f(packet);
            let ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
            ethernet_header(header, peer, mac, ipv4);
            *sent = sequence_end(packet, ipv4).or(*sent);
            (result, finish_tcp(packet, ipv4, segment, features))
        })
    }

    fn set_meta(&mut self, meta: PacketMeta) {
        self.segment = meta
            .segmentation_offload_size
            .map(core::num::NonZeroU16::get);
    }
}

/// Writes an Ethernet header.
#[inline]
pub fn ethernet_header(header: &mut [u8], to: Mac, from: Mac, ipv4: bool) {
    let [a, b, c, d, e, f] = to;
    let [g, h, i, j, k, l] = from;
    let [m, n] = if ipv4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    if let Some(header) = header.first_chunk_mut::<ETHERNET_HEADER>() {
        *header = [a, b, c, d, e, f, g, h, i, j, k, l, m, n];
    }
}

/// The sequence number after the last byte of a TCP packet; `None` if it has no data.
fn sequence_end(packet: &[u8], ipv4: bool) -> Option<u32> {
    let header = if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let message = packet.get(header..)?;
    let (start, offset) = (message.get(4..8)?.first_chunk()?, message.get(12)? >> 4);
    let length = message.len().checked_sub(usize::from(offset) * 4)?;
    let length = u32::try_from(length).ok().filter(|length| *length > 0)?;
    Some(u32::from_be_bytes(*start).wrapping_add(length))
}

/// Writes the checksums of a TCP packet whose checksum fields are 0. Returns the work that is left to the back end.
fn finish_tcp(packet: &mut [u8], ipv4: bool, segment: Option<u16>, features: Features) -> Offload {
    let header = if ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let Some((header, message)) = packet.split_at_mut_checked(header) else {
        return Offload::None;
    };
    let blank = features.completes_checksum(ipv4);
    finish(header, message, Protocol::Tcp, blank);
    match segment {
        Some(size) => Offload::Segment(size),
        None if blank => Offload::Checksum,
        None => Offload::None,
    }
}

impl<'n, 'h, H: Hypervisor> Device for Ip<'n, 'h, H> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = IpToken<'a, 'h, H>
    where
        Self: 'a;

    #[inline]
    fn receive(&mut self, _: Instant) -> Option<(RxToken<'_>, IpToken<'_, 'h, H>)> {
        let packet = self.packet.take()?;
        let token = IpToken {
            tx: self.tx,
            peer: self.peer,
            segment: None,
            is_nowhere: self.is_nowhere,
            sent: &mut self.sent,
        };
        Some((RxToken(packet), token))
    }

    #[inline]
    fn transmit(&mut self, _: Instant) -> Option<IpToken<'_, 'h, H>> {
        let segmented = self.tx.features().segment;
        if !self.tx.front.can_send_bytes(self.longest, segmented) {
            self.exhausted = true;
            return None;
        }
        Some(IpToken {
            tx: self.tx,
            peer: self.peer,
            segment: None,
            is_nowhere: self.is_nowhere,
            sent: &mut self.sent,
        })
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let longest = NonZeroUsize::new(self.longest - ETHERNET_HEADER);
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ip;
        capabilities.max_transmission_unit = self.mtu;
        // Checksums are verified before smoltcp gets a packet, and written after it has composed one (`finish_tcp`).
        capabilities.checksum.ipv4 = Checksum::None;
        capabilities.checksum.tcp = Checksum::None;
        // Over IPv6, smoltcp 0.14 drops packets longer than the MTU even if the device can cut them.
        capabilities.segmentation.tcpv4 = longest.filter(|_| self.is_cut);
        capabilities
    }
}

/// Whether the TCP or UDP checksum of a frame is right. Returns `true` for frames that have none, and for malformed
/// ones, which later code drops.
fn transport_checksum_holds(frame: &[u8]) -> bool {
    fn message(protocol: IpProtocol, source: IpAddress, target: IpAddress, bytes: &[u8]) -> bool {
        let is_whole = |content: &[u8]| {
            Sum::pseudo_header(&source, &target, protocol.into(), content.len())
                .with(content)
                .is_whole()
        };
        match protocol {
            IpProtocol::Tcp => TcpPacket::new_checked(bytes).map_or(true, |_| is_whole(bytes)),
            IpProtocol::Udp => UdpPacket::new_checked(bytes).map_or(true, |datagram| {
                // Only IPv4 has datagrams without a checksum (RFC 8200, section 8.1).
                let blank = datagram.checksum() == 0;
                let content = bytes.get(..usize::from(datagram.len())).unwrap_or(bytes);
                blank && matches!(source, IpAddress::Ipv4(_)) || !blank && is_whole(content)
            }),
            // smoltcp looks for a message behind this extension header only.
            IpProtocol::HopByHop => Ipv6ExtHeader::new_checked(bytes).map_or(true, |header| {
                let rest = bytes.get(usize::from(header.header_len()) * 8 + 8..);
                let protocol = header.next_header();
                protocol == IpProtocol::HopByHop
                    || message(protocol, source, target, rest.unwrap_or(&[]))
            }),
            _ => true,
        }
    }
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return true;
    };
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => Ipv4Packet::new_checked(frame.payload()).map_or(true, |ip| {
            message(
                ip.next_header(),
                ip.src_addr().into(),
                ip.dst_addr().into(),
                ip.payload(),
            )
        }),
        EthernetProtocol::Ipv6 => Ipv6Packet::new_checked(frame.payload()).map_or(true, |ip| {
            message(
                ip.next_header(),
                ip.src_addr().into(),
                ip.dst_addr().into(),
                ip.payload(),
            )
        }),
        _ => true,
    }
}

//! The network front end as a smoltcp [`Device`].
//!
//! Frames are copied between the shared pages and two private buffers here, so
//! that smoltcp never sees a byte that the back end can still change.
//!
//! Checksums: the back end passes frames of its own host with blank transport
//! checksums (`NETRXF_csum_blank`), and says of others whether it has verified
//! them. smoltcp is told not to verify TCP and UDP; what nobody has verified is
//! verified here. Frames that we send are always complete.

use mayfly_drivers::Hypervisor;
use mayfly_drivers::netfront::{Checksum as FrameChecksum, ETHERNET_HEADER, NetFront};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, IpAddress, IpProtocol, Ipv4Packet, Ipv6ExtHeader, Ipv6Packet,
    TcpPacket, UdpPacket,
};

use crate::timeline::{Phase, Timeline};

/// Room for the longest frame without scatter-gather, a VLAN tag included.
const FRAME_MAX: usize = 1536;

/// The network interface and its two private frames.
pub struct Nic<'h, H: Hypervisor> {
    tx: Tx<'h, H>,
    rx_frame: [u8; FRAME_MAX],
    timeline: &'h Timeline,
    bad_checksums: u32,
}

struct Tx<'h, H: Hypervisor> {
    front: NetFront<'h, H>,
    frame: [u8; FRAME_MAX],
    timeline: &'h Timeline,
}

impl<'h, H: Hypervisor> Nic<'h, H> {
    /// Wraps a front end in whatever state it is.
    pub fn new(front: NetFront<'h, H>, timeline: &'h Timeline) -> Self {
        Self {
            tx: Tx {
                front,
                frame: [0; FRAME_MAX],
                timeline,
            },
            rx_frame: [0; FRAME_MAX],
            timeline,
            bad_checksums: 0,
        }
    }

    /// The front end, for all that is not frames.
    pub fn front(&mut self) -> &mut NetFront<'h, H> {
        &mut self.tx.front
    }

    /// Frames dropped for a wrong TCP or UDP checksum.
    pub fn bad_checksums(&self) -> u32 {
        self.bad_checksums
    }
}

/// A frame that was received.
pub struct RxToken<'a>(&'a [u8]);

/// Room for a frame to send.
pub struct TxToken<'a, 'h, H: Hypervisor>(&'a mut Tx<'h, H>);

impl smoltcp::phy::RxToken for RxToken<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

impl<H: Hypervisor> smoltcp::phy::TxToken for TxToken<'_, '_, H> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        // smoltcp keeps to the MTU that `capabilities` gives, so `len` fits.
        let len = len.min(FRAME_MAX);
        let (frame, _) = self.0.frame.split_at_mut(len);
        let result = f(frame);
        // There was a slot when the token was made; a frame that finds none is
        // lost as on any wire, and netfront has counted it.
        if self.0.front.send(frame).is_ok() {
            self.0.timeline.first(Phase::FirstTxQueued);
        }
        result
    }
}

impl<'h, H: Hypervisor> Device for Nic<'h, H> {
    type RxToken<'a>
        = RxToken<'a>
    where
        Self: 'a;
    type TxToken<'a>
        = TxToken<'a, 'h, H>
    where
        Self: 'a;

    fn receive(&mut self, _: Instant) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        // A frame may need an answer: without room for one it stays in its ring.
        if !self.tx.front.can_send() {
            return None;
        }
        let len = loop {
            let received = self.tx.front.receive(&mut self.rx_frame)?;
            self.timeline.first(Phase::FirstRx);
            let frame = self.rx_frame.get(..received.len).unwrap_or(&[]);
            if received.checksum != FrameChecksum::Unknown || transport_checksum_holds(frame) {
                break received.len;
            }
            self.bad_checksums = self.bad_checksums.wrapping_add(1);
        };
        let frame = self.rx_frame.get(..len).unwrap_or(&[]);
        Some((RxToken(frame), TxToken(&mut self.tx)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Self::TxToken<'_>> {
        self.tx.front.can_send().then_some(TxToken(&mut self.tx))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = usize::from(self.tx.front.mtu()) + ETHERNET_HEADER;
        capabilities.checksum.tcp = Checksum::Tx;
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}

/// Whether the TCP or UDP checksum of a frame is right. What has none, or is
/// too broken to say, is left for smoltcp to judge.
fn transport_checksum_holds(frame: &[u8]) -> bool {
    fn segment(protocol: IpProtocol, source: IpAddress, target: IpAddress, bytes: &[u8]) -> bool {
        match protocol {
            IpProtocol::Tcp => TcpPacket::new_checked(bytes)
                .map_or(true, |segment| segment.verify_checksum(&source, &target)),
            IpProtocol::Udp => UdpPacket::new_checked(bytes).map_or(true, |datagram| {
                // Only IPv4 has datagrams without a checksum (RFC 8200, section 8.1).
                let blank = datagram.checksum() == 0 && matches!(source, IpAddress::Ipv6(_));
                !blank && datagram.verify_checksum(&source, &target)
            }),
            // The one extension header behind which smoltcp looks for a message.
            IpProtocol::HopByHop => Ipv6ExtHeader::new_checked(bytes).map_or(true, |header| {
                let message = bytes.get(usize::from(header.header_len()) * 8 + 8..);
                let protocol = header.next_header();
                protocol == IpProtocol::HopByHop
                    || segment(protocol, source, target, message.unwrap_or(&[]))
            }),
            _ => true,
        }
    }
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return true;
    };
    match frame.ethertype() {
        EthernetProtocol::Ipv4 => Ipv4Packet::new_checked(frame.payload()).map_or(true, |ip| {
            segment(
                ip.next_header(),
                ip.src_addr().into(),
                ip.dst_addr().into(),
                ip.payload(),
            )
        }),
        EthernetProtocol::Ipv6 => Ipv6Packet::new_checked(frame.payload()).map_or(true, |ip| {
            segment(
                ip.next_header(),
                ip.src_addr().into(),
                ip.dst_addr().into(),
                ip.payload(),
            )
        }),
        _ => true,
    }
}

//! Classifies a received frame: a DNS query over UDP, a TCP segment, a message that others handle, or one to drop.

use mayfly_drivers::netfront::ETHERNET_HEADER;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, IpAddress, IpCidr, IpProtocol, Ipv4Packet,
    Ipv6Packet, TcpPacket, UdpPacket,
};

use super::path::Path;
use super::too_big::TooBig;
use crate::checksum::Sum;
use crate::nic::Mac;

/// A TCP segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment<'f> {
    pub(super) path: Path,
    /// Whether it is a SYN without other flags, which opens a connection.
    pub(super) is_opening: bool,
    /// The IP packet.
    pub(super) packet: &'f [u8],
    /// The packet's payload: a whole TCP header with its options, and the data.
    pub(super) message: &'f [u8],
}

/// The class of a frame.
#[derive(Clone, Copy, Debug)]
pub(super) enum Frame<'f> {
    /// A datagram to port 53 of one of our addresses, and its payload.
    Query(Path, &'f [u8]),
    /// A TCP segment to one of our addresses.
    Segment(Segment<'f>),
    /// A datagram to the port of DHCP clients: the sender's MAC and IP addresses, and its payload.
    Dhcp(Mac, [u8; 4], &'f [u8]),
    /// An IPv6 packet to a group with a hop-by-hop header: perhaps an MLD query.
    Group(&'f [u8]),
    /// A router says that a segment of ours is too long.
    TooBig(TooBig),
    /// A datagram to another port, or another protocol. Its sender may get an ICMP error.
    Unwanted,
    /// A frame that smoltcp handles: ARP, neighbour discovery, ICMP.
    Other,
    /// A frame to drop: for another host, or malformed.
    Nothing,
}

impl<'f> Frame<'f> {
    /// Classifies a frame that came to the interface with this MAC address and these IP addresses.
    ///
    /// A query or a segment is checked down to its transport header: its lengths, the IPv4 header's checksum, that it
    /// is no fragment, and that its source can be answered. (Transport checksums are verified before, by
    /// `Nic::receive`.)
    pub(super) fn read(frame: &'f [u8], own: Mac, addresses: &[IpCidr]) -> Self {
        let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
            return Self::Nothing;
        };
        let (to, from) = (ethernet.dst_addr(), ethernet.src_addr());
        let is_unicast = to == EthernetAddress(own);
        if !is_unicast && !to.is_multicast() || from.is_multicast() {
            return Self::Nothing;
        }
        let packet = frame.get(ETHERNET_HEADER..).unwrap_or(&[]);
        match ethernet.ethertype() {
            EthernetProtocol::Arp => Self::Other,
            EthernetProtocol::Ipv4 => Self::ipv4(packet, is_unicast, from, addresses),
            EthernetProtocol::Ipv6 => Self::ipv6(packet, is_unicast, from, addresses),
            _ => Self::Nothing,
        }
    }

    fn ipv4(bytes: &'f [u8], is_unicast: bool, mac: EthernetAddress, addresses: &[IpCidr]) -> Self {
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else {
            return Self::Nothing;
        };
        let header = bytes.get(..packet.header_len().into()).unwrap_or(&[]);
        if packet.version() != 4 || !Sum::default().with(header).is_whole() {
            return Self::Nothing;
        }
        if packet.more_frags() || packet.frag_offset() != 0 {
            return Self::Nothing;
        }
        let (from, to) = (packet.src_addr(), packet.dst_addr());
        if !addresses.iter().any(|own| own.address() == to.into()) {
            // A DHCP server sends to the offered address or to all hosts. (No other message to a group is for us, and
            // such a message gets no ICMP error: RFC 1122 section 3.2.2.)
            return match dhcp(bytes.get(header.len()..), packet.next_header()) {
                Some(payload) => Self::Dhcp(mac.0, from.octets(), payload),
                None => Self::Nothing,
            };
        }
        let is_broadcast = |own: &IpCidr| match own {
            IpCidr::Ipv4(own) => own.broadcast() == Some(from),
            IpCidr::Ipv6(_) => false,
        };
        let from = IpAddress::from(from);
        if !is_unicast || !from.is_unicast() || addresses.iter().any(is_broadcast) {
            return Self::Other;
        }
        let whole = bytes.get(..packet.total_len().into()).unwrap_or(bytes);
        let payload = whole.get(header.len()..).unwrap_or(&[]);
        if let Some(payload) = dhcp(Some(payload), packet.next_header()) {
            return Self::Dhcp(mac.0, packet.src_addr().octets(), payload);
        }
        Self::message(packet.next_header(), whole, payload, mac, from, to.into())
    }

    fn ipv6(bytes: &'f [u8], is_unicast: bool, mac: EthernetAddress, addresses: &[IpCidr]) -> Self {
        let Ok(packet) = Ipv6Packet::new_checked(bytes) else {
            return Self::Nothing;
        };
        let (from, to) = (IpAddress::from(packet.src_addr()), packet.dst_addr());
        if packet.version() != 6 {
            return Self::Nothing;
        }
        if !addresses.iter().any(|own| own.address() == to.into()) {
            // Neighbour solicitations go to groups. (smoltcp compares only the last 16 bits of a group's address, and
            // answers unknown messages with errors although RFC 4443 section 2.4 forbids that for groups.)
            return match packet.next_header() {
                IpProtocol::Icmpv6 if to.is_multicast() => Self::Other,
                IpProtocol::HopByHop if to.is_multicast() => Self::Group(bytes),
                _ => Self::Nothing,
            };
        }
        if !is_unicast || !from.is_unicast() {
            return Self::Other;
        }
        let whole = bytes.get(..packet.total_len()).unwrap_or(bytes);
        let payload = whole.get(packet.header_len()..).unwrap_or(&[]);
        Self::message(packet.next_header(), whole, payload, mac, from, to.into())
    }

    fn message(
        protocol: IpProtocol,
        packet: &'f [u8],
        payload: &'f [u8],
        mac: EthernetAddress,
        from: IpAddress,
        to: IpAddress,
    ) -> Self {
        match protocol {
            IpProtocol::Udp => {
                let Ok(datagram) = UdpPacket::new_checked(payload) else {
                    return Self::Nothing;
                };
                if datagram.dst_port() != 53 || datagram.src_port() == 0 {
                    return Self::Unwanted;
                }
                let path = Path {
                    mac: mac.0,
                    from,
                    from_port: datagram.src_port(),
                    to,
                    to_port: 53,
                };
                let query = payload.get(8..datagram.len().into()).unwrap_or(&[]);
                Self::Query(path, query)
            }
            IpProtocol::Tcp => {
                let Ok(segment) = TcpPacket::new_checked(payload) else {
                    return Self::Nothing;
                };
                if segment.src_port() == 0 || segment.dst_port() == 0 {
                    return Self::Nothing;
                }
                let is_opening =
                    segment.syn() && !segment.ack() && !segment.rst() && !segment.fin();
                Self::Segment(Segment {
                    path: Path {
                        mac: mac.0,
                        from,
                        from_port: segment.src_port(),
                        to,
                        to_port: segment.dst_port(),
                    },
                    is_opening,
                    packet,
                    message: payload,
                })
            }
            IpProtocol::Icmp | IpProtocol::Icmpv6 => {
                TooBig::read(payload, &from, to).map_or(Self::Other, Self::TooBig)
            }
            _ => Self::Unwanted,
        }
    }
}

/// The payload of a datagram from a DHCP server to a client.
fn dhcp(message: Option<&[u8]>, protocol: IpProtocol) -> Option<&[u8]> {
    let message = message.filter(|_| protocol == IpProtocol::Udp)?;
    let datagram = UdpPacket::new_checked(message).ok()?;
    let is_dhcp = datagram.src_port() == 67 && datagram.dst_port() == 68;
    message.get(8..datagram.len().into()).filter(|_| is_dhcp)
}

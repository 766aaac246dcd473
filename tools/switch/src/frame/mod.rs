//! Parses frames to a service, and composes the replies sent on behalf of a guest that does not run.
//!
//! Pure functions from bytes to bytes. No input makes them panic.

use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, Icmpv6Message, Icmpv6Packet, Icmpv6Repr, IpAddress, IpProtocol, IpRepr,
    Ipv4Packet, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
    TcpControl, TcpPacket, TcpRepr, TcpSeqNumber, UdpPacket,
};

/// All nodes of a link (RFC 4291 section 2.7.1), and the MAC address of that group (RFC 2464 section 7).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: EthernetAddress = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);
/// The hop limit of packets that must come from the same link (RFC 4861 section 7.1.1).
const ON_LINK: u8 = 255;
/// The hop limit of other packets.
const HOPS: u8 = 64;

/// The kind of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    /// An ARP request (RFC 826).
    Arp,
    /// A neighbour solicitation (RFC 4861 section 4.3).
    Solicitation,
    /// The first segment of a TCP connection.
    Syn,
    /// A UDP datagram.
    Datagram,
    /// Anything else.
    Other,
}

/// The parsed parts of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParsedFrame {
    /// The kind.
    pub kind: FrameKind,
    /// The destination MAC address.
    pub mac: [u8; 6],
    /// The address that it asks for, or the destination.
    pub to: IpAddr,
    /// The source address. It is unspecified in a probe for a duplicate address (RFC 5227 section 2.1.1, RFC 4862
    /// section 5.4.2).
    pub from: IpAddr,
}

/// Parses a frame; `None` if it is malformed, or is neither ARP nor IP.
#[must_use]
pub fn look(frame: &[u8]) -> Option<ParsedFrame> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let mac = ethernet.dst_addr().0;
    let payload = ethernet.payload();
    let (kind, to, from) = match ethernet.ethertype() {
        EthernetProtocol::Arp => arp(payload)?,
        EthernetProtocol::Ipv4 => ipv4(payload)?,
        EthernetProtocol::Ipv6 => ipv6(payload)?,
        EthernetProtocol::Unknown(_) => return None,
    };
    Some(ParsedFrame {
        kind,
        mac,
        to,
        from,
    })
}

/// Whether a frame announces its sender's own address, and nobody waits for it: a gratuitous ARP request or reply (RFC
/// 5227 section 3), or a neighbour advertisement to all nodes.
#[must_use]
pub fn is_announcement(frame: &[u8]) -> bool {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    match ethernet.ethertype() {
        EthernetProtocol::Arp => matches!(
            arp(ethernet.payload()),
            Some((FrameKind::Other, to, from)) if to == from
        ),
        EthernetProtocol::Ipv6 if ethernet.dst_addr() == ALL_NODES_MAC => {
            let Ok(packet) = Ipv6Packet::new_checked(ethernet.payload()) else {
                return false;
            };
            packet.next_header() == IpProtocol::Icmpv6
                && Icmpv6Packet::new_checked(packet.payload())
                    .is_ok_and(|message| message.msg_type() == Icmpv6Message::NeighborAdvert)
        }
        _ => false,
    }
}

fn arp(payload: &[u8]) -> Option<(FrameKind, IpAddr, IpAddr)> {
    let packet = ArpPacket::new_checked(payload).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_protocol_addr: from,
        target_protocol_addr: to,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    // An announcement of the sender's own address is no question (RFC 5227 section 3).
    let is_request = operation == ArpOperation::Request && from != to;
    let kind = if is_request {
        FrameKind::Arp
    } else {
        FrameKind::Other
    };
    Some((kind, to.into(), from.into()))
}

fn ipv4(payload: &[u8]) -> Option<(FrameKind, IpAddr, IpAddr)> {
    let packet = Ipv4Packet::new_checked(payload).ok()?;
    let kind = match packet.frag_offset() {
        0 => transport(packet.next_header(), packet.payload()),
        _ => FrameKind::Other,
    };
    Some((kind, packet.dst_addr().into(), packet.src_addr().into()))
}

fn ipv6(payload: &[u8]) -> Option<(FrameKind, IpAddr, IpAddr)> {
    let packet = Ipv6Packet::new_checked(payload).ok()?;
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    if packet.next_header() == IpProtocol::Icmpv6
        && packet.hop_limit() == ON_LINK
        && let Some(target) = solicited(packet.payload(), from, to)
    {
        return Some((FrameKind::Solicitation, target.into(), from.into()));
    }
    let kind = transport(packet.next_header(), packet.payload());
    Some((kind, to.into(), from.into()))
}

fn solicited(payload: &[u8], from: Ipv6Addr, to: Ipv6Addr) -> Option<Ipv6Addr> {
    let packet = Icmpv6Packet::new_checked(payload).ok()?;
    match Icmpv6Repr::parse(&from, &to, &packet, &Default::default()).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::NeighborSolicit { target_addr, .. }) => Some(target_addr),
        _ => None,
    }
}

fn transport(protocol: IpProtocol, payload: &[u8]) -> FrameKind {
    match protocol {
        IpProtocol::Tcp => match TcpPacket::new_checked(payload) {
            Ok(segment) if segment.syn() && !segment.ack() && !segment.rst() => FrameKind::Syn,
            _ => FrameKind::Other,
        },
        IpProtocol::Udp if UdpPacket::new_checked(payload).is_ok() => FrameKind::Datagram,
        _ => FrameKind::Other,
    }
}

/// The reply to an ARP request or a neighbour solicitation, as the owner of the address would send it; `None` for other
/// frames.
#[must_use]
pub fn answer(frame: &[u8], mac: [u8; 6]) -> Option<Vec<u8>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let mac = EthernetAddress(mac);
    match ethernet.ethertype() {
        EthernetProtocol::Arp => {
            let packet = ArpPacket::new_checked(ethernet.payload()).ok()?;
            let ArpRepr::EthernetIpv4 {
                source_hardware_addr: asker,
                source_protocol_addr: from,
                target_protocol_addr: to,
                ..
            } = ArpRepr::parse(&packet).ok()?
            else {
                return None;
            };
            let reply = ArpRepr::EthernetIpv4 {
                operation: ArpOperation::Reply,
                source_hardware_addr: mac,
                source_protocol_addr: to,
                target_hardware_addr: asker,
                target_protocol_addr: from,
            };
            let (mut bytes, at) = frame_of(mac, asker, EthernetProtocol::Arp, reply.buffer_len());
            reply.emit(&mut ArpPacket::new_unchecked(bytes.get_mut(at..)?));
            Some(bytes)
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            let from = packet.src_addr();
            let target = solicited(packet.payload(), from, packet.dst_addr())?;
            // The reply to a sender without an address goes to all nodes (RFC 4861 section 7.2.4).
            let (to, to_mac) = match from.is_unspecified() {
                true => (ALL_NODES, ALL_NODES_MAC),
                false => (from, ethernet.src_addr()),
            };
            let mut flags = NdiscNeighborFlags::OVERRIDE;
            flags.set(NdiscNeighborFlags::SOLICITED, !from.is_unspecified());
            let reply = Icmpv6Repr::Ndisc(NdiscRepr::NeighborAdvert {
                flags,
                target_addr: target,
                lladdr: Some(RawHardwareAddress::from(mac)),
            });
            let header = Ipv6Repr {
                src_addr: target,
                dst_addr: to,
                next_header: IpProtocol::Icmpv6,
                payload_len: reply.buffer_len(),
                hop_limit: ON_LINK,
            };
            let length = header.buffer_len() + reply.buffer_len();
            let (mut bytes, at) = frame_of(mac, to_mac, EthernetProtocol::Ipv6, length);
            let mut packet = Ipv6Packet::new_unchecked(bytes.get_mut(at..)?);
            header.emit(&mut packet);
            reply.emit(
                &target,
                &to,
                &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
                &Default::default(),
            );
            Some(bytes)
        }
        _ => None,
    }
}

/// The RST that the owner of an address sends in reply to a segment of a connection that does not exist (RFC 9293
/// section 3.10.7.1), so that the peer of a guest that is gone does not wait for it; `None` for other frames.
#[must_use]
pub fn reset(frame: &[u8]) -> Option<Vec<u8>> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let checksums = ChecksumCapabilities::ignored();
    let (protocol, payload) = payload(&ethernet)?;
    let seen = look(frame).filter(|_| protocol == IpProtocol::Tcp)?;
    let (from, to) = (IpAddress::from(seen.from), IpAddress::from(seen.to));
    let segment = TcpPacket::new_checked(payload).ok()?;
    let asked = TcpRepr::parse(&segment, &from, &to, &checksums).ok()?;
    if asked.control == TcpControl::Rst {
        return None;
    }
    let after = asked.seq_number + asked.segment_len();
    let (seq_number, ack_number) = match asked.ack_number {
        Some(ack) => (ack, None),
        None => (TcpSeqNumber(0), Some(after)),
    };
    let reply = TcpRepr {
        src_port: asked.dst_port,
        dst_port: asked.src_port,
        control: TcpControl::Rst,
        seq_number,
        ack_number,
        window_len: 0,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let header = IpRepr::new(to, from, IpProtocol::Tcp, reply.buffer_len(), HOPS);
    let length = header.header_len() + reply.buffer_len();
    let (mut bytes, at) = frame_of(
        ethernet.dst_addr(),
        ethernet.src_addr(),
        ethernet.ethertype(),
        length,
    );
    let packet = bytes.get_mut(at..)?;
    header.emit(&mut *packet, &ChecksumCapabilities::default());
    let segment = packet.get_mut(header.header_len()..)?;
    let checksums = ChecksumCapabilities::default();
    reply.emit(
        &mut TcpPacket::new_unchecked(segment),
        &to,
        &from,
        &checksums,
    );
    Some(bytes)
}

/// A frame with its header, and the offset of its payload.
fn frame_of(
    from: EthernetAddress,
    to: EthernetAddress,
    ethertype: EthernetProtocol,
    payload: usize,
) -> (Vec<u8>, usize) {
    let header = EthernetRepr {
        src_addr: from,
        dst_addr: to,
        ethertype,
    };
    let mut bytes = vec![0; header.buffer_len() + payload];
    header.emit(&mut EthernetFrame::new_unchecked(&mut bytes[..]));
    (bytes, header.buffer_len())
}

/// The protocol and payload of an IP packet; `None` for a fragment other than the first, and for other frames.
fn payload<'f>(ethernet: &EthernetFrame<&'f [u8]>) -> Option<(IpProtocol, &'f [u8])> {
    match ethernet.ethertype() {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(ethernet.payload()).ok()?;
            let is_first = packet.frag_offset() == 0;
            is_first.then(|| (packet.next_header(), packet.payload()))
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(ethernet.payload()).ok()?;
            Some((packet.next_header(), packet.payload()))
        }
        _ => None,
    }
}

/// A sign of life of a new guest: a frame from it or to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sign {
    /// It has sent a frame.
    Frame,
    /// It has answered a SYN.
    SynAck,
    /// It has sent the first bytes of an answer: a datagram, or a segment that is not empty.
    Answer,
}

/// The sign of life that a frame on a guest's vif is.
#[must_use]
pub fn sign(frame: &[u8], mac: [u8; 6]) -> Option<Sign> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    let is_its_own = ethernet.src_addr().0 == mac;
    if !is_its_own {
        return None;
    }
    let Some((protocol, payload)) = payload(&ethernet) else {
        return Some(Sign::Frame);
    };
    Some(match protocol {
        IpProtocol::Udp => Sign::Answer,
        IpProtocol::Tcp => match TcpPacket::new_checked(payload) {
            Ok(segment) if segment.syn() && segment.ack() => Sign::SynAck,
            Ok(segment) if !segment.payload().is_empty() => Sign::Answer,
            _ => Sign::Frame,
        },
        _ => Sign::Frame,
    })
}

#[cfg(test)]
mod tests;

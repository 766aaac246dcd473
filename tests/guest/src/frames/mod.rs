//! Frames, built byte by byte, with right lengths and checksums.

mod dhcp;

use std::net::IpAddr;

use crate::GUEST_MAC;

pub use dhcp::Dhcp;

/// The length of an Ethernet header, in bytes.
pub const ETHERNET: usize = 14;
/// Broadcast.
pub const BROADCAST: [u8; 6] = [0xff; 6];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP: [u8; 2] = [0x08, 0x06];
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The sender and the receiver of a frame.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// The sender's MAC address.
    pub mac: [u8; 6],
    /// The receiver's MAC address.
    pub to_mac: [u8; 6],
    /// The sender's IP address.
    pub from: IpAddr,
    /// The receiver's IP address.
    pub to: IpAddr,
}

impl Path {
    /// From a peer to the guest.
    #[must_use]
    pub fn to_guest(mac: [u8; 6], from: IpAddr, to: IpAddr) -> Self {
        Self {
            mac,
            to_mac: GUEST_MAC,
            from,
            to,
        }
    }
}

/// The one's complement sum of RFC 1071 over several pieces. All but the last have an even length.
fn checksum(pieces: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for piece in pieces {
        for pair in piece.chunks(2) {
            sum += u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from);
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    #[allow(clippy::cast_possible_truncation, reason = "folded")]
    let sum = sum as u16;
    !sum
}

fn length16(length: usize) -> [u8; 2] {
    #[allow(clippy::cast_possible_truncation, reason = "mutated frames may lie")]
    let length = length as u16;
    length.to_be_bytes()
}

fn bytes_of(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// The checksum of an upper-layer message with its pseudo-header (RFC 793, RFC 8200).
fn transport_checksum(from: &[u8], to: &[u8], protocol: u8, message: &[u8]) -> u16 {
    let length = length16(message.len());
    checksum(&[from, to, &[0, protocol], &length, message])
}

/// An Ethernet frame.
#[must_use]
pub fn ethernet(mac: [u8; 6], to_mac: [u8; 6], ethertype: [u8; 2], payload: &[u8]) -> Vec<u8> {
    [&to_mac, &mac, ethertype.as_slice(), payload].concat()
}

/// A frame with an IP packet of either family. The message's checksum is not changed.
#[must_use]
pub fn ip(path: &Path, protocol: u8, hop_limit: u8, message: &[u8]) -> Vec<u8> {
    let (from, to) = (bytes_of(path.from), bytes_of(path.to));
    match path.to {
        IpAddr::V4(_) => {
            let mut header = vec![0x45, 0];
            header.extend(length16(20 + message.len()));
            header.extend([0x12, 0x34, 0x40, 0, hop_limit, protocol, 0, 0]);
            header.extend([from, to].concat());
            let sum = checksum(&[&header]).to_be_bytes();
            header[10..12].copy_from_slice(&sum);
            ethernet(path.mac, path.to_mac, IPV4, &[&header, message].concat())
        }
        IpAddr::V6(_) => {
            let mut header = vec![0x60, 0, 0, 0];
            header.extend(length16(message.len()));
            header.extend([protocol, hop_limit]);
            header.extend([from, to].concat());
            ethernet(path.mac, path.to_mac, IPV6, &[&header, message].concat())
        }
    }
}

/// The bytes of a message's checksum: a datagram's zero is sent as all ones (RFC 768).
fn sum_bytes(protocol: u8, sum: u16) -> [u8; 2] {
    let sum = if protocol == UDP && sum == 0 {
        0xffff
    } else {
        sum
    };
    sum.to_be_bytes()
}

fn with_checksum(path: &Path, protocol: u8, at: usize, mut message: Vec<u8>) -> Vec<u8> {
    let sum = transport_checksum(&bytes_of(path.from), &bytes_of(path.to), protocol, &message);
    message[at..at + 2].copy_from_slice(&sum_bytes(protocol, sum));
    message
}

/// A UDP datagram.
#[must_use]
pub fn udp(path: &Path, from_port: u16, to_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut message = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    message.extend(length16(8 + payload.len()));
    message.extend([0, 0]);
    message.extend(payload);
    ip(path, UDP, 64, &with_checksum(path, UDP, 6, message))
}

/// `FIN`
pub const FIN: u8 = 1;
/// `SYN`
pub const SYN: u8 = 2;
/// `RST`
pub const RST: u8 = 4;
/// `PSH`
pub const PSH: u8 = 8;
/// `ACK`
pub const ACK: u8 = 16;

/// A TCP segment.
#[derive(Debug, Clone, Default)]
pub struct Segment {
    /// Source port.
    pub from_port: u16,
    /// Destination port.
    pub to_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// [`SYN`] and the like.
    pub flags: u8,
    /// Window, unscaled.
    pub window: u16,
    /// Options; padded to a multiple of four.
    pub options: Vec<u8>,
    /// Payload.
    pub payload: Vec<u8>,
}

/// A frame with a TCP segment.
#[must_use]
pub fn tcp(path: &Path, segment: &Segment) -> Vec<u8> {
    let mut options = segment.options.clone();
    options.truncate(40);
    options.resize(options.len().next_multiple_of(4), 0);
    let mut message = [
        segment.from_port.to_be_bytes(),
        segment.to_port.to_be_bytes(),
    ]
    .concat();
    message.extend(segment.seq.to_be_bytes());
    message.extend(segment.ack.to_be_bytes());
    #[allow(clippy::cast_possible_truncation, reason = "at most 15")]
    let words = (5 + options.len() / 4) as u8;
    message.extend([words << 4, segment.flags]);
    message.extend(segment.window.to_be_bytes());
    message.extend([0; 4]);
    message.extend(options);
    message.extend(&segment.payload);
    ip(path, TCP, 64, &with_checksum(path, TCP, 16, message))
}

/// An echo request of the family's ICMP.
#[must_use]
pub fn echo_request(path: &Path, id: u16, payload: &[u8]) -> Vec<u8> {
    let kind = if path.to.is_ipv4() { 8 } else { 128 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend([0, 1]);
    message.extend(payload);
    icmp(path, 64, message)
}

/// An ICMP message of the path's family: its checksum is filled in.
#[must_use]
pub fn icmp(path: &Path, hop_limit: u8, mut message: Vec<u8>) -> Vec<u8> {
    if path.to.is_ipv4() {
        let sum = checksum(&[&message]).to_be_bytes();
        message[2..4].copy_from_slice(&sum);
        ip(path, 1, hop_limit, &message)
    } else {
        ip(path, 58, hop_limit, &with_checksum(path, 58, 2, message))
    }
}

/// A neighbour solicitation (135) or advertisement (136) with its link-layer address option.
#[must_use]
pub fn neighbor(path: &Path, kind: u8, target: IpAddr) -> Vec<u8> {
    let flags = if kind == 136 { 0x60 } else { 0 };
    let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
    message.extend(bytes_of(target));
    message.extend([if kind == 136 { 2 } else { 1 }, 1]);
    message.extend(path.mac);
    icmp(path, 255, message)
}

/// An ARP packet for Ethernet and IPv4: operation 1 asks, 2 answers.
#[must_use]
pub fn arp(operation: u8, mac: [u8; 6], from: [u8; 4], to_mac: [u8; 6], to: [u8; 4]) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation];
    packet.extend(mac);
    packet.extend(from);
    packet.extend(if operation == 1 { [0; 6] } else { to_mac });
    packet.extend(to);
    let frame_to = if operation == 1 { BROADCAST } else { to_mac };
    ethernet(mac, frame_to, ARP, &packet)
}

/// A DNS question.
#[derive(Debug, Clone, Copy)]
pub struct Question<'q> {
    /// The name with dots, without the last.
    pub name: &'q str,
    /// The type, as a number.
    pub rtype: u16,
    /// The UDP size of an OPT record, if there is to be one.
    pub edns: Option<u16>,
}

impl<'q> Question<'q> {
    /// A question for addresses of a name.
    #[must_use]
    pub fn a(name: &'q str) -> Self {
        Self {
            name,
            rtype: 1,
            edns: None,
        }
    }
}

/// The id of every query.
pub const QUERY_ID: u16 = 0x4d59;

/// A query as a DNS message.
#[must_use]
pub fn dns_query(question: &Question<'_>) -> Vec<u8> {
    let mut message = QUERY_ID.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(question.edns.is_some())]);
    for label in question.name.split('.').filter(|label| !label.is_empty()) {
        message.extend(&length16(label.len())[1..]);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(question.rtype.to_be_bytes());
    message.extend([0, 1]);
    if let Some(size) = question.edns {
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend([0; 6]);
    }
    message
}

/// A message with its length, as over TCP.
#[must_use]
pub fn framed(message: &[u8]) -> Vec<u8> {
    [&length16(message.len()), message].concat()
}

/// The encoded options of a message.
#[must_use]
pub fn encoded(options: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (code, value) in options {
        bytes.push(*code);
        bytes.extend(&length16(value.len())[1..]);
        bytes.extend(value);
    }
    bytes
}

/// The end of the IP packet in a frame, the start of its message, and the message's protocol; `None` if there is no IP
/// packet or it is truncated.
fn message_of(frame: &[u8]) -> Option<(usize, usize, u8)> {
    let packet = frame.get(ETHERNET..)?;
    match frame.get(12..14)? {
        [8, 0] => {
            let header = usize::from(packet.first()? & 15) * 4;
            let total = usize::from(u16::from_be_bytes([*packet.get(2)?, *packet.get(3)?]));
            let end = total.min(packet.len());
            (header >= 20 && header <= end).then_some((
                ETHERNET + header,
                ETHERNET + end,
                *packet.get(9)?,
            ))
        }
        [0x86, 0xdd] => {
            let payload = usize::from(u16::from_be_bytes([*packet.get(4)?, *packet.get(5)?]));
            let end = (40 + payload).min(packet.len());
            (end >= 40).then_some((ETHERNET + 40, ETHERNET + end, *packet.get(6)?))
        }
        _ => None,
    }
}

/// Corrects the checksums of a frame, as far as it can be parsed.
pub fn fix_checksums(frame: &mut [u8]) {
    let Some((start, end, protocol)) = message_of(frame) else {
        return;
    };
    let (from, to) = if frame[12..14] == IPV4 {
        frame[24..26].fill(0);
        let sum = checksum(&[&frame[ETHERNET..start]]).to_be_bytes();
        frame[24..26].copy_from_slice(&sum);
        (frame[26..30].to_vec(), frame[30..34].to_vec())
    } else {
        (frame[22..38].to_vec(), frame[38..54].to_vec())
    };
    let at = match protocol {
        TCP => 16,
        UDP => 6,
        1 | 58 => 2,
        _ => return,
    };
    let message = &mut frame[start..end];
    let Some(place) = message.get_mut(at..at + 2) else {
        return;
    };
    place.fill(0);
    let sum = if protocol == 1 {
        checksum(&[message])
    } else {
        transport_checksum(&from, &to, protocol, message)
    };
    message[at..at + 2].copy_from_slice(&sum_bytes(protocol, sum));
}

/// Makes the TCP or UDP checksum of a frame wrong.
pub fn spoil_transport_checksum(frame: &mut [u8]) {
    if let Some((start, _, protocol)) = message_of(frame) {
        let at = start + if protocol == TCP { 17 } else { 7 };
        frame[at] ^= 0x55;
    }
}

/// A TCP segment that the guest has sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The destination address.
    pub to: Vec<u8>,
    /// The guest's port.
    pub from_port: u16,
    /// The peer's port.
    pub to_port: u16,
    /// Sequence number.
    pub seq: u32,
    /// Acknowledgement number.
    pub ack: u32,
    /// Flags.
    pub flags: u8,
    /// Window.
    pub window: u16,
    /// Payload.
    pub payload: Vec<u8>,
}

/// The TCP segment in a frame of the guest.
#[must_use]
pub fn seen(frame: &[u8]) -> Option<Seen> {
    let (start, end, protocol) = message_of(frame)?;
    let message = frame.get(start..end)?;
    if protocol != TCP || message.len() < 20 {
        return None;
    }
    let word = |at: usize| u16::from_be_bytes([message[at], message[at + 1]]);
    let long = |at: usize| u32::from(word(at)) << 16 | u32::from(word(at + 2));
    let to = if frame[12..14] == IPV4 {
        &frame[30..34]
    } else {
        &frame[38..54]
    };
    Some(Seen {
        to: to.to_vec(),
        from_port: word(0),
        to_port: word(2),
        seq: long(4),
        ack: long(8),
        flags: message[13],
        window: word(14),
        payload: message.get(usize::from(message[12] >> 4) * 4..)?.to_vec(),
    })
}

/// The source address of an IP packet.
#[must_use]
pub fn source(frame: &[u8]) -> Option<IpAddr> {
    match frame.get(12..14)? {
        [8, 0] => Some(<[u8; 4]>::try_from(frame.get(26..30)?).ok()?.into()),
        [0x86, 0xdd] => Some(<[u8; 16]>::try_from(frame.get(22..38)?).ok()?.into()),
        _ => None,
    }
}

/// The target of an ARP request or neighbour solicitation of the guest.
#[must_use]
pub fn asked_for(frame: &[u8]) -> Option<IpAddr> {
    if frame.get(12..14)? == ARP && frame.get(20..22)? == [0, 1] {
        let target = <[u8; 4]>::try_from(frame.get(38..42)?).ok()?;
        // An announcement asks for its own sender's address.
        return (frame.get(28..32)? != target).then(|| target.into());
    }
    if message_of(frame)?.2 == 58 && *frame.get(54)? == 135 {
        let target = <[u8; 16]>::try_from(frame.get(62..78)?).ok()?;
        return Some(target.into());
    }
    None
}

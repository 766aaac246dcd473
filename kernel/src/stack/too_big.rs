//! "Fragmentation needed" (RFC 792, RFC 1191) and "packet too big" (RFC 4443 section 3.2): a router reports that a
//! segment of ours exceeds the MTU of its next link.

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet};

use super::path::Path;
use crate::checksum::Sum;
use crate::nic::IPV6_HEADER;

/// The least MTU that is believed, in bytes: Linux' for IPv4 (`net.ipv4.route.min_pmtu`), and IPv6's (RFC 8200
/// section 5).
const LEAST4: usize = 552;
const LEAST6: usize = 1280;
/// The size in bytes of an ICMP header with its second word.
const ICMP_HEADER: usize = 8;

/// A router's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooBig {
    /// The connection whose segment it quotes: the path of the peer's segments.
    pub(super) path: Path,
    /// The quoted segment's sequence number.
    pub(super) number: u32,
    /// The MTU of the router's next link, in bytes of IP packet.
    pub(super) mtu: usize,
}

impl TooBig {
    /// Reads an ICMP message to one of our addresses. Returns `None` if it is no such report, or an implausible one.
    pub(super) fn read(message: &[u8], from: &IpAddress, to: IpAddress) -> Option<Self> {
        let quoted = message.get(ICMP_HEADER..)?;
        let mtu: [u8; 4] = *message.get(4..)?.first_chunk()?;
        let mtu = usize::try_from(u32::from_be_bytes(mtu)).ok()?;
        let (path, length, number, mtu) = match (to, message.get(..2)?) {
            (IpAddress::Ipv4(_), [3, 4]) => {
                if !Sum::default().with(message).is_whole() {
                    return None;
                }
                // The quoted packet is cut off, so its length is not checked.
                let packet = Ipv4Packet::new_unchecked(quoted.get(..20)?);
                let header = usize::from(packet.header_len());
                let is_first = packet.frag_offset() == 0 && header >= 20;
                if packet.version() != 4 || packet.next_header() != IpProtocol::Tcp || !is_first {
                    return None;
                }
                let (own, peer) = (packet.src_addr().into(), packet.dst_addr().into());
                let length = usize::from(packet.total_len());
                // The upper half of the word is unused. A router older than RFC 1191 sends 0.
                let mtu = (mtu & 0xffff).max(LEAST4);
                let (path, number) = segment(quoted.get(header..)?, own, peer)?;
                (path, length, number, mtu)
            }
            (IpAddress::Ipv6(_), [2, 0]) => {
                let pseudo = Sum::pseudo_header(from, &to, 58, message.len());
                if !pseudo.with(message).is_whole() {
                    return None;
                }
                let packet = Ipv6Packet::new_unchecked(quoted.get(..IPV6_HEADER)?);
                if packet.version() != 6 || packet.next_header() != IpProtocol::Tcp {
                    return None;
                }
                let (own, peer) = (packet.src_addr().into(), packet.dst_addr().into());
                let length = IPV6_HEADER + usize::from(packet.payload_len());
                let (path, number) = segment(quoted.get(IPV6_HEADER..)?, own, peer)?;
                (path, length, number, mtu.max(LEAST6))
            }
            _ => return None,
        };
        // The quoted packet must be longer than the MTU (RFC 5927 section 7.1).
        (path.to == to && length > mtu).then_some(Self { path, number, mtu })
    }
}

/// Reads the first eight bytes of a segment of ours. Returns its connection and its sequence number.
fn segment(header: &[u8], own: IpAddress, peer: IpAddress) -> Option<(Path, u32)> {
    let [a, b, c, d, e, f, g, h] = *header.first_chunk()?;
    let path = Path {
        from: peer,
        from_port: u16::from_be_bytes([c, d]),
        to: own,
        to_port: u16::from_be_bytes([a, b]),
        ..Path::NOWHERE
    };
    Some((path, u32::from_be_bytes([e, f, g, h])))
}

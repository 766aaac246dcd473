//! "Fragmentation needed" (RFC 792, RFC 1191) and "packet too big" (RFC 4443 section 3.2): a router says that a segment of ours
//! is longer than what comes behind it.

use smoltcp::wire::{IpAddress, IpProtocol, Ipv4Packet, Ipv6Packet};

use super::frame::Path;
use crate::checksum::Sum;
use crate::nic::IPV6_HEADER;

/// The least MTU that is believed: Linux' for IPv4 (`net.ipv4.route.min_pmtu`), and that of IPv6 (RFC 8200 section 5).
const LEAST4: usize = 552;
const LEAST6: usize = 1280;
/// Bytes of an ICMP header with its second word.
const ICMP_HEADER: usize = 8;

/// What a router has said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooBig {
    /// The connection whose segment it quotes, as its peer's segments come.
    pub(super) path: Path,
    /// The segment's sequence number.
    pub(super) number: u32,
    /// The MTU behind the router, in bytes of IP packet.
    pub(super) mtu: usize,
}

impl TooBig {
    /// Reads an ICMP message that has come to one of our addresses; `None` if it says something else, or can't be so.
    pub(super) fn read(message: &[u8], from: &IpAddress, to: IpAddress) -> Option<Self> {
        let quoted = message.get(ICMP_HEADER..)?;
        let mtu: [u8; 4] = *message.get(4..)?.first_chunk()?;
        let mtu = usize::try_from(u32::from_be_bytes(mtu)).ok()?;
        let (path, length, number, mtu) = match (to, message.get(..2)?) {
            (IpAddress::Ipv4(_), [3, 4]) => {
                if !Sum::default().with(message).is_whole() {
                    return None;
                }
                // The packet is cut off, so it is looked at without its length.
                let packet = Ipv4Packet::new_unchecked(quoted.get(..20)?);
                let header = usize::from(packet.header_len());
                let is_first = packet.frag_offset() == 0 && header >= 20;
                if packet.version() != 4 || packet.next_header() != IpProtocol::Tcp || !is_first {
                    return None;
                }
                let (own, peer) = (packet.src_addr().into(), packet.dst_addr().into());
                let length = usize::from(packet.total_len());
                // The upper half is not part of it. A router older than RFC 1191 says 0.
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
        // Only what is longer than the MTU can have been too long for it (RFC 5927 section 7.1).
        (path.to == to && length > mtu).then_some(Self { path, number, mtu })
    }
}

/// The connection of a segment of ours, of which the first eight bytes are there, and its sequence number.
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

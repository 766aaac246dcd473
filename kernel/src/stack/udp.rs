//! DNS over UDP, without a socket: the answer to a query is composed in the page from which the back end reads it, and
//! goes to the MAC address from which the query came.
//!
//! So no answer waits for ARP or neighbour discovery, and there is no queue that could be full.

use mayfly_drivers::Hypervisor;
use mayfly_drivers::netfront::{ETHERNET_HEADER, Offload};
use smoltcp::wire::IpAddress;

use super::path::Path;
use crate::checksum::{Protocol, finish};
use crate::nic::{IPV4_HEADER, IPV6_HEADER, Tx, ethernet_header};
use mayfly_dns::{Client, Server, Transport};
use mayfly_site::Zones;
use mayfly_stream::Millis;

const UDP_HEADER: usize = 8;
/// The longest answer in bytes.
const ANSWER_MAX: usize = 1452;
const UDP: u8 = 17;
const HOP_LIMIT: u8 = 64;

/// Answers a query. Returns whether an answer was sent: some queries get none.
pub(super) fn answer<H: Hypervisor>(
    server: &mut Server,
    zones: &impl Zones,
    now: Millis,
    unix_seconds: u64,
    path: &Path,
    query: &[u8],
    tx: &mut Tx<'_, H>,
) -> bool {
    let is_ipv4 = matches!(path.from, IpAddress::Ipv4(_));
    let ip_header = if is_ipv4 { IPV4_HEADER } else { IPV6_HEADER };
    let blank = tx.features().completes_checksum(is_ipv4);
    // An answer is never fragmented. If it does not fit the MTU, it is truncated.
    let room = tx.mtu().saturating_sub(ip_header + UDP_HEADER);
    let headers = ETHERNET_HEADER + ip_header + UDP_HEADER;
    let own = tx.mac();
    // There is room for an answer, because a query is only taken from its ring if there is.
    let Some(mut frame) = tx.frame(headers + room.min(ANSWER_MAX)) else {
        return false;
    };
    let Some((header, datagram)) = frame.bytes().split_at_mut_checked(headers - UDP_HEADER) else {
        return false;
    };
    let Some((udp, answer)) = datagram.split_first_chunk_mut::<UDP_HEADER>() else {
        return false;
    };
    let client = Client {
        address: path.from.into(),
        transport: Transport::Udp,
    };
    let written = server.answer(zones, now, unix_seconds, client, query, answer);
    let Some(length) = written else {
        return false;
    };
    let length = UDP_HEADER + length;
    let [.., a, b] = length.to_be_bytes();
    let [c, d] = path.from_port.to_be_bytes();
    *udp = [0, 53, c, d, a, b, 0, 0];
    let (ethernet, ip) = header.split_at_mut(ETHERNET_HEADER);
    ethernet_header(ethernet, path.mac, own, is_ipv4);
    ip_header_of(ip, path, length);
    let Some(datagram) = datagram.get_mut(..length) else {
        return false;
    };
    finish(ip, datagram, Protocol::Udp, blank);
    let offload = if blank {
        Offload::Checksum
    } else {
        Offload::None
    };
    let sent = frame.send(headers - UDP_HEADER + length, offload).is_ok();
    tx.sent();
    sent
}

/// Writes the IP header of an answer with `payload` bytes of payload. The checksum is 0.
fn ip_header_of(header: &mut [u8], path: &Path, payload: usize) {
    match (path.to, path.from) {
        (IpAddress::Ipv4(own), IpAddress::Ipv4(peer)) => {
            let Some(header) = header.first_chunk_mut::<IPV4_HEADER>() else {
                return;
            };
            let [.., a, b] = (IPV4_HEADER + payload).to_be_bytes();
            // "Don't fragment", so the identification may be 0 (RFC 6864 section 4.1, RFC 9715 R2).
            header[..12].copy_from_slice(&[0x45, 0, a, b, 0, 0, 0x40, 0, HOP_LIMIT, UDP, 0, 0]);
            header[12..16].copy_from_slice(&own.octets());
            header[16..].copy_from_slice(&peer.octets());
        }
        (IpAddress::Ipv6(own), IpAddress::Ipv6(peer)) => {
            let Some(header) = header.first_chunk_mut::<IPV6_HEADER>() else {
                return;
            };
            let [.., a, b] = payload.to_be_bytes();
            header[..8].copy_from_slice(&[0x60, 0, 0, 0, a, b, UDP, HOP_LIMIT]);
            header[8..24].copy_from_slice(&own.octets());
            header[24..].copy_from_slice(&peer.octets());
        }
        _ => {}
    }
}

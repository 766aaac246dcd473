//! Multicast listener discovery (MLD, RFC 3810 and RFC 2710): reports the solicited-node group of each IPv6 address.
//!
//! A bridge with multicast snooping, as Linux' have, and a querier forwards neighbour solicitations only to ports that
//! have reported the group. So the groups are reported with the announcements, and in answer to each query. (smoltcp's
//! own feature is not used: to join a group it sends the record that leaves it.)

use mayfly_drivers::Hypervisor;
use mayfly_drivers::netfront::{ETHERNET_HEADER, Offload};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{IpAddress, IpCidr, Ipv6Address, Ipv6Packet};

use crate::announce::{group_mac, solicited_node};
use crate::checksum::{Protocol, Sum, finish};
use crate::nic::{IPV6_HEADER, Mac, Tx, ethernet_header};

/// ff02::16, the destination of version 2 reports (RFC 3810 section 5.2.14).
const ALL_ROUTERS: Ipv6Address = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 0x16);
/// A hop-by-hop header with the router alert for MLD (RFC 2711), padded, before ICMPv6.
const ALERT: [u8; 8] = [ICMPV6, 0, 5, 2, 0, 0, 1, 0];
const ICMPV6: u8 = 58;
const QUERY: u8 = 130;
const REPORT_1: u8 = 131;
const REPORT_2: u8 = 143;
/// The size in bytes of a version 1 message, and of a version 2 record.
const MESSAGE_1: usize = 24;
const RECORD: usize = 20;
/// The longest delay of an answer to a query, in milliseconds.
const DELAY_MAX: u64 = 10_000;
/// The greatest number of groups: one for each address.
const GROUPS: usize = smoltcp::config::IFACE_MAX_ADDR_COUNT;

/// The reason for a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The groups are new, or an earlier report may be lost.
    Joined,
    /// A query of version 2.
    Asked,
    /// A query of version 1.
    Asked1,
}

/// Reads a query from an IPv6 packet with a hop-by-hop header. Returns the time after which to answer, and the report
/// to answer with.
pub(super) fn query(packet: &[u8], own: Mac) -> Option<(Duration, Report)> {
    let ip = Ipv6Packet::new_checked(packet).ok()?;
    let payload = packet.get(IPV6_HEADER..ip.total_len())?;
    let length = usize::from(*payload.get(1)?) * 8 + 8;
    let message = payload.get(length..)?;
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let sum = Sum::pseudo_header(&from.into(), &to.into(), ICMPV6, message.len());
    let is_query = payload.first() == Some(&ICMPV6)
        && message.first() == Some(&QUERY)
        && ip.hop_limit() == 1
        && from.is_unicast_link_local()
        && message.len() >= MESSAGE_1
        && sum.with(message).is_whole();
    let delay = u64::from(u16::from_be_bytes([*message.get(4)?, *message.get(5)?]));
    let report = if message.len() == MESSAGE_1 {
        Report::Asked1
    } else {
        Report::Asked
    };
    // Guests answer at different times (RFC 3810 section 6.2). MAC addresses spread them as well as random numbers.
    let [.., a, b] = own;
    let share = u64::from(u16::from_be_bytes([a, b]).wrapping_mul(40_503));
    let delay = (delay.min(DELAY_MAX) * share) >> 16;
    is_query.then_some((Duration::from_millis(delay), report))
}

/// Reports the groups of these addresses. A report that finds no room is lost, as on any wire.
pub(super) fn report<H: Hypervisor>(report: Report, addresses: &[IpCidr], tx: &mut Tx<'_, H>) {
    let mut groups = heapless::Vec::<Ipv6Address, GROUPS>::new();
    let mut from = None;
    for cidr in addresses {
        if let IpAddress::Ipv6(address) = cidr.address() {
            // A report comes from a link-local address (RFC 3810 section 5.2.13).
            from = from.or(address.is_unicast_link_local().then_some(address));
            let group = solicited_node(address);
            if !groups.contains(&group) {
                let _ = groups.push(group);
            }
        }
    }
    let Some(from) = from else { return };
    if report == Report::Asked1 {
        for group in groups {
            let mut message = [0; MESSAGE_1];
            message[0] = REPORT_1;
            message[8..].copy_from_slice(&group.octets());
            send(from, group, &message, tx);
        }
        return;
    }
    // MODE_IS_EXCLUDE or CHANGE_TO_EXCLUDE_MODE, without sources.
    let kind = if report == Report::Joined { 4 } else { 2 };
    let mut message = [0; 8 + GROUPS * RECORD];
    let length = 8 + groups.len() * RECORD;
    message[0] = REPORT_2;
    message[7] = groups.len().to_le_bytes()[0];
    for (record, group) in message[8..].chunks_exact_mut(RECORD).zip(&groups) {
        record[0] = kind;
        record[4..].copy_from_slice(&group.octets());
    }
    if let Some(message) = message.get(..length) {
        send(from, ALL_ROUTERS, message, tx);
    }
}

/// Sends an MLD message to a group. The checksum in `message` is 0 and is filled in.
fn send<H: Hypervisor>(from: Ipv6Address, to: Ipv6Address, message: &[u8], tx: &mut Tx<'_, H>) {
    let headers = ETHERNET_HEADER + IPV6_HEADER + ALERT.len();
    let (length, own) = (headers + message.len(), tx.mac());
    let [.., a, b] = (ALERT.len() + message.len()).to_be_bytes();
    let Some(mut frame) = tx.frame(length) else {
        return;
    };
    let Some((header, payload)) = frame.bytes().split_at_mut_checked(headers) else {
        return;
    };
    let (ethernet, rest) = header.split_at_mut(ETHERNET_HEADER);
    let (ip, alert) = rest.split_at_mut(IPV6_HEADER);
    ethernet_header(ethernet, group_mac(to).0, own, false);
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, a, b, 0, 1]);
    ip[8..24].copy_from_slice(&from.octets());
    ip[24..].copy_from_slice(&to.octets());
    alert.copy_from_slice(&ALERT);
    if let Some(payload) = payload.get_mut(..message.len()) {
        payload.copy_from_slice(message);
        finish(ip, payload, Protocol::Icmp6, false);
    }
    if frame.send(length, Offload::None).is_ok() {
        tx.sent();
    }
}

/// The report that is still to be sent, with its time.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Due(Option<(Instant, Report)>);

impl Due {
    /// Schedules a report.
    pub(super) fn ask(&mut self, at: Instant, report: Report) {
        // One report answers several queries, at the earliest of their times: it has all groups.
        if self.0.is_none_or(|(due, _)| at < due) {
            self.0 = Some((at, report));
        }
    }

    /// The time of the report.
    pub(super) fn at(&self) -> Option<Instant> {
        self.0.map(|(at, _)| at)
    }

    /// Takes the report, if it is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Report> {
        let (_, report) = self.0.take_if(|(at, _)| *at <= now)?;
        Some(report)
    }
}

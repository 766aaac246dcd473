//! The guard: drops frames of a guest that are not from its own addresses, and lets only replies pass to dom0.
//!
//! It drops
//!
//! - frames from another MAC address than its own, to the address of every vif on dom0's side, or of another kind than ARP, IPv4 and IPv6
//!   (a VLAN tag is another kind);
//! - ARP that claims an address which is not the guest's own (RFC 826, and RFC 5227's probes for others' addresses);
//! - IPv4 and IPv6 from another address than its own. Of IPv6, the link-local address of its MAC address is its own too, and the
//!   unspecified one may look for duplicates of them (RFC 4862 section 5.4) and report multicast groups (RFC 3810);
//! - neighbour advertisements of others' addresses, router advertisements and redirects (RFC 4861);
//! - packets of DHCP servers (source port 67, and 547 of IPv6);
//! - IPv4 to groups, IPv6 to groups except neighbour discovery and reports of multicast groups, and IPv6 with extension
//!   headers, which could hide all of this (RFC 7113);
//! - to dom0, which has the bridge's MAC address: TCP segments that open a connection, UDP other than from a port below
//!   1024 to one of 1024 or above, ICMP other than errors and echo replies, fragments, and other protocols.
//!
//! These are the rules that `hatch summon` installs in the kernel for the vifs of netback's guests; a test compares the
//! two. The guard keeps no state from one frame to the next. No input makes it panic: a frame too short to be checked
//! is dropped.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::offload::{ETHERNET, half};

/// The MAC address that netback gives to every vif on dom0's side.
const VIF: [u8; 6] = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff];

const ARP: u16 = 0x0806;
const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;

/// RFC 792, RFC 9293 section 3.1, RFC 768, RFC 4443, RFC 8200 section 4.3.
const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;
const HOP_BY_HOP: u8 = 0;

/// The lengths of headers, in bytes.
const ARP_SIZE: usize = 28;
const IPV4_SIZE: usize = 20;
const IPV6_SIZE: usize = 40;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const REDIRECT: u8 = 137;

const DHCP_SERVER: u16 = 67;
const DHCPV6_SERVER: u16 = 547;
/// The first user port: ports below it are those of services, and clients use the others (RFC 6335 section 6).
const USER_PORTS: u16 = 1024;

/// The addresses of a guest, and of dom0 on its bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Its IPv4 address; without one it may send neither ARP nor IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address; without one it may send no IPv6.
    pub ipv6: Option<Ipv6Addr>,
    /// The MAC address of its bridge.
    pub host: [u8; 6],
}

/// The rule that a frame breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    /// From another MAC address than its own.
    Source,
    /// To the address of every vif on dom0's side, or of another kind, or malformed.
    Kind,
    /// ARP or a neighbour message about an address that is not its own.
    Claim,
    /// From another IP address than its own.
    Address,
    /// A message that only routers and DHCP servers send.
    Router,
    /// To a group.
    Group,
    /// To dom0, and not a reply.
    Host,
}

type Verdict = Result<(), Breach>;

/// The link-local address of a MAC address (RFC 4291 section 2.5.6 and appendix A).
#[must_use]
pub fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Ipv6Addr {
    let own = [[a ^ 2, b], [c, 0xff], [0xfe, d], [e, f]].map(u16::from_be_bytes);
    Ipv6Addr::new(0xfe80, 0, 0, 0, own[0], own[1], own[2], own[3])
}

impl Identity {
    /// Whether the guest may send a frame.
    ///
    /// # Errors
    /// The rule that the frame breaks.
    pub fn check(&self, frame: &[u8]) -> Verdict {
        let header = frame.first_chunk::<ETHERNET>().ok_or(Breach::Kind)?;
        let [t0, t1, t2, t3, t4, t5, f0, f1, f2, f3, f4, f5, k0, k1] = *header;
        let (to, from) = ([t0, t1, t2, t3, t4, t5], [f0, f1, f2, f3, f4, f5]);
        if frame.len() < ETHERNET + IPV4_SIZE {
            return Err(Breach::Kind);
        }
        if from != self.mac {
            return Err(Breach::Source);
        }
        // The bridge delivers frames to a port's own address to dom0. A bridge that has only vifs has taken their
        // address for itself.
        if self.host != VIF && to == VIF {
            return Err(Breach::Kind);
        }
        let packet = frame.get(ETHERNET..).unwrap_or_default();
        match (u16::from_be_bytes([k0, k1]), self.ipv4, self.ipv6) {
            (ARP, Some(own), _) => arp(packet, self.mac, own),
            (IPV4, Some(own), _) => ipv4(packet, own, self.target(to)),
            (IPV6, _, Some(own)) => ipv6(packet, [own, link_local(self.mac)], self.target(to)),
            _ => Err(Breach::Kind),
        }
    }

    fn target(&self, to: [u8; 6]) -> Target {
        if to[0] & 1 != 0 {
            Target::Group
        } else if to == self.host {
            Target::Host
        } else {
            Target::Other
        }
    }
}

/// The receiver of a frame.
#[derive(Clone, Copy)]
enum Target {
    Group,
    Host,
    Other,
}

impl Target {
    /// Refuses frames to groups, accepts those that are not for dom0, and calls `answers` for those that are.
    fn decide(self, answers: impl FnOnce() -> bool) -> Verdict {
        match self {
            Self::Group => Err(Breach::Group),
            Self::Other => Ok(()),
            Self::Host if answers() => Ok(()),
            Self::Host => Err(Breach::Host),
        }
    }
}

fn arp(packet: &[u8], mac: [u8; 6], own: Ipv4Addr) -> Verdict {
    let packet = packet.first_chunk::<ARP_SIZE>().ok_or(Breach::Kind)?;
    // Ethernet and IPv4 with their lengths of addresses; a request or a reply.
    if packet[..7] != [0, 1, 8, 0, 6, 4, 0] || !matches!(packet[7], 1 | 2) {
        return Err(Breach::Kind);
    }
    let (sender, target) = (&packet[14..18], &packet[24..28]);
    let own = own.octets();
    // With the unspecified address as the sender it is a probe: whether another host has the address already.
    let is_own = sender == own || (sender == [0; 4] && target == own);
    if packet[8..14] == mac && is_own {
        Ok(())
    } else {
        Err(Breach::Claim)
    }
}

fn ipv4(packet: &[u8], own: Ipv4Addr, to: Target) -> Verdict {
    let header = packet.first_chunk::<IPV4_SIZE>().ok_or(Breach::Kind)?;
    // Version 4, and at least five words of header.
    if !(0x45..0x50).contains(&header[0]) {
        return Err(Breach::Kind);
    }
    if header[12..16] != own.octets() {
        return Err(Breach::Address);
    }
    let (fragment, protocol) = (u16::from_be_bytes([header[6], header[7]]), header[9]);
    let data = packet
        .get(usize::from(header[0] & 15) * 4..)
        .unwrap_or_default();
    // A fragment other than the first has no ports.
    if protocol == UDP && fragment & 0x1fff == 0 {
        let (from, _) = ports(data).ok_or(Breach::Kind)?;
        if from == DHCP_SERVER {
            return Err(Breach::Router);
        }
    }
    to.decide(|| {
        fragment & 0x3fff == 0
            && match protocol {
                // An echo reply; unreachable; too long on the way; a wrong header.
                ICMP => data
                    .first()
                    .is_some_and(|kind| [0, 3, 11, 12].contains(kind)),
                _ => is_answer(protocol, data),
            }
    })
}

fn ports(data: &[u8]) -> Option<(u16, u16)> {
    Some((half(data, 0)?, half(data, 2)?))
}

/// Whether dom0 may get a TCP segment or a UDP datagram.
fn is_answer(protocol: u8, data: &[u8]) -> bool {
    match protocol {
        // Anything but SYN without ACK.
        TCP => data.get(13).is_some_and(|flags| flags & 0x12 != 0x02),
        UDP => ports(data).is_some_and(|(from, to)| from < USER_PORTS && to >= USER_PORTS),
        _ => false,
    }
}

fn address(packet: &[u8], at: usize) -> Option<Ipv6Addr> {
    let bytes = packet.get(at..)?.first_chunk::<16>()?;
    Some(Ipv6Addr::from(*bytes))
}

fn ipv6(packet: &[u8], own: [Ipv6Addr; 2], to: Target) -> Verdict {
    let header = packet.first_chunk::<IPV6_SIZE>().ok_or(Breach::Kind)?;
    if header[0] >> 4 != 6 {
        return Err(Breach::Kind);
    }
    let (next, data) = (header[6], packet.get(IPV6_SIZE..).unwrap_or_default());
    let from = address(header, 8).ok_or(Breach::Kind)?;
    // A neighbour message is about an address of its own.
    let about_own = || match address(data, 8) {
        Some(target) if own.contains(&target) => Ok(()),
        _ => Err(Breach::Claim),
    };
    if !own.contains(&from) {
        // From the unspecified address: duplicate address detection, and reports.
        return match (from.is_unspecified(), next, data.first()) {
            (true, HOP_BY_HOP, _) => report(data),
            (true, ICMPV6, Some(&NEIGHBOUR_SOLICITATION)) => about_own(),
            _ => Err(Breach::Address),
        };
    }
    match next {
        HOP_BY_HOP => report(data),
        ICMPV6 => {
            let kind = *data.first_chunk::<4>().ok_or(Breach::Kind)?;
            match kind[0] {
                ROUTER_ADVERTISEMENT | REDIRECT => Err(Breach::Router),
                ROUTER_SOLICITATION | NEIGHBOUR_SOLICITATION => Ok(()),
                NEIGHBOUR_ADVERTISEMENT => about_own(),
                // Errors, and an echo reply.
                kind => to.decide(|| [1, 2, 3, 4, 129].contains(&kind)),
            }
        }
        UDP => {
            let (from, _) = ports(data).ok_or(Breach::Kind)?;
            if from == DHCPV6_SERVER {
                return Err(Breach::Router);
            }
            to.decide(|| is_answer(UDP, data))
        }
        TCP => to.decide(|| is_answer(TCP, data)),
        _ => Err(Breach::Kind),
    }
}

/// A report of multicast groups (RFC 2710 section 3.1, RFC 3810 section 5.2), which follows a header of eight bytes
/// (section 5).
fn report(data: &[u8]) -> Verdict {
    let is_report = data
        .get(8)
        .is_some_and(|kind| [131, 132, 143].contains(kind));
    if data.starts_with(&[ICMPV6, 0]) && is_report {
        Ok(())
    } else {
        Err(Breach::Kind)
    }
}

#[cfg(test)]
mod tests;

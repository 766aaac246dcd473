//! The parts of ARP and neighbour discovery that smoltcp lacks: requests from outside of our networks, and conflicts
//! about our addresses.
//!
//! - An ARP request for one of our addresses is answered whoever sends it (RFC 826 has no other condition). smoltcp
//!   answers only senders in our network: no host behind an address translator, and no host that probes whether the
//!   address is free (RFC 5227, sender 0.0.0.0).
//! - A neighbour solicitation from `::` asks whether our address is free (RFC 4862 section 5.4.3). It is answered to
//!   all nodes.
//! - A host that claims one of our addresses for another MAC address is in conflict with us. The conflict is counted
//!   and reported, and the address is announced again, once in ten seconds (RFC 5227 section 2.4 b, RFC 4862 section
//!   5.4). The guest keeps the address: its owner has assigned it, and the guest uses it without waiting for the result
//!   of a probe.

use mayfly_drivers::netfront::ETHERNET_HEADER;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr, IpProtocol, Ipv4Address, Ipv6Address, Ipv6Packet,
    NdiscPrefixInformation, NdiscRepr,
};

use crate::nic::Mac;

/// The least time between two defences of our addresses (`DEFEND_INTERVAL` of RFC 5227 section 1.1).
const DEFEND: Duration = Duration::from_secs(10);

/// The action that a frame needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// smoltcp handles it.
    Pass,
    /// It is dropped.
    Drop,
    /// Send an ARP reply: our address, and the asking host's MAC and IP addresses.
    Reply(Ipv4Address, EthernetAddress, Ipv4Address),
    /// Advertise our addresses to all nodes.
    Advertise,
    /// It is a router advertisement: the router's address and lifetime, and the prefix that it advertises.
    Router(Ipv6Address, Duration, Option<NdiscPrefixInformation>),
    /// Another host, with this MAC address, claims one of our addresses.
    Conflict(IpAddress, Mac),
}

/// Conflicts about our addresses.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conflicts {
    last: Option<Instant>,
    told: Option<(IpAddress, Mac)>,
}

impl Conflicts {
    /// Records a conflict. Returns whether our addresses have to be announced again.
    pub(super) fn note(&mut self, address: IpAddress, mac: Mac, now: Instant) -> bool {
        if self.last.is_some_and(|last| now < last + DEFEND) {
            return false;
        }
        self.last = Some(now);
        self.told = Some((address, mac));
        true
    }

    /// Takes the conflict that is to be reported, if there is one.
    pub(super) fn take(&mut self) -> Option<(IpAddress, Mac)> {
        self.told.take()
    }
}

/// Decides about a frame that came to the interface with this MAC address and these IP addresses.
pub(super) fn judge(frame: &[u8], own: Mac, addresses: &[IpCidr]) -> Verdict {
    let Ok(ethernet) = EthernetFrame::new_checked(frame) else {
        return Verdict::Drop;
    };
    let payload = frame.get(ETHERNET_HEADER..).unwrap_or(&[]);
    match ethernet.ethertype() {
        EthernetProtocol::Arp => arp(payload, own, addresses),
        EthernetProtocol::Ipv6 => discovery(payload, ethernet.src_addr().0, own, addresses),
        _ => Verdict::Pass,
    }
}

fn arp(payload: &[u8], own: Mac, addresses: &[IpCidr]) -> Verdict {
    let packet = ArpPacket::new_checked(payload);
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: from,
        target_protocol_addr: target,
        ..
    }) = packet.and_then(|packet| ArpRepr::parse(&packet))
    else {
        return Verdict::Drop;
    };
    let is_ours = |address: Ipv4Address| {
        let address = IpAddress::from(address);
        addresses.iter().any(|own| own.address() == address)
    };
    if is_ours(from) {
        return if mac.0 == own {
            Verdict::Drop
        } else {
            Verdict::Conflict(from.into(), mac.0)
        };
    }
    // RFC 5227 section 2.1.1 calls a probe for an address that we are about to probe a conflict. But we use the address
    // already, so the probe is answered like any request.
    let is_near = addresses.iter().any(|own| own.contains_addr(&from.into()));
    let is_host = IpAddress::from(from).is_unicast() || from.is_unspecified();
    if operation == ArpOperation::Request && is_ours(target) && !is_near && is_host {
        return if mac.is_unicast() {
            Verdict::Reply(target, mac, from)
        } else {
            Verdict::Drop
        };
    }
    Verdict::Pass
}

fn discovery(payload: &[u8], mac: Mac, own: Mac, addresses: &[IpCidr]) -> Verdict {
    let Ok(packet) = Ipv6Packet::new_checked(payload) else {
        return Verdict::Pass;
    };
    // RFC 4861 section 7.1: a neighbour discovery message has a hop limit of 255, so it has crossed no router.
    if packet.next_header() != IpProtocol::Icmpv6 || packet.hop_limit() != 255 {
        return Verdict::Pass;
    }
    let (from, to) = (packet.src_addr(), packet.dst_addr());
    let message = payload
        .get(packet.header_len()..packet.total_len())
        .and_then(|message| Icmpv6Packet::new_checked(message).ok());
    let Some(message) = message else {
        return Verdict::Pass;
    };
    let is_ours = |address| {
        let address = IpAddress::Ipv6(address);
        addresses.iter().any(|own| own.address() == address)
    };
    let caps = smoltcp::phy::ChecksumCapabilities::default();
    let Ok(Icmpv6Repr::Ndisc(repr)) = Icmpv6Repr::parse(&from, &to, &message, &caps) else {
        return Verdict::Pass;
    };
    match repr {
        NdiscRepr::NeighborSolicit { target_addr, .. }
            if from.is_unspecified() && is_ours(target_addr) =>
        {
            if mac == own {
                Verdict::Drop
            } else {
                Verdict::Advertise
            }
        }
        NdiscRepr::RouterAdvert {
            router_lifetime,
            prefix_info,
            ..
        } if from.is_unicast_link_local() => Verdict::Router(from, router_lifetime, prefix_info),
        NdiscRepr::NeighborAdvert {
            target_addr,
            lladdr,
            ..
        } if is_ours(target_addr) => {
            let theirs = lladdr.and_then(|address| address.as_bytes().first_chunk().copied());
            let theirs = theirs.unwrap_or(mac);
            if theirs == own {
                Verdict::Drop
            } else {
                Verdict::Conflict(target_addr.into(), theirs)
            }
        }
        _ => Verdict::Pass,
    }
}

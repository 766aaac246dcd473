//! What smoltcp leaves out of ARP and neighbour discovery: who asks from outside of our networks, and who else has our addresses.
//!
//! - An ARP request for one of our addresses is answered whoever sends it (RFC 826 asks for nothing else). smoltcp answers only senders in our
//!   network, and so neither a host behind an address translator nor one that probes whether the address is
//!   free (RFC 5227, sender 0.0.0.0).
//! - A neighbour solicitation from `::` looks whether our address is free (RFC 4862 section 5.4.3): it is answered, to all.
//! - Whoever says that one of our addresses is at another MAC address than ours is in conflict with us. That is
//!   counted and reported, and the address is announced anew, once in ten seconds (RFC 5227 section 2.4 b, RFC 4862 section 5.4).
//!   It is not given up: it was given to this guest by who runs it, and nobody waited for the answer to a probe.

use mayfly_drivers::netfront::ETHERNET_HEADER;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    Icmpv6Packet, Icmpv6Repr, IpAddress, IpCidr, IpProtocol, Ipv4Address, Ipv6Address, Ipv6Packet,
    NdiscPrefixInformation, NdiscRepr,
};

use crate::nic::Mac;

/// Between two defences of our addresses (`DEFEND_INTERVAL` of RFC 5227 section 1.1).
const DEFEND: Duration = Duration::from_secs(10);

/// What is to be done about a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// smoltcp knows.
    Pass,
    /// Nothing.
    Drop,
    /// An ARP reply: our address, who asked.
    Reply(Ipv4Address, EthernetAddress, Ipv4Address),
    /// An advertisement of our addresses to all.
    Advertise,
    /// A router: how long it is one, and the prefix that it tells of.
    Router(Ipv6Address, Duration, Option<NdiscPrefixInformation>),
    /// Somebody else has one of our addresses.
    Conflict(IpAddress, Mac),
}

/// What has been heard of conflicts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conflicts {
    last: Option<Instant>,
    told: Option<(IpAddress, Mac)>,
}

impl Conflicts {
    /// Takes note of one; whether our addresses are to be announced anew.
    pub(super) fn note(&mut self, address: IpAddress, mac: Mac, now: Instant) -> bool {
        if self.last.is_some_and(|last| now < last + DEFEND) {
            return false;
        }
        self.last = Some(now);
        self.told = Some((address, mac));
        true
    }

    /// The conflict that is to be reported, if there is one.
    pub(super) fn take(&mut self) -> Option<(IpAddress, Mac)> {
        self.told.take()
    }
}

/// Looks at a frame that came to the interface with this MAC address and these IP addresses.
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
    // A probe by somebody else for an address that we are about to probe, too, is a conflict (RFC 5227 section 2.1.1);
    // we have it already, so it is answered as any request.
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
    // RFC 4861 section 7.1: what has crossed a router is none.
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

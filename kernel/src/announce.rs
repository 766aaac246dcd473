//! Announcements: gratuitous ARP (RFC 5227, section 3) and unsolicited neighbour
//! advertisements (RFC 4861, section 7.2.6).
//!
//! They tell the bridge and the neighbours where the guest's addresses are before anybody asks. A busy dom0 loses the
//! first frames of a new vif, so each announcement is sent several times within the first second.
//!
//! The second one is accompanied by a probe: an ARP request from 0.0.0.0 (RFC 5227, section 2.1.1) or a solicitation
//! from `::` (RFC 4862, section 5.4.2). A host that has the address already answers the probe, and the conflict is
//! reported. The guest does not wait for that.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::phy::{Device, TxToken};
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IPV6_LINK_LOCAL_ALL_NODES, IPV6_LINK_LOCAL_ALL_ROUTERS, Icmpv6Packet, Icmpv6Repr,
    IpCidr, IpProtocol, Ipv4Address, Ipv6Address, Ipv6Packet, Ipv6Repr, NdiscNeighborFlags,
    NdiscRepr,
};

/// Pauses before each repetition.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(450),
];

/// The index of the announcement that a probe accompanies.
const PROBE: usize = 1;

/// Announces the guest's addresses, several times.
pub struct Announcer {
    mac: EthernetAddress,
    sent: usize,
    due: Option<Instant>,
}

impl Announcer {
    /// An announcer that is silent until [`Announcer::restart`].
    #[must_use]
    pub fn new(mac: [u8; 6]) -> Self {
        Self {
            mac: EthernetAddress(mac),
            sent: 0,
            due: None,
        }
    }

    /// Starts the announcements again from the first, which is due now.
    pub fn restart(&mut self, now: Instant) {
        self.sent = 0;
        self.due = Some(now);
    }

    /// Schedules one more announcement, due now.
    pub fn again(&mut self, now: Instant) {
        if self.due.is_none() {
            self.sent = PAUSES.len();
        }
        self.due = Some(now);
    }

    /// When the next announcement is due.
    #[must_use]
    pub fn poll_at(&self) -> Option<Instant> {
        self.due
    }

    /// Sends the announcement that is due, if one is, and returns whether one was. An announcement that finds no room
    /// in the ring is skipped, because the next one follows soon.
    pub fn poll(
        &mut self,
        device: &mut (impl Device + ?Sized),
        addresses: &[IpCidr],
        now: Instant,
    ) -> bool {
        match self.due {
            Some(due) if due <= now => {}
            _ => return false,
        }
        for cidr in addresses {
            match cidr {
                IpCidr::Ipv4(cidr) => self.arp(device, cidr.address(), cidr.address(), now),
                IpCidr::Ipv6(cidr) => self.neighbor(device, cidr.address(), now),
            }
            if self.sent == PROBE {
                match cidr {
                    IpCidr::Ipv4(cidr) => {
                        self.arp(device, Ipv4Address::UNSPECIFIED, cidr.address(), now);
                    }
                    IpCidr::Ipv6(cidr) => self.probe(device, cidr.address(), now),
                }
            }
        }
        self.due = PAUSES.get(self.sent).map(|&pause| now + pause);
        self.sent += 1;
        true
    }

    fn ethernet(&self, frame: &mut [u8], to: EthernetAddress, ethertype: EthernetProtocol) {
        let repr = EthernetRepr {
            src_addr: self.mac,
            dst_addr: to,
            ethertype,
        };
        repr.emit(&mut EthernetFrame::new_unchecked(frame));
    }

    /// Sends an ARP request for an address: an announcement if the sender is the address itself, else a probe.
    fn arp(
        &self,
        device: &mut (impl Device + ?Sized),
        from: Ipv4Address,
        address: Ipv4Address,
        now: Instant,
    ) {
        let request = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: self.mac,
            source_protocol_addr: from,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: address,
        };
        self.send_arp(device, EthernetAddress::BROADCAST, &request, now);
    }

    /// Sends an ARP reply to a host that has asked for an address of ours.
    pub fn reply(
        &self,
        device: &mut (impl Device + ?Sized),
        address: Ipv4Address,
        mac: EthernetAddress,
        to: Ipv4Address,
        now: Instant,
    ) {
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: self.mac,
            source_protocol_addr: address,
            target_hardware_addr: mac,
            target_protocol_addr: to,
        };
        self.send_arp(device, mac, &reply, now);
    }

    fn send_arp(
        &self,
        device: &mut (impl Device + ?Sized),
        to: EthernetAddress,
        repr: &ArpRepr,
        now: Instant,
    ) {
        let Some(token) = device.transmit(now) else {
            return;
        };
        let header = EthernetFrame::<&[u8]>::header_len();
        token.consume(header + repr.buffer_len(), |frame| {
            self.ethernet(frame, to, EthernetProtocol::Arp);
            if let Some(payload) = frame.get_mut(header..) {
                repr.emit(&mut ArpPacket::new_unchecked(payload));
            }
        });
    }

    fn neighbor(&self, device: &mut (impl Device + ?Sized), address: Ipv6Address, now: Instant) {
        let advert = NdiscRepr::NeighborAdvert {
            flags: NdiscNeighborFlags::OVERRIDE,
            target_addr: address,
            lladdr: Some(self.mac.into()),
        };
        let to = IPV6_LINK_LOCAL_ALL_NODES;
        self.send_discovery(device, (address, to), advert, now);
    }

    /// Sends a probe: a solicitation that shows whether another host has the address.
    fn probe(&self, device: &mut (impl Device + ?Sized), address: Ipv6Address, now: Instant) {
        let solicit = NdiscRepr::NeighborSolicit {
            target_addr: address,
            lladdr: None,
        };
        let to = solicited_node(address);
        self.send_discovery(device, (Ipv6Address::UNSPECIFIED, to), solicit, now);
    }

    /// Asks for routers (RFC 4861, section 6.3.7).
    pub fn solicit(&self, device: &mut (impl Device + ?Sized), from: Ipv6Address, now: Instant) {
        let solicit = NdiscRepr::RouterSolicit {
            lladdr: Some(self.mac.into()),
        };
        let to = IPV6_LINK_LOCAL_ALL_ROUTERS;
        self.send_discovery(device, (from, to), solicit, now);
    }

    fn send_discovery(
        &self,
        device: &mut (impl Device + ?Sized),
        (from, to): (Ipv6Address, Ipv6Address),
        message: NdiscRepr<'_>,
        now: Instant,
    ) {
        let message = Icmpv6Repr::Ndisc(message);
        let ip = Ipv6Repr {
            src_addr: from,
            dst_addr: to,
            next_header: IpProtocol::Icmpv6,
            payload_len: message.buffer_len(),
            // A neighbour message that has crossed a router is ignored (RFC 4861, section 7.1.2).
            hop_limit: 255,
        };
        let Some(token) = device.transmit(now) else {
            return;
        };
        let header = EthernetFrame::<&[u8]>::header_len();
        let ip_header = ip.buffer_len();
        token.consume(header + ip_header + message.buffer_len(), |frame| {
            self.ethernet(frame, group_mac(to), EthernetProtocol::Ipv6);
            let Some((ip_bytes, payload)) = frame
                .get_mut(header..)
                .and_then(|rest| rest.split_at_mut_checked(ip_header))
            else {
                return;
            };
            ip.emit(&mut Ipv6Packet::new_unchecked(ip_bytes));
            message.emit(
                &from,
                &to,
                &mut Icmpv6Packet::new_unchecked(payload),
                &ChecksumCapabilities::default(),
            );
        });
    }
}

/// The solicited-node multicast address of an address (RFC 4291, section 2.7.1).
#[must_use]
pub fn solicited_node(address: Ipv6Address) -> Ipv6Address {
    let [.., a, b, c] = address.octets();
    let mut group = [0; 16];
    group[..2].copy_from_slice(&[0xff, 2]);
    group[11..].copy_from_slice(&[1, 0xff, a, b, c]);
    group.into()
}

/// The Ethernet address of a multicast group (RFC 2464, section 7).
#[must_use]
pub fn group_mac(group: Ipv6Address) -> EthernetAddress {
    let [.., a, b, c, d] = group.octets();
    EthernetAddress([0x33, 0x33, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use smoltcp::phy::{Loopback, Medium, RxToken};
    use smoltcp::wire::{Icmpv6Message, Ipv4Cidr, Ipv6Cidr};

    fn frames(device: &mut Loopback) -> Vec<Vec<u8>> {
        core::iter::from_fn(|| {
            let (rx, _) = device.receive(Instant::ZERO)?;
            Some(rx.consume(<[u8]>::to_vec))
        })
        .collect()
    }

    /// Asserts that probes of both families accompany the announcements.
    fn assert_probes(sent: &[Vec<u8>]) {
        assert_eq!(sent.len(), 4);
        let arp = ArpPacket::new_checked(&sent[1][14..]).unwrap();
        assert_eq!(arp.source_protocol_addr(), [0; 4]);
        assert_eq!(arp.target_protocol_addr(), [10, 0, 2, 80]);
        assert_eq!(sent[3][..6], [0x33, 0x33, 0xff, 0, 0, 0x80]);
        let ip = Ipv6Packet::new_checked(&sent[3][14..]).unwrap();
        assert_eq!(ip.src_addr(), Ipv6Address::UNSPECIFIED);
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
        assert_eq!(icmp.msg_type(), Icmpv6Message::NeighborSolicit);
    }

    #[test]
    fn each_address_is_announced_several_times_within_a_second() {
        let mac = [2, 0, 0, 0, 0, 1];
        let v4 = Ipv4Address::new(10, 0, 2, 80);
        let v6 = Ipv6Address::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x80);
        let addresses = [
            IpCidr::Ipv4(Ipv4Cidr::new(v4, 24)),
            IpCidr::Ipv6(Ipv6Cidr::new(v6, 64)),
        ];
        let mut device = Loopback::new(Medium::Ethernet);
        let mut announcer = Announcer::new(mac);
        announcer.poll(&mut device, &addresses, Instant::ZERO);
        assert!(frames(&mut device).is_empty());

        announcer.restart(Instant::ZERO);
        let mut rounds = 0;
        while let Some(at) = announcer.poll_at() {
            assert!(at < Instant::from_secs(1));
            announcer.poll(&mut device, &addresses, at);
            let sent = frames(&mut device);
            let sent = if rounds == PROBE {
                assert_probes(&sent);
                [sent[0].clone(), sent[2].clone()].to_vec()
            } else {
                sent
            };
            assert_eq!(sent.len(), 2);
            let arp = EthernetFrame::new_checked(&sent[0][..]).unwrap();
            assert_eq!(arp.dst_addr(), EthernetAddress::BROADCAST);
            let arp = ArpPacket::new_checked(arp.payload()).unwrap();
            assert_eq!(arp.source_protocol_addr(), v4.octets());
            assert_eq!(arp.target_protocol_addr(), v4.octets());
            let ip = EthernetFrame::new_checked(&sent[1][..]).unwrap();
            assert_eq!(ip.dst_addr(), EthernetAddress([0x33, 0x33, 0, 0, 0, 1]));
            let ip = Ipv6Packet::new_checked(ip.payload()).unwrap();
            let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
            assert!(icmp.verify_checksum(&ip.src_addr(), &ip.dst_addr()));
            assert_eq!(icmp.msg_type(), Icmpv6Message::NeighborAdvert);
            assert_eq!(icmp.target_addr(), v6);
            rounds += 1;
        }
        assert_eq!(rounds, 1 + PAUSES.len());
    }
}

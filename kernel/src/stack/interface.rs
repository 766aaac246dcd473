//! The protocols of the interface itself: ARP, neighbour discovery, ICMP, DHCP.

use mayfly_drivers::Hypervisor;
use mayfly_site::{BuiltIn, Pages, Site};
use smoltcp::socket::dhcpv4;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{
    IpAddress, IpCidr, Ipv4Address, Ipv4Cidr, Ipv6Address, Ipv6Cidr, NdiscPrefixInformation,
};

use super::neighbors::{self, Verdict};
use super::{Stack, add_static, dhcp, set_gateways};
use crate::cmdline::GuestConfig;
use crate::nic::{Ethernet, Mac, Tx};

fn is_host(address: Ipv4Address) -> bool {
    IpAddress::from(address).is_unicast()
}

impl<P: Pages> Stack<'_, P> {
    /// Handles a frame for the interface itself: ARP, neighbour discovery, ICMP.
    pub(super) fn other(&mut self, frame: &[u8], tx: &mut Tx<'_, impl Hypervisor>, now: Instant) {
        let own = tx.mac();
        match neighbors::judge(frame, own, self.iface.ip_addrs()) {
            Verdict::Pass => self.ingress(frame, tx, now),
            Verdict::Drop => self.stats.ignored += 1,
            Verdict::Reply(address, mac, to) => {
                let mut device = Ethernet::new(None, tx);
                self.announcer.reply(&mut device, address, mac, to, now);
            }
            Verdict::Advertise => {
                if self.errors.take(now) {
                    self.announcer.again(now);
                    self.iface_wake = Some(now);
                }
            }
            Verdict::Router(router, lifetime, prefix) => {
                self.routed(router, lifetime, prefix.as_ref(), now);
            }
            Verdict::Conflict(address, mac) => {
                self.stats.conflicts += 1;
                if self.conflicts.note(address, mac, now) {
                    self.announcer.again(now);
                    self.iface_wake = Some(now);
                }
            }
        }
    }

    /// Takes an address of ours that another host claims, with that host's MAC address, if it is to be reported.
    pub fn take_conflict(&mut self) -> Option<(IpAddress, Mac)> {
        self.conflicts.take()
    }

    /// Our link-local address, if there is one yet.
    fn link_local(&self) -> Option<Ipv6Address> {
        self.iface.ip_addrs().iter().find_map(|cidr| match cidr {
            IpCidr::Ipv6(v6) if v6.address().is_unicast_link_local() => Some(v6.address()),
            _ => None,
        })
    }

    /// Sends a router solicitation, as long as `ip=auto` has no address.
    pub(super) fn solicit<H: Hypervisor>(&mut self, tx: &mut Tx<'_, H>, now: Instant) {
        let is_wanted = self.auto.is_some_and(|auto| auto.address().is_none());
        if let Some(own) = self.link_local().filter(|_| is_wanted) {
            let mut device = Ethernet::new(None, tx);
            self.announcer.solicit(&mut device, own, now);
        }
    }

    /// Handles a router advertisement, if the command line says `ip=auto`.
    fn routed(
        &mut self,
        router: Ipv6Address,
        lifetime: Duration,
        prefix: Option<&NdiscPrefixInformation>,
        now: Instant,
    ) {
        let own = self.link_local();
        let (Some(auto), Some(own)) = (&mut self.auto, own) else {
            return;
        };
        let before = auto.address();
        if let Some(prefix) = prefix {
            auto.take(prefix, own, now);
        }
        let after = auto.address();
        // A gateway of the command line takes precedence.
        let gateway = &mut self.gateways.1;
        if lifetime == Duration::ZERO {
            gateway.take_if(|gateway| *gateway == router);
        } else {
            gateway.get_or_insert(router);
        }
        set_gateways(&mut self.iface, self.gateways);
        if after != before {
            self.readdress(before, after, now);
        }
        self.iface_wake = Some(now);
    }

    /// Gives up addresses whose lifetime is over.
    pub(super) fn expire(&mut self, now: Instant) {
        if self.dhcp_kept.is_some_and(|ends| ends <= now) {
            self.take_lease(None, now);
        }
        let before = self.auto.and_then(|auto| auto.address());
        if self.auto.as_mut().is_some_and(|auto| auto.expire(now)) {
            self.readdress(before, None, now);
        }
    }

    fn readdress(&mut self, before: Option<Ipv6Cidr>, after: Option<Ipv6Cidr>, now: Instant) {
        self.update_addresses(|addresses| {
            addresses.retain(|cidr| before.map(IpCidr::Ipv6) != Some(*cidr));
            if let Some(cidr) = after.map(IpCidr::Ipv6)
                && !addresses.contains(&cidr)
            {
                let _ = addresses.push(cidr);
            }
        });
        self.connections.activate_all();
        self.announcer.restart(now);
        self.iface_wake = Some(now);
    }

    /// Uses the static addresses and the gateways of a configuration in place of the present ones, on a link that is
    /// still to come up. Connections to an address that is gone end without a word: another guest may have them.
    pub fn take_addresses(&mut self, config: &GuestConfig) {
        self.update_addresses(|addresses| {
            addresses.clear();
            add_static(addresses, config);
        });
        let (gw4, gw6) = self.gateways;
        self.gateways = (config.gw4.or(gw4), config.gw6.or(gw6));
        set_gateways(&mut self.iface, self.gateways);
        if let Site::BuiltIn(site) = &mut self.served.zones {
            *site = BuiltIn::new(config.ipv4(), config.ipv6());
        }
        let (iface, connections) = (&self.iface, &mut self.connections);
        connections.release_unless(|path| iface.has_ip_addr(path.to));
    }

    /// Gives a DHCP server's message to the client.
    pub(super) fn lease<H: Hypervisor>(
        &mut self,
        mut message: dhcp::Message<'_>,
        from: Mac,
        tx: &mut Tx<'_, H>,
        now: Instant,
    ) {
        message.complete(&mut self.dhcp_said, now);
        if message.is_refusal() {
            self.dhcp_kept = self.dhcp_kept.map(|_| now);
        }
        let mut frame = [0; dhcp::FRAME_MAX];
        let length = message.write(&mut frame, from);
        self.ingress(frame.get(..length).unwrap_or(&[]), tx, now);
    }

    /// Gives a frame to smoltcp. (Not inlined, because each copy has smoltcp's whole receive code.)
    #[inline(never)]
    fn ingress<H: Hypervisor>(&mut self, frame: &[u8], tx: &mut Tx<'_, H>, now: Instant) {
        let mut device = Ethernet::new(Some(frame), tx);
        self.iface
            .poll_ingress_single(now, &mut device, &mut self.sockets);
        self.iface_wake = Some(now);
    }

    /// Restarts the DHCP client on a new link. The same interface keeps its address until the lease ends or a server
    /// says otherwise (RFC 2131 section 3.2), because it is most often on the same network.
    pub(super) fn restart_dhcp(&mut self, is_same_interface: bool, now: Instant) {
        let Some(handle) = self.dhcp else { return };
        self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle).reset();
        let said = core::mem::take(&mut self.dhcp_said);
        self.dhcp_kept = said.ends.or(self.dhcp_kept);
        if !is_same_interface && self.dhcp_kept.is_some() {
            self.take_lease(None, now);
        }
        self.dhcp_since = now;
        self.poll_dhcp(now);
    }

    /// Handles the next event of the DHCP client.
    pub(super) fn poll_dhcp(&mut self, now: Instant) {
        let Some(handle) = self.dhcp else { return };
        let socket = self.sockets.get_mut::<dhcpv4::Socket<'_>>(handle);
        socket.set_retry_config(dhcp::patience(now - self.dhcp_since));
        let lease = match socket.poll() {
            None => return,
            // smoltcp would panic when it renews with a server whose address is no host's.
            Some(dhcpv4::Event::Configured(lease)) if !is_host(lease.server.address) => {
                socket.reset();
                return;
            }
            Some(dhcpv4::Event::Configured(lease)) => Some((lease.address, lease.router)),
            // The client was restarted, and the address is kept.
            Some(dhcpv4::Event::Deconfigured) if self.dhcp_kept.is_some() => return,
            Some(dhcpv4::Event::Deconfigured) => {
                self.dhcp_since = now;
                None
            }
        };
        self.take_lease(lease, now);
    }

    /// Uses the address and the router of a lease, or none.
    fn take_lease(&mut self, lease: Option<(Ipv4Cidr, Option<Ipv4Address>)>, now: Instant) {
        self.dhcp_kept = None;
        self.update_addresses(|addresses| {
            addresses.retain(|cidr| matches!(cidr, IpCidr::Ipv6(_)));
            if let Some((address, _)) = lease {
                let _ = addresses.push(IpCidr::Ipv4(address));
            }
        });
        // The same goes for a router.
        self.gateways.0 = lease
            .and_then(|(_, router)| router)
            .filter(|&router| is_host(router));
        set_gateways(&mut self.iface, self.gateways);
        if let Site::BuiltIn(site) = &mut self.served.zones {
            site.set_ipv4(lease.map(|(address, _)| address.address()));
        }
        // Connections to an address that is gone end.
        self.connections.activate_all();
        self.announcer.restart(now);
    }
}

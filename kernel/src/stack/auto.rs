//! An IPv6 address by router advertisements (SLAAC, RFC 4862 section 5.5).

use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{Ipv6Address, Ipv6Cidr, NdiscPrefixInfoFlags, NdiscPrefixInformation};

/// An advertisement cannot shorten the remaining lifetime of an address to less than this, because anybody may forge
/// one (section 5.5.3 e).
const LEAST: Duration = Duration::from_secs(2 * 3600);

/// The address from an advertised prefix, if there is one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Auto {
    address: Option<(Ipv6Cidr, Instant)>,
}

impl Auto {
    /// The address.
    pub(super) fn address(&self) -> Option<Ipv6Cidr> {
        self.address.map(|(address, _)| address)
    }

    /// The end of the address's lifetime.
    pub(super) fn ends(&self) -> Option<Instant> {
        self.address.map(|(_, ends)| ends)
    }

    /// Takes an advertised prefix. The address consists of the prefix and the lower half of our link-local address. The
    /// first prefix is used until its lifetime ends.
    pub(super) fn take(&mut self, told: &NdiscPrefixInformation, own: Ipv6Address, now: Instant) {
        let is_for_addresses = told.flags.contains(NdiscPrefixInfoFlags::ADDRCONF);
        let prefix = told.prefix;
        if !is_for_addresses
            || told.prefix_len != 64
            || prefix.is_unicast_link_local()
            || prefix.is_multicast()
            || told.preferred_lifetime > told.valid_lifetime
        {
            return;
        }
        let mut bytes = prefix.octets();
        bytes[8..].copy_from_slice(&own.octets()[8..]);
        let address = Ipv6Cidr::new(bytes.into(), 64);
        let ends = now + told.valid_lifetime;
        match &mut self.address {
            Some((known, until)) if *known == address => {
                *until = ends.max((*until).min(now + LEAST));
            }
            Some((_, until)) if now < *until => {}
            place => *place = Some((address, ends)).filter(|_| ends > now),
        }
    }

    /// Gives the address up if its lifetime is over. Returns whether it was.
    pub(super) fn expire(&mut self, now: Instant) -> bool {
        self.address.take_if(|(_, ends)| *ends <= now).is_some()
    }
}

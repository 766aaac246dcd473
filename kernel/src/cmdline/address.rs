//! Addresses and gateways.

use core::net::IpAddr;

use super::{Fault, GuestConfig, number};

/// An interface address and the length of its network prefix in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IpCidr {
    /// The interface's own unicast address.
    pub address: IpAddr,
    /// 1 to 32 for IPv4, 1 to 128 for IPv6.
    pub prefix_len: u8,
}

impl IpCidr {
    /// Whether `other` is in this address's subnet.
    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        match (self.address, other) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let differing = own.to_bits() ^ other.to_bits();
                differing & !host_mask4(self.prefix_len) == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let shift = 128 - u32::from(self.prefix_len.min(128));
                (own.to_bits() ^ other.to_bits())
                    .checked_shr(shift)
                    .unwrap_or(0)
                    == 0
            }
            _ => false,
        }
    }
}

/// The mask of an IPv4 address's host bits, which follow the prefix.
fn host_mask4(prefix_len: u8) -> u32 {
    u32::MAX.checked_shr(u32::from(prefix_len)).unwrap_or(0)
}

/// Reads `ADDRESS/LENGTH`.
pub(super) fn interface_address(value: &str) -> Result<IpCidr, Fault> {
    let (address, prefix_len) = match value.split_once('/') {
        Some((address, prefix_len)) => (unicast(address)?, prefix_len),
        None => return Err(unicast(value).err().unwrap_or(Fault::NoPrefix)),
    };
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let prefix_len = number(prefix_len)
        .filter(|length| (1..=bits).contains(length))
        .ok_or(Fault::BadPrefix)?;
    // RFC 3021 gives both addresses of a /31 to hosts.
    if let IpAddr::V4(address) = address
        && prefix_len < 31
    {
        let mask = host_mask4(prefix_len);
        let host = address.to_bits() & mask;
        if host == 0 || host == mask {
            return Err(Fault::NotHost);
        }
    }
    Ok(IpCidr {
        address,
        prefix_len,
    })
}

/// Reads the address of a host.
pub(super) fn unicast(value: &str) -> Result<IpAddr, Fault> {
    let address: IpAddr = value.parse().map_err(|_| Fault::BadAddress)?;
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || match address {
            IpAddr::V4(address) => address.is_broadcast(),
            IpAddr::V6(address) => address.to_ipv4_mapped().is_some(),
        };
    if special {
        Err(Fault::NotUnicast)
    } else {
        Ok(address)
    }
}

/// Checks that a gateway is in the subnet of an address, or link-local.
pub(super) fn check_gateway(config: &GuestConfig, gateway: IpAddr) -> Result<(), Fault> {
    let same_family = || {
        config
            .addresses()
            .filter(|c| c.address.is_ipv4() == gateway.is_ipv4())
    };
    if same_family().next().is_none() {
        return Err(Fault::NoAddressForGateway);
    }
    if same_family().any(|cidr| cidr.address == gateway) {
        return Err(Fault::GatewayIsSelf);
    }
    // A link-local router is on the link whatever the subnets (RFC 4861 section 6.3.4).
    let link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if link_local || same_family().any(|cidr| cidr.contains(gateway)) {
        Ok(())
    } else {
        Err(Fault::GatewayUnreachable)
    }
}

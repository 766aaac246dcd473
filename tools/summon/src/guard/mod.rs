//! The guard: a filter that lets a guest send only from its own addresses, and only replies to dom0.
//!
//! The filter is at the vif, before the bridge learns from the guest's frames. It drops
//!
//! - frames with a foreign source MAC address, with a VLAN tag, to the vif's own address, or of another type than ARP,
//!   IPv4 and IPv6;
//! - ARP that claims a foreign address for the guest's MAC address (RFC 826), and probes for foreign addresses (RFC
//!   5227);
//! - IPv4 and IPv6 packets from foreign addresses. The guest's own are those of its configuration and the link-local
//!   address of its MAC address. The unspecified address may probe for duplicates of them (RFC 4862 section 5.4) and
//!   report multicast groups (RFC 3810);
//! - neighbour advertisements of foreign addresses, router advertisements and redirects (RFC 4861);
//! - messages of a DHCP server (source port 67, and 547 of IPv6);
//! - IPv4 to groups, IPv6 to groups except for neighbour discovery and reports of multicast groups, and IPv6 with
//!   extension headers, behind which all of this could hide (RFC 7113);
//! - frames to the bridge's MAC address, which is dom0's: TCP segments that open a connection; UDP, unless it is from a
//!   port below 1024 to a port from 1024 on; ICMP that is neither an error nor an echo reply; fragments; other
//!   protocols. So dom0 and the clients that it routes get their answers, and a guest cannot open a connection to dom0.
//!   The filter keeps no state: a guest can still send segments of connections that do not exist, which dom0 answers
//!   with a reset, and UDP from port 53 to a high port. A service in dom0 that listens there for any sender needs a
//!   rule of dom0's own packet filter.
//!
//! Other frames to hosts on the guest's bridge are not checked.
//!
//! Alternatives: nftables' `bridge` family needs tables that outlive guests and have to be cleaned up, and all crates
//! for it need C libraries or are GPL. `flower` and `u32` need a filter and a message for each rule. A program of
//! classic BPF at the ingress needs two netlink messages in one system call and two modules of the kernel
//! (`sch_ingress`, `cls_bpf`), which the kernel loads by itself where it can. It disappears with the vif.

mod assembler;
mod program;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

pub use mayfly_switch::guard::Identity;
use mayfly_toolstack::host::Links;

/// Installs the filter at a guest's vif. It acts from the next frame on and lasts as long as the vif. Can be repeated.
///
/// # Errors
/// The kernel lacks the modules, or has no such link.
pub fn protect(
    links: &mut dyn Links,
    vif: u32,
    identity: &Identity,
) -> Result<(), mayfly_links::Error> {
    links.filter(vif, &program::of(identity))
}

/// The number of frames of a guest that the filter has dropped.
///
/// # Errors
/// There is no filter, or no such link.
pub fn dropped(links: &mut mayfly_links::Links, vif: u32) -> Result<u32, mayfly_links::Error> {
    links.filtered(vif)
}

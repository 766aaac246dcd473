//! The guard: filters what a guest sends by its own addresses, and admits only replies to dom0.
//!
//! A filter at the vif, where frames leave the guest and before the bridge learns from them, drops
//!
//! - frames from another MAC address than its own, with a VLAN tag, to the vif's own address, or of another kind than ARP, IPv4 and IPv6;
//! - ARP that says that an address is at its MAC address which is not its own (RFC 826, and RFC 5227's probes for others' addresses);
//! - IPv4 and IPv6 from another address than its own. Of IPv6, the link-local address of its MAC address is its own too, and the
//!   unspecified one may look for duplicates of them (RFC 4862 section 5.4) and report multicast groups (RFC 3810);
//! - neighbour advertisements of others' addresses, router advertisements and redirects (RFC 4861);
//! - what DHCP servers send (source port 67, and 547 of IPv6);
//! - IPv4 to groups, IPv6 to groups but for neighbour discovery and reports of multicast groups, and IPv6 with extension headers,
//!   behind which all of this could hide (RFC 7113);
//! - to dom0, which is whoever has the bridge's MAC address: TCP segments that open a connection, UDP that is not from a port
//!   below 1024 to one from there on, ICMP that is neither an error nor an echo reply, fragments, and other protocols.
//!   So dom0 and the clients that it routes get their answers, and a guest opens nothing there. The filter remembers nothing: a guest can still send
//!   segments of connections that are not there, which dom0 answers with a reset, and UDP from port 53 to a high port that somebody
//!   in dom0 listens to without asking who sends. Who has such, adds a rule to dom0's own packet filter.
//!
//! What a guest may send to others of its bridge beyond that is not looked at.
//!
//! Ways that were weighed: nftables' `bridge` family needs tables that outlive guests and have to be cleaned up, and no crate speaks it without C
//! libraries that is not GPL; `flower` and `u32` take a filter, and a message, for each rule. A program of classic BPF at the ingress
//! is two netlink messages in one system call, two modules of the kernel (`sch_ingress`, `cls_bpf`), which it loads by
//! itself where it can, and goes with the vif.

mod assembler;
mod program;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

use mayfly_links::Error;
pub use mayfly_switch::guard::Identity;
use mayfly_toolstack::host::Links;

/// Keeps a guest to itself, from its next frame on. It holds until the vif goes, and can be said again.
///
/// # Errors
/// The kernel lacks what it takes, or has no such link.
pub fn protect(links: &mut dyn Links, vif: u32, identity: &Identity) -> Result<(), Error> {
    links.filter(vif, &program::of(identity))
}

/// How many frames of a protected guest were dropped.
///
/// # Errors
/// It is not protected, or has no such link.
pub fn dropped(links: &mut mayfly_links::Links, vif: u32) -> Result<u32, Error> {
    links.filtered(vif)
}

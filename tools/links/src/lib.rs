//! The bridge port, set from within: no script, no `ip`, one system call and two acknowledgements of the kernel's.
//!
//! ```no_run
//! use std::time::Duration;
//! use mayfly_links::{Links, vif_name};
//!
//! let mut links = Links::open()?; // before the vif is asked for, so that its birth is heard of
//! let bridge = links.bridge("xenbr0")?;
//! let mut vif = links.appeared(&vif_name(5, 0), Duration::from_secs(10))?;
//! links.attach(&mut vif, &bridge, None)?;
//! # Ok::<(), mayfly_links::Error>(())
//! ```
//!
//! What Xen's own `vif-bridge` script does (4.17: `tools/hotplug/Linux`) is done as well, or is so already: netback itself gives the vif the address
//! fe:ff:ff:ff:ff:ff; it takes the bridge's MTU, becomes its port, and goes up. On top of that it gets no IPv6 address, so
//! that dom0 sends no neighbour discovery into a guest's first packets.
//!
//! Crates weighed: `netlink-packet-core` and `netlink-packet-route` (MIT, kept, plain types, no runtime) for the messages, and `rustix`,
//! which is here anyway, for the socket. `rtnetlink` needs tokio; `neli` (BSD) has types for less of `RTM_NEWLINK` and brings its
//! own sockets. What comes is read attribute by attribute rather than as the crate's `LinkMessage`,
//! because that one fails as a whole on an attribute that a later kernel has changed.
#![deny(unsafe_code)]

mod error;
mod ingress;
mod link;
mod message;
mod port;
mod socket;
mod tap;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use ingress::Instruction;
pub use link::{Bridge, Change, Link, Vif, check_name, vif_name};
pub use socket::Links;
pub use tap::{Offers, Tap};

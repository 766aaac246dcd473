//! Sets up a guest's bridge port by netlink, without scripts and without `ip`: one system call and two acknowledgements
//! of the kernel.
//!
//! ```no_run
//! use std::time::Duration;
//! use mayfly_links::{Links, vif_name};
//!
//! let mut links = Links::open()?; // before the vif is requested, so that no event is missed
//! let bridge = links.bridge("xenbr0")?;
//! let mut vif = links.appeared(&vif_name(5, 0), Duration::from_secs(10))?;
//! links.attach(&mut vif, &bridge, None)?;
//! # Ok::<(), mayfly_links::Error>(())
//! ```
//!
//! This does all that Xen's `vif-bridge` script does (4.17: `tools/hotplug/Linux`): the vif takes the bridge's MTU,
//! becomes its port, and goes up; netback itself sets the vif's address to fe:ff:ff:ff:ff:ff. In addition, the vif gets
//! no IPv6 address, so that dom0 sends no neighbour discovery into a guest's first packets.
//!
//! Crates considered: `netlink-packet-core` and `netlink-packet-route` (MIT, used: plain types, no runtime) for the
//! messages, and `rustix`, which the project uses anyway, for the socket. `rtnetlink` needs tokio; `neli` (BSD) covers
//! less of `RTM_NEWLINK` and brings its own sockets. Received messages are read attribute by attribute rather than as
//! the crate's `Netlink`, because that fails as a whole on an attribute that a later kernel has changed.
#![deny(unsafe_code)]

mod batch;
mod error;
mod ingress;
mod link;
mod message;
mod piece;
mod port;
mod socket;
mod tap;

#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use error::Error;
pub use ingress::Instruction;
pub use link::{Bridge, Link, LinkChange, VifNumber, check_name, vif_name};
pub use piece::{Extent, Piece};
pub use socket::Links;
pub use tap::{Offers, Steering, Tap, queue_of};

//! The network back end of guests, in user space: one process in dom0 serves the rings of many, and moves frames between them and one port on
//! each bridge that they share.
//!
//! ```text
//!   guest ── rings ──┐                        ┌── port on xenbr0 ── bridge
//!   guest ── rings ──┤  switch: guard, table  ├── port on xenbr1 ── bridge
//!   guest ── rings ──┘                        └── held, for guests that sleep
//! ```
//!
//! - [`switch`]: who gets a frame, and whose turn it is;
//! - the back end of one guest, as `xen/include/public/io/netif.h` has it ([`port`]);
//! - [`guard`]: what a guest may send;
//! - [`held`]: frames for a guest that is being created;
//! - [`offload`] and [`vnet`]: checksums and segments, which guests and bridges leave to each other;
//! - [`program`]: the loop of `hatch switch`, with [`control`], by which the builder hands guests over, and the [`journal`], by which the next
//!   switch finds them;
//! - [`xenbus`]: the handshake with front ends that do one;
//! - [`xen`]: what is needed of Xen and of bridges, as traits. A device each implements them in dom0, fakes in tests, so that everything here is tested
//!   on any host.
//!
//! Everything that a guest can write is hostile: it is copied once and then checked, and never borrowed.
#![forbid(unsafe_code)]

pub mod arena;
pub mod control;
pub mod dom0;
#[cfg(any(test, feature = "fake"))]
pub mod fake;
pub mod frame;
pub mod guard;
pub mod held;
pub mod journal;
pub mod offload;
pub mod port;
pub mod program;
pub mod switch;
pub mod vnet;
pub mod xen;
pub mod xenbus;

pub use switch::{Guest, Switch};

/// The name of a switch's port on a bridge, which has the bridge's number in it: two switches on one bridge notice each other.
#[must_use]
pub fn port_name(bridge: u32) -> String {
    format!("switch{bridge}")
}

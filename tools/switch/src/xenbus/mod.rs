//! The switch as a back end of xenbus, for front ends that do the handshake themselves.
//!
//! This runs in a process of its own, so that the one that moves frames has no access to xenstore. It reads and writes
//! the keys of both ends, and asks the switch over its control socket, as any client would. A third process does nothing
//! but start it again: the two that handle what guests say may start none. All that it knows is in
//! xenstore: in a guest's directory ([`keys::directory`]), which the toolstack makes.
//!
//! | key | value | written by |
//! |---|---|---|
//! | `interface` | an [`Interface`], as JSON | the toolstack |
//! | `state`, `feature-*` | the back end's, as `io/netif.h` says | both: the toolstack begins with 1 |
//! | `frontend`, `online`, `mac` | as netback's | the toolstack |
//! | `shown` | the directory that the front end watches, if not this one | `hatch network` |
//! | `netback` | netback's directory, while netback serves the guest | `hatch network` |
//!
//! A guest keeps the directory that it has seen first, whoever serves it: few front ends look for another one while
//! they run. `shown` is that of a guest that began on netback. While a guest of the switch is served by netback, which
//! works in a directory of its own, netback's states are copied to the one that the front end watches.

pub mod handshake;
pub mod keys;
mod process;
mod server;

pub use keys::{FrontFault, Interface};
pub use process::{mind, run, spawn};
pub use server::{AskSwitch, Xenbus, XenbusError};

//! Services on demand: `hatch summon FILE.toml`.
//!
//! A service has no guest while it is not used. A DNS query for one of its names, or the first packet to its address,
//! makes the daemon create its guest. Packets that arrive before the guest's network is connected are held and given to
//! the guest, so that it answers the very packet that woke it. An idle guest is removed.
//!
//! | module | content |
//! |---|---|
//! | [`Daemon`] | the process that makes guests: the thread that polls and decides |
//! | [`front`] | the process that reads strangers' input, with few privileges |
//! | [`channel`], [`clock`] | the messages between the two, and their times |
//! | [`fleet`] | the states of the services, as a pure machine, and the limits |
//! | [`names`], [`dns`] | the services' names, and the DNS server for them |
//! | [`wire`], [`held`] | the packets for a sleeping service |
//! | `maker` | the thread that makes guests |
//! | [`birth`] | the steps of a birth, with their times |
//! | [`made_of`] | the record of a guest's settings and files, for later daemons |
//! | [`log`] | the log lines |
//! | [`config`] | the file: services and limits |
//! | [`guard`] | the filter of a guest's frames: only its own addresses, only replies to dom0 |
//! | [`status`] | the status as a table, as Prometheus' text, and as a page with pictures |
#![deny(unsafe_code)]

mod bell;
pub mod birth;
pub mod cause;
pub mod channel;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod dns;
pub mod fleet;
pub mod front;
pub mod guard;
pub mod held;
pub mod log;
pub mod made_of;
mod maker;
pub mod names;
pub mod status;
pub mod wire;

pub use daemon::Daemon;

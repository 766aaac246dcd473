//! Guests that are born when somebody asks for them: `hatch summon FILE.toml`.
//!
//! A service costs nothing while nobody asks. A DNS query for one of its names, or the first packet to its address, makes its
//! guest; what has come before its network is connected is held and given to it, so that the guest itself answers the very
//! packet that woke it. When nobody has asked for a while, the guest goes.
//!
//! | module | |
//! |---|---|
//! | [`Daemon`] | the process that makes guests: the thread that polls everything, and has all else done |
//! | [`front`] | the process that strangers reach, with little power |
//! | [`channel`], [`clock`] | what the two say to each other |
//! | [`fleet`] | what becomes of each service: a pure machine, with its limits |
//! | [`names`], [`dns`] | the services' names, and the sockets where they are asked for |
//! | [`wire`], [`held`] | packets for a service that sleeps |
//! | `maker` | the thread that makes guests |
//! | [`birth`] | what a birth took |
//! | [`made_of`] | what a guest was made of, for later daemons |
//! | [`log`] | what is written down |
//! | [`config`] | the file: what is a service, and within which limits |
//! | [`guard`] | what a guest may send: a filter at its interface, so that nobody takes another's address |
//! | [`status`] | what the daemon tells of itself: a table, Prometheus' text, a page with pictures |
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

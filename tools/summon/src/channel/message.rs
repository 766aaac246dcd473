//! What the two processes say to each other: a small closed set.
//!
//! The front is believed in nothing but this: somebody wants a service, or has sent something to it, and what a guest has answered that
//! the maker has it ask. So a front that was taken over can have services woken that the file names, within the file's limits, and
//! say of a guest which has been quiet for its idle time that it has no connections.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::super::cause::Cause;
use super::super::clock::Moment;
use super::super::dns::Counts;
use super::super::fleet::Id;
use super::super::status::Frames;

/// How the front stands to a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stance {
    /// It has no guest that takes anything: who comes has to wake it.
    #[default]
    Sleeps,
    /// There will be a guest: what comes is held.
    Holds,
    /// Its guest takes by itself what is sent to it: the bridge gets back what comes here.
    Takes,
    /// Its guest is about to go: what comes is held, and the maker is told of it.
    Leaves,
}

/// What the maker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToFront {
    /// A socket for DNS over UDP is with it.
    Udp,
    /// A listener for DNS over TCP is with it.
    Listener,
    /// The listener of the page is with it.
    Page,
    /// A stream is with it: for each byte that is written to it, the status comes from it as a line of JSON.
    Status,
    /// A file with a [`Table`] is with it, which replaces the one before.
    Table,
    /// The port on this bridge is with it.
    Port(String),
    /// There is no port on this bridge any more.
    PortGone(String),
    /// How to stand to a service from now on; with [`Stance::Takes`], what is held goes to its guest.
    Is(Id, Stance),
    /// Whether the wake with this ticket was granted.
    Decided(u32, bool),
    /// Nobody will be there for what is held of a service.
    Drop(Id),
    /// Ask a service's guest for its connections.
    Ask(Id),
}

/// Somebody wants a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// Which.
    pub service: Id,
    /// What he has sent.
    pub cause: Cause,
    /// Who.
    pub from: IpAddr,
    /// When it was read.
    pub at: Moment,
    /// When the answer to a query was sent.
    pub answered: Option<Moment>,
    /// If something waits for it, this is said with the decision.
    pub ticket: Option<u32>,
}

/// What a guest says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Connections that are open or half open, but for the one that asks.
    pub connections: u32,
    /// HTTP requests before this one, and DNS queries that it has answered.
    pub requests: u64,
}

/// What the front says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMaker {
    /// Somebody wants a service.
    Wake(Wake),
    /// Something was sent to a service whose guest is about to go.
    Heard(Id),
    /// What was held for a guest was given to it: from when to when.
    Replayed(Id, Moment, Moment),
    /// What a guest has answered when it was asked for its connections; nothing when it does not say.
    Said(Id, Option<Said>),
    /// DNS queries since this was last said.
    Queries(Counts),
    /// DNS queries for a service, and frames that came to it while it had no guest, since this was last said.
    Counted(Id, u64, Frames),
    /// The port on this bridge can't be read any more.
    PortLost(String),
}

/// All that the front knows of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The services.
    pub services: Vec<Place>,
    /// Frames that are held for one service.
    pub held_frames: usize,
    /// Bytes of them.
    pub held_bytes: usize,
    /// What the DNS server calls itself (RFC 5001).
    pub nsid: Option<String>,
    /// Who is asked for names of no zone of ours.
    pub forward: Option<SocketAddr>,
    /// For whom.
    pub forward_for: Vec<IpNet>,
    /// The zones, packed.
    pub pack: Vec<u8>,
    /// The services' hosts, as wire names in lower case.
    pub hosts: Vec<(Vec<u8>, Id)>,
}

/// Where a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Which.
    pub service: Id,
    /// The bridge.
    pub bridge: String,
    /// The MAC address.
    pub mac: [u8; 6],
    /// The IP addresses; the first is where its guest is asked.
    pub addresses: Vec<IpAddr>,
}

//! The messages between the two processes.
//!
//! The maker believes the front only this much: a client wants a service or has sent something to it, and a guest has
//! given an answer for which the maker has told the front to ask. So a front that was taken over can wake services that
//! the file names, within the file's limits, and claim that a guest which has been quiet for its idle time has no
//! connections.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::super::cause::WakeCause;
use super::super::clock::Moment;
use super::super::dns::QueryCounts;
use super::super::fleet::ServiceId;
use super::super::status::FrameCounts;

/// The front's treatment of packets for a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stance {
    /// No guest takes packets: a packet has to wake the service.
    #[default]
    Sleeps,
    /// A guest is being made: packets are held.
    Holds,
    /// The guest takes its packets itself: a packet that comes here goes back to the bridge.
    Takes,
    /// The guest is about to be removed: packets are held, and reported to the maker.
    Leaves,
}

/// A message of the maker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToFront {
    /// Use the attached socket for DNS over UDP.
    Udp,
    /// Use the attached listener for DNS over TCP.
    Listener,
    /// Use the attached listener for the page.
    Page,
    /// Use the attached stream for the status: each byte written to it gets the status as a line of JSON.
    Status,
    /// Read the [`FrontTable`] in the attached file, which replaces the last one.
    Table,
    /// Use the attached port on this bridge.
    Port(String),
    /// The port on this bridge is gone.
    PortGone(String),
    /// Treat a service's packets like this from now on. With [`Stance::Takes`], the held packets go to its guest.
    Is(ServiceId, Stance),
    /// Whether the wake with this ticket was granted.
    Decided(u32, bool),
    /// Drop the held packets of a service: it gets no guest.
    Drop(ServiceId),
    /// Ask a service's guest for its open connections.
    Ask(ServiceId),
}

/// A client wants a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wake {
    /// The service.
    pub service: ServiceId,
    /// The kind of the client's packet.
    pub cause: WakeCause,
    /// The client's address.
    pub from: IpAddr,
    /// The time at which the packet was read.
    pub at: Moment,
    /// The time at which a query was answered.
    pub answered: Option<Moment>,
    /// If the front waits for the decision: the number that the decision repeats.
    pub ticket: Option<u32>,
}

/// A guest's answer about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestReport {
    /// Open and half-open connections, without the one that asks.
    pub connections: u32,
    /// HTTP requests before this one, plus DNS queries that it has answered.
    pub requests: u64,
}

/// A message of the front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMaker {
    /// A client wants a service.
    Wake(Wake),
    /// A packet was sent to a service whose guest is about to be removed.
    Heard(ServiceId),
    /// The held packets were given to a guest, between these times.
    Replayed(ServiceId, Moment, Moment),
    /// A guest's answer about its connections; `None` if it gives none.
    Said(ServiceId, Option<GuestReport>),
    /// DNS queries since the last such message.
    Queries(QueryCounts),
    /// DNS queries for a service, and frames to it while it had no guest, since the last such message.
    Counted(ServiceId, u64, FrameCounts),
    /// The port on this bridge cannot be read any more.
    PortLost(String),
}

/// The parts of the file that the front needs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontTable {
    /// The services.
    pub services: Vec<ServiceAddresses>,
    /// The greatest number of frames held for one service.
    pub held_frames: usize,
    /// The greatest number of bytes of these frames.
    pub held_bytes: usize,
    /// The DNS server's name for itself (RFC 5001).
    pub nsid: Option<String>,
    /// The resolver for names outside of our zones.
    pub forward: Option<SocketAddr>,
    /// The networks of clients whose queries are forwarded.
    pub forward_for: Vec<IpNet>,
    /// The packed zones.
    pub pack: Vec<u8>,
    /// The services' hosts, as wire names in lower case.
    pub hosts: Vec<(Vec<u8>, ServiceId)>,
}

/// The addresses of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceAddresses {
    /// The service.
    pub service: ServiceId,
    /// The bridge.
    pub bridge: String,
    /// Whether frames for it come to the front while it sleeps. Those for a service on the switch are held there.
    pub is_held_here: bool,
    /// The MAC address.
    pub mac: [u8; 6],
    /// The IP addresses. The guest is asked for its connections at the first one.
    pub addresses: Vec<IpAddr>,
}

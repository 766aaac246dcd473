//! Guests and sleeping guests as they are handed over, and their status.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::held::Bounds;
use super::{Limits, Mac};
use crate::port::{Features, Rings, Shut};

/// What is looked at of a guest's frames before they go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// Nothing: the guest may be a bridge itself.
    Off,
    /// That they come from its MAC address.
    Mac,
    /// All of [`crate::guard`].
    #[default]
    Full,
}

/// A guest, as the builder hands it over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Guest {
    /// Its name.
    pub name: String,
    /// Its bridge.
    pub bridge: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// What is looked at of its frames.
    #[serde(default)]
    pub guard: Guard,
    /// Where its rings are.
    pub rings: Rings,
    /// What its front end takes.
    #[serde(default)]
    pub features: Features,
    /// What it may send.
    #[serde(default)]
    pub limits: Limits,
}

/// A guest that is not there: what comes for it is held, and who looks for it is told that it is here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sleeper {
    /// Its name.
    pub name: String,
    /// Its bridge.
    pub bridge: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its IPv4 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipv6: Option<Ipv6Addr>,
    /// How much is held for it.
    #[serde(default)]
    pub bounds: Bounds,
}

/// Why somebody looks for a guest that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// Who has its IPv4 address.
    Arp,
    /// Who has its IPv6 address.
    Nd,
    /// The first segment of a TCP connection.
    Syn,
    /// A UDP datagram.
    Udp,
}

/// What the switch has to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Somebody looks for a sleeper.
    Wanted {
        /// Its name.
        name: String,
        /// Why.
        cause: Cause,
        /// Who.
        from: IpAddr,
    },
    /// A guest's port was shut.
    Shut {
        /// Its name.
        name: String,
        /// Its domain.
        domain: u16,
        /// Why.
        reason: Shut,
    },
    /// A bridge's port is lost.
    Lost {
        /// The bridge.
        bridge: String,
        /// What the kernel said.
        error: String,
    },
    /// A record that was asked for is full.
    Dumped {
        /// The guest.
        name: String,
    },
}

/// Why a guest or sleeper was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// There is no port on such a bridge.
    #[error("no port on a bridge {0}")]
    Bridge(String),
    /// Somebody else of that bridge has its MAC address, name or domain.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// A group's MAC address, or none.
    #[error("no MAC address of one interface")]
    Mac,
    /// The rings can't be mapped, or the event channels bound.
    #[error("its rings: {0}")]
    Rings(#[from] io::Error),
    /// There is no such guest.
    #[error("there is none of this name")]
    Unknown,
}

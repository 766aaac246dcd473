//! Guests and sleeping guests as a client gives them to the switch, and notices.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Life, Mac, SendLimits};
use crate::held::Bounds;
use crate::port::{Features, Rings, Shut};

/// The checks of a guest's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guard {
    /// None: the guest may be a bridge itself.
    Off,
    /// The source MAC address has to be the guest's.
    Mac,
    /// All rules of [`crate::guard`].
    #[default]
    Full,
}

impl Guard {
    /// Whether it has all rules.
    #[must_use]
    pub fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

/// A guest as the builder gives it to the switch.
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
    /// The checks of its frames.
    #[serde(default, skip_serializing_if = "Guard::is_full")]
    pub guard: Guard,
    /// The rings.
    pub rings: Rings,
    /// The features of its front end.
    #[serde(default)]
    pub features: Features,
    /// The limits of its sending.
    #[serde(default, skip_serializing_if = "SendLimits::is_none")]
    pub limits: SendLimits,
}

/// A guest that may sleep. While it is not attached, frames for it are held and address requests for it are answered.
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
    /// The most that is held for it.
    #[serde(default)]
    pub bounds: Bounds,
    /// Whether it does not sleep, but runs and is given another back end: every frame for it is held, and nobody is
    /// told.
    #[serde(default)]
    pub moves: bool,
}

/// The frame by which a sender wants to reach a guest that does not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WakeFrame {
    /// An ARP request for its IPv4 address.
    Arp,
    /// A neighbour solicitation for its IPv6 address.
    Nd,
    /// The first segment of a TCP connection.
    Syn,
    /// A UDP datagram.
    Udp,
    /// Any other frame. It wants only a guest that is attached and held.
    Other,
}

/// A notice of the switch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A sender wants to reach a guest that sleeps, or is held.
    Wanted {
        /// Its name.
        name: String,
        /// Why.
        cause: WakeFrame,
        /// The sender's address.
        from: IpAddr,
    },
    /// A guest that may sleep is there, and has sent its first frames.
    Lives {
        /// Its name.
        name: String,
        /// Its domain.
        domain: u16,
        /// What it has sent.
        life: Life,
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
        /// The kernel's error.
        error: String,
    },
    /// A record that was asked for is full.
    Dumped {
        /// The guest.
        name: String,
    },
}

/// The reason why a guest or sleeper was refused.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// The switch has no port on this bridge.
    #[error("no port on a bridge {0}")]
    Bridge(String),
    /// Another guest of that bridge has its MAC address, name or domid.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// The MAC address is a multicast address or all zeros.
    #[error("no MAC address of one interface")]
    Mac,
    /// The rings cannot be mapped, or the event channels cannot be bound.
    #[error("its rings: {0}")]
    Rings(#[from] io::Error),
    /// The switch has several threads.
    #[error("several threads, and which one serves it is not known yet")]
    Threads,
    /// There is no such guest.
    #[error("there is none of this name")]
    Unknown,
}

//! The reason why a service is woken.

use serde::{Deserialize, Serialize};

/// The reason why a service was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum WakeCause {
    /// A DNS query.
    Dns,
    /// An ARP request.
    Arp,
    /// A neighbour solicitation.
    Nd,
    /// A SYN.
    Syn,
    /// A UDP datagram.
    Udp,
    /// `hatch summon wake`, or `restart`.
    Command,
}

impl WakeCause {
    /// All causes.
    pub const ALL: [Self; 6] = [
        Self::Dns,
        Self::Arp,
        Self::Nd,
        Self::Syn,
        Self::Udp,
        Self::Command,
    ];

    /// The name of the cause.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Arp => "arp",
            Self::Nd => "nd",
            Self::Syn => "syn",
            Self::Udp => "udp",
            Self::Command => "command",
        }
    }
}

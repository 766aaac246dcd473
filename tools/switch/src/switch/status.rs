//! The status of the switch.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{Live, Mac, NetCounters, Switch};
use crate::port::PortCounters;
use crate::xen::{Wire, Xen};

/// The status of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestStatus {
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain: u16,
    /// Its bridge.
    pub bridge: String,
    /// Its MAC address.
    pub mac: Mac,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The reason why its port was shut, if it was.
    pub shut: Option<String>,
    /// The number of frames that wait for room in its ring.
    pub waiting: usize,
    /// The number of mapped pages of its buffers.
    pub mapped: usize,
    /// The counters.
    pub counters: PortCounters,
}

impl GuestStatus {
    pub(super) fn of<X: Xen>(live: &Live<X>) -> Self {
        let guest = &live.guest;
        Self {
            name: guest.name.clone(),
            domain: guest.rings.domain,
            bridge: guest.bridge.clone(),
            mac: guest.mac,
            ipv4: guest.ipv4,
            ipv6: guest.ipv6,
            shut: live.port.reason().map(|reason| reason.to_string()),
            waiting: live.port.queued(),
            mapped: live.port.mapped(),
            counters: live.port.counters,
        }
    }
}

/// The status of a bridge's port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeStatus {
    /// Its name.
    pub bridge: String,
    /// Whether the port on it is lost.
    pub is_lost: bool,
    /// The counters of its port.
    pub counters: NetCounters,
}

/// The status of a sleeper.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SleeperStatus {
    /// Its name.
    pub name: String,
    /// The number of frames that are held for it.
    pub held: usize,
    /// The number of frames for it that were not held.
    pub dropped: u64,
}

/// The status of the switch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchStatus {
    /// The guests, by name.
    pub guests: Vec<GuestStatus>,
    /// The bridges.
    pub bridges: Vec<BridgeStatus>,
    /// The sleepers, by name.
    pub sleepers: Vec<SleeperStatus>,
}

impl SwitchStatus {
    pub(super) fn of<X: Xen, W: Wire>(switch: &Switch<X, W>) -> Self {
        let mut guests: Vec<_> = switch
            .guests
            .iter()
            .flatten()
            .map(GuestStatus::of)
            .collect();
        guests.sort_by(|one, other| one.name.cmp(&other.name));
        let bridges = switch.nets.iter().map(|net| BridgeStatus {
            bridge: net.bridge.clone(),
            is_lost: net.is_lost,
            counters: net.counters,
        });
        let sleepers = switch.sleepers.values().map(|asleep| SleeperStatus {
            name: asleep.sleeper.name.clone(),
            held: asleep.held.len(),
            dropped: asleep.dropped,
        });
        let mut sleepers: Vec<_> = sleepers.collect();
        sleepers.sort_by(|one, other| one.name.cmp(&other.name));
        Self {
            guests,
            bridges: bridges.collect(),
            sleepers,
        }
    }
}

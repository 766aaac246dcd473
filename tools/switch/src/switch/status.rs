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

impl BridgeStatus {
    /// Adds what another thread knows of the same bridge.
    fn add(&mut self, other: &Self) {
        self.is_lost |= other.is_lost;
        for (sum, more) in [
            (&mut self.counters.frames, other.counters.frames),
            (&mut self.counters.malformed, other.counters.malformed),
            (&mut self.counters.unknown, other.counters.unknown),
            (&mut self.counters.sent, other.counters.sent),
        ] {
            *sum += more;
        }
    }
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
    /// The status of a switch whose threads have these.
    #[must_use]
    pub fn merge(parts: Vec<Self>) -> Self {
        let mut all = Self {
            guests: Vec::new(),
            bridges: Vec::new(),
            sleepers: Vec::new(),
        };
        for part in parts {
            all.guests.extend(part.guests);
            all.sleepers.extend(part.sleepers);
            for bridge in part.bridges {
                let mut bridges = all.bridges.iter_mut();
                match bridges.find(|other| other.bridge == bridge.bridge) {
                    Some(other) => other.add(&bridge),
                    None => all.bridges.push(bridge),
                }
            }
        }
        all.guests.sort_by(|one, other| one.name.cmp(&other.name));
        all.sleepers.sort_by(|one, other| one.name.cmp(&other.name));
        all
    }

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

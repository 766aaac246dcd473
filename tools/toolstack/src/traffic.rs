//! The back end of a guest's network, and what it has counted.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use mayfly_links::vif_name;
use mayfly_switch::control::{SwitchConnection, SwitchOrder, SwitchReply};
use mayfly_switch::port::Traffic;
use mayfly_switch::switch::GuestStatus;
use serde::{Deserialize, Serialize};

use crate::builder::Network;

/// The kernel's links.
const LINKS: &str = "/sys/class/net";

/// What a back end has counted for a guest. Each back end counts from 0.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkTraffic {
    /// The back end.
    pub network: Network,
    /// From the guest.
    pub sent: Traffic,
    /// To the guest.
    pub received: Traffic,
    /// The number of frames that were dropped, in both directions.
    pub dropped: u64,
    /// The same by cause, as far as the back end knows it. Causes for which nothing was dropped are left out.
    pub drops: BTreeMap<String, u64>,
}

impl NetworkTraffic {
    /// That of a guest on the switch.
    #[must_use]
    pub fn of(guest: &GuestStatus) -> Self {
        let drops = guest.counters.drops().filter(|(_, count)| *count > 0);
        let drops: BTreeMap<_, _> = drops.map(|(why, count)| (why.to_owned(), count)).collect();
        Self {
            network: Network::Switch,
            sent: guest.counters.from_guest,
            received: guest.counters.to_guest,
            dropped: drops.values().sum(),
            drops,
        }
    }

    /// That of a domain, which is on the switch if the switch has a status of it; `None` if it has no network.
    #[must_use]
    pub fn find(guest: Option<&GuestStatus>, domid: u16) -> Option<Self> {
        guest.map(Self::of).or_else(|| Self::of_vif(domid))
    }

    /// That of a domain whose vif the kernel counts; `None` if it has none.
    #[must_use]
    pub fn of_vif(domid: u16) -> Option<Self> {
        of_link(&Path::new(LINKS).join(vif_name(domid, 0)))
    }
}

/// The counters of a vif, below its folder in sysfs. What the kernel receives there, the guest has sent.
fn of_link(link: &Path) -> Option<NetworkTraffic> {
    let count = |name: &str| -> Option<u64> {
        let text = fs::read_to_string(link.join("statistics").join(name)).ok()?;
        text.trim().parse().ok()
    };
    let traffic = |way: &str| {
        Some(Traffic {
            frames: count(&format!("{way}_packets"))?,
            bytes: count(&format!("{way}_bytes"))?,
        })
    };
    let dropped = count("rx_dropped")?.saturating_add(count("tx_dropped")?);
    Some(NetworkTraffic {
        network: Network::Netback,
        sent: traffic("rx")?,
        received: traffic("tx")?,
        dropped,
        drops: BTreeMap::new(),
    })
}

/// The guests on the switch at this socket; none if no switch runs.
#[must_use]
pub fn on_switch(socket: &Path, bound: Duration) -> BTreeMap<u16, GuestStatus> {
    let status = SwitchConnection::open(socket, bound)
        .and_then(|mut switch| switch.ask(&SwitchOrder::Status));
    let guests = match status {
        Ok(SwitchReply::Status(status)) => status.guests,
        _ => Vec::new(),
    };
    guests
        .into_iter()
        .map(|guest| (guest.domain, guest))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vif_is_read_from_the_other_side() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join("vif7.0");
        assert_eq!(of_link(&link), None);
        fs::create_dir_all(link.join("statistics")).unwrap();
        for (name, count) in [
            ("rx_packets", "3\n"),
            ("rx_bytes", "180\n"),
            ("tx_packets", "5\n"),
            ("tx_bytes", "300\n"),
            ("rx_dropped", "1\n"),
        ] {
            fs::write(link.join("statistics").join(name), count).unwrap();
        }
        assert_eq!(of_link(&link), None, "a counter is missing");
        fs::write(link.join("statistics/tx_dropped"), "2\n").unwrap();
        let traffic = of_link(&link).unwrap();
        assert_eq!((traffic.sent.frames, traffic.received.bytes), (3, 300));
        assert_eq!((traffic.network, traffic.dropped), (Network::Netback, 3));
    }

    #[test]
    fn a_guest_on_the_switch_is_counted_by_cause() {
        let mut guest = GuestStatus::default();
        assert_eq!(NetworkTraffic::of(&guest).drops, BTreeMap::new());
        guest.counters.from_guest.frames = 9;
        guest.counters.guard_source = 2;
        guest.counters.dropped_full = 1;
        let traffic = NetworkTraffic::of(&guest);
        assert_eq!((traffic.network, traffic.dropped), (Network::Switch, 3));
        assert_eq!(traffic.drops["guard: source"], 2);
        assert_eq!(traffic.sent.frames, 9);
    }
}

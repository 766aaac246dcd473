//! The counters of one guest.

use serde::{Deserialize, Serialize};

/// Numbers of frames and of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The counters of a guest's frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PortCounters {
    /// From the guest, including frames that are dropped later.
    pub from_guest: Traffic,
    /// To the guest.
    pub to_guest: Traffic,
    /// Notifications sent to the guest.
    pub notifications: u64,
    /// Events that the guest sent.
    pub events: u64,
    /// Frames to the guest that its ring had no room for.
    pub dropped_full: u64,
    /// Frames to the guest that it cannot take: longer than a page, or than its MTU.
    pub dropped_long: u64,
    /// Requests with an invalid grant reference, in both directions.
    pub bad_grant: u64,
    /// Requests with an invalid size.
    pub bad_size: u64,
    /// Frames of more slots than the protocol allows.
    pub too_many_slots: u64,
    /// Frames with an offload that are not TCP or UDP, or contradict it.
    pub bad_offload: u64,
    /// Frames that are longer than the bridge's MTU allows.
    pub too_long: u64,
    /// Frames that the bridge refused.
    pub refused: u64,
    /// The guard's: from another MAC address.
    pub guard_source: u64,
    /// The guard's: of a kind that is not allowed, or malformed.
    pub guard_kind: u64,
    /// The guard's: a claim to another host's address.
    pub guard_claim: u64,
    /// The guard's: from another IP address.
    pub guard_address: u64,
    /// The guard's: messages that only routers and DHCP servers send.
    pub guard_router: u64,
    /// The guard's: to groups.
    pub guard_group: u64,
    /// The guard's: to dom0, and not a reply.
    pub guard_host: u64,
}

impl PortCounters {
    /// The number of frames that were dropped, by cause.
    pub fn drops(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("its ring was full", self.dropped_full),
            ("too long for it", self.dropped_long),
            ("bad grant", self.bad_grant),
            ("bad size", self.bad_size),
            ("too many slots", self.too_many_slots),
            ("bad offload", self.bad_offload),
            ("too long for the bridge", self.too_long),
            ("refused by the bridge", self.refused),
            ("guard: source", self.guard_source),
            ("guard: kind", self.guard_kind),
            ("guard: claim", self.guard_claim),
            ("guard: address", self.guard_address),
            ("guard: router", self.guard_router),
            ("guard: group", self.guard_group),
            ("guard: host", self.guard_host),
        ]
        .into_iter()
    }

    /// Frames from the guest that were dropped, for any cause.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        [
            self.bad_size,
            self.too_many_slots,
            self.bad_offload,
            self.too_long,
            self.refused,
            self.guarded(),
        ]
        .iter()
        .sum()
    }

    /// Frames that the guard dropped.
    #[must_use]
    pub fn guarded(&self) -> u64 {
        [
            self.guard_source,
            self.guard_kind,
            self.guard_claim,
            self.guard_address,
            self.guard_router,
            self.guard_group,
            self.guard_host,
        ]
        .iter()
        .sum()
    }

    pub(crate) fn breach(&mut self, breach: crate::guard::Breach) {
        use crate::guard::Breach;
        let counter = match breach {
            Breach::Source => &mut self.guard_source,
            Breach::Kind => &mut self.guard_kind,
            Breach::Claim => &mut self.guard_claim,
            Breach::Address => &mut self.guard_address,
            Breach::Router => &mut self.guard_router,
            Breach::Group => &mut self.guard_group,
            Breach::Host => &mut self.guard_host,
        };
        *counter += 1;
    }
}

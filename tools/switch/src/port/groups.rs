//! Multicast groups that a guest has asked for (io/netif.h, `feature-multicast-control`).

/// `XEN_NETBK_MCAST_MAX` of Linux' netback.
const LIMIT: usize = 64;

/// The groups; until the guest has asked for one, it gets everything.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    is_controlled: bool,
    addresses: Vec<[u8; 6]>,
}

impl Groups {
    /// The guest is to be given what is for this group. Says whether there was room for it.
    pub(super) fn add(&mut self, address: [u8; 6]) -> bool {
        self.is_controlled = true;
        if self.addresses.contains(&address) {
            return true;
        }
        let has_room = self.addresses.len() < LIMIT;
        if has_room {
            self.addresses.push(address);
        }
        has_room
    }

    /// The guest wants no more of this group.
    pub(super) fn remove(&mut self, address: [u8; 6]) -> bool {
        self.is_controlled = true;
        self.addresses.retain(|known| *known != address);
        true
    }

    /// Whether the guest wants a frame that is for this group. Broadcasts are for everybody.
    pub(crate) fn wants(&self, address: [u8; 6]) -> bool {
        !self.is_controlled || address == [0xff; 6] || self.addresses.contains(&address)
    }
}

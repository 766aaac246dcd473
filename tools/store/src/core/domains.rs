//! The known domains and their use of what the quotas bound.

use std::collections::HashMap;

use mayfly_xenstore::ErrorCode;

use super::quota::Quota;

/// The state of a domain in Xen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainState {
    /// It has shut down or crashed.
    pub is_shutdown: bool,
    /// It is being destroyed.
    pub is_dying: bool,
}

/// The operations of the machine that the server needs.
pub trait Host {
    /// Returns the state of a domain, `None` if Xen has no domain of this number.
    fn state(&mut self, domid: u16) -> Option<DomainState>;

    /// Maps a domain's ring, binds its event channel and empties the ring.
    ///
    /// # Errors
    /// The code that answers the INTRODUCE request.
    fn attach(&mut self, domid: u16, gfn: u64, port: u32) -> Result<(), ErrorCode>;

    /// Attaches a domain as a predecessor in this process has left it: its ring is not emptied, and `port` is a local
    /// port that is bound already, or 0. A domain that has withdrawn its ring stays without one.
    fn adopt(&mut self, domid: u16, port: u32);

    /// Binds the new event channel of a domain that is attached already, and empties its ring.
    fn attach_again(&mut self, domid: u16, port: u32);

    /// Unmaps a domain's ring and closes its event channel.
    fn detach(&mut self, domid: u16);
}

/// A domain that was introduced or that the permissions of a node name.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// The value of `Server::now` when it became known.
    since: u64,
    /// Whether it has been introduced.
    pub(super) is_introduced: bool,
    /// Whether watchers were told of its shutdown.
    pub(super) is_shutdown: bool,
    /// Its use of what [`Quota`] bounds.
    pub(super) usage: Usage,
}

/// A domain's use of what [`Quota`] bounds. The fields have the same meanings as there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) nodes: usize,
    pub(super) watches: usize,
    pub(super) transactions: usize,
    pub(super) outstanding: usize,
    pub(super) memory: usize,
}

/// All known domains.
#[derive(Debug, Default)]
pub(super) struct Domains {
    all: HashMap<u16, Domain>,
}

impl Domains {
    pub(super) fn get(&self, domid: u16) -> Option<&Domain> {
        self.all.get(&domid)
    }

    pub(super) fn get_mut(&mut self, domid: u16) -> Option<&mut Domain> {
        self.all.get_mut(&domid)
    }

    pub(super) fn usage(&self, domid: u16) -> Usage {
        self.all
            .get(&domid)
            .map(|domain| domain.usage)
            .unwrap_or_default()
    }

    /// Returns the entry of a domain. A domain without one gets one, and is known since `now`.
    pub(super) fn known(&mut self, domid: u16, now: u64) -> &mut Domain {
        self.all.entry(domid).or_insert_with(|| Domain {
            since: now,
            ..Domain::default()
        })
    }

    /// Returns whether `domid` still means the domain that it meant at the time `stamp`. (Xen reuses numbers.)
    pub(super) fn is_since(&self, domid: u16, stamp: u64) -> bool {
        let domain = self.all.get(&domid);
        domain.is_some_and(|domain| domain.since <= stamp)
    }

    pub(super) fn forget(&mut self, domid: u16) {
        self.all.remove(&domid);
    }

    pub(super) fn is_introduced(&self, domid: u16) -> bool {
        self.get(domid).is_some_and(|domain| domain.is_introduced)
    }

    /// Returns the numbers of the known domains in ascending order.
    pub(super) fn numbers(&self) -> Vec<u16> {
        let mut numbers: Vec<u16> = self.all.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Adds to a domain's account nodes that it has gained or lost.
    pub(super) fn add_nodes(&mut self, domid: u16, change: Owned) {
        if let Some(domain) = self.all.get_mut(&domid) {
            let usage = &mut domain.usage;
            usage.nodes = usage.nodes.saturating_add_signed(change.nodes);
            usage.memory = usage.memory.saturating_add_signed(change.bytes);
        }
    }

    /// Adds to a domain's account bytes that are kept for it, or no longer kept if `bytes` is negative.
    pub(super) fn add_memory(&mut self, domid: u16, bytes: isize) {
        self.add_nodes(domid, Owned { nodes: 0, bytes });
    }

    /// Returns whether the quota lets the server keep `more` bytes for a domain.
    pub(super) fn has_memory(&self, domid: u16, more: usize, quota: &Quota) -> bool {
        domid == 0 || self.usage(domid).memory.saturating_add(more) <= quota.memory
    }
}

/// A change in the nodes that a domain owns: their number and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) nodes: isize,
    pub(super) bytes: isize,
}

/// The changes of [`Owned`] that a request or a transaction makes, by domain.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    changes: HashMap<u16, Owned>,
}

impl Ledger {
    pub(super) fn add(&mut self, owner: u16, nodes: isize, bytes: isize) {
        // dom0 has no quota, so it has no account.
        if owner != 0 {
            let owned = self.changes.entry(owner).or_default();
            owned.nodes += nodes;
            owned.bytes += bytes;
        }
    }

    pub(super) fn of(&self, owner: u16) -> Owned {
        self.changes.get(&owner).copied().unwrap_or_default()
    }

    /// Adds the changes to the domains' accounts.
    pub(super) fn settle(&mut self, domains: &mut Domains) {
        for (domid, change) in self.changes.drain() {
            domains.add_nodes(domid, change);
        }
    }
}

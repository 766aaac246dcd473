//! The domains that are known, and what each of them uses.

use std::collections::HashMap;

use mayfly_xenstore::Code;

use super::quota::Quota;

/// How Xen sees a domain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// It has shut down or crashed.
    pub is_shutdown: bool,
    /// It is being taken apart.
    pub is_dying: bool,
}

/// What the server asks of the machine that it runs on.
pub trait Host {
    /// What Xen knows of a domain; `None` if there is none of this number.
    fn state(&mut self, domid: u16) -> Option<State>;

    /// Maps a domain's ring, binds its event channel and makes the ring empty.
    ///
    /// # Errors
    /// Its name is the answer to INTRODUCE.
    fn attach(&mut self, domid: u16, gfn: u64, port: u32) -> Result<(), Code>;

    /// Binds the event channel of a domain that is attached anew, and makes its ring empty.
    fn attach_again(&mut self, domid: u16, port: u32);

    /// Lets go of a domain's ring and event channel.
    fn detach(&mut self, domid: u16);
}

/// A domain that has been introduced or that permissions name.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// When it became known.
    since: u64,
    /// Whether it has been introduced.
    pub(super) is_introduced: bool,
    /// Whether its shutdown has been told.
    pub(super) is_shutdown: bool,
    /// What it uses.
    pub(super) usage: Usage,
}

/// What a domain uses of what [`Quota`] bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) nodes: usize,
    pub(super) watches: usize,
    pub(super) transactions: usize,
    pub(super) outstanding: usize,
    pub(super) memory: usize,
}

/// All domains that are known.
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

    /// The entry of a domain, which is known from `now` on if it was not.
    pub(super) fn known(&mut self, domid: u16, now: u64) -> &mut Domain {
        self.all.entry(domid).or_insert_with(|| Domain {
            since: now,
            ..Domain::default()
        })
    }

    /// Whether a number means the domain that it meant at a time.
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

    /// Those that are known, in the order of their numbers.
    pub(super) fn numbers(&self) -> Vec<u16> {
        let mut numbers: Vec<u16> = self.all.keys().copied().collect();
        numbers.sort_unstable();
        numbers
    }

    /// Accounts nodes that a domain has come to own or owns no more.
    pub(super) fn add_nodes(&mut self, domid: u16, change: Owned) {
        if let Some(domain) = self.all.get_mut(&domid) {
            let usage = &mut domain.usage;
            usage.nodes = usage.nodes.saturating_add_signed(change.nodes);
            usage.memory = usage.memory.saturating_add_signed(change.bytes);
        }
    }

    /// Accounts bytes that are kept for a domain.
    pub(super) fn add_memory(&mut self, domid: u16, bytes: isize) {
        self.add_nodes(domid, Owned { nodes: 0, bytes });
    }

    /// Whether `more` bytes may be kept for a domain.
    pub(super) fn has_memory(&self, domid: u16, more: usize, quota: &Quota) -> bool {
        domid == 0 || self.usage(domid).memory.saturating_add(more) <= quota.memory
    }
}

/// By how much the nodes that a domain owns change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) nodes: isize,
    pub(super) bytes: isize,
}

/// By how much they change, for each domain.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    changes: HashMap<u16, Owned>,
}

impl Ledger {
    pub(super) fn add(&mut self, owner: u16, nodes: isize, bytes: isize) {
        // Of dom0 nothing is counted.
        if owner != 0 {
            let owned = self.changes.entry(owner).or_default();
            owned.nodes += nodes;
            owned.bytes += bytes;
        }
    }

    pub(super) fn of(&self, owner: u16) -> Owned {
        self.changes.get(&owner).copied().unwrap_or_default()
    }

    /// Carries the changes over into what is accounted.
    pub(super) fn settle(&mut self, domains: &mut Domains) {
        for (domid, change) in self.changes.drain() {
            domains.add_nodes(domid, change);
        }
    }
}

//! The permissions of nodes.

use std::rc::Rc;

use mayfly_xenstore::{Access, ErrorCode, Perm};

use super::domains::Domains;
use super::path::strings;

/// The right to read a node.
pub(super) const READ: u8 = 1;
/// The right to write it.
pub(super) const WRITE: u8 = 2;
/// The right of its owner, to change the permissions.
pub(super) const OWN: u8 = 4;

/// The domain on whose behalf a request is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The domain.
    pub domid: u16,
    /// Another domain whose rights it has as well (SET_TARGET).
    pub target: Option<u16>,
}

impl Who {
    /// A domain without a target.
    #[must_use]
    pub const fn domain(domid: u16) -> Self {
        Self {
            domid,
            target: None,
        }
    }

    /// Returns whether it is dom0, which has all rights and no quota.
    #[must_use]
    pub const fn is_privileged(&self) -> bool {
        self.domid == 0
    }

    fn is(&self, domid: u16) -> bool {
        self.domid == domid || self.target == Some(domid)
    }
}

/// The permissions of a node. The first entry names the owner and gives the rights of all domains that no other entry
/// names.
#[derive(Debug)]
pub(super) struct Perms {
    list: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    perm: Perm,
    /// When it was set: the entry is not about a later domain with the same number.
    stamp: u64,
}

impl PartialEq for Perms {
    fn eq(&self, other: &Self) -> bool {
        let perms = |perms: &Self| {
            perms
                .list
                .iter()
                .map(|entry| entry.perm)
                .collect::<Vec<_>>()
        };
        perms(self) == perms(other)
    }
}

impl Perms {
    pub(super) fn new(list: &[Perm], stamp: u64) -> Self {
        let entries = list.iter().map(|perm| Entry { perm: *perm, stamp });
        Self {
            list: entries.collect(),
        }
    }

    /// Permissions with the time at which each entry was set.
    pub(super) fn stamped(list: impl Iterator<Item = (Perm, u64)>) -> Self {
        let entries = list.map(|(perm, stamp)| Entry { perm, stamp });
        Self {
            list: entries.collect(),
        }
    }

    /// Returns the entries, each with the time at which it was set.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Perm, u64)> {
        self.list.iter().map(|entry| (entry.perm, entry.stamp))
    }

    /// Reads the permissions in a SET_PERMS request: its payload behind the path.
    pub(super) fn parse(payload: &[u8]) -> Result<Vec<Perm>, ErrorCode> {
        let each = strings(payload).into_iter().map(|text| {
            let text = std::str::from_utf8(text).ok()?;
            Perm::parse(text)
        });
        let list = each.collect::<Option<Vec<_>>>().ok_or(ErrorCode::EINVAL)?;
        match list.is_empty() {
            true => Err(ErrorCode::EINVAL),
            false => Ok(list),
        }
    }

    /// Returns the answer to GET_PERMS.
    pub(super) fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for entry in &self.list {
            text.extend_from_slice(entry.perm.to_string().as_bytes());
            text.push(0);
        }
        text
    }

    pub(super) fn owner(&self) -> u16 {
        self.list.first().map_or(0, |entry| entry.perm.domid)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the rights of a domain: a set of [`READ`], [`WRITE`] and [`OWN`].
    pub(super) fn rights(&self, who: &Who, domains: &Domains) -> u8 {
        if who.is_privileged() {
            return READ | WRITE | OWN;
        }
        let means = |entry: &Entry| {
            let domid = entry.perm.domid;
            who.is(domid) && domains.is_since(domid, entry.stamp)
        };
        let Some((first, named)) = self.list.split_first() else {
            return 0;
        };
        if means(first) {
            return READ | WRITE | OWN;
        }
        let entry = named.iter().find(|entry| means(entry)).unwrap_or(first);
        match entry.perm.access {
            Access::None => 0,
            Access::Read => READ,
            Access::Write => WRITE,
            Access::Both => READ | WRITE,
        }
    }

    /// Returns the permissions of a new node that `who` makes below a node with these permissions. They are the same,
    /// but an unprivileged domain owns the nodes that it makes.
    pub(super) fn inherited(this: &Rc<Self>, who: &Who, now: u64) -> Rc<Self> {
        if who.is_privileged() {
            return Rc::clone(this);
        }
        let mut list = this.list.clone();
        if let Some(owner) = list.first_mut() {
            owner.perm.domid = who.domid;
            owner.stamp = now;
        }
        Rc::new(Self { list })
    }
}

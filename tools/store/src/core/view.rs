//! Access to a version of the tree with the rights and the quotas of a domain.

use std::rc::Rc;

use mayfly_xenstore::{ErrorCode, Perm};

use super::domains::{Domains, Ledger};
use super::perms::{OWN, Perms, READ, WRITE, Who};
use super::quota::Quota;
use super::tree::{self, Node};

/// A change that watchers are to be told of.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) path: String,
    /// Watchers that may read by one of these permissions are told: the node's, its parent's, the node's former ones.
    pub(super) readable_by: Vec<Rc<Perms>>,
    /// The node that was removed with all nodes below it.
    pub(super) removed: Option<Rc<Node>>,
}

/// A requested change of a node.
#[derive(Clone, Debug)]
pub(super) enum Edit {
    Write(Rc<[u8]>),
    Mkdir,
    Remove,
    SetPerms(Vec<Perm>),
}

/// A version of the tree, with the domain that reads and changes it.
pub(super) struct View<'a> {
    pub(super) root: &'a mut Rc<Node>,
    pub(super) who: &'a Who,
    pub(super) domains: &'a Domains,
    pub(super) quota: &'a Quota,
    /// The changes in what the domains own.
    pub(super) ledger: &'a mut Ledger,
    pub(super) now: u64,
}

/// Returns a node for which `who` has all of the rights `need`.
///
/// # Errors
/// EACCES. ENOENT if the node does not exist and its nearest existing ancestor gives `who` one of the rights.
pub(super) fn look<'a>(
    root: &'a Rc<Node>,
    path: &str,
    need: u8,
    who: &Who,
    domains: &Domains,
) -> Result<&'a Rc<Node>, ErrorCode> {
    let place = tree::find(root, path);
    let rights = |node: &Rc<Node>| node.perms.rights(who, domains) & need;
    match place.node {
        Some(node) if rights(node) == need => Ok(node),
        None if rights(place.above) != 0 => Err(ErrorCode::ENOENT),
        _ => Err(ErrorCode::EACCES),
    }
}

impl View<'_> {
    fn may(&self, path: &str, need: u8) -> Result<(), ErrorCode> {
        look(self.root, path, need, self.who, self.domains).map(drop)
    }

    /// Carries out a change. Returns `None` if it had no effect.
    ///
    /// # Errors
    /// The code that answers the request; then nothing has changed.
    pub(super) fn edit(&mut self, path: &str, edit: &Edit) -> Result<Option<Change>, ErrorCode> {
        match edit {
            Edit::Write(value) => match self.may(path, WRITE) {
                Ok(()) => self.set_value(path, value).map(Some),
                Err(ErrorCode::ENOENT) => self.make(path, value).map(Some),
                Err(code) => Err(code),
            },
            Edit::Mkdir => match self.may(path, WRITE) {
                Ok(()) => Ok(None),
                Err(ErrorCode::ENOENT) => self.make(path, &Rc::from([])).map(Some),
                Err(code) => Err(code),
            },
            Edit::Remove => match self.may(path, WRITE) {
                Ok(()) if path == "/" => Err(ErrorCode::EINVAL),
                Ok(()) => Ok(self.remove(path)),
                // To remove a missing node succeeds if its parent exists.
                Err(ErrorCode::ENOENT) if tree::find(self.root, path).missing == 1 => Ok(None),
                Err(code) => Err(code),
            },
            Edit::SetPerms(perms) => {
                self.may(path, WRITE | OWN)?;
                self.set_perms(path, perms)
            }
        }
    }

    /// Checks that the quota allows a node of `size` bytes.
    fn fits(&self, size: usize) -> Result<(), ErrorCode> {
        match self.who.is_privileged() || size < self.quota.node_size {
            true => Ok(()),
            false => Err(ErrorCode::ENOSPC),
        }
    }

    /// Checks that the quota of `owner` allows `more` bytes in its nodes.
    fn has_memory(&self, owner: u16, more: isize) -> Result<(), ErrorCode> {
        let more = usize::try_from(self.ledger.of(owner).bytes + more).unwrap_or(0);
        match self.who.is_privileged() || self.domains.has_memory(owner, more, self.quota) {
            true => Ok(()),
            false => Err(ErrorCode::ENOMEM),
        }
    }

    fn set_value(&mut self, path: &str, value: &Rc<[u8]>) -> Result<Change, ErrorCode> {
        let place = tree::find(self.root, path);
        let node = place.node.ok_or(ErrorCode::ENOENT)?;
        let change = changed(path, node, place.above);
        let owner = node.perms.owner();
        let more = signed(value.len()) - signed(node.value.len());
        self.fits(node.size().saturating_add_signed(more))?;
        self.has_memory(owner, more)?;
        self.ledger.add(owner, 0, more);
        if let Some(node) = tree::get_mut(self.root, path) {
            node.value = Rc::clone(value);
        }
        Ok(change)
    }

    fn make(&mut self, path: &str, value: &Rc<[u8]>) -> Result<Change, ErrorCode> {
        let place = tree::find(self.root, path);
        let above = Rc::clone(place.above);
        let missing = place.missing;
        let perms = Perms::inherited(&above.perms, self.who, self.now);
        let owner = perms.owner();
        let new = path.rsplit('/').take(missing);
        let names = new.clone().map(|name| name.len() + 1);
        let lowest = Node::new(Rc::clone(value), Rc::clone(&perms), 0);
        self.fits(lowest.size())?;
        self.fits(above.size() + names.clone().last().unwrap_or(0))?;
        let bytes = missing * lowest.size() - (missing.saturating_sub(1)) * value.len()
            + names.sum::<usize>();
        if !self.who.is_privileged() {
            let used = signed(self.domains.usage(owner).nodes) + self.ledger.of(owner).nodes;
            if used + signed(missing) > signed(self.quota.nodes) {
                return Err(ErrorCode::ENOSPC);
            }
        }
        self.has_memory(owner, signed(bytes))?;
        self.ledger.add(owner, signed(missing), signed(bytes));
        tree::make(self.root, path, Rc::clone(value), &perms, self.now);
        let parent = if missing > 1 { &perms } else { &above.perms };
        Ok(Change {
            path: path.to_owned(),
            readable_by: vec![Rc::clone(&perms), Rc::clone(parent)],
            removed: None,
        })
    }

    fn remove(&mut self, path: &str) -> Option<Change> {
        let place = tree::find(self.root, path);
        let node = Rc::clone(place.node?);
        let mut change = changed(path, &node, place.above);
        let name = path.rsplit('/').next().unwrap_or_default();
        tree::walk(name, &node, &mut |name, node| {
            self.ledger
                .add(node.perms.owner(), -1, -signed(kept(name, node)));
        });
        tree::remove(self.root, path, self.now);
        change.removed = Some(node);
        Some(change)
    }

    fn set_perms(&mut self, path: &str, perms: &[Perm]) -> Result<Option<Change>, ErrorCode> {
        let place = tree::find(self.root, path);
        let node = place.node.ok_or(ErrorCode::ENOENT)?;
        let old = Rc::clone(&node.perms);
        let new = Rc::new(Perms::new(perms, self.now));
        if !self.who.is_privileged() && new.owner() != old.owner() {
            return Err(ErrorCode::EPERM);
        }
        let mut change = changed(path, node, place.above);
        change.readable_by.push(Rc::clone(&new));
        let name = path.rsplit('/').next().unwrap_or_default();
        let bytes = signed(kept(name, node));
        self.fits(node.size())?;
        self.ledger.add(old.owner(), -1, -bytes);
        if let Some(node) = tree::get_mut(self.root, path) {
            node.perms = Rc::clone(&new);
            self.ledger.add(new.owner(), 1, signed(kept(name, node)));
        }
        Ok(Some(change))
    }
}

/// Returns the bytes that a node's owner is charged for it: the same number as in [`View::make`].
pub(super) fn kept(name: &str, node: &Node) -> usize {
    node.size() - node.list_length() + name.len() + 1
}

/// Returns the change of an existing node.
fn changed(path: &str, node: &Node, parent: &Node) -> Change {
    Change {
        path: path.to_owned(),
        readable_by: vec![Rc::clone(&node.perms), Rc::clone(&parent.perms)],
        removed: None,
    }
}

/// Converts a length. No object in memory is longer than `isize::MAX` bytes.
fn signed(length: usize) -> isize {
    isize::try_from(length).unwrap_or(isize::MAX)
}

/// Returns whether `who` may be told of a change.
pub(super) fn may_hear(readable_by: &[Rc<Perms>], who: &Who, domains: &Domains) -> bool {
    let mut all = readable_by.iter();
    who.is_privileged() || all.any(|perms| perms.rights(who, domains) & READ != 0)
}

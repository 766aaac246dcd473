//! Transactions: a snapshot of the tree, a record of what was seen in it, and a list of changes.
//!
//! A commit succeeds if everything that was seen is unchanged and if each change is still possible. Other changes since
//! the start of the transaction do not matter.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use mayfly_xenstore::ErrorCode;

use super::domains::Ledger;
use super::quota::Quota;
use super::tree::{self, Node};
use super::view::Edit;

/// What was seen of a node, as a set of [`VALUE`], [`LIST`] (the names of its children) and [`PERMS`].
pub(super) const VALUE: u8 = 1;
pub(super) const LIST: u8 = 2;
pub(super) const PERMS: u8 = 4;
/// Only whether the node exists was seen.
pub(super) const PRESENCE: u8 = 0;

/// An open transaction.
#[derive(Debug)]
pub(super) struct Transaction {
    /// The tree when it began.
    base: Rc<Node>,
    /// The tree with the transaction's changes.
    pub(super) root: Rc<Node>,
    pub(super) ledger: Ledger,
    seen: BTreeMap<String, u8>,
    edits: Vec<(String, Edit)>,
    /// The index in `edits` of each WRITE whose value a later WRITE may replace, by path.
    written: HashMap<String, usize>,
    /// The number of bytes that it keeps, for the quota.
    pub(super) bytes: usize,
}

impl Transaction {
    pub(super) fn new(root: &Rc<Node>) -> Self {
        Self {
            base: Rc::clone(root),
            root: Rc::clone(root),
            ledger: Ledger::default(),
            seen: BTreeMap::new(),
            edits: Vec::new(),
            written: HashMap::new(),
            bytes: 0,
        }
    }

    /// Returns whether the quota allows another node to be read or changed.
    pub(super) fn has_room(&self, quota: &Quota) -> bool {
        self.seen.len() + self.edits.len() < quota.transaction_nodes
    }

    /// Records that `what` of a node was seen.
    pub(super) fn note(&mut self, path: &str, what: u8) {
        match self.seen.get_mut(path) {
            Some(seen) => *seen |= what,
            None => {
                self.bytes += path.len();
                self.seen.insert(path.to_owned(), what);
            }
        }
    }

    /// Records a change that was made in `root`.
    pub(super) fn push(&mut self, path: &str, edit: Edit) {
        let length = match &edit {
            Edit::Write(value) => value.len(),
            _ => 0,
        };
        let at = self.written.get(path).copied();
        match &edit {
            Edit::Write(_) => {
                if let Some((_, old)) = at.and_then(|at| self.edits.get_mut(at)) {
                    if let Edit::Write(old) = old {
                        self.bytes = self.bytes.saturating_sub(old.len()) + length;
                    }
                    *old = edit;
                    return;
                }
                self.written.insert(path.to_owned(), self.edits.len());
            }
            // A WRITE before a removal must not get the value of a WRITE after it.
            Edit::Remove => self.written.clear(),
            _ => {}
        }
        self.bytes += path.len() + length;
        self.edits.push((path.to_owned(), edit));
    }

    /// Returns the changes to make.
    ///
    /// # Errors
    /// EAGAIN if something that was seen has changed.
    pub(super) fn commit(self, now: &Rc<Node>) -> Result<Vec<(String, Edit)>, ErrorCode> {
        let is_same = Rc::ptr_eq(&self.base, now)
            || self.seen.iter().all(|(path, what)| {
                match (tree::get(&self.base, path), tree::get(now, path)) {
                    (Some(then), Some(now)) => Rc::ptr_eq(then, now) || is_same(then, now, *what),
                    (None, None) => true,
                    _ => false,
                }
            });
        match is_same {
            true => Ok(self.edits),
            false => Err(ErrorCode::EAGAIN),
        }
    }
}

fn is_same(then: &Node, now: &Node, what: u8) -> bool {
    (what & VALUE == 0 || then.value == now.value)
        && (what & LIST == 0 || then.listed == now.listed)
        && (what & PERMS == 0 || then.perms == now.perms)
}

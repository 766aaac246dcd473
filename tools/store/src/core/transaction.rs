//! Transactions: a snapshot, what was seen of it, and what is to be changed.
//!
//! A commit asks two things: whether what was seen still is so, and whether each change can still be made. All else that others have
//! changed meanwhile does not matter to it.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use mayfly_xenstore::Code;

use super::domains::Ledger;
use super::quota::Quota;
use super::tree::{self, Node};
use super::view::Edit;

/// What was seen of a node: a set of these.
pub(super) const VALUE: u8 = 1;
pub(super) const LIST: u8 = 2;
pub(super) const PERMS: u8 = 4;
/// Nothing but whether it is there.
pub(super) const PRESENCE: u8 = 0;

/// A transaction that is open.
#[derive(Debug)]
pub(super) struct Transaction {
    /// The tree when it began.
    base: Rc<Node>,
    /// The tree as it sees it.
    pub(super) root: Rc<Node>,
    pub(super) ledger: Ledger,
    seen: BTreeMap<String, u8>,
    edits: Vec<(String, Edit)>,
    /// Where in `edits` the value of a node stands that can be replaced there.
    written: HashMap<String, usize>,
    /// Bytes that it keeps.
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

    /// Whether an unprivileged domain may read or change one more node.
    pub(super) fn has_room(&self, quota: &Quota) -> bool {
        self.seen.len() + self.edits.len() < quota.transaction_nodes
    }

    /// Notes what was seen of a node.
    pub(super) fn note(&mut self, path: &str, what: u8) {
        match self.seen.get_mut(path) {
            Some(seen) => *seen |= what,
            None => {
                self.bytes += path.len();
                self.seen.insert(path.to_owned(), what);
            }
        }
    }

    /// Notes a change that was made in it.
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
            // What was written before it can't be written later instead.
            Edit::Remove => self.written.clear(),
            _ => {}
        }
        self.bytes += path.len() + length;
        self.edits.push((path.to_owned(), edit));
    }

    /// What is to be changed, if nothing that was seen has changed.
    ///
    /// # Errors
    /// EAGAIN.
    pub(super) fn commit(self, now: &Rc<Node>) -> Result<Vec<(String, Edit)>, Code> {
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
            false => Err(Code::EAGAIN),
        }
    }
}

fn is_same(then: &Node, now: &Node, what: u8) -> bool {
    (what & VALUE == 0 || then.value == now.value)
        && (what & LIST == 0 || then.listed == now.listed)
        && (what & PERMS == 0 || then.perms == now.perms)
}

//! The nodes: an immutable tree whose versions share what is the same in them.
//!
//! A version is a reference to its root. What is changed is copied only as far as another version still refers to it: with no
//! transaction open, nothing is.

use std::rc::Rc;

use rpds::RedBlackTreeMap;

use super::path::names;
use super::perms::Perms;

/// A node and, through its children, all below it.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) value: Rc<[u8]>,
    pub(super) perms: Rc<Perms>,
    children: RedBlackTreeMap<Rc<str>, Rc<Node>>,
    /// When a child was last made or removed.
    pub(super) listed: u64,
    /// Bytes of the children's names, each with its NUL.
    names: usize,
}

/// `struct xs_tdb_record_hdr` and `struct xs_permissions` of the C xenstored, whose quota counts them.
const RECORD: usize = 24;
const PERM: usize = 8;

impl Node {
    pub(super) fn new(value: Rc<[u8]>, perms: Rc<Perms>, listed: u64) -> Self {
        Self {
            value,
            perms,
            children: RedBlackTreeMap::new(),
            listed,
            names: 0,
        }
    }

    /// Bytes as the quota `entry-size` counts them.
    pub(super) fn size(&self) -> usize {
        RECORD + PERM * self.perms.len() + self.value.len() + self.names
    }

    pub(super) fn child(&self, name: &str) -> Option<&Rc<Self>> {
        self.children.get(name)
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&Rc<str>, &Rc<Self>)> {
        self.children.iter()
    }

    /// Bytes of what [`Node::list`] gives.
    pub(super) fn list_length(&self) -> usize {
        self.names
    }

    /// The children's names, each with its NUL, in their order.
    pub(super) fn list(&self) -> Vec<u8> {
        let mut list = Vec::with_capacity(self.names);
        for name in self.children.keys() {
            list.extend_from_slice(name.as_bytes());
            list.push(0);
        }
        list
    }

    fn add(&mut self, name: &str, child: Rc<Self>, now: u64) {
        self.names += name.len() + 1;
        self.listed = now;
        self.children.insert_mut(name.into(), child);
    }

    fn take(&mut self, name: &str, now: u64) {
        if self.children.remove_mut(name) {
            self.names -= name.len() + 1;
            self.listed = now;
        }
    }
}

/// Where a path leads.
pub(super) struct Place<'a> {
    /// The node, if it is there.
    pub(super) node: Option<&'a Rc<Node>>,
    /// Its parent; of a node that is not there, the nearest that is above it.
    pub(super) above: &'a Rc<Node>,
    /// Names of the path that are not there.
    pub(super) missing: usize,
}

/// Follows a path as far as it goes.
pub(super) fn find<'a>(root: &'a Rc<Node>, path: &str) -> Place<'a> {
    let mut place = Place {
        node: Some(root),
        above: root,
        missing: 0,
    };
    let mut all = names(path);
    while let Some(name) = all.next() {
        let Some(node) = place.node else { break };
        place.above = node;
        place.node = node.child(name);
        if place.node.is_none() {
            place.missing = 1 + all.by_ref().count();
        }
    }
    place
}

/// The node at a path.
pub(super) fn get<'a>(root: &'a Rc<Node>, path: &str) -> Option<&'a Rc<Node>> {
    find(root, path).node
}

/// The node at a path, to be changed; what other versions share of the way there is copied.
pub(super) fn get_mut<'a>(root: &'a mut Rc<Node>, path: &str) -> Option<&'a mut Node> {
    let mut node = Rc::make_mut(root);
    for name in names(path) {
        // Else a way that leads nowhere would be copied.
        node.child(name)?;
        node = Rc::make_mut(node.children.get_mut(name)?);
    }
    Some(node)
}

/// Makes a node and what is missing above it, all with the same permissions. The node must not be there.
pub(super) fn make(root: &mut Rc<Node>, path: &str, value: Rc<[u8]>, perms: &Rc<Perms>, now: u64) {
    let mut node = Rc::make_mut(root);
    let mut all = names(path).peekable();
    let empty: Rc<[u8]> = Rc::new([]);
    while let Some(name) = all.next() {
        if node.child(name).is_none() {
            let value = match all.peek() {
                None => &value,
                Some(_) => &empty,
            };
            let new = Node::new(Rc::clone(value), Rc::clone(perms), now);
            node.add(name, Rc::new(new), now);
        }
        let Some(child) = node.children.get_mut(name) else {
            return;
        };
        node = Rc::make_mut(child);
    }
}

/// Removes a node with all below it. The root stays.
pub(super) fn remove(root: &mut Rc<Node>, path: &str, now: u64) {
    let (parent, name) = path.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = get_mut(root, parent) {
        parent.take(name, now);
    }
}

/// Calls `each` with a node and all below it, and the name of each.
pub(super) fn walk(name: &str, node: &Node, each: &mut dyn FnMut(&str, &Node)) {
    each(name, node);
    for (name, child) in node.children() {
        walk(name, child, each);
    }
}

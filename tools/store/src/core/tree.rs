//! The tree of nodes. Versions of the tree share all nodes that are the same in them.
//!
//! A version is a reference to its root. A change copies only nodes to which another version refers, on the way from
//! the root. Without an open transaction there is no other version, and nothing is copied.

use std::rc::Rc;

use rpds::RedBlackTreeMap;

use super::path::names;
use super::perms::Perms;

/// A node with its children.
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

    /// Returns the size in bytes as the quota `node-size` counts it.
    pub(super) fn size(&self) -> usize {
        RECORD + PERM * self.perms.len() + self.value.len() + self.names
    }

    pub(super) fn child(&self, name: &str) -> Option<&Rc<Self>> {
        self.children.get(name)
    }

    pub(super) fn children(&self) -> impl Iterator<Item = (&Rc<str>, &Rc<Self>)> {
        self.children.iter()
    }

    /// Returns the length of [`Node::list`] in bytes.
    pub(super) fn list_length(&self) -> usize {
        self.names
    }

    /// Returns the names of the children in ascending order, each with a NUL.
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

/// The result of following a path.
pub(super) struct Place<'a> {
    /// The node, if it exists.
    pub(super) node: Option<&'a Rc<Node>>,
    /// Its parent; if the node does not exist, its nearest ancestor that does.
    pub(super) above: &'a Rc<Node>,
    /// The number of nodes on the path that do not exist.
    pub(super) missing: usize,
}

/// Follows a path as far as its nodes exist.
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

/// Returns the node at a path.
pub(super) fn get<'a>(root: &'a Rc<Node>, path: &str) -> Option<&'a Rc<Node>> {
    find(root, path).node
}

/// Returns the node at a path, to be changed. Nodes on the way to it that other versions share are copied.
pub(super) fn get_mut<'a>(root: &'a mut Rc<Node>, path: &str) -> Option<&'a mut Node> {
    let mut node = Rc::make_mut(root);
    for name in names(path) {
        // Checked first, so that nothing is copied on the way to a node that does not exist.
        node.child(name)?;
        node = Rc::make_mut(node.children.get_mut(name)?);
    }
    Some(node)
}

/// Makes a node that does not exist, and its missing ancestors, all with the same permissions.
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

/// Removes a node with all nodes below it. The root cannot be removed.
pub(super) fn remove(root: &mut Rc<Node>, path: &str, now: u64) {
    let (parent, name) = path.rsplit_once('/').unwrap_or_default();
    if let Some(parent) = get_mut(root, parent) {
        parent.take(name, now);
    }
}

/// Calls `each` with the name and the node, for a node and all nodes below it.
pub(super) fn walk(name: &str, node: &Node, each: &mut dyn FnMut(&str, &Node)) {
    each(name, node);
    for (name, child) in node.children() {
        walk(name, child, each);
    }
}

/// Calls `each` with the path and the node, for all nodes, parents before their children.
pub(super) fn walk_paths(root: &Rc<Node>, each: &mut dyn FnMut(&str, &Rc<Node>)) {
    each("/", root);
    below(root, &mut String::new(), each);
}

fn below(node: &Node, path: &mut String, each: &mut dyn FnMut(&str, &Rc<Node>)) {
    let length = path.len();
    for (name, child) in node.children() {
        path.push('/');
        path.push_str(name);
        each(path, child);
        below(child, path, each);
        path.truncate(length);
    }
}

//! Watches, in a tree of the watched paths. A change finds its watches on the way from the root to the changed node.
//! Watched nodes need not exist.

use std::collections::HashMap;
use std::rc::Rc;

use super::connection::ConnectionId;
use super::path::names;
use super::perms::Perms;
use super::tree::Node;

/// A watch.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Numbers ascend, so that the events of one change come in the order in which the watches were set.
    pub(super) number: u64,
    /// The connection that gets the events.
    pub(super) connection: ConnectionId,
    /// The token in its events.
    pub(super) token: Rc<[u8]>,
    /// The number of bytes to leave out of each path, because the watch was set with a relative path.
    pub(super) skipped: usize,
}

#[derive(Debug, Default)]
struct Place {
    watches: Vec<Watch>,
    below: HashMap<Rc<str>, Place>,
}

impl Place {
    fn is_empty(&self) -> bool {
        self.watches.is_empty() && self.below.is_empty()
    }
}

/// All watches.
#[derive(Debug, Default)]
pub(super) struct Watches {
    root: Place,
    /// Watches of `@introduceDomain`, `@releaseDomain` and other paths that begin with `@`.
    special: HashMap<Rc<str>, Vec<Watch>>,
}

impl Watches {
    pub(super) fn add(&mut self, path: &str, watch: Watch) {
        if path.starts_with('@') {
            return self.special.entry(path.into()).or_default().push(watch);
        }
        let mut place = &mut self.root;
        for name in names(path) {
            if !place.below.contains_key(name) {
                place.below.insert(name.into(), Place::default());
            }
            let Some(below) = place.below.get_mut(name) else {
                return;
            };
            place = below;
        }
        place.watches.push(watch);
    }

    pub(super) fn remove(&mut self, path: &str, number: u64) {
        if let Some(watches) = self.special.get_mut(path) {
            watches.retain(|watch| watch.number != number);
            if watches.is_empty() {
                self.special.remove(path);
            }
            return;
        }
        let names: Vec<&str> = names(path).collect();
        remove(&mut self.root, &names, number);
    }

    /// Returns how many bytes of its paths a watch leaves out.
    pub(super) fn skipped(&self, path: &str, number: u64) -> usize {
        let mut place = &self.root;
        for name in names(path) {
            match place.below.get(name) {
                Some(below) => place = below,
                None => return 0,
            }
        }
        let watch = place.watches.iter().find(|watch| watch.number == number);
        watch.map_or(0, |watch| watch.skipped)
    }

    /// Returns the watches of a special path.
    pub(super) fn of_special(&self, path: &str) -> Vec<Watch> {
        self.special.get(path).cloned().unwrap_or_default()
    }

    /// Returns the watches of a path and of its ancestors, in the order in which they were set.
    pub(super) fn on_the_way(&self, path: &str) -> Vec<Watch> {
        let mut found = self.root.watches.clone();
        let mut place = &self.root;
        for name in names(path) {
            let Some(below) = place.below.get(name) else {
                break;
            };
            place = below;
            found.extend_from_slice(&place.watches);
        }
        found.sort_unstable_by_key(|watch| watch.number);
        found
    }

    /// Returns the watched nodes below a node that is removed, children before their parents.
    pub(super) fn below(&self, path: &str, node: &Node) -> Vec<Lower> {
        let mut found = Vec::new();
        let mut place = &self.root;
        for name in names(path) {
            let Some(below) = place.below.get(name) else {
                return found;
            };
            place = below;
        }
        below(place, &mut path.to_owned(), node, &mut found);
        found
    }
}

/// A watched node that is removed together with an ancestor.
pub(super) struct Lower {
    pub(super) path: String,
    pub(super) watches: Vec<Watch>,
    /// Its permissions and its parent's.
    pub(super) readable_by: [Rc<Perms>; 2],
}

fn remove(place: &mut Place, names: &[&str], number: u64) {
    let Some((name, rest)) = names.split_first() else {
        place.watches.retain(|watch| watch.number != number);
        return;
    };
    if let Some(below) = place.below.get_mut(*name) {
        remove(below, rest, number);
        if below.is_empty() {
            place.below.remove(*name);
        }
    }
}

fn below(place: &Place, path: &mut String, node: &Node, found: &mut Vec<Lower>) {
    if place.below.is_empty() {
        return;
    }
    let length = path.len();
    // In the order of the children: a hash map has none.
    for (name, child) in node.children() {
        let Some(place) = place.below.get(name) else {
            continue;
        };
        path.push('/');
        path.push_str(name);
        below(place, path, child, found);
        if !place.watches.is_empty() {
            found.push(Lower {
                path: path.clone(),
                watches: place.watches.clone(),
                readable_by: [&child.perms, &node.perms].map(Rc::clone),
            });
        }
        path.truncate(length);
    }
}

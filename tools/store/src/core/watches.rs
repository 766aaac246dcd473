//! Who is told of what: watches lie at the nodes that they watch, whether those exist or not, so a change finds them on its way down.

use std::collections::HashMap;
use std::rc::Rc;

use super::connection::Id;
use super::path::names;
use super::perms::Perms;
use super::tree::Node;

/// A watch.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    /// Counts up, so that the events of one change come in the order in which the watches were set.
    pub(super) number: u64,
    /// Who is told.
    pub(super) connection: Id,
    /// What it is told with.
    pub(super) token: Rc<[u8]>,
    /// Bytes of a path that it is not told, since it has set the watch with a relative path.
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
    /// Those of `@introduceDomain`, `@releaseDomain` and the like.
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

    /// Those of a special path.
    pub(super) fn of_special(&self, path: &str) -> Vec<Watch> {
        self.special.get(path).cloned().unwrap_or_default()
    }

    /// Those at a path and above it, in the order in which they were set.
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

    /// What is watched below a node that is removed: children first.
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

/// A node that is removed with one above it.
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
    // In the order of the children, whatever a hash map's is.
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

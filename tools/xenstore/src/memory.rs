//! A xenstored in memory, for tests of its clients: a tree with transactions and watches, which records
//! requests, and refuses them or ends when a test wants that. It does not check permissions.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use super::error::{Error, ErrorCode};
use super::request::{Request, RequestId};
use super::store::Store;
use super::wire::{MessageKind, WatchEvent};

/// Nodes by their paths.
pub type Nodes = BTreeMap<String, Vec<u8>>;

/// A callback that changes other nodes when a node is written, as a back end would.
type Habit = Box<dyn FnMut(&mut Nodes, &str) + Send>;

/// The test's view of a [`FakeStore`].
#[derive(Clone, Default)]
pub struct Tree(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    nodes: Nodes,
    /// Incremented with each change outside of transactions.
    version: u64,
    transactions: HashMap<u32, (u64, Nodes)>,
    next_transaction: u32,
    watches: Vec<(String, String)>,
    events: VecDeque<WatchEvent>,
    introduced: BTreeSet<u16>,
    asked: Vec<String>,
    refused: Vec<(String, ErrorCode)>,
    habit: Option<Habit>,
    /// The number of requests after which the connection ends.
    ends_after: Option<usize>,
    has_ended: bool,
    is_gone: bool,
}

impl Tree {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All nodes.
    #[must_use]
    pub fn nodes(&self) -> Nodes {
        self.inner().nodes.clone()
    }

    /// A node's value.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<String> {
        let inner = self.inner();
        let value = inner.nodes.get(path)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// Writes a node, as another client.
    pub fn set(&self, path: &str, value: &str) {
        let mut inner = self.inner();
        put(&mut inner.nodes, path, value.as_bytes());
        inner.changed(path);
    }

    /// Removes a node, as another client.
    pub fn remove(&self, path: &str) {
        let mut inner = self.inner();
        cut(&mut inner.nodes, path);
        inner.changed(path);
    }

    /// Fires the watches of this special path: a domain has ended.
    pub fn fire(&self, path: &str) {
        self.inner().tell(path);
    }

    /// Sets the callback for each write of a node outside of a transaction, or at the end of one.
    pub fn behaves(&self, habit: impl FnMut(&mut Nodes, &str) + Send + 'static) {
        self.inner().habit = Some(Box::new(habit));
    }

    /// Refuses each request that begins with this text, in the form of [`Self::asked`].
    pub fn refuses(&self, request: &str, code: ErrorCode) {
        self.inner().refused.push((request.to_owned(), code));
    }

    /// Ends the connection after this many more requests. `for_good` says that it cannot be opened again.
    pub fn ends_after(&self, requests: usize, for_good: bool) {
        let mut inner = self.inner();
        inner.ends_after = Some(requests);
        inner.is_gone = for_good;
    }

    /// Allows new connections after an end, with the same tree.
    pub fn starts_anew(&self) {
        let mut inner = self.inner();
        inner.ends_after = None;
        inner.has_ended = false;
        inner.is_gone = false;
    }

    /// The requests so far, as `Write /path`.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        self.inner().asked.clone()
    }

    /// The introduced domains.
    #[must_use]
    pub fn introduced(&self) -> Vec<u16> {
        self.inner().introduced.iter().copied().collect()
    }
}

/// A connection to a xenstored in memory.
pub struct FakeStore {
    tree: Tree,
    next: u32,
    answers: HashMap<u32, (String, Result<Vec<u8>, ErrorCode>)>,
    bell: OwnedFd,
}

impl FakeStore {
    /// A connection to the xenstored of this tree.
    ///
    /// # Errors
    /// The kernel refuses a descriptor.
    pub fn new(tree: &Tree) -> std::io::Result<Self> {
        Ok(Self {
            tree: tree.clone(),
            next: 1,
            answers: HashMap::new(),
            // It is always readable, so a caller that polls it looks for events each time.
            bell: eventfd(1, EventfdFlags::CLOEXEC)?,
        })
    }
}

impl Store for FakeStore {
    fn send(&mut self, request: Request<'_>) -> Result<RequestId, Error> {
        let payload = request.payload()?;
        let mut inner = self.tree.inner();
        if inner.has_ended {
            return Err(Error::Closed);
        }
        let id = self.next;
        self.next += 1;
        let answer = inner.serve(request.kind, request.transaction, &payload);
        self.answers.insert(id, (request.what(), answer));
        if let Some(left) = &mut inner.ends_after {
            *left = left.saturating_sub(1);
            if *left == 0 {
                inner.ends_after = None;
                inner.has_ended = true;
            }
        }
        Ok(RequestId(id))
    }

    fn flush(&mut self) -> Result<(), Error> {
        match self.is_lost() {
            true => Err(Error::Closed),
            false => Ok(()),
        }
    }

    fn answer(&mut self, id: RequestId) -> Result<Vec<u8>, Error> {
        self.answered(&id).unwrap_or(Err(Error::Closed))
    }

    fn answered(&mut self, id: &RequestId) -> Option<Result<Vec<u8>, Error>> {
        let (what, answer) = self.answers.remove(&id.0)?;
        Some(answer.map_err(|code| Error::Refused { what, code }))
    }

    fn forget(&mut self, id: RequestId) {
        self.answers.remove(&id.0);
    }

    fn event(&mut self, _: Duration) -> Result<Option<WatchEvent>, Error> {
        self.flush()?;
        Ok(self.take_event())
    }

    fn take_event(&mut self) -> Option<WatchEvent> {
        self.tree.inner().events.pop_front()
    }

    fn receive(&mut self) -> Result<(), Error> {
        self.flush()
    }

    fn is_lost(&self) -> bool {
        self.tree.inner().has_ended
    }

    fn has_ended(&mut self) -> bool {
        self.is_lost()
    }

    fn reconnect(&mut self) -> Result<(), Error> {
        let mut inner = self.tree.inner();
        if inner.is_gone {
            return Err(Error::Closed);
        }
        inner.has_ended = false;
        // They belonged to the connection that has ended.
        inner.transactions.clear();
        inner.watches.clear();
        inner.events.clear();
        self.answers.clear();
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl Inner {
    fn serve(
        &mut self,
        kind: MessageKind,
        transaction: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, ErrorCode> {
        let text = String::from_utf8_lossy(payload).into_owned();
        let (path, rest) = text.split_once('\0').unwrap_or((&text, ""));
        let asked = format!("{kind:?} {path}");
        let refusal = self
            .refused
            .iter()
            .find(|(start, _)| asked.starts_with(start.as_str()))
            .map(|(_, code)| code.clone());
        self.asked.push(asked);
        if let Some(code) = refusal {
            return Err(code);
        }
        match kind {
            MessageKind::TransactionStart => {
                self.next_transaction += 1;
                let begun = (self.version, self.nodes.clone());
                self.transactions.insert(self.next_transaction, begun);
                return Ok(format!("{}\0", self.next_transaction).into_bytes());
            }
            MessageKind::TransactionEnd => return self.end(transaction, path == "T"),
            MessageKind::Watch => {
                let token = rest.trim_end_matches('\0').to_owned();
                self.events.push_back(WatchEvent {
                    path: path.to_owned(),
                    token: token.clone(),
                });
                self.watches.push((path.to_owned(), token));
                return Ok(b"OK\0".to_vec());
            }
            MessageKind::Unwatch => {
                self.watches.retain(|(watched, _)| watched != path);
                return Ok(b"OK\0".to_vec());
            }
            MessageKind::Introduce | MessageKind::Release | MessageKind::Resume => {
                let domid = path.parse().map_err(|_| ErrorCode::EINVAL)?;
                return match kind {
                    MessageKind::Introduce => self.introduced.insert(domid),
                    MessageKind::Resume => self.introduced.contains(&domid),
                    _ => self.introduced.remove(&domid),
                }
                .then(|| b"OK\0".to_vec())
                .ok_or(ErrorCode::EINVAL);
            }
            _ => {}
        }
        let nodes = match transaction {
            0 => &mut self.nodes,
            id => &mut self.transactions.get_mut(&id).ok_or(ErrorCode::ENOENT)?.1,
        };
        let is_there = nodes.contains_key(path);
        match kind {
            MessageKind::Read => return nodes.get(path).cloned().ok_or(ErrorCode::ENOENT),
            MessageKind::Directory if is_there => return Ok(children(nodes, path)),
            MessageKind::Directory => return Err(ErrorCode::ENOENT),
            // The path's NUL precedes the value.
            MessageKind::Write => put(nodes, path, rest.as_bytes()),
            MessageKind::Mkdir if !is_there => put(nodes, path, b""),
            MessageKind::Mkdir | MessageKind::SetPerms if is_there => {}
            MessageKind::Rm => {
                if !is_there && !above(path).is_some_and(|parent| nodes.contains_key(parent)) {
                    return Err(ErrorCode::ENOENT);
                }
                cut(nodes, path);
            }
            MessageKind::SetPerms => return Err(ErrorCode::ENOENT),
            _ => return Err(ErrorCode::ENOSYS),
        }
        if transaction == 0 {
            self.changed(path);
        }
        Ok(b"OK\0".to_vec())
    }

    fn end(&mut self, transaction: u32, commit: bool) -> Result<Vec<u8>, ErrorCode> {
        let (version, nodes) = self
            .transactions
            .remove(&transaction)
            .ok_or(ErrorCode::ENOENT)?;
        if commit {
            // A real xenstored conflicts more rarely (oxenstored merges changes), but each may do this.
            if version != self.version {
                return Err(ErrorCode::EAGAIN);
            }
            let before = std::mem::replace(&mut self.nodes, nodes);
            let changed: Vec<String> = before
                .keys()
                .chain(self.nodes.keys())
                .filter(|path| before.get(*path) != self.nodes.get(*path))
                .cloned()
                .collect();
            for path in changed {
                self.changed(&path);
            }
        }
        Ok(b"OK\0".to_vec())
    }

    fn changed(&mut self, path: &str) {
        self.version += 1;
        self.tell(path);
        let Some(mut habit) = self.habit.take() else {
            return;
        };
        let before = self.nodes.clone();
        habit(&mut self.nodes, path);
        self.habit = Some(habit);
        let other: Vec<String> = self
            .nodes
            .iter()
            .filter(|(path, value)| before.get(*path) != Some(value))
            .map(|(path, _)| path.clone())
            .collect();
        for path in other {
            self.version += 1;
            self.tell(&path);
        }
    }

    fn tell(&mut self, path: &str) {
        for (watched, token) in &self.watches {
            if is_at_or_below(path, watched) {
                let (path, token) = (path.to_owned(), token.clone());
                self.events.push_back(WatchEvent { path, token });
            }
        }
    }
}

fn above(path: &str) -> Option<&str> {
    let (parent, _) = path.rsplit_once('/')?;
    (!parent.is_empty()).then_some(parent)
}

fn is_at_or_below(path: &str, top: &str) -> bool {
    path.strip_prefix(top)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Sets a node, and creates the nodes above it.
fn put(nodes: &mut Nodes, path: &str, value: &[u8]) {
    let mut parent = above(path);
    while let Some(path) = parent {
        nodes.entry(path.to_owned()).or_default();
        parent = above(path);
    }
    nodes.insert(path.to_owned(), value.to_vec());
}

/// Removes a node and all below it.
fn cut(nodes: &mut Nodes, top: &str) {
    nodes.retain(|path, _| !is_at_or_below(path, top));
}

fn children(nodes: &Nodes, top: &str) -> Vec<u8> {
    let below = nodes.keys().filter_map(|path| {
        let name = path.strip_prefix(top)?.strip_prefix('/')?;
        (!name.contains('/')).then_some(name)
    });
    below
        .flat_map(|name| [name.as_bytes(), &[0]].concat())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_as_a_xenstored_does() {
        let tree = Tree::default();
        let mut fake = FakeStore::new(&tree).unwrap();
        let store: &mut dyn Store = &mut fake;
        store.write("/a/b/c", "1").unwrap();
        assert_eq!(store.find("/a/b").unwrap().as_deref(), Some(""));
        assert_eq!(store.directory("/a").unwrap(), ["b"]);
        store.watch("/a", "token").unwrap();
        assert!(store.take_event().is_some(), "the first comes at once");
        // A change by another client is a conflict, once.
        let mut rounds = 0;
        let result: Result<(), Error> = store.transact(Duration::from_secs(1), |transaction| {
            rounds += 1;
            if rounds == 1 {
                tree.set("/other", "x");
            }
            transaction.ask(Request::write("/a/d", "2")).map(drop)
        });
        result.unwrap();
        assert_eq!(rounds, 2);
        assert_eq!(tree.get("/a/d").as_deref(), Some("2"));
        let event = store.take_event().unwrap();
        assert_eq!(
            (event.path.as_str(), event.token.as_str()),
            ("/a/d", "token")
        );
        assert!(store.ask(Request::rm("/x/y")).unwrap_err().is_absent());
        store.rm("/a").unwrap();
        assert_eq!(tree.nodes().into_keys().collect::<Vec<_>>(), ["/other"]);
        tree.refuses("Write /no", ErrorCode::ENOSPC);
        assert!(
            store
                .write("/no/way", "")
                .unwrap_err()
                .is(&ErrorCode::ENOSPC)
        );
        tree.ends_after(1, false);
        store.write("/last", "").unwrap();
        assert!(matches!(store.write("/after", ""), Err(Error::Closed)));
        store.reconnect().unwrap();
        assert_eq!(store.read("/last").unwrap(), "");
    }
}

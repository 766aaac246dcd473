//! Making a server from the state of its predecessor.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use mayfly_xenstore::{check_path, wire};

use super::super::connection::{ClientMessage, ConnectionId};
use super::super::domains::{Host, Ledger};
use super::super::nodes::Asker;
use super::super::path;
use super::super::perms::Perms;
use super::super::quota::Quota;
use super::super::server::{INTRODUCE, RELEASE, Server};
use super::super::tree;
use super::super::view::kept;
use super::format::{Connection, Node, Peer, SavedState, StateFault, Watch};

/// The times at which things happened before the successor began: an entry of permissions that is about a domain that
/// is gone was set before any domain of that number became known.
const STALE: u64 = 0;
const KNOWN: u64 = 1;
const SET: u64 = 2;
const NOW: u64 = 3;

/// `XS_WATCH_EVENT`.
const WATCH_EVENT: u32 = 15;

/// A server that goes on where its predecessor stopped.
#[derive(Debug)]
pub struct Restored {
    /// The server.
    pub server: Server,
    /// Its connections over sockets, with the numbers of the sockets' file descriptors.
    pub sockets: Vec<(ConnectionId, i32)>,
}

impl Server {
    /// Makes a server from a state. `host` attaches the rings again.
    ///
    /// # Errors
    /// The state contradicts itself.
    pub fn restored(
        quota: Quota,
        keeps_orphans: bool,
        state: &SavedState<'_>,
        host: &mut dyn Host,
    ) -> Result<Restored, StateFault> {
        let mut server = Self::new(quota, keeps_orphans);
        server.now = NOW;
        let perms = Rc::clone(&server.root.perms);
        server.root = Rc::new(tree::Node::new([].into(), perms, NOW));
        let mut numbers = HashMap::new();
        let mut sockets = Vec::new();
        for connection in &state.connections {
            let id = server.restore_connection(connection, host)?;
            if numbers.insert(connection.number, id).is_some() {
                return Err(StateFault::Bad("number of a connection: two have it"));
            }
            if let Peer::Socket(socket) = connection.peer {
                sockets.push((id, socket));
            }
        }
        for watch in &state.watches {
            let id = numbers.get(&watch.connection);
            let id = id.ok_or(StateFault::Bad("watch of no connection"))?;
            server.restore_watch(*id, watch)?;
        }
        let mut ledger = Ledger::default();
        let mut named = BTreeSet::new();
        for node in &state.nodes {
            server.restore_node(node, &mut ledger)?;
            let valid = node.perms.iter().filter(|(_, is_stale)| !is_stale);
            named.extend(valid.map(|(perm, _)| perm.domid));
        }
        // Domains that permissions name before they are introduced.
        for domid in named {
            if server.domains.get(domid).is_none() && host.state(domid).is_some() {
                server.domains.known(domid, KNOWN);
            }
        }
        ledger.settle(&mut server.domains);
        Ok(Restored { server, sockets })
    }

    fn restore_connection(
        &mut self,
        connection: &Connection<'_>,
        host: &mut dyn Host,
    ) -> Result<ConnectionId, StateFault> {
        let id = match connection.peer {
            Peer::Socket(_) => self.connect(),
            Peer::Ring {
                domid,
                target,
                port,
            } => {
                if self.ring(domid).is_some() {
                    return Err(StateFault::Bad("ring: two are the same domain's"));
                }
                host.adopt(domid, port);
                self.domains.known(domid, KNOWN).is_introduced = true;
                let id = self.connect_ring(domid);
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.who.target = target;
                }
                id
            }
        };
        let (begun, mut rest) = connection.output.split_at(connection.begun);
        if let Some(new) = self.connections.get_mut(&id) {
            new.input = connection.input.to_vec();
            new.continue_message(begun);
        }
        while !rest.is_empty() {
            let length = wire::length(rest).filter(|length| *length <= rest.len());
            let length = length.ok_or(StateFault::Bad("message in a connection's output"))?;
            let (message, behind) = rest.split_at(length);
            self.restore_message(id, message);
            rest = behind;
        }
        self.list(id);
        Ok(id)
    }

    fn restore_message(&mut self, id: ConnectionId, message: &[u8]) {
        let is_event = message.starts_with(&WATCH_EVENT.to_ne_bytes());
        let is_special = message.get(wire::HEADER) == Some(&b'@');
        let event = match (is_event, is_special) {
            (true, false) => ClientMessage::Node,
            (true, true) => ClientMessage::Special,
            (false, _) => ClientMessage::None,
        };
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let receiver = connection.who.domid;
        if connection.push(message.to_vec(), None, event) && receiver != 0 {
            let length = isize::try_from(message.len()).unwrap_or(isize::MAX);
            self.domains.add_memory(receiver, length);
        }
    }

    fn restore_watch(&mut self, id: ConnectionId, watch: &Watch<'_>) -> Result<(), StateFault> {
        let Some(connection) = self.connections.get(&id) else {
            return Ok(());
        };
        let (who, home) = (connection.who.clone(), connection.home.clone());
        let wrong = StateFault::Bad("path of a watch");
        let text = std::str::from_utf8(watch.path).map_err(|_| wrong)?;
        let (path, skipped) = match text.as_bytes().first() {
            Some(b'@') => (text.to_owned(), 0),
            first => {
                let skipped = if first == Some(&b'/') {
                    0
                } else {
                    home.len() + 1
                };
                let path = path::resolve(watch.path, &home, usize::MAX);
                (path.map_err(|_| wrong)?, skipped)
            }
        };
        let key = (path, watch.token.into());
        let asker = Asker {
            id,
            who: &who,
            home: &home,
            transaction: 0,
        };
        if !connection.watches.contains_key(&key) {
            self.add_watch(asker, key, skipped);
        }
        Ok(())
    }

    fn restore_node(&mut self, node: &Node<'_>, ledger: &mut Ledger) -> Result<(), StateFault> {
        let wrong = StateFault::Bad("path of a node");
        let path = std::str::from_utf8(node.path).map_err(|_| wrong)?;
        let entries = node.perms.iter();
        let entries = entries.map(|(perm, is_stale)| (*perm, if *is_stale { STALE } else { SET }));
        let perms = Rc::new(Perms::stamped(entries));
        if let Some(special) = [INTRODUCE, RELEASE].into_iter().find(|it| *it == path) {
            self.special.insert(special, perms);
            return Ok(());
        }
        if path == "/" {
            if let Some(root) = tree::get_mut(&mut self.root, "/") {
                root.value = node.value.into();
                root.perms = perms;
            }
            return Ok(());
        }
        if !path.starts_with('/') || check_path(path).is_err() {
            return Err(wrong);
        }
        match tree::find(&self.root, path) {
            tree::Place { node: Some(_), .. } => {
                return Err(StateFault::Bad("node: two have the same path"));
            }
            tree::Place { missing: 1, .. } => {}
            _ => return Err(StateFault::Bad("node without a parent")),
        }
        tree::make(&mut self.root, path, node.value.into(), &perms, NOW);
        if let Some(made) = tree::get(&self.root, path) {
            let name = path.rsplit('/').next().unwrap_or_default();
            let bytes = isize::try_from(kept(name, made)).unwrap_or(isize::MAX);
            ledger.add(perms.owner(), 1, bytes);
        }
        Ok(())
    }
}

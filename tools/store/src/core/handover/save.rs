//! Writing the state of a server.

use std::collections::HashMap;
use std::io;

use super::super::connection::ConnectionId;
use super::super::perms::Perms;
use super::super::server::{INTRODUCE, RELEASE, Server};
use super::super::tree;
use super::format::{Connection, Node, Peer, SavedState, StateFault, Watch};

/// What a successor in the same process takes over: file descriptors, and ports of the event channel device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptors {
    /// The listening socket.
    pub listener: i32,
    /// The event channel device.
    pub events: i32,
    /// The sockets of the connections.
    pub sockets: HashMap<ConnectionId, i32>,
    /// The local ports of the domains' rings.
    pub ports: HashMap<u16, u32>,
}

impl Descriptors {
    /// Replaces the numbers of all file descriptors by those that `renumber` gives for them, in the same order.
    ///
    /// # Errors
    /// Those of `renumber`.
    pub(crate) fn renumber(
        &mut self,
        renumber: impl FnOnce(&[i32]) -> io::Result<Vec<i32>>,
    ) -> io::Result<()> {
        let own = [&mut self.listener, &mut self.events].into_iter();
        let mut all: Vec<&mut i32> = own.chain(self.sockets.values_mut()).collect();
        all.retain(|number| **number >= 0);
        let before: Vec<i32> = all.iter().map(|number| **number).collect();
        for (number, new) in all.into_iter().zip(renumber(&before)?) {
            *number = new;
        }
        Ok(())
    }
}

impl Server {
    /// Returns the state for a successor. Transactions are left out: a successor does not know them.
    ///
    /// The answer to the request that has started the update is among the output of its connection.
    ///
    /// # Errors
    /// Something does not fit into the format.
    pub fn save(&self, descriptors: &Descriptors) -> Result<Vec<u8>, StateFault> {
        let mut ids: Vec<ConnectionId> = self.connections.keys().copied().collect();
        // dom0's ring is the first: the C xenstored makes the root when it reads that.
        let kernel = self.ring(0);
        ids.sort_unstable_by_key(|id| (Some(*id) != kernel, *id));
        let outputs: Vec<_> = ids.iter().map(|id| self.all_output(*id)).collect();
        let mut paths = Vec::new();
        tree::walk_paths(&self.root, &mut |path, node| {
            paths.push((path.to_owned(), node.clone()));
        });
        let mut state = SavedState {
            listener: descriptors.listener,
            events: descriptors.events,
            ..SavedState::default()
        };
        for (number, (id, (output, begun))) in (1..).zip(ids.iter().zip(&outputs)) {
            let Some(connection) = self.connections.get(id) else {
                continue;
            };
            let peer = if connection.is_ring {
                let domid = connection.who.domid;
                Peer::Ring {
                    domid,
                    target: connection.who.target,
                    port: descriptors.ports.get(&domid).copied().unwrap_or(0),
                }
            } else {
                match descriptors.sockets.get(id) {
                    Some(socket) => Peer::Socket(*socket),
                    None => continue,
                }
            };
            state.connections.push(Connection {
                number,
                peer,
                input: &connection.input,
                begun: *begun,
                output,
            });
            // In the order in which they were set, which the order of events follows.
            let mut watches: Vec<_> = connection.watches.iter().collect();
            watches.sort_unstable_by_key(|(_, number)| **number);
            for ((path, token), watch) in watches {
                let skipped = self.watches.skipped(path, *watch);
                state.watches.push(Watch {
                    connection: number,
                    path: path.as_bytes().get(skipped..).unwrap_or_default(),
                    token,
                });
            }
        }
        for path in [RELEASE, INTRODUCE] {
            if let Some(perms) = self.special.get(path) {
                state.nodes.push(self.saved(path, &[], perms));
            }
        }
        let nodes = paths.iter();
        let nodes = nodes.map(|(path, node)| self.saved(path, &node.value, &node.perms));
        state.nodes.extend(nodes);
        state.bytes()
    }

    fn saved<'a>(&self, path: &'a str, value: &'a [u8], perms: &Perms) -> Node<'a> {
        let perms = perms.entries().map(|(perm, stamp)| {
            let is_stale = !self.domains.is_since(perm.domid, stamp);
            (perm, is_stale)
        });
        Node {
            path: path.as_bytes(),
            value,
            perms: perms.collect(),
        }
    }

    fn all_output(&self, id: ConnectionId) -> (Vec<u8>, usize) {
        let connection = self.connections.get(&id);
        let (mut output, begun) = connection.map(|it| it.all_output()).unwrap_or_default();
        if let Some(update) = self.update.as_ref().filter(|update| update.by == id) {
            output.extend_from_slice(&update.success());
        }
        (output, begun)
    }
}

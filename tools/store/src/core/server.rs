//! The server: its state, its connections, and the list of those that have work.

use std::collections::HashMap;
use std::rc::Rc;

use mayfly_xenstore::{Perm, wire};

use super::connection::{ClientMessage, Connection, ConnectionId, Sent};
use super::domains::{DomainState, Domains, Host};
use super::handover::LiveUpdate;
use super::perms::{Perms, Who};
use super::quota::Quota;
use super::tree::{self, Node};
use super::view::Change;
use super::watches::Watches;

/// The connection cannot be used any more: the client broke the protocol, or the connection is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Broken;

/// News for watchers, kept until the request is answered.
#[derive(Debug)]
pub(super) enum News {
    Node(Change),
    /// `@introduceDomain` or `@releaseDomain`.
    Special(&'static str),
    /// The event that every new watch gets.
    First {
        to: ConnectionId,
        path: String,
        token: Rc<[u8]>,
    },
}

pub(super) const INTRODUCE: &str = "@introduceDomain";
pub(super) const RELEASE: &str = "@releaseDomain";

/// A connection with this many bytes of output is not read from.
const OUTPUT_MAX: usize = 1 << 20;

/// A xenstored.
#[derive(Debug)]
pub struct Server {
    pub(super) root: Rc<Node>,
    pub(super) domains: Domains,
    pub(super) watches: Watches,
    /// The permissions of [`INTRODUCE`] and [`RELEASE`].
    pub(super) special: HashMap<&'static str, Rc<Perms>>,
    pub(super) connections: HashMap<ConnectionId, Connection>,
    /// The connections of the domains' rings.
    pub(super) rings: HashMap<u16, ConnectionId>,
    pub(super) quota: Quota,
    /// The number of changes so far, which serves as the time.
    pub(super) now: u64,
    pub(super) next_watch: u64,
    pub(super) news: Vec<News>,
    pub(super) keeps_orphans: bool,
    next_connection: ConnectionId,
    listed: Vec<ConnectionId>,
    /// The number of events dropped because their receiver had no memory left.
    pub(super) lost: u64,
    /// The live update that a client prepares or has started.
    pub(super) update: Option<LiveUpdate>,
}

impl Server {
    /// Returns a server with dom0 and the first nodes. `keeps_orphans` says that a domain's nodes outlive the domain.
    #[must_use]
    pub fn new(quota: Quota, keeps_orphans: bool) -> Self {
        let perms = Rc::new(Perms::new(&[Perm::none(0)], 0));
        let mut root = Rc::new(Node::new([].into(), Rc::clone(&perms), 0));
        tree::make(&mut root, "/tool/xenstored", [].into(), &perms, 0);
        let mut domains = Domains::default();
        domains.known(0, 0).is_introduced = true;
        let special = [INTRODUCE, RELEASE].map(|path| (path, Rc::clone(&perms)));
        Self {
            root,
            domains,
            watches: Watches::default(),
            special: special.into(),
            connections: HashMap::new(),
            rings: HashMap::new(),
            quota,
            now: 1,
            next_watch: 0,
            news: Vec::new(),
            keeps_orphans,
            next_connection: 1,
            listed: Vec::new(),
            lost: 0,
            update: None,
        }
    }

    /// Returns the quotas of unprivileged domains.
    #[must_use]
    pub const fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Adds a connection over the socket. It has dom0's rights.
    pub fn connect(&mut self) -> ConnectionId {
        self.add(Connection::new(Who::domain(0), false))
    }

    /// Adds the connection over a domain's ring. INTRODUCE does that for guests; the caller does it for dom0's kernel.
    pub fn connect_ring(&mut self, domid: u16) -> ConnectionId {
        let id = self.add(Connection::new(Who::domain(domid), true));
        self.rings.insert(domid, id);
        id
    }

    fn add(&mut self, connection: Connection) -> ConnectionId {
        let id = self.next_connection;
        self.next_connection += 1;
        self.connections.insert(id, connection);
        id
    }

    /// Returns the connection over a domain's ring.
    #[must_use]
    pub fn ring(&self, domid: u16) -> Option<ConnectionId> {
        self.rings.get(&domid).copied()
    }

    /// Returns the domains with rings, and their connections.
    #[must_use]
    pub fn rings(&self) -> Vec<(u16, ConnectionId)> {
        self.rings.iter().map(|(domid, id)| (*domid, *id)).collect()
    }

    /// Returns the domain of a connection over a ring, `None` for a connection over the socket.
    #[must_use]
    pub fn domain_of(&self, id: ConnectionId) -> Option<u16> {
        let connection = self.connections.get(&id)?;
        connection.is_ring.then_some(connection.who.domid)
    }

    /// Removes a connection with its watches and transactions.
    pub fn disconnect(&mut self, id: ConnectionId) {
        self.reset_watches(id);
        self.update.take_if(|update| update.by == id);
        if let Some(mut connection) = self.connections.remove(&id) {
            let domid = connection.who.domid;
            self.account(domid, connection.clear());
            if connection.is_ring {
                self.rings.remove(&domid);
            }
        }
    }

    /// Returns whether more requests of a connection may be read. If not, [`Server::listed`] has the connection as soon
    /// as they may.
    pub fn has_room(&mut self, id: ConnectionId) -> bool {
        let waits = self.must_wait(id);
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        connection.waits |= waits;
        !waits && connection.queued < OUTPUT_MAX
    }

    /// Returns whether a domain has reached its quota of outstanding messages or of memory. Then its requests wait.
    fn must_wait(&self, id: ConnectionId) -> bool {
        let Some(connection) = self.connections.get(&id) else {
            return true;
        };
        if connection.who.is_privileged() {
            return false;
        }
        let usage = self.domains.usage(connection.who.domid);
        usage.outstanding >= self.quota.outstanding || usage.memory >= self.quota.memory
    }

    /// Takes received bytes and answers the requests that are complete.
    ///
    /// # Errors
    /// A request is longer than the protocol allows, or there is no such connection.
    pub fn take(
        &mut self,
        id: ConnectionId,
        bytes: &[u8],
        host: &mut dyn Host,
    ) -> Result<(), Broken> {
        let Some(connection) = self.connections.get_mut(&id) else {
            return Err(Broken);
        };
        connection.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut connection.input);
        let mut done = 0;
        let mut result = Ok(());
        while !self.must_wait(id) {
            match wire::take_asked(input.get(done..).unwrap_or_default()) {
                Ok(None) => break,
                Ok(Some((asked, length))) => {
                    done += length;
                    self.request(id, &asked, host);
                }
                Err(_) => {
                    result = Err(Broken);
                    break;
                }
            }
        }
        let waits = self.must_wait(id);
        // The connection's own request may have released the domain, or introduced it anew.
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.waits |= waits;
            connection.input = input;
            connection.input.drain(..done);
        }
        result
    }

    /// Returns the connections that have got output since the last call, or whose requests may be read again.
    pub fn listed(&mut self) -> Vec<ConnectionId> {
        let listed = std::mem::take(&mut self.listed);
        for id in &listed {
            if let Some(connection) = self.connections.get_mut(id) {
                connection.is_listed = false;
            }
        }
        listed
    }

    /// Stops charging domains for the messages that they have caused on a connection, because its client takes none.
    pub fn forgive(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id) {
            let causes = connection.forgive();
            self.account(0, Sent { bytes: 0, causes });
        }
    }

    /// Empties a connection: ends its watches and transactions and drops its input and output.
    pub fn silence(&mut self, id: ConnectionId) {
        self.reset_watches(id);
        if let Some(connection) = self.connections.get_mut(&id) {
            let (domid, sent) = (connection.who.domid, connection.clear());
            self.account(domid, sent);
        }
    }

    /// Returns the bytes to send next on a connection: `most` bytes or a little more.
    pub fn output(&mut self, id: ConnectionId, most: usize) -> &[u8] {
        let Some(connection) = self.connections.get_mut(&id) else {
            return &[];
        };
        let domid = connection.who.domid;
        let (_, sent) = connection.output(most);
        self.account(domid, sent);
        let connection = self.connections.get_mut(&id);
        connection.map_or(&[], |connection| connection.output(0).0)
    }

    /// Drops the first `bytes` bytes of a connection's output, which have been sent.
    pub fn sent(&mut self, id: ConnectionId, bytes: usize) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.sent(bytes);
        }
    }

    /// Returns whether a connection has bytes that were received and not processed.
    #[must_use]
    pub fn has_input(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(|connection| !connection.input.is_empty())
    }

    /// Returns whether a connection has bytes to send.
    #[must_use]
    pub fn has_output(&self, id: ConnectionId) -> bool {
        let connection = self.connections.get(&id);
        connection.is_some_and(Connection::has_output)
    }

    pub(super) fn list(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.is_listed
        {
            connection.is_listed = true;
            self.listed.push(id);
        }
    }

    /// Queues a message for a connection. A request of `cause` has led to it.
    pub(super) fn send(
        &mut self,
        id: ConnectionId,
        bytes: Vec<u8>,
        cause: &Who,
        event: ClientMessage,
    ) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let receiver = connection.who.domid;
        let length = bytes.len();
        let cause = (!cause.is_privileged()).then_some(cause.domid);
        if event != ClientMessage::None && !self.domains.has_memory(receiver, length, &self.quota) {
            self.lost += 1;
            return;
        }
        if !connection.push(bytes, cause, event) {
            return;
        }
        if receiver != 0 {
            let length = isize::try_from(length).unwrap_or(isize::MAX);
            self.domains.add_memory(receiver, length);
        }
        if let Some(domain) = cause.and_then(|domid| self.domains.get_mut(domid)) {
            domain.usage.outstanding += 1;
        }
        self.list(id);
    }

    /// Takes messages off the accounts of their receiver `domid` and of their causes.
    pub(super) fn account(&mut self, domid: u16, sent: Sent) {
        if domid != 0 {
            let bytes = isize::try_from(sent.bytes).unwrap_or(isize::MAX);
            self.domains.add_memory(domid, -bytes);
            self.serve_again(domid);
        }
        for cause in sent.causes {
            if let Some(domain) = self.domains.get_mut(cause) {
                let outstanding = &mut domain.usage.outstanding;
                *outstanding = outstanding.saturating_sub(1);
            }
            self.serve_again(cause);
        }
    }

    /// Lists a domain's connection if its requests have waited.
    fn serve_again(&mut self, domid: u16) {
        let Some(id) = self.ring(domid) else { return };
        let connection = self.connections.get_mut(&id);
        if connection.is_some_and(|connection| std::mem::take(&mut connection.waits)) {
            self.list(id);
        }
    }

    /// Finds the known domains that have shut down or are gone, and sends the events of that.
    pub fn check_domains(&mut self, host: &mut dyn Host) {
        let mut has_shut_down = false;
        for domid in self.domains.numbers() {
            if domid == 0 {
                continue;
            }
            let state = host.state(domid);
            let gone = state.is_none_or(|state| state.is_dying);
            let Some(domain) = self.domains.get_mut(domid) else {
                continue;
            };
            let shuts_down = state.is_some_and(|DomainState { is_shutdown, .. }| is_shutdown);
            if !domain.is_introduced {
                if state.is_none() {
                    self.remove_domain(domid);
                }
            } else if gone {
                self.release(domid, host);
            } else if shuts_down && !domain.is_shutdown {
                domain.is_shutdown = true;
                has_shut_down = true;
            }
        }
        if has_shut_down {
            self.news.push(News::Special(RELEASE));
        }
        self.tell(&Who::domain(0));
    }

    /// Removes an introduced domain with its connection and its nodes.
    pub(super) fn release(&mut self, domid: u16, host: &mut dyn Host) {
        if let Some(id) = self.ring(domid) {
            self.disconnect(id);
        }
        host.detach(domid);
        self.remove_domain(domid);
        self.news.push(News::Special(RELEASE));
    }
}

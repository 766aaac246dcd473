//! Watch events: which connections get them.

use std::rc::Rc;

use mayfly_xenstore::wire;

use super::connection::{ClientMessage, ConnectionId};
use super::perms::{Perms, Who};
use super::server::{News, Server};
use super::view::{Change, may_hear};
use super::watches::Watch;

/// `XS_WATCH_EVENT`.
const WATCH_EVENT: u32 = 15;

fn message(path: &str, token: &[u8]) -> Vec<u8> {
    let payload = [path.as_bytes(), &[0], token, &[0]].concat();
    let mut bytes = Vec::with_capacity(wire::HEADER + payload.len());
    wire::put_message(&mut bytes, [WATCH_EVENT, 0, 0], &payload);
    bytes
}

impl Server {
    /// Sends the events of all news to the watchers. The request of `cause` has led to them.
    pub(super) fn tell(&mut self, cause: &Who) {
        for news in std::mem::take(&mut self.news) {
            match news {
                News::Node(change) => self.tell_change(&change, cause),
                News::Special(path) => self.tell_special(path, cause),
                News::First { to, path, token } => self.tell_first(to, &path, &token, cause),
            }
        }
    }

    /// Sends the event that every new watch gets.
    fn tell_first(&mut self, id: ConnectionId, path: &str, token: &[u8], cause: &Who) {
        let event = match path.starts_with('@') {
            true => ClientMessage::Special,
            false => ClientMessage::Node,
        };
        self.send(id, message(path, token), cause, event);
    }

    fn tell_change(&mut self, change: &Change, cause: &Who) {
        if let Some(node) = &change.removed {
            for lower in self.watches.below(&change.path, node) {
                self.tell_watches(&lower.path, &lower.watches, &lower.readable_by, cause);
            }
        }
        let found = self.watches.on_the_way(&change.path);
        self.tell_watches(&change.path, &found, &change.readable_by, cause);
    }

    fn tell_watches(&mut self, path: &str, all: &[Watch], by: &[Rc<Perms>], cause: &Who) {
        for watch in all {
            let connection = self.connections.get(&watch.connection);
            let may = |who| may_hear(by, who, &self.domains);
            if connection.is_some_and(|connection| may(&connection.who)) {
                let path = path.get(watch.skipped..).unwrap_or_default();
                let bytes = message(path, &watch.token);
                self.send(watch.connection, bytes, cause, ClientMessage::Node);
            }
        }
    }

    fn tell_special(&mut self, path: &'static str, cause: &Who) {
        let perms: Vec<Rc<Perms>> = self.special.get(path).into_iter().cloned().collect();
        for watch in self.watches.of_special(path) {
            let connection = self.connections.get(&watch.connection);
            let may = |who| may_hear(&perms, who, &self.domains);
            if connection.is_some_and(|connection| may(&connection.who)) {
                let bytes = message(path, &watch.token);
                self.send(watch.connection, bytes, cause, ClientMessage::Special);
            }
        }
    }
}

//! Connections: the bytes that a client has sent and the messages that wait to be sent to it.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use mayfly_xenstore::wire;

use super::path;
use super::perms::Who;
use super::transaction::Transaction;

/// The number of a connection. No number is used twice.
pub type ConnectionId = u64;

/// A message that waits to be sent.
#[derive(Debug)]
struct Message {
    bytes: Rc<[u8]>,
    is_event: bool,
    /// The unprivileged domain whose request it comes from.
    cause: Option<u16>,
}

/// Messages that no longer wait in a connection's queue, so that they must be taken off the accounts.
#[derive(Debug, Default)]
pub(super) struct Sent {
    /// The length of these messages in bytes.
    pub(super) bytes: usize,
    /// The unprivileged domains whose requests led to them, one entry for each message.
    pub(super) causes: Vec<u16>,
}

/// A connection over a socket or a ring.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) who: Who,
    /// Whether it is a domain's ring.
    pub(super) is_ring: bool,
    pub(super) home: String,
    /// Bytes that were received and not yet processed.
    pub(super) input: Vec<u8>,
    messages: VecDeque<Message>,
    /// The events among `messages`, so that no event waits twice.
    events: HashSet<Rc<[u8]>>,
    /// Bytes that were taken from `messages` and not yet sent.
    output: Vec<u8>,
    /// The number of bytes of a message that has been sent in part, at the beginning of `output`.
    begun: usize,
    pub(super) transactions: HashMap<u32, Transaction>,
    next_transaction: u32,
    /// The number of each watch, by path and token.
    pub(super) watches: HashMap<(String, Rc<[u8]>), u64>,
    /// The number of bytes that wait to be sent, in `messages` and `output`.
    pub(super) queued: usize,
    /// Whether its requests wait until the quotas of its domain have room again.
    pub(super) waits: bool,
    /// Whether it is in `Server::listed`.
    pub(super) is_listed: bool,
}

impl Connection {
    pub(super) fn new(who: Who, is_ring: bool) -> Self {
        Self {
            home: path::home(who.domid),
            who,
            is_ring,
            input: Vec::new(),
            messages: VecDeque::new(),
            events: HashSet::new(),
            output: Vec::new(),
            begun: 0,
            transactions: HashMap::new(),
            next_transaction: 1,
            watches: HashMap::new(),
            queued: 0,
            waits: false,
            is_listed: false,
        }
    }

    /// Returns a number for a new transaction.
    pub(super) fn transaction_number(&mut self) -> u32 {
        loop {
            let number = self.next_transaction;
            self.next_transaction = number.wrapping_add(1).max(1);
            if !self.transactions.contains_key(&number) {
                return number;
            }
        }
    }

    /// Queues a message. Returns `false` if the same event of a node waits already (XSA-326). Events of special paths
    /// are always queued, because each one is about a different domain.
    pub(super) fn push(
        &mut self,
        bytes: Vec<u8>,
        cause: Option<u16>,
        event: ClientMessage,
    ) -> bool {
        let bytes: Rc<[u8]> = bytes.into();
        if event == ClientMessage::Node && !self.events.insert(Rc::clone(&bytes)) {
            return false;
        }
        self.queued += bytes.len();
        self.messages.push_back(Message {
            bytes,
            is_event: event == ClientMessage::Node,
            cause,
        });
        true
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty() || !self.messages.is_empty()
    }

    /// Returns the bytes to send next, `most` or a little more, and the messages that these take from the queue. The
    /// first message may have been sent in part.
    pub(super) fn output(&mut self, most: usize) -> (&[u8], Sent) {
        let mut sent = Sent::default();
        while self.output.len() < most {
            let Some(message) = self.messages.pop_front() else {
                break;
            };
            if message.is_event {
                self.events.remove(&message.bytes);
            }
            sent.bytes += message.bytes.len();
            sent.causes.extend(message.cause);
            self.output.extend_from_slice(&message.bytes);
        }
        (&self.output, sent)
    }

    /// Drops the first `bytes` bytes of the output, which have been sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        let bytes = bytes.min(self.output.len());
        let mut end = self.begun;
        while end < bytes {
            let message = self.output.get(end..).and_then(wire::length);
            end += message.unwrap_or(usize::MAX - end);
        }
        self.begun = (end - bytes).min(self.output.len() - bytes);
        self.queued -= bytes;
        self.output.drain(..bytes);
    }

    /// Returns all bytes that wait to be sent, and how many of them are the rest of a message that has been sent in
    /// part.
    pub(super) fn all_output(&self) -> (Vec<u8>, usize) {
        let mut all = self.output.clone();
        for message in &self.messages {
            all.extend_from_slice(&message.bytes);
        }
        (all, self.begun)
    }

    /// Queues the rest of a message that a predecessor has sent in part. Nothing else is queued yet.
    pub(super) fn continue_message(&mut self, rest: &[u8]) {
        self.begun = rest.len();
        self.queued += rest.len();
        self.output.extend_from_slice(rest);
    }

    /// Returns the causes of all waiting messages and removes them from the messages, so that those domains are no
    /// longer charged.
    pub(super) fn forgive(&mut self) -> Vec<u16> {
        let messages = self.messages.iter_mut();
        messages
            .filter_map(|message| message.cause.take())
            .collect()
    }

    /// Drops all input and output. Returns the messages that were dropped.
    pub(super) fn clear(&mut self) -> Sent {
        self.input.clear();
        self.events.clear();
        let mut sent = Sent::default();
        for message in self.messages.drain(..) {
            sent.bytes += message.bytes.len();
            sent.causes.extend(message.cause);
        }
        self.output.clear();
        self.begun = 0;
        self.queued = 0;
        sent
    }
}

/// The kind of a message to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientMessage {
    /// An answer.
    None,
    /// The event of a changed node.
    Node,
    /// The event of `@introduceDomain` or `@releaseDomain`.
    Special,
}

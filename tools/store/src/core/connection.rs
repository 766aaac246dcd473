//! Those who ask: what of their requests has come, and what they have not been sent yet.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use super::path;
use super::perms::Who;
use super::transaction::Transaction;

/// A connection's number; none is given twice.
pub type Id = u64;

/// A message that waits to be sent.
#[derive(Debug)]
struct Message {
    bytes: Rc<[u8]>,
    is_event: bool,
    /// The unprivileged domain whose request it comes from.
    cause: Option<u16>,
}

/// What has been handed over to be sent, and is accounted no more.
#[derive(Debug, Default)]
pub(super) struct Sent {
    pub(super) bytes: usize,
    pub(super) causes: Vec<u16>,
}

/// A connection, by a socket or a ring.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) who: Who,
    /// Whether it is a domain's ring.
    pub(super) is_ring: bool,
    pub(super) home: String,
    /// What has come and is not answered yet.
    pub(super) input: Vec<u8>,
    messages: VecDeque<Message>,
    /// Events among them, so that none waits twice.
    events: HashSet<Rc<[u8]>>,
    /// What is being sent.
    output: Vec<u8>,
    pub(super) transactions: HashMap<u32, Transaction>,
    next_transaction: u32,
    /// Watches by path and token.
    pub(super) watches: HashMap<(String, Rc<[u8]>), u64>,
    /// Bytes that wait to be sent.
    pub(super) queued: usize,
    /// Whether its requests wait until something has been taken.
    pub(super) waits: bool,
    /// Whether it is in the list of those that have something to send or to be worked for.
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
            transactions: HashMap::new(),
            next_transaction: 1,
            watches: HashMap::new(),
            queued: 0,
            waits: false,
            is_listed: false,
        }
    }

    /// A number for a new transaction.
    pub(super) fn transaction_number(&mut self) -> u32 {
        loop {
            let number = self.next_transaction;
            self.next_transaction = number.wrapping_add(1).max(1);
            if !self.transactions.contains_key(&number) {
                return number;
            }
        }
    }

    /// Adds a message. An event that waits already is not added again (XSA-326); those of special paths are, since each tells of
    /// another domain.
    pub(super) fn push(&mut self, bytes: Vec<u8>, cause: Option<u16>, event: Event) -> bool {
        let bytes: Rc<[u8]> = bytes.into();
        if event == Event::Node && !self.events.insert(Rc::clone(&bytes)) {
            return false;
        }
        self.queued += bytes.len();
        self.messages.push_back(Message {
            bytes,
            is_event: event == Event::Node,
            cause,
        });
        true
    }

    pub(super) fn has_output(&self) -> bool {
        !self.output.is_empty() || !self.messages.is_empty()
    }

    /// What is to be sent next: some messages, of which the first may have begun to be sent.
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

    /// Forgets what has been sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        let bytes = bytes.min(self.output.len());
        self.queued -= bytes;
        self.output.drain(..bytes);
    }

    /// Those who have caused what waits, who are asked for it no more.
    pub(super) fn forgive(&mut self) -> Vec<u16> {
        let messages = self.messages.iter_mut();
        messages
            .filter_map(|message| message.cause.take())
            .collect()
    }

    /// Forgets all that has come and that waits; gives what is accounted no more.
    pub(super) fn clear(&mut self) -> Sent {
        self.input.clear();
        self.events.clear();
        let mut sent = Sent::default();
        for message in self.messages.drain(..) {
            sent.bytes += message.bytes.len();
            sent.causes.extend(message.cause);
        }
        self.output.clear();
        self.queued = 0;
        sent
    }
}

/// What kind of message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// An answer.
    None,
    /// A node's change.
    Node,
    /// That of `@introduceDomain` or `@releaseDomain`.
    Special,
}

//! Forwards queries for names outside of our zones to a resolver over UDP, with bounds on all state.
//!
//! Each forwarded query has a socket of its own. The kernel chooses its port at random (RFC 5452 section 9.2), and the
//! socket accepts only the resolver's answer to that query.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::net::{SocketType, connect};

use super::super::fleet::Prefix;
use super::question::DnsQuestion;
use super::shares::Shares;
use super::unbound;

/// The greatest number of pending queries, and of those from the clients of one network.
const PENDING: usize = 256;
const OF_PREFIX: usize = PENDING / 8;
/// The time that the resolver has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of datagrams read for one query in a turn, because forgers may send many.
const TURN: usize = 16;
/// The longest datagram that is read, in bytes.
const DATAGRAM_MAX: usize = 4096;

/// A client, and the socket of ours to which it has sent its query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) socket: usize,
    pub(super) address: SocketAddr,
}

/// A forwarded query and its client.
struct Pending {
    question: DnsQuestion,
    asker: Asker,
    prefix: Prefix,
    socket: UdpSocket,
    until: Instant,
}

/// The pending queries, by numbers that are not used again.
pub(super) struct Forward {
    resolver: SocketAddr,
    pending: BTreeMap<usize, Pending>,
    shares: Shares,
    next: usize,
}

impl Forward {
    pub(super) fn new(resolver: SocketAddr) -> Self {
        Self {
            resolver,
            pending: BTreeMap::new(),
            shares: Shares::default(),
            next: 0,
        }
    }

    pub(super) fn resolver(&self) -> SocketAddr {
        self.resolver
    }

    /// Forwards a client's query. Returns `false` if that is not possible.
    pub(super) fn query(&mut self, query: &[u8], asker: Asker) -> bool {
        let prefix = Prefix::from(asker.address.ip());
        let Some(question) = DnsQuestion::read(query) else {
            return false;
        };
        if !self.shares.take(prefix, OF_PREFIX, PENDING) {
            return false;
        }
        let Ok(socket) = ask(self.resolver, &question) else {
            self.shares.give_back(prefix);
            return false;
        };
        let pending = Pending {
            question,
            asker,
            prefix,
            socket,
            until: Instant::now() + PATIENCE,
        };
        self.next = self.next.wrapping_add(1);
        self.pending.insert(self.next, pending);
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let pending = self.pending.iter();
        pending.map(|(&n, one)| (n, one.socket.as_fd()))
    }

    /// Reads the socket of a pending query. Returns the answer and its client, if the answer has come.
    pub(super) fn answer(&mut self, n: usize) -> Option<(Vec<u8>, Asker)> {
        let Pending {
            question,
            asker,
            prefix,
            socket,
            ..
        } = self.pending.get(&n)?;
        let mut bytes = [0; DATAGRAM_MAX];
        for _ in 0..TURN {
            let answer = match socket.recv(&mut bytes) {
                Ok(length) => question.answer_over_udp(bytes.get(..length)?),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => None,
                // An ICMP error: the resolver's host does not listen on the port.
                Err(_) => Some(question.failure()),
            };
            if let Some(answer) = answer {
                let (asker, prefix) = (*asker, *prefix);
                self.pending.remove(&n);
                self.shares.give_back(prefix);
                return Some((answer, asker));
            }
        }
        None
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|one| one.until).min()
    }

    /// Ends the queries that have waited for too long. Returns the failures to send to their clients.
    pub(super) fn expire(&mut self) -> Vec<(Vec<u8>, Asker)> {
        let now = Instant::now();
        let late = self.pending.extract_if(.., |_, one| one.until <= now);
        late.map(|(_, one)| {
            self.shares.give_back(one.prefix);
            (one.question.failure(), one.asker)
        })
        .collect()
    }
}

/// Sends a query from a port of its own, which the kernel chooses when the socket is connected.
fn ask(resolver: SocketAddr, question: &DnsQuestion) -> io::Result<UdpSocket> {
    let socket = UdpSocket::from(unbound(resolver, SocketType::DGRAM)?);
    connect(&socket, &resolver)?;
    socket.send(&question.query())?;
    Ok(socket)
}

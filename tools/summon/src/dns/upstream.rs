//! Forwards queries that came over TCP, each over a TCP connection of its own: such a client was most often told that
//! the answer is too long for UDP (RFC 7766 section 5).

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketType, connect};

use super::super::fleet::Prefix;
use super::question::DnsQuestion;
use super::shares::Shares;
use super::unbound;

/// The greatest number of connections to the resolver, and of those for the clients of one network.
const UPSTREAMS: usize = 64;
const OF_PREFIX: usize = UPSTREAMS / 4;
/// The time that the resolver has for an answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// The number of bytes read at once.
const CHUNK: usize = 4096;

/// A forwarded query, and the part of its answer that has come.
struct Upstream {
    question: DnsQuestion,
    prefix: Prefix,
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    until: Instant,
}

/// The progress of a forwarded query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waits,
    /// The answer, with its length before it.
    Answered(Vec<u8>),
    Failed,
}

/// The forwarded queries, at most one for each client's connection, by the number of that connection.
pub(super) struct Upstreams {
    resolver: SocketAddr,
    all: BTreeMap<usize, Upstream>,
    shares: Shares,
}

impl Upstreams {
    pub(super) fn new(resolver: SocketAddr) -> Self {
        Self {
            resolver,
            all: BTreeMap::new(),
            shares: Shares::default(),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let all = self.all.iter();
        all.map(|(&n, upstream)| (n, upstream.stream.as_fd()))
    }

    pub(super) fn is_writing(&self, n: usize) -> bool {
        self.all.get(&n).is_some_and(|one| !one.output.is_empty())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.all.values().map(|upstream| upstream.until).min()
    }

    /// Forwards a query of a client. Returns `false` if there is no room for it.
    pub(super) fn ask(&mut self, n: usize, client: IpAddr, query: &[u8]) -> bool {
        let prefix = Prefix::from(client);
        let Some(question) = DnsQuestion::read(query) else {
            return false;
        };
        if !self.shares.take(prefix, OF_PREFIX, UPSTREAMS) {
            return false;
        }
        let Ok(stream) = begin(self.resolver) else {
            self.shares.give_back(prefix);
            return false;
        };
        let output = framed(&question.query());
        let upstream = Upstream {
            question,
            prefix,
            stream,
            output,
            input: Vec::new(),
            until: Instant::now() + PATIENCE,
        };
        // A client has one forwarded query at a time, so this number is free.
        self.all.insert(n, upstream);
        true
    }

    /// Continues with a forwarded query.
    pub(super) fn serve(&mut self, n: usize) -> Progress {
        let progress = match self.all.get_mut(&n) {
            Some(upstream) => upstream.serve().unwrap_or(Progress::Failed),
            None => return Progress::Waits,
        };
        if progress != Progress::Waits {
            self.forget(n);
        }
        progress
    }

    /// Drops a forwarded query whose client is gone.
    pub(super) fn forget(&mut self, n: usize) {
        if let Some(upstream) = self.all.remove(&n) {
            self.shares.give_back(upstream.prefix);
        }
    }

    /// Removes the queries that have waited for too long, and returns their numbers.
    pub(super) fn expired(&mut self) -> Vec<usize> {
        let now = Instant::now();
        let late = self.all.extract_if(.., |_, upstream| upstream.until <= now);
        late.map(|(n, upstream)| {
            self.shares.give_back(upstream.prefix);
            n
        })
        .collect()
    }
}

impl Upstream {
    fn serve(&mut self) -> io::Result<Progress> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                // The connection may not be established yet.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waits);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut bytes = [0; CHUNK];
        loop {
            if let Some((length, answer)) = self.input.split_first_chunk()
                && let Some(answer) = answer.get(..u16::from_be_bytes(*length).into())
            {
                let answer = self.question.answer(answer);
                return Ok(answer.map_or(Progress::Failed, |answer| {
                    Progress::Answered(framed(&answer))
                }));
            }
            match self.stream.read(&mut bytes) {
                Ok(0) => return Ok(Progress::Failed),
                Ok(length) => self
                    .input
                    .extend_from_slice(bytes.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waits);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message with its length before it (RFC 1035 section 4.2.2).
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message].concat()
}

/// Begins to connect. The first write shows whether that has succeeded.
fn begin(resolver: SocketAddr) -> io::Result<TcpStream> {
    let socket = unbound(resolver, SocketType::STREAM)?;
    match connect(&socket, &resolver) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

//! Queries that came over TCP for names that are not ours: each goes to the resolver over a connection of its own, because who has come
//! that way has most often been told that the answer is too long for UDP (RFC 7766 section 5).

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{SocketType, connect};

use super::super::fleet::Prefix;
use super::question::Question;
use super::shares::Shares;
use super::unbound;

/// Connections to the resolver, and those for the clients of one network.
const UPSTREAMS: usize = 64;
const OF_PREFIX: usize = UPSTREAMS / 4;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets that are read at once.
const CHUNK: usize = 4096;

/// A question, and as much of its answer as has come.
struct Upstream {
    question: Question,
    prefix: Prefix,
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    until: Instant,
}

/// What has become of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Waits,
    /// The answer, after its length.
    Answered(Vec<u8>),
    Failed,
}

/// One question for each client's connection at most, by that connection's number.
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

    /// Asks what a client of this address asks; whether there was room for it.
    pub(super) fn ask(&mut self, n: usize, client: IpAddr, query: &[u8]) -> bool {
        let prefix = Prefix::from(client);
        let Some(question) = Question::read(query) else {
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
        // A client has one question at a time: there is none of that number.
        self.all.insert(n, upstream);
        true
    }

    /// Goes on with a question.
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

    /// Nobody waits for it any more.
    pub(super) fn forget(&mut self, n: usize) {
        if let Some(upstream) = self.all.remove(&n) {
            self.shares.give_back(upstream.prefix);
        }
    }

    /// Takes those out that have waited for too long.
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
                // Not even connected, perhaps.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waits);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        let mut octets = [0; CHUNK];
        loop {
            if let Some((length, answer)) = self.input.split_first_chunk()
                && let Some(answer) = answer.get(..u16::from_be_bytes(*length).into())
            {
                let answer = self.question.answer(answer);
                return Ok(answer.map_or(Progress::Failed, |answer| {
                    Progress::Answered(framed(&answer))
                }));
            }
            match self.stream.read(&mut octets) {
                Ok(0) => return Ok(Progress::Failed),
                Ok(length) => self
                    .input
                    .extend_from_slice(octets.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Progress::Waits);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// A message after its length (RFC 1035 section 4.2.2).
fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], message].concat()
}

/// Begins to connect. Whether that succeeds is seen when something is written.
fn begin(resolver: SocketAddr) -> io::Result<TcpStream> {
    let socket = unbound(resolver, SocketType::STREAM)?;
    match connect(&socket, &resolver) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

//! Queries that came over TCP for names that are not ours: each goes to the resolver over a connection of its own, because who has come
//! that way has most often been told that the answer is too long for UDP (RFC 7766 section 5).

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

/// Connections to the resolver.
const UPSTREAMS: usize = 64;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets that are read at once.
const CHUNK: usize = 4096;

/// A question, and as much of its answer as has come.
struct Upstream {
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
}

impl Upstreams {
    pub(super) fn new(resolver: SocketAddr) -> Self {
        Self {
            resolver,
            all: BTreeMap::new(),
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

    /// Asks, with a query after its length; whether there was room for it.
    pub(super) fn ask(&mut self, n: usize, query: &[u8]) -> bool {
        if self.all.len() >= UPSTREAMS {
            return false;
        }
        let Ok(stream) = begin(self.resolver) else {
            return false;
        };
        let upstream = Upstream {
            stream,
            output: query.to_vec(),
            input: Vec::new(),
            until: Instant::now() + PATIENCE,
        };
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
            self.all.remove(&n);
        }
        progress
    }

    /// Nobody waits for it any more.
    pub(super) fn forget(&mut self, n: usize) {
        self.all.remove(&n);
    }

    /// Takes those out that have waited for too long.
    pub(super) fn expired(&mut self) -> Vec<usize> {
        let now = Instant::now();
        let late = self.all.extract_if(.., |_, upstream| upstream.until <= now);
        late.map(|(n, _)| n).collect()
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
                return Ok(Progress::Answered([&length[..], answer].concat()));
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

/// Begins to connect. Whether that succeeds is seen when something is written.
fn begin(resolver: SocketAddr) -> io::Result<TcpStream> {
    let family = match resolver {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&socket, &resolver) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error.into()),
    }
}

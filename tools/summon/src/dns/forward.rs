//! Queries for names that are not ours, given to a resolver over UDP, with bounds on all that is kept.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// Queries that may be under way.
const PENDING: usize = 1024;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Octets of the longest answer.
const ANSWER_MAX: usize = 4096;

/// Who waits for an answer.
struct Pending {
    /// Its own number for its query.
    id: [u8; 2],
    /// The socket that it came by.
    socket: usize,
    client: SocketAddr,
    until: Instant,
}

/// The way to the resolver.
pub(super) struct Forward {
    socket: UdpSocket,
    pending: BTreeMap<[u8; 2], Pending>,
}

impl Forward {
    pub(super) fn open(resolver: SocketAddr) -> io::Result<Self> {
        // The kernel chooses the port by chance (RFC 5452 section 9.2), and takes nothing but the resolver's datagrams.
        let any: SocketAddr = match resolver {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(resolver)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            pending: BTreeMap::new(),
        })
    }

    /// Sends a query on under a number of our own; whether that was possible.
    pub(super) fn query(&mut self, query: &[u8], socket: usize, client: SocketAddr) -> bool {
        // An answer is not to be sent on as if it were a query.
        let (Some((&id, rest)), true) = (query.split_first_chunk(), self.pending.len() < PENDING)
        else {
            return false;
        };
        if rest.first().is_none_or(|flags| flags & 0x80 != 0) {
            return false;
        }
        let mut number = [0; 2];
        let random = rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty());
        if random.is_err() || self.pending.contains_key(&number) {
            return false;
        }
        if self.socket.send(&[&number, rest].concat()).is_err() {
            return false;
        }
        let until = Instant::now() + PATIENCE;
        let waiting = Pending {
            id,
            socket,
            client,
            until,
        };
        self.pending.insert(number, waiting);
        true
    }

    /// The next answer that somebody waits for, by which socket it goes out, and to whom.
    pub(super) fn answer(&mut self) -> Option<(Vec<u8>, usize, SocketAddr)> {
        let mut answer = [0; ANSWER_MAX];
        loop {
            let length = match self.socket.recv(&mut answer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return None,
            };
            let answer = answer.get(..length)?;
            let Some((number, rest)) = answer.split_first_chunk() else {
                continue;
            };
            if let Some(waiting) = self.pending.remove(number) {
                let answer = [&waiting.id, rest].concat();
                return Some((answer, waiting.socket, waiting.client));
            }
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.pending.values().map(|waiting| waiting.until).min()
    }

    pub(super) fn expire(&mut self) {
        let now = Instant::now();
        self.pending.retain(|_, waiting| waiting.until > now);
    }
}

impl AsFd for Forward {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

//! The DNS server for the services' names, over UDP and TCP, and the forwarding of other queries.

mod forward;
mod question;
mod shares;
mod tcp;
mod upstream;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ipnet::IpNet;
use mayfly_dns::{Client, Identity, Server, ServerConfig, Transport};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
use serde::{Deserialize, Serialize};

use super::fleet::ServiceId;
use super::names::{Names, QueryOutcome};
use super::status::sum;
use forward::{Asker, Forward};
use question::Allowed;
use tcp::{AnswerSources, Connections};
use upstream::{Progress, Upstreams};

/// The number of queries answered in a turn.
const TURN: usize = 64;
/// The longest query over UDP, in bytes.
const QUERY_MAX: usize = 4096;
/// The number of connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Counters of queries since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueryCounts {
    /// Answered from our zones.
    pub answered: u64,
    /// Forwarded to the resolver.
    pub forwarded: u64,
    /// Refused, because the name is outside of our zones.
    pub refused: u64,
    /// Limited, because one network sent too many: truncated, so that the client comes over TCP, or not answered.
    pub limited: u64,
    /// Not answered: malformed, or beyond the limits of forwarding.
    pub dropped: u64,
}

impl QueryCounts {
    /// The difference to earlier counters.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            answered: self.answered - before.answered,
            forwarded: self.forwarded - before.forwarded,
            refused: self.refused - before.refused,
            limited: self.limited - before.limited,
            dropped: self.dropped - before.dropped,
        }
    }

    /// The sum with other counters.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        Self {
            answered: sum(self.answered, more.answered),
            forwarded: sum(self.forwarded, more.forwarded),
            refused: sum(self.refused, more.refused),
            limited: sum(self.limited, more.limited),
            dropped: sum(self.dropped, more.dropped),
        }
    }
}

/// A query for the address of a service.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    /// The service.
    pub service: ServiceId,
    /// The client.
    pub from: IpAddr,
    /// The time at which the query was read.
    pub at: Instant,
    /// The time at which the answer was sent.
    pub answered: Instant,
}

/// The forwarding of queries for names outside of our zones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Elsewhere<'a> {
    /// The resolver's address. Without one, such queries are refused.
    pub resolver: Option<SocketAddr>,
    /// The networks of clients whose queries are forwarded. Others are refused.
    pub clients: &'a [IpNet],
}

/// The DNS server with its sockets.
pub struct Dns {
    udp: Vec<UdpSocket>,
    listeners: Vec<TcpListener>,
    connections: Connections,
    forward: Option<Forward>,
    /// Forwarded queries over TCP.
    upstreams: Option<Upstreams>,
    /// The clients whose queries are forwarded.
    allowed: Allowed,
    server: Server,
    nsid: Identity,
    began: Instant,
    /// The counters.
    pub counts: QueryCounts,
}

/// A socket of the server, to be polled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsSocket {
    /// A UDP socket for queries.
    Udp(usize),
    /// A TCP listener.
    Listener(usize),
    /// A client's TCP connection.
    Connection(usize),
    /// The socket of a query that was forwarded over UDP.
    Resolver(usize),
    /// A TCP connection to the resolver.
    Upstream(usize),
}

/// The sockets that receive queries.
#[derive(Debug, Default)]
pub struct Sockets {
    /// Over UDP.
    pub udp: Vec<UdpSocket>,
    /// Over TCP.
    pub listeners: Vec<TcpListener>,
}

impl Sockets {
    /// Opens a UDP and a TCP socket for each address.
    ///
    /// # Errors
    /// A text that names the address which cannot be listened on.
    pub fn open(addresses: &[SocketAddr]) -> Result<Self, String> {
        let mut sockets = Self::default();
        for &address in addresses {
            let error = |error: io::Error| format!("cannot listen on {address}: {error}");
            let socket = socket(address, SocketType::DGRAM).map_err(error)?;
            sockets.udp.push(UdpSocket::from(socket));
            let socket = socket_listening(address).map_err(error)?;
            sockets.listeners.push(TcpListener::from(socket));
        }
        Ok(sockets)
    }
}

impl Dns {
    /// A server over these sockets.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn over(sockets: Sockets) -> io::Result<Self> {
        let nsid = Identity::default();
        Ok(Self {
            udp: sockets.udp,
            listeners: sockets.listeners,
            connections: Connections::default(),
            forward: None,
            upstreams: None,
            allowed: Allowed::default(),
            server: server(&nsid)?,
            nsid,
            began: Instant::now(),
            counts: QueryCounts::default(),
        })
    }

    /// Changes the configuration. State that does not depend on a change is kept: cookies, limits, connections, pending
    /// queries.
    ///
    /// # Errors
    /// The kernel gives no random numbers.
    pub fn configure(&mut self, nsid: Option<&str>, elsewhere: Elsewhere<'_>) -> io::Result<()> {
        let nsid = Identity::from_slice(nsid.unwrap_or_default().as_bytes()).unwrap_or_default();
        if self.nsid != nsid {
            self.server = server(&nsid)?;
            self.nsid = nsid;
        }
        self.allowed = Allowed(elsewhere.clients.to_vec());
        if self.forward.as_ref().map(Forward::resolver) != elsewhere.resolver {
            self.forward = elsewhere.resolver.map(Forward::new);
            self.upstreams = elsewhere.resolver.map(Upstreams::new);
            self.connections.close_forwarded();
        }
        Ok(())
    }

    /// All sockets to poll.
    pub fn sources(&self) -> Vec<(DnsSocket, BorrowedFd<'_>)> {
        let udp = self.udp.iter().enumerate();
        let udp = udp.map(|(n, socket)| (DnsSocket::Udp(n), socket.as_fd()));
        let listeners = self.listeners.iter().enumerate();
        let listeners = listeners.map(|(n, socket)| (DnsSocket::Listener(n), socket.as_fd()));
        let connections = self.connections.iter();
        let connections = connections.map(|(n, socket)| (DnsSocket::Connection(n), socket));
        let resolver = self.forward.iter().flat_map(Forward::iter);
        let resolver = resolver.map(|(n, socket)| (DnsSocket::Resolver(n), socket));
        let upstreams = self.upstreams.iter().flat_map(Upstreams::iter);
        let upstreams = upstreams.map(|(n, socket)| (DnsSocket::Upstream(n), socket));
        udp.chain(listeners)
            .chain(connections)
            .chain(resolver)
            .chain(upstreams)
            .collect()
    }

    /// Whether a connection waits for room to write instead of bytes to read.
    pub fn is_writing(&self, source: DnsSocket) -> bool {
        match source {
            DnsSocket::Connection(n) => self.connections.is_writing(n),
            DnsSocket::Upstream(n) => self.upstreams.iter().any(|all| all.is_writing(n)),
            _ => false,
        }
    }

    /// The time at which [`Self::expire`] has to be called.
    pub fn deadline(&self) -> Option<Instant> {
        let forward = self.forward.as_ref().and_then(Forward::deadline);
        let upstreams = self.upstreams.as_ref().and_then(Upstreams::deadline);
        let connections = self.connections.deadline(self.began);
        let deadlines = [forward, upstreams, connections];
        deadlines.into_iter().flatten().min()
    }

    /// Serves a socket that is ready. Adds the queries for services to `queries`.
    pub fn serve(&mut self, source: DnsSocket, names: &Names, queries: &mut Vec<Query>) {
        match source {
            DnsSocket::Udp(n) => {
                for _ in 0..TURN {
                    if self.datagram(n, names, queries).is_none() {
                        break;
                    }
                }
            }
            DnsSocket::Listener(n) => {
                if let Some(listener) = self.listeners.get(n)
                    && let Ok((stream, from)) = listener.accept()
                    && let Some(evicted) = self.connections.add(stream, from.ip(), self.began)
                {
                    self.close(evicted);
                }
            }
            DnsSocket::Connection(n) => self.connection(n, names, queries),
            DnsSocket::Upstream(n) => {
                let progress = match &mut self.upstreams {
                    Some(upstreams) => upstreams.serve(n),
                    None => Progress::Waits,
                };
                match progress {
                    Progress::Waits => {}
                    Progress::Answered(answer) => {
                        self.connections.answered(n, &answer);
                        self.connection(n, names, queries);
                    }
                    Progress::Failed => self.connections.close(n),
                }
            }
            DnsSocket::Resolver(n) => {
                let answer = self.forward.as_mut().and_then(|forward| forward.answer(n));
                self.tell(answer);
            }
        }
    }

    /// Sends the resolver's answers to the clients.
    fn tell(&self, answers: impl IntoIterator<Item = (Vec<u8>, Asker)>) {
        for (answer, asker) in answers {
            if let Some(socket) = self.udp.get(asker.socket) {
                let _ = socket.send_to(&answer, asker.address);
            }
        }
    }

    /// Ends connections and queries that have waited for too long.
    pub fn expire(&mut self, names: &Names) {
        for n in self.upstreams.iter_mut().flat_map(Upstreams::expired) {
            self.connections.close(n);
        }
        for n in self.connections.late(self.began) {
            self.connection(n, names, &mut Vec::new());
            // The client had its time to take the rest of its answers.
            self.close(n);
        }
        let late = self.forward.as_mut().map(Forward::expire);
        self.tell(late.into_iter().flatten());
    }

    /// Serves a client's connection.
    fn connection(&mut self, n: usize, names: &Names, queries: &mut Vec<Query>) {
        let server = &mut self.server;
        let client = self.connections.address(n);
        let is_allowed = client.is_some_and(|client| self.allowed.has(client));
        let place = AnswerSources {
            server,
            names,
            began: self.began,
            forward: self.upstreams.as_mut().filter(|_| is_allowed),
        };
        let before = place.server.stats.tcp;
        let done = self.connections.serve(n, place, queries);
        self.counts.answered += u64::from(self.server.stats.tcp.wrapping_sub(before));
        match done {
            Some(forwarded) => self.counts.forwarded += forwarded,
            None => self.close(n),
        }
    }

    /// The number of queries beyond the rate limit.
    fn limited(&self) -> u32 {
        let stats = &self.server.stats;
        stats.limited.wrapping_add(stats.slipped)
    }

    fn close(&mut self, n: usize) {
        self.connections.close(n);
        if let Some(upstreams) = &mut self.upstreams {
            upstreams.forget(n);
        }
    }

    fn datagram(&mut self, n: usize, names: &Names, queries: &mut Vec<Query>) -> Option<()> {
        let socket = self.udp.get(n)?;
        let mut query = [0; QUERY_MAX];
        let (length, from) = match socket.recv_from(&mut query) {
            Ok(read) => read,
            // An ICMP error: nobody has taken an earlier answer.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Some(()),
            Err(_) => return None,
        };
        let at = Instant::now();
        let query = query.get(..length)?;
        let client = Client {
            address: from.ip().to_canonical(),
            transport: Transport::Udp,
        };
        let mut answer = [0; QUERY_MAX];
        let now = millis(self.began, at);
        let before = self.limited();
        let (asked, length) = names.answer(
            &mut self.server,
            now,
            unix_seconds(),
            client,
            query,
            &mut answer,
        );
        let socket = self.udp.get(n)?;
        match asked {
            // A client that is told to come over TCP has its query forwarded there.
            _ if self.limited() != before => {
                if length > 0 {
                    let _ = socket.send_to(answer.get(..length)?, from);
                }
                self.counts.limited += 1;
            }
            QueryOutcome::Answered(service) => {
                let _ = socket.send_to(answer.get(..length)?, from);
                self.counts.answered += 1;
                queries.extend(service.map(|service| Query {
                    service,
                    from: client.address,
                    at,
                    answered: Instant::now(),
                }));
            }
            QueryOutcome::Nothing => self.counts.dropped += 1,
            QueryOutcome::Elsewhere => match &mut self.forward {
                Some(forward) if self.allowed.has(client.address) => match forward.query(
                    query,
                    Asker {
                        socket: n,
                        address: from,
                    },
                ) {
                    true => self.counts.forwarded += 1,
                    false => self.counts.dropped += 1,
                },
                _ => {
                    if length > 0 {
                        let _ = socket.send_to(answer.get(..length)?, from);
                    }
                    self.counts.refused += 1;
                }
            },
        }
        Some(())
    }
}

/// A server with this identity and a new cookie secret.
fn server(nsid: &Identity) -> io::Result<Server> {
    let mut secret = [0; 16];
    rustix::rand::getrandom(&mut secret, rustix::rand::GetRandomFlags::empty())?;
    let mut config = ServerConfig::new(secret);
    config.identity = nsid.clone();
    Ok(Server::new(config))
}

/// Converts a time to milliseconds since the start, the unit of the DNS code.
fn millis(began: Instant, now: Instant) -> u64 {
    u64::try_from(now.saturating_duration_since(began).as_millis()).unwrap_or(u64::MAX)
}

fn unix_seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

/// A socket of an address's family that is not bound yet.
fn unbound(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, kind, flags, None)?)
}

fn socket(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let socket = unbound(address, kind)?;
    if address.is_ipv6() {
        // So that `[::]` and `0.0.0.0` can be listened on together.
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if kind == SocketType::STREAM {
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

fn socket_listening(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = socket(address, SocketType::STREAM)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

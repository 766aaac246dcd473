//! Clients' connections over TCP: the guest's own state machine, over sockets.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use mayfly_dns::{Connection, ROOM_MIN, Server, TCP_QUERY_MAX};
use mayfly_site::{Pack, Zones};
use mayfly_stream::{Input, Next};

use super::super::fleet::{Prefix, ServiceId};
use super::super::names::Names;
use super::shares::Shares;
use super::upstream::Upstreams;
use super::{Query, millis, unix_seconds};

/// The greatest number of connections, and of those from the clients of one network.
const CONNECTIONS: usize = 256;
const OF_PREFIX: usize = 64;
/// The number of bytes of answers that may wait to be sent. The zones here have no longer answers.
const OUT: usize = 16 * 1024;

type Node = <Pack<'static> as Zones>::Node;

struct Client {
    stream: TcpStream,
    address: IpAddr,
    prefix: Prefix,
    /// The time of the last read or write.
    active: Instant,
    connection: Connection<Node>,
    input: Vec<u8>,
    ended: bool,
    output: Vec<u8>,
    /// Whether a query was forwarded and not answered yet. Later queries of the client wait.
    is_forwarded: bool,
    /// Whether the connection is closed as soon as the output is sent.
    closing: bool,
}

/// The sources of answers.
pub(super) struct AnswerSources<'a> {
    pub(super) server: &'a mut Server,
    pub(super) names: &'a Names,
    pub(super) began: Instant,
    /// The forwarding of queries for other names. Without it, they are refused.
    pub(super) forward: Option<&'a mut Upstreams>,
}

/// The connections, by numbers that are not used again while they are open.
#[derive(Default)]
pub(super) struct Connections {
    clients: BTreeMap<usize, Client>,
    shares: Shares,
    next: usize,
}

impl Connections {
    /// Closes the connections that wait for a forwarded query.
    pub(super) fn close_forwarded(&mut self) {
        let forwarded = self.clients.extract_if(.., |_, client| client.is_forwarded);
        forwarded.for_each(|(_, client)| self.shares.give_back(client.prefix));
    }

    /// The address of a connection's client.
    pub(super) fn address(&self, n: usize) -> Option<IpAddr> {
        Some(self.clients.get(&n)?.address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let clients = self.clients.iter();
        // A client that waits for the resolver is not polled, because it would stay readable all the time.
        let clients =
            clients.filter(|(_, client)| !client.is_forwarded || !client.output.is_empty());
        clients.map(|(&n, client)| (n, client.stream.as_fd()))
    }

    pub(super) fn is_writing(&self, n: usize) -> bool {
        let client = self.clients.get(&n);
        client.is_some_and(|client| !client.output.is_empty())
    }

    pub(super) fn deadline(&self, began: Instant) -> Option<Instant> {
        let deadlines = self.clients.values();
        let deadlines = deadlines.filter(|client| !client.is_forwarded);
        let first = deadlines.map(|client| client.connection.deadline()).min()?;
        Some(began + Duration::from_millis(first))
    }

    /// Adds a connection. If there are too many, returns the number of the one to close: the one that has been idle
    /// longest, of the network with the most connections.
    pub(super) fn add(
        &mut self,
        stream: TcpStream,
        address: IpAddr,
        began: Instant,
    ) -> Option<usize> {
        if stream.set_nonblocking(true).is_err() {
            return None;
        }
        let (address, now) = (address.to_canonical(), Instant::now());
        let client = Client {
            stream,
            address,
            prefix: Prefix::from(address),
            active: now,
            connection: Connection::new(millis(began, now)),
            input: Vec::new(),
            ended: false,
            output: Vec::new(),
            is_forwarded: false,
            closing: false,
        };
        let evicted = self.in_the_way_of(client.prefix);
        self.next = self.next.wrapping_add(1);
        self.shares.add(client.prefix);
        self.clients.insert(self.next, client);
        evicted
    }

    /// The connection to close for one more from this network.
    fn in_the_way_of(&self, prefix: Prefix) -> Option<usize> {
        let is_over = self.shares.of(prefix) >= OF_PREFIX;
        if !is_over && self.shares.all() < CONNECTIONS {
            return None;
        }
        let most = self.shares.most();
        let of = |client: &Client| match is_over {
            true => client.prefix == prefix,
            false => self.shares.of(client.prefix) == most,
        };
        let candidates = self.clients.iter().filter(|(_, client)| of(client));
        candidates
            .min_by_key(|(_, client)| client.active)
            .map(|(&n, _)| n)
    }

    /// Reads, answers and writes as far as possible now. Returns the number of queries forwarded, or `None` if the
    /// connection is over.
    pub(super) fn serve(
        &mut self,
        n: usize,
        place: AnswerSources<'_>,
        queries: &mut Vec<Query>,
    ) -> Option<u64> {
        let Some(client) = self.clients.get_mut(&n) else {
            return Some(0);
        };
        client.serve(n, place, queries)
    }

    /// Adds the resolver's answer to the output. `answer` begins with its length.
    pub(super) fn answered(&mut self, n: usize, answer: &[u8]) {
        if let Some(client) = self.clients.get_mut(&n) {
            client.is_forwarded = false;
            client.output.extend_from_slice(answer);
        }
    }

    pub(super) fn close(&mut self, n: usize) {
        if let Some(client) = self.clients.remove(&n) {
            self.shares.give_back(client.prefix);
        }
    }

    /// The connections that are over time. Those that wait for the resolver are not among them.
    pub(super) fn late(&self, began: Instant) -> Vec<usize> {
        let now = millis(began, Instant::now());
        let clients = self.clients.iter();
        clients
            .filter(|(_, client)| !client.is_forwarded && client.connection.deadline() <= now)
            .map(|(&n, _)| n)
            .collect()
    }
}

impl Client {
    /// Serves the connection: see [`Connections::serve`].
    fn serve(
        &mut self,
        n: usize,
        mut place: AnswerSources<'_>,
        queries: &mut Vec<Query>,
    ) -> Option<u64> {
        let at = Instant::now();
        self.read()?;
        let (mut services, mut forwarded) = (Vec::new(), 0);
        loop {
            let has_room = self.output.is_empty();
            while !self.closing && !self.is_forwarded {
                let (own, elsewhere) = match place.forward {
                    Some(_) => place.names.before_elsewhere(&self.input),
                    None => (self.input.len(), None),
                };
                let all = self.answer(&mut place, at, own, elsewhere.is_none(), &mut services)?;
                let Some(elsewhere) = elsewhere.filter(|_| all && !self.closing) else {
                    break;
                };
                let query = self.input.get(2..elsewhere)?;
                self.is_forwarded = place.forward.as_mut()?.ask(n, self.address, query);
                if !self.is_forwarded {
                    return None;
                }
                self.input.drain(..elsewhere);
                forwarded += 1;
            }
            self.write()?;
            // If the output has become empty, there is room for more answers now, and no event would report that.
            if has_room || !self.output.is_empty() {
                break;
            }
        }
        let answered = Instant::now();
        queries.extend(services.into_iter().map(|service| Query {
            service,
            from: self.address,
            at,
            answered,
        }));
        let is_over = self.closing && self.output.is_empty() && !self.is_forwarded;
        (!is_over).then_some(forwarded)
    }

    /// Answers the queries in the first `own` bytes of the input, as far as there is room. Returns whether all were
    /// answered. `is_last` says that no other query follows them.
    fn answer(
        &mut self,
        place: &mut AnswerSources<'_>,
        at: Instant,
        own: usize,
        is_last: bool,
        services: &mut Vec<ServiceId>,
    ) -> Option<bool> {
        let pack = place.names.pack()?;
        let mut out = vec![0; OUT];
        let room = OUT.saturating_sub(self.output.len());
        let input = Input {
            bytes: self.input.get(..own)?,
            ended: self.ended && is_last,
        };
        let progress = self.connection.process(
            place.server,
            &pack,
            millis(place.began, at),
            unix_seconds(),
            self.address,
            input,
            out.get_mut(..room)?,
            (OUT / 4).max(ROOM_MIN),
        );
        services.extend(place.names.asked_in(self.input.get(..progress.consumed)?));
        self.input.drain(..progress.consumed);
        self.output.extend_from_slice(out.get(..progress.written)?);
        match progress.next {
            Next::Keep => {}
            Next::Close => self.closing = true,
            Next::Abort => return None,
        }
        Some(progress.consumed == own)
    }

    fn read(&mut self) -> Option<()> {
        let mut bytes = [0; TCP_QUERY_MAX + 2];
        // The input has at most one query that is not answered.
        while self.input.len() < bytes.len() && !self.ended {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.ended = true,
                Ok(length) => {
                    self.active = Instant::now();
                    self.input.extend_from_slice(bytes.get(..length)?);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(())
    }

    fn write(&mut self) -> Option<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return None,
                Ok(length) => {
                    self.active = Instant::now();
                    self.output.drain(..length);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(())
    }
}

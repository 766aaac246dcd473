//! Connections of clients that ask over TCP: the guest's own state machine, over sockets.

use std::collections::BTreeMap;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use mayfly::services::dns::{Connection, ROOM_MIN, Server, TCP_QUERY_MAX};
use mayfly::services::site::{Pack, Zones};
use mayfly::services::{Input, Next};

use super::super::names::Names;
use super::{Query, millis, unix_seconds};

/// Connections at a time, and of one address.
const CONNECTIONS: usize = 256;
const OF_ONE: usize = 16;
/// Octets of answers that may wait to be sent. The zones here have no longer answers.
const OUT: usize = 16 * 1024;

type Node = <Pack<'static> as Zones>::Node;

struct Client {
    stream: TcpStream,
    address: IpAddr,
    connection: Connection<Node>,
    input: Vec<u8>,
    ended: bool,
    output: Vec<u8>,
    /// All is written that ever will be; what is left of it goes out, and then it is closed.
    closing: bool,
}

/// The connections, by numbers that are not used again while they are open.
#[derive(Default)]
pub(super) struct Connections {
    clients: BTreeMap<usize, Client>,
    next: usize,
}

impl Connections {
    pub(super) fn clear(&mut self) {
        self.clients.clear();
    }

    pub(super) fn has_room(&self) -> bool {
        self.clients.len() < CONNECTIONS
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        let clients = self.clients.iter();
        clients.map(|(&n, client)| (n, client.stream.as_fd()))
    }

    pub(super) fn is_writing(&self, n: usize) -> bool {
        let client = self.clients.get(&n);
        client.is_some_and(|client| !client.output.is_empty())
    }

    pub(super) fn deadline(&self, began: Instant) -> Option<Instant> {
        let deadlines = self.clients.values();
        let first = deadlines.map(|client| client.connection.deadline()).min()?;
        Some(began + Duration::from_millis(first))
    }

    pub(super) fn add(&mut self, stream: TcpStream, address: IpAddr, began: Instant) {
        let address = address.to_canonical();
        let same = self.clients.values();
        let same = same.filter(|client| client.address == address).count();
        if same >= OF_ONE || stream.set_nonblocking(true).is_err() {
            return;
        }
        let client = Client {
            stream,
            address,
            connection: Connection::new(millis(began, Instant::now())),
            input: Vec::new(),
            ended: false,
            output: Vec::new(),
            closing: false,
        };
        self.next = self.next.wrapping_add(1);
        self.clients.insert(self.next, client);
    }

    /// Reads, answers and writes as far as that goes now; how many answers there were.
    pub(super) fn serve(
        &mut self,
        n: usize,
        server: &mut Server,
        names: &Names,
        began: Instant,
        queries: &mut Vec<Query>,
    ) -> u64 {
        let Some(client) = self.clients.get_mut(&n) else {
            return 0;
        };
        let before = server.stats.tcp;
        if client.serve(server, names, began, queries).is_none() {
            self.clients.remove(&n);
        }
        server.stats.tcp.wrapping_sub(before).into()
    }

    pub(super) fn expire(&mut self, server: &mut Server, names: &Names, began: Instant) {
        let now = millis(began, Instant::now());
        let late: Vec<usize> = self
            .clients
            .iter()
            .filter(|(_, client)| client.connection.deadline() <= now)
            .map(|(&n, _)| n)
            .collect();
        for n in late {
            self.serve(n, server, names, began, &mut Vec::new());
            // What it has not taken by now it will not take.
            self.clients.remove(&n);
        }
    }
}

impl Client {
    /// `None` when it is over.
    fn serve(
        &mut self,
        server: &mut Server,
        names: &Names,
        began: Instant,
        queries: &mut Vec<Query>,
    ) -> Option<()> {
        let at = Instant::now();
        self.read()?;
        let mut services = Vec::new();
        if !self.closing {
            let pack = names.pack()?;
            let mut out = vec![0; OUT];
            let room = OUT.saturating_sub(self.output.len());
            let input = Input {
                octets: &self.input,
                ended: self.ended,
            };
            let progress = self.connection.process(
                server,
                &pack,
                millis(began, at),
                unix_seconds(),
                self.address,
                input,
                out.get_mut(..room)?,
                (OUT / 4).max(ROOM_MIN),
            );
            services = names.asked_in(self.input.get(..progress.consumed)?);
            self.input.drain(..progress.consumed);
            self.output.extend_from_slice(out.get(..progress.written)?);
            match progress.next {
                Next::Keep => {}
                Next::Close => self.closing = true,
                Next::Abort => return None,
            }
        }
        self.write()?;
        let answered = Instant::now();
        queries.extend(services.into_iter().map(|service| Query {
            service,
            from: self.address,
            at,
            answered,
        }));
        (!self.closing || !self.output.is_empty()).then_some(())
    }

    fn read(&mut self) -> Option<()> {
        let mut octets = [0; TCP_QUERY_MAX + 2];
        // No more than one query ahead of what was answered.
        while self.input.len() < octets.len() && !self.ended {
            match self.stream.read(&mut octets) {
                Ok(0) => self.ended = true,
                Ok(length) => self.input.extend_from_slice(octets.get(..length)?),
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
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
        Some(())
    }
}

//! A worker that goes on where its predecessor ended: it repeats the journal, and completes what that had begun.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{DupFlags, dup3};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::attend::WRITE;
use super::clients::Client;
use super::ring::{self, Fault};
use super::witness::Witness;
use super::{Daemon, Machine, open_epoll};
use crate::core::ConnectionId;
use crate::keep::{Copies, Kind, Record, Upcoming};

/// What the journal tells beside the state of the server.
#[derive(Default)]
struct Told {
    /// The file descriptors of clients that have connected since the copy.
    clients: HashMap<ConnectionId, i32>,
    /// The domains whose rings were read or written.
    rings: HashSet<u16>,
    /// The domains whose rings are shut by the recovery.
    shut: Vec<(u16, Fault)>,
    last: Option<Record>,
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(0)
}

impl<M: Machine> Daemon<M> {
    /// Goes on where the predecessor ended. The memory is that of its last copy.
    pub(super) fn recover(&mut self) -> io::Result<()> {
        self.next.clear();
        self.stalled.clear();
        self.stalls.clear();
        self.update_since = None;
        self.is_deaf = false;
        self.machine.revive()?;
        let mut told = Told::default();
        while let Some(record) = self.journal.repeat() {
            self.repeat(&record, &mut told);
            told.last = Some(record);
        }
        self.journal.end_repetition();
        self.machine.recover()?;
        if let Some(last) = told.last.take() {
            self.complete(&last);
        }
        for (domid, fault) in told.shut {
            if let Some(page) = self.machine.page(domid) {
                ring::shut(page, fault);
            }
        }
        self.reopen(told.clients)?;
        for domid in told.rings {
            self.machine.notify(domid);
        }
        // All that has output or waits is in this list anyway.
        self.server.listed();
        let rings = self.server.rings().into_iter().map(|(_, id)| id);
        self.next = rings.chain(self.clients.keys().copied()).collect();
        self.check_domains();
        Ok(())
    }

    fn repeat(&mut self, record: &Record, told: &mut Told) {
        let id = record.id;
        if matches!(record.kind, Kind::Received | Kind::RingRead) && self.journal.is_poison(record)
        {
            return self.give_up_peer(id, told);
        }
        let domid = self.server.domain_of(id);
        if matches!(record.kind, Kind::RingRead | Kind::RingWritten) {
            told.rings.extend(domid);
        }
        match record.kind {
            Kind::Accepted => {
                let id = self.server.connect();
                let number = i32::try_from(record.number).unwrap_or(-1);
                told.clients.insert(id, number);
            }
            Kind::Ended => {
                self.forget_client(id, told);
                self.server.disconnect(id);
            }
            Kind::Received | Kind::RingRead => {
                // A fault of the peer is a record of its own, unless this was the last one; then it is repeated below.
                let result = self.take(id, &record.payload);
                if result.is_err() && self.journal.upcoming() == Upcoming::Nothing {
                    self.give_up_peer(id, told);
                }
            }
            Kind::Sent => {
                self.server.output(id, WRITE);
                let length = usize::try_from(record.number).unwrap_or(usize::MAX);
                self.server.sent(id, length);
            }
            Kind::RingWritten => {
                self.server.output(id, ring::SIZE);
                let length = record.payload.first_chunk().copied();
                let length = u32::from_ne_bytes(length.unwrap_or_default());
                self.server
                    .sent(id, usize::try_from(length).unwrap_or(usize::MAX));
            }
            Kind::Silenced => self.server.silence(id),
            Kind::Shut => {
                if let Some(domid) = domid {
                    self.shut(id, domid, fault(record.number));
                }
            }
            Kind::Checked => {
                let mut witness = Witness {
                    machine: &mut self.machine,
                    journal: &mut self.journal,
                };
                self.server.check_domains(&mut witness);
            }
            Kind::Forgiven => self.server.forgive(id),
            Kind::Refused => {
                let text = String::from_utf8_lossy(&record.payload).into_owned();
                self.server.refuse_update(&text);
            }
            // They follow the record that has asked, which takes them.
            Kind::State | Kind::Attached | Kind::AttachedAgain | Kind::Detached => {}
        }
    }

    /// Ends the connection from which came a request that no worker survives, or that breaks the protocol.
    fn give_up_peer(&mut self, id: ConnectionId, told: &mut Told) {
        let domid = self.server.domain_of(id);
        let peer = domid.map_or("a client".to_owned(), |domid| format!("domain {domid}"));
        eprintln!(
            "hatch xenstored: the connection of {peer} is ended: its request cannot be processed"
        );
        // What the machine has answered to that request is undone.
        while let Upcoming::Record(
            Kind::State | Kind::Attached | Kind::AttachedAgain | Kind::Detached,
            _,
        ) = self.journal.upcoming()
        {
            if let Some(answer) = self.journal.repeat()
                && let (Kind::Attached, Ok(domid)) = (answer.kind, u16::try_from(answer.id))
            {
                let port = u32::try_from(answer.number).ok();
                self.machine.note_attached(domid, port);
                crate::core::Host::detach(&mut self.machine, domid);
            }
        }
        match domid {
            Some(domid) => {
                self.shut(id, domid, Fault::Protocol);
                told.shut.push((domid, Fault::Protocol));
                told.rings.insert(domid);
            }
            None => {
                if let Some(number) = self.forget_client(id, told)
                    && let Ok(sockets) = mayfly_xen::inherit([number])
                {
                    drop(sockets);
                }
                self.server.disconnect(id);
            }
        }
    }

    /// Forgets a client without closing its file descriptor, whose number may be another's by now.
    fn forget_client(&mut self, id: ConnectionId, told: &mut Told) -> Option<i32> {
        let known = self.clients.remove(&id).map(Client::into_number);
        known.or_else(|| told.clients.remove(&id))
    }

    /// Completes what the last record announces, if its writer ended before that was done.
    fn complete(&mut self, last: &Record) {
        let domid = self.server.domain_of(last.id);
        let attached = u16::try_from(last.id);
        match (last.kind, domid, attached) {
            (Kind::RingRead, Some(domid), _) => {
                if let Some(page) = self.machine.page(domid) {
                    ring::consume(page, narrow(last.number));
                }
            }
            (Kind::RingWritten, Some(domid), _) => {
                if let Some(page) = self.machine.page(domid) {
                    ring::produce(page, narrow(last.number));
                }
            }
            (Kind::Shut, Some(domid), _) => {
                if let Some(page) = self.machine.page(domid) {
                    ring::shut(page, fault(last.number));
                }
            }
            (Kind::Attached | Kind::AttachedAgain, _, Ok(domid)) => {
                self.machine.complete_begin(domid);
            }
            _ => {}
        }
    }

    /// Takes over the file descriptors: an epoll set of this process with all that is known, and clients that nobody
    /// knows yet.
    fn reopen(&mut self, accepted: HashMap<ConnectionId, i32>) -> io::Result<()> {
        for (id, number) in accepted {
            let socket = mayfly_xen::inherit([number])
                .ok()
                .and_then(|mut all| all.remove(&number));
            match socket {
                Some(socket) => drop(self.clients.insert(id, Client::of(socket.into()))),
                None => self.end(id),
            }
        }
        // Another file may have got the number of a closed one, in a successor that ended just here.
        let is_closed = |client: &Client| !is_connection(client);
        let closed = self.clients.iter().filter(|(_, client)| is_closed(client));
        let closed: Vec<ConnectionId> = closed.map(|(id, _)| *id).collect();
        for id in closed {
            self.clients.remove(&id).map(Client::into_number);
            self.end(id);
        }
        let fresh = open_epoll(&self.listener, &self.machine)?;
        dup3(&fresh, &mut self.epoll, DupFlags::CLOEXEC)?;
        drop(fresh);
        self.listener.set_nonblocking(true)?;
        self.watch_keeper()?;
        for (id, client) in &mut self.clients {
            client.wait_anew(*id, &self.epoll)?;
        }
        for socket in self.unknown_descriptors()? {
            if is_connection(&socket) {
                self.welcome(UnixStream::from(socket));
            }
        }
        Ok(())
    }

    /// Returns the file descriptors that a worker has opened in the moment in which it ended.
    fn unknown_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let keeper = self.copies.as_ref().map(Copies::keeper);
        let own = [
            Some(self.listener.as_fd()),
            Some(self.epoll.as_fd()),
            keeper,
        ];
        let own = own.into_iter().flatten();
        let clients = self.clients.values().map(|client| client.as_fd());
        let known: HashSet<i32> = own
            .chain(clients)
            .map(|known| known.as_raw_fd())
            .chain(self.machine.descriptors())
            .chain(0..3)
            .collect();
        let mut unknown = Vec::new();
        for entry in std::fs::read_dir("/proc/self/fd")? {
            let number = entry?.file_name().to_string_lossy().parse();
            unknown.extend(number.into_iter().filter(|number| !known.contains(number)));
        }
        let mut found = Vec::new();
        for number in unknown {
            // The list itself was open when it was read.
            if let Ok(mut taken) = mayfly_xen::inherit([number]) {
                found.extend(taken.remove(&number));
            }
        }
        Ok(found)
    }
}

fn fault(number: u64) -> Fault {
    match number == Fault::Indices as u64 {
        true => Fault::Indices,
        false => Fault::Protocol,
    }
}

/// Returns whether it is the socket of a client.
fn is_connection(socket: impl AsFd + Copy) -> bool {
    sockopt::socket_domain(socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(socket) == Ok(false)
}

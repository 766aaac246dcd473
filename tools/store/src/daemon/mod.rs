//! The daemon: one loop over the socket and the event channels, around [`crate::core`].

mod attend;
mod clients;
mod dom0;
mod files;
mod handover;
mod machine;
mod ring;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::core::{ConnectionId, Quota, Server};
use clients::Client;
pub use dom0::Dom0;
pub use files::{PidFile, listen, tell_ready};
pub use handover::{STATE_FILE, Succession};

pub use machine::{Machine, News};

/// Numbers of the loop's file descriptors in epoll. Clients have the numbers of their connections.
const LISTENER: u64 = u64::MAX;
const EVENTS: u64 = u64::MAX - 1;
const STOP: u64 = u64::MAX - 2;
/// The number of events taken from the kernel at a time.
const BATCH: usize = 256;
/// The number of connections accepted at a time.
const ACCEPTED: usize = 64;

/// A running xenstored.
pub struct Daemon<M> {
    server: Server,
    machine: M,
    listener: UnixListener,
    epoll: OwnedFd,
    clients: HashMap<ConnectionId, Client>,
    /// Whether file descriptors have run out: no connection is accepted until one ends.
    is_deaf: bool,
    /// Connections whose turn was over before they were done.
    next: Vec<ConnectionId>,
    /// Connections whose domain does not take its output, with the time since when.
    stalled: HashMap<ConnectionId, Instant>,
    /// The same in ascending order of time. Entries that are not in `stalled` any more are out of date.
    stalls: VecDeque<(Instant, ConnectionId)>,
    succession: Option<Succession>,
    /// When a live update was started that waits for transactions to end.
    update_since: Option<Instant>,
}

impl<M: Machine> Daemon<M> {
    /// A daemon that serves a socket, dom0's ring if the machine has one, and the rings of introduced domains.
    ///
    /// # Errors
    /// An error of epoll or of the socket.
    pub fn new(
        quota: Quota,
        keeps_orphans: bool,
        machine: M,
        listener: UnixListener,
    ) -> io::Result<Self> {
        let mut this = Self::with(Server::new(quota, keeps_orphans), machine, listener)?;
        if this.machine.page(0).is_some() {
            let id = this.server.connect_ring(0);
            this.next.push(id);
            // dom0's kernel waits for an event before it sends its first request.
            this.machine.notify(0);
        }
        Ok(this)
    }

    fn with(server: Server, machine: M, listener: UnixListener) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        listener.set_nonblocking(true)?;
        let watch = |fd: BorrowedFd<'_>, number| {
            epoll::add(
                &epoll,
                fd,
                epoll::EventData::new_u64(number),
                epoll::EventFlags::IN,
            )
        };
        watch(listener.as_fd(), LISTENER)?;
        if let Some(fd) = machine.fd() {
            watch(fd, EVENTS)?;
        }
        Ok(Self {
            server,
            machine,
            listener,
            epoll,
            clients: HashMap::new(),
            is_deaf: false,
            next: Vec::new(),
            stalled: HashMap::new(),
            stalls: VecDeque::new(),
            succession: None,
            update_since: None,
        })
    }

    /// Serves until `stop` is readable.
    ///
    /// # Errors
    /// An error of epoll.
    pub fn run(&mut self, stop: BorrowedFd<'_>) -> io::Result<()> {
        let data = epoll::EventData::new_u64(STOP);
        epoll::add(&self.epoll, stop, data, epoll::EventFlags::IN)?;
        let mut events = Vec::with_capacity(BATCH);
        loop {
            events.clear();
            let timeout = self.timeout();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                match event.data.u64() {
                    STOP => return Ok(()),
                    LISTENER => self.accept(),
                    EVENTS => self.events(),
                    id => self.attend(id),
                }
            }
            self.attend_all();
            self.forgive();
            self.update();
        }
    }

    /// The longest sleep: none while a connection waits for its turn, else until the next stalled one, or a live update
    /// that waits for transactions, is over time.
    fn timeout(&self) -> Option<Timespec> {
        if !self.next.is_empty() {
            return Some(Timespec::default());
        }
        let stalled = self.stalls.front().map(|(since, _)| (*since, self.bound()));
        let update = self.update_end();
        let lefts = [stalled, update].into_iter().flatten();
        let left = lefts
            .map(|(since, bound)| bound.saturating_sub(since.elapsed()))
            .min()?;
        // One millisecond is added, so that the loop does not wake a little too early and sleep again.
        let left = left + Duration::from_millis(1);
        Timespec::try_from(left).ok()
    }

    fn bound(&self) -> Duration {
        self.server.quota().event_timeout
    }

    /// Stops charging domains for messages to receivers that have taken none for too long.
    fn forgive(&mut self) {
        let bound = self.bound();
        while let Some((since, id)) = self.stalls.front().copied() {
            if since.elapsed() < bound {
                break;
            }
            self.stalls.pop_front();
            if self.stalled.get(&id) == Some(&since) {
                self.stalled.remove(&id);
                self.server.forgive(id);
            }
        }
    }

    /// Gives a turn to the connections with output, and to those whose last turn was over before they were done.
    fn attend_all(&mut self) {
        for id in std::mem::take(&mut self.next) {
            self.attend(id);
        }
        loop {
            let listed = self.server.listed();
            if listed.is_empty() {
                return;
            }
            for id in listed {
                // epoll reports a client's requests, so it only needs its output sent.
                match self.clients.contains_key(&id) {
                    true => drop(self.flush_client(id)),
                    false => self.attend(id),
                }
            }
        }
    }

    fn accept(&mut self) {
        for _ in 0..ACCEPTED {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    let id = self.server.connect();
                    match Client::new(stream, id, &self.epoll) {
                        Ok(client) => {
                            self.clients.insert(id, client);
                        }
                        Err(_) => self.server.disconnect(id),
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // Most likely no file descriptor is left: new connections wait until another one ends.
                Err(_) => {
                    self.is_deaf = epoll::delete(&self.epoll, self.listener.as_fd()).is_ok();
                    return;
                }
            }
        }
    }

    /// Accepts connections again: one has ended, so there may be a file descriptor for another.
    fn hear_again(&mut self) {
        if self.is_deaf {
            let data = epoll::EventData::new_u64(LISTENER);
            let listener = self.listener.as_fd();
            let result = epoll::add(&self.epoll, listener, data, epoll::EventFlags::IN);
            self.is_deaf = result.is_err();
        }
    }

    fn events(&mut self) {
        match self.machine.events() {
            News::Of { rings, domains } => {
                for domid in rings {
                    if let Some(id) = self.server.ring(domid) {
                        self.ring(id, domid);
                    }
                }
                if domains {
                    self.check_domains();
                }
            }
            News::Lost => {
                for (domid, id) in self.server.rings() {
                    self.ring(id, domid);
                }
                self.check_domains();
            }
        }
    }

    fn check_domains(&mut self) {
        self.machine.read_states();
        self.server.check_domains(&mut self.machine);
        self.machine.forget_states();
    }
}

//! The core in dom0: one loop over the socket and the event channels.

mod attend;
mod clients;
mod dom0;
mod files;
mod machine;
mod ring;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::core::{Id, Quota, Server};
use clients::Client;
pub use dom0::Dom0;
pub use files::{PidFile, listen, tell_ready};
pub use machine::{Machine, News};

/// What of the loop's file descriptors is ready, apart from clients, which have their connections' numbers.
const LISTENER: u64 = u64::MAX;
const EVENTS: u64 = u64::MAX - 1;
const STOP: u64 = u64::MAX - 2;
/// Events that are taken from the kernel at a time.
const BATCH: usize = 256;
/// Connections that are accepted at a time.
const ACCEPTED: usize = 64;

/// A xenstored that runs.
pub struct Daemon<M> {
    server: Server,
    machine: M,
    listener: UnixListener,
    epoll: OwnedFd,
    clients: HashMap<Id, Client>,
    /// Whether nobody new is accepted until somebody has gone.
    is_deaf: bool,
    /// Who is to be looked at in the next turn.
    next: Vec<Id>,
    /// Rings whose domain does not take what is there for it, since when.
    stalled: HashMap<Id, Instant>,
    /// The same in the order of time, with some that have gone on since.
    stalls: VecDeque<(Instant, Id)>,
}

impl<M: Machine> Daemon<M> {
    /// A xenstored that answers on a socket, on dom0's ring if the machine has one, and on those of domains that are introduced.
    ///
    /// # Errors
    /// The kernel refuses to poll.
    pub fn new(
        quota: Quota,
        keeps_orphans: bool,
        machine: M,
        listener: UnixListener,
    ) -> io::Result<Self> {
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
        let mut this = Self {
            server: Server::new(quota, keeps_orphans),
            machine,
            listener,
            epoll,
            clients: HashMap::new(),
            is_deaf: false,
            next: Vec::new(),
            stalled: HashMap::new(),
            stalls: VecDeque::new(),
        };
        if this.machine.page(0).is_some() {
            let id = this.server.connect_ring(0);
            this.next.push(id);
            // The kernel waits for a sign that somebody serves it.
            this.machine.notify(0);
        }
        Ok(this)
    }

    /// Serves, until something can be read from `stop`.
    ///
    /// # Errors
    /// The kernel refuses to poll.
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
        }
    }

    /// How long there is nothing to do unless something happens.
    fn timeout(&self) -> Option<Timespec> {
        if !self.next.is_empty() {
            return Some(Timespec::default());
        }
        let (since, _) = self.stalls.front()?;
        let left = self.bound().saturating_sub(since.elapsed());
        // A little later rather than a little too early.
        let left = left + Duration::from_millis(1);
        Timespec::try_from(left).ok()
    }

    fn bound(&self) -> Duration {
        self.server.quota().event_timeout
    }

    /// Whoever has not taken its events for too long is not waited for.
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

    /// Looks at all who have something to be sent, and those whose turn was over before they were done.
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
                // What a client sends, the kernel tells.
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
                // No more file descriptors, most likely: those who wait are heard when somebody has gone.
                Err(_) => {
                    self.is_deaf = epoll::delete(&self.epoll, self.listener.as_fd()).is_ok();
                    return;
                }
            }
        }
    }

    /// Somebody has gone: there may be room for another one.
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
        self.machine.look();
        self.server.check_domains(&mut self.machine);
        self.machine.look_away();
    }
}

//! The daemon: one loop over the socket and the event channels, around [`crate::core`].

mod attend;
mod clients;
mod dom0;
mod files;
mod handover;
mod machine;
mod recover;
mod ring;
mod witness;

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

use crate::core::{ConnectionId, Quota, Server};
use crate::keep::{Copies, Journal, Kept, Kind, Renewed};
use clients::Client;
pub use dom0::Dom0;
pub use files::{PidFile, listen, tell_ready};
pub use handover::{STATE_FILE, Succession};

pub use machine::{Machine, News};
use witness::Witness;

/// Numbers of the loop's file descriptors in epoll. Clients have the numbers of their connections.
const LISTENER: u64 = u64::MAX;
const EVENTS: u64 = u64::MAX - 1;
const STOP: u64 = u64::MAX - 2;
const COPY: u64 = u64::MAX - 3;
/// The number of events taken from the kernel at a time.
const BATCH: usize = 256;
/// The number of connections accepted at a time.
const ACCEPTED: usize = 64;

/// A running xenstored.
pub struct Daemon<M> {
    server: Server,
    machine: M,
    /// All that the server takes in.
    journal: Journal,
    /// What makes the copies that replace this process; `None` if nothing does.
    copies: Option<Copies>,
    /// Readable when the copy has ended.
    copy: Option<OwnedFd>,
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

/// Returns an epoll set of the listening socket and the event channels.
fn open_epoll<M: Machine>(listener: &UnixListener, machine: &M) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let all = [(Some(listener.as_fd()), LISTENER), (machine.fd(), EVENTS)];
    for (descriptor, number) in all {
        if let Some(descriptor) = descriptor {
            let data = epoll::EventData::new_u64(number);
            epoll::add(&epoll, descriptor, data, epoll::EventFlags::IN)?;
        }
    }
    Ok(epoll)
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
        listener.set_nonblocking(true)?;
        let epoll = open_epoll(&listener, &machine)?;
        Ok(Self {
            server,
            machine,
            journal: Journal::new()?,
            copies: None,
            copy: None,
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
        self.serve()
    }

    /// Serves until the keeper ends, and then ends this process. When it ends before, a copy of it goes on.
    ///
    /// This never returns: to drop the daemon would close file descriptors that the copy needs.
    pub fn run_kept(&mut self, kept: Kept) -> ! {
        let code = match self.serve_kept(kept) {
            Ok(()) => 0,
            Err(error) => {
                eprintln!("hatch xenstored: the worker: {error}");
                1
            }
        };
        std::process::exit(code)
    }

    fn serve_kept(&mut self, kept: Kept) -> io::Result<()> {
        let Kept { journal, copies } = kept;
        self.journal = journal;
        self.copies = Some(copies);
        self.watch_keeper()?;
        self.renew()?;
        if let Some(copies) = &self.copies {
            copies.tell_ready()?;
        }
        self.serve()
    }

    fn watch_keeper(&self) -> io::Result<()> {
        let data = epoll::EventData::new_u64(STOP);
        let keeper = self.copies.as_ref().map(Copies::keeper);
        keeper.map_or(Ok(()), |keeper| {
            Ok(epoll::add(
                &self.epoll,
                keeper,
                data,
                epoll::EventFlags::IN,
            )?)
        })
    }

    /// Begins a new log, with a copy of this process as it is now, if somebody keeps it.
    pub(super) fn renew(&mut self) -> io::Result<()> {
        loop {
            // Closed first: the copy, which shares all file descriptors, would keep a number that is another one's later.
            self.copy = None;
            let Some(copies) = &self.copies else {
                self.journal.clear();
                return Ok(());
            };
            match copies.renew(&mut self.journal) {
                Ok(Renewed::Copied(copy)) => {
                    let data = epoll::EventData::new_u64(COPY);
                    if let Some(copy) = &copy {
                        epoll::add(&self.epoll, copy, data, epoll::EventFlags::IN)?;
                    }
                    self.copy = copy;
                    return Ok(());
                }
                Ok(Renewed::Succeeds) => self.recover()?,
                Err(error) => {
                    eprintln!("hatch xenstored: no copy of this process can be made: {error}");
                    copies.give_up();
                    self.journal.clear();
                    return Ok(());
                }
            }
        }
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(BATCH);
        loop {
            events.clear();
            if self.journal.is_low() {
                self.renew()?;
            }
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
                    COPY => self.renew()?,
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
                self.journal.append(Kind::Forgiven, id, 0, &[]);
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
            if self.journal.is_low() {
                return self.next.extend(listed);
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
                Ok((stream, _)) => self.welcome(stream),
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

    fn welcome(&mut self, stream: UnixStream) {
        let number = stream.as_raw_fd().unsigned_abs();
        self.journal.append(Kind::Accepted, 0, number.into(), &[]);
        let id = self.server.connect();
        match Client::new(stream, id, &self.epoll) {
            Ok(client) => {
                self.clients.insert(id, client);
            }
            Err(_) => self.end(id),
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
                        self.attend(id);
                    }
                }
                if domains {
                    self.check_domains();
                }
            }
            News::Lost => {
                for (_, id) in self.server.rings() {
                    self.attend(id);
                }
                self.check_domains();
            }
        }
    }

    fn check_domains(&mut self) {
        self.machine.read_states();
        self.journal.append(Kind::Checked, 0, 0, &[]);
        let mut witness = Witness {
            machine: &mut self.machine,
            journal: &mut self.journal,
        };
        self.server.check_domains(&mut witness);
        self.machine.forget_states();
    }
}

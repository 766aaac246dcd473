//! The program: one loop over the devices, the bridges' ports and the control socket.

mod client;
mod start;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::control::{SentNotice, SwitchOrder, SwitchReply};
use crate::dom0::{BridgePort, Devices};
use crate::journal::{Journal, JournalEntry};
use crate::switch::{Notice, Rest, Switch};
use client::Client;
pub use start::{StartError, StartOptions};

/// The most connections at a time. Others wait.
const CLIENTS_MAX: usize = 64;

/// The segments that were sent in a turn up to which the receivers run before the next turn. With more of them there is
/// enough to do without them, and the next turn is not delayed.
const FEW: usize = 2;

/// The number of turns in a row with work, after which the descriptors are polled. Before, only the bridges' ports are
/// read: to poll all costs more than to read one that has nothing.
const TURNS: u32 = 8;

/// A record that a client waits for.
struct Recording {
    client: u64,
    name: String,
    until: u64,
}

/// A running switch.
pub struct Program {
    switch: Switch<Devices, BridgePort>,
    /// The name of the port on each bridge.
    links: Vec<(String, String)>,
    journal: Journal,
    listener: UnixListener,
    clients: Vec<Client>,
    next_client: u64,
    recordings: Vec<Recording>,
    start: Instant,
}

/// The result of [`Program::wait`].
struct Ready {
    events: bool,
    listener: bool,
    stop: bool,
    wires: Vec<bool>,
    clients: Vec<bool>,
}

impl Ready {
    /// The bridges' ports may have frames, and nothing else is known.
    fn wires(count: usize) -> Self {
        Self {
            events: false,
            listener: false,
            stop: false,
            wires: vec![true; count],
            clients: Vec::new(),
        }
    }
}

impl Program {
    /// The time since this process began, in ns.
    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Serves until something can be read from `stop`. The guests stay as they are, for the next switch.
    ///
    /// # Errors
    /// The kernel has no memory for the poll.
    pub fn run(&mut self, stop: BorrowedFd<'_>, report: &mut dyn FnMut(&str)) -> io::Result<()> {
        let mut rest = Rest::Busy;
        let mut turns = TURNS;
        loop {
            let ready = if rest == Rest::Busy && turns < TURNS {
                turns += 1;
                Ready::wires(self.links.len())
            } else {
                turns = 0;
                self.wait(stop, rest)?
            };
            if ready.stop {
                return Ok(());
            }
            if ready.events {
                self.events(report);
            }
            for (net, _) in ready.wires.iter().enumerate().filter(|(_, ready)| **ready) {
                self.switch.readable(net);
            }
            let now = self.now();
            let is_busy = self.switch.turn(now);
            if (1..=FEW).contains(&self.switch.sent()) {
                // The next frame is often an answer to what the receiver of these has to say first.
                std::thread::yield_now();
            }
            self.switch.bind(now, is_busy);
            if ready.listener {
                self.accept(report);
            }
            for (at, _) in ready.clients.iter().enumerate().filter(|(_, is)| **is) {
                self.client(at, report);
            }
            let gone = self.clients.extract_if(.., |client| client.is_gone());
            for client in gone {
                self.switch.forget_all(client.id);
            }
            self.recordings(now);
            while let Some(notice) = self.switch.notice() {
                self.tell(&notice, report);
            }
            // While a guest sends, its ring is checked in each turn.
            rest = if is_busy {
                Rest::Busy
            } else {
                self.switch.rest(now)
            };
        }
    }

    /// Waits for something to do. (The toolstack's `ready`, which waits in the same way, is above this crate.)
    fn wait(&self, stop: BorrowedFd<'_>, rest: Rest) -> io::Result<Ready> {
        let recording = self
            .recordings
            .iter()
            .map(|recording| recording.until)
            .min();
        let timeout = match rest {
            Rest::Busy => Some(0),
            Rest::Until(until) => {
                let until = [until, recording].into_iter().flatten().min();
                until.map(|until| until.saturating_sub(self.now()))
            }
        };
        let timeout = timeout
            .map(|ns| Timespec::try_from(Duration::from_nanos(ns)))
            .transpose()
            .map_err(io::Error::other)?;
        let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut fds = vec![
            watched(self.switch.xen().as_fd()),
            watched(stop),
            watched(self.listener.as_fd()),
        ];
        fds.extend(self.switch.wires().map(|wire| watched(wire.as_fd())));
        fds.extend(self.clients.iter().map(Client::poll));
        let is_full = self.clients.len() >= CLIENTS_MAX;
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = || ready.next().unwrap_or(false);
        Ok(Ready {
            events: next(),
            stop: next(),
            listener: next() && !is_full,
            wires: (0..self.links.len()).map(|_| next()).collect(),
            clients: (0..self.clients.len()).map(|_| next()).collect(),
        })
    }

    fn events(&mut self, report: &mut dyn FnMut(&str)) {
        let mut ports = Vec::new();
        if let Err(error) = self.switch.xen().events(|port| ports.push(port)) {
            report(&format!(
                "events were lost, all guests are looked at: {error}"
            ));
            self.switch.look_at_all();
        }
        for port in ports {
            self.switch.event(port);
        }
    }

    fn accept(&mut self, report: &mut dyn FnMut(&str)) {
        match self.listener.accept() {
            Ok((stream, _)) => match Client::new(stream, self.next_client) {
                Ok(client) => {
                    self.next_client += 1;
                    self.clients.push(client);
                    // Its request has usually arrived already.
                    self.client(self.clients.len() - 1, report);
                }
                Err(error) => report(&format!("a connection: {error}")),
            },
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => report(&format!("the control socket: {error}")),
        }
    }

    /// Answers the requests of a client.
    fn client(&mut self, at: usize, report: &mut dyn FnMut(&str)) {
        loop {
            let Some(client) = self.clients.get_mut(at) else {
                return;
            };
            client.flush();
            let order = match client.order() {
                Some(Ok(order)) => order,
                Some(Err(error)) => {
                    client.reply(&SwitchReply::Error(error.to_string()));
                    continue;
                }
                None => return,
            };
            let id = client.id;
            let is_waited_for = matches!(order, SwitchOrder::Attach(_));
            if let Some(reply) = self.order(id, order, report)
                && let Some(client) = self.clients.get_mut(at)
            {
                client.reply(&reply);
                if is_waited_for {
                    // The client lets the guest run now.
                    std::thread::yield_now();
                }
            }
        }
    }

    /// Carries out a request; `None` if the reply comes later.
    fn order(
        &mut self,
        client: u64,
        order: SwitchOrder,
        report: &mut dyn FnMut(&str),
    ) -> Option<SwitchReply> {
        let now = self.now();
        let done = match order {
            SwitchOrder::Attach(guest) => {
                let link = self
                    .links
                    .iter()
                    .find(|(bridge, _)| *bridge == guest.bridge);
                let link = link.map(|(_, link)| link.clone()).unwrap_or_default();
                // First the journal: if this switch is killed in between, the next one finds this guest or none.
                self.write(JournalEntry::Attach(guest.clone()), report);
                let domain = guest.rings.domain;
                match self.switch.attach(*guest, now) {
                    Ok(()) => Ok(SwitchReply::Attached { link }),
                    Err(error) => {
                        if self
                            .switch
                            .guests()
                            .all(|other| other.rings.domain != domain)
                        {
                            self.write(JournalEntry::Detach(domain), report);
                        }
                        Err(error)
                    }
                }
            }
            SwitchOrder::Detach(domain) => self.switch.detach(domain).map(|status| {
                self.write(JournalEntry::Detach(domain), report);
                SwitchReply::Detached(Box::new(status))
            }),
            SwitchOrder::Sleep(sleeper) => self
                .switch
                .sleep(*sleeper, client)
                .map(|()| SwitchReply::Done),
            SwitchOrder::Hold(name) => self.switch.hold(&name).map(|()| SwitchReply::Done),
            SwitchOrder::Open(name) => self.switch.open(&name, now).map(|()| SwitchReply::Done),
            SwitchOrder::Drop(name) => self.switch.drop_held(&name).map(|()| SwitchReply::Done),
            SwitchOrder::Relay(name) => self.switch.relay(&name).map(|()| SwitchReply::Done),
            SwitchOrder::Forget(name) => self.switch.forget(&name).map(|()| SwitchReply::Done),
            SwitchOrder::Status => Ok(SwitchReply::Status(Box::new(self.switch.status()))),
            SwitchOrder::There(domain) => self.switch.is_there(domain).map(SwitchReply::There),
            SwitchOrder::Frames => Ok(SwitchReply::Frames(self.switch.frames().collect())),
            SwitchOrder::Dump {
                name,
                bounds,
                milliseconds,
            } => match self.switch.dump(&name, bounds) {
                Ok(()) => {
                    let until = now.saturating_add(milliseconds.saturating_mul(1_000_000));
                    self.recordings.push(Recording {
                        client,
                        name,
                        until,
                    });
                    return None;
                }
                Err(error) => Err(error),
            },
            SwitchOrder::Notices => {
                let mut clients = self.clients.iter_mut();
                if let Some(client) = clients.find(|other| other.id == client) {
                    client.wants_notices = true;
                }
                Ok(SwitchReply::Done)
            }
        };
        Some(done.unwrap_or_else(|error| SwitchReply::Error(error.to_string())))
    }

    fn write(&mut self, entry: JournalEntry, report: &mut dyn FnMut(&str)) {
        if let Err(error) = self.journal.write(entry) {
            report(&format!(
                "the journal: {error}; the next switch will not know of this"
            ));
        }
    }

    fn tell(&mut self, notice: &Notice, report: &mut dyn FnMut(&str)) {
        match notice {
            Notice::Shut {
                name,
                domain,
                reason,
            } => report(&format!(
                "{name} (domain {domain}): {reason}; its port is shut"
            )),
            Notice::Lost { bridge, error } => {
                report(&format!("the port on {bridge} is lost: {error}"));
            }
            Notice::Dumped { name } => {
                for recording in &mut self.recordings {
                    if recording.name == *name {
                        recording.until = 0;
                    }
                }
            }
            Notice::Wanted { .. } | Notice::Lives { .. } => {}
        }
        if let Some(told) = SentNotice::of(notice) {
            for client in self
                .clients
                .iter_mut()
                .filter(|client| client.wants_notices)
            {
                client.reply(&SwitchReply::Notice(told.clone()));
            }
        }
    }

    /// Answers the clients whose records are full or whose time is over.
    fn recordings(&mut self, now: u64) {
        while let Some(at) = self
            .recordings
            .iter()
            .position(|recording| recording.until <= now)
        {
            let recording = self.recordings.swap_remove(at);
            let file = self.switch.dumped(&recording.name);
            let mut clients = self.clients.iter_mut();
            if let Some(client) = clients.find(|client| client.id == recording.client) {
                match file {
                    Ok(file) => client.reply_with(&SwitchReply::Dump(file.len()), &file),
                    Err(_) => client.reply(&SwitchReply::Error("the guest is gone".to_owned())),
                }
            }
        }
    }
}

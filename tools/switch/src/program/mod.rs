//! The program: one loop over the devices, the bridges' ports and the control socket; with several threads, one over the
//! devices and ports in each of the others.

mod client;
mod lane;
mod start;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};

use mayfly_links::queue_of;
use rustix::event::{PollFd, PollFlags};

use crate::control::{SentNotice, SwitchOrder, SwitchReply};
use crate::journal::{Journal, JournalEntry};
use crate::port::{Features, Rings};
use crate::switch::{Guest, Mac, Notice, Refusal, Sleeper, SwitchStatus};
use client::Client;
use lane::{Dom0Switch, Equipment, Lane, Turn, Worker};
pub use start::{StartError, StartOptions};

/// The most connections at a time. Others wait.
const CLIENTS_MAX: usize = 64;

/// A record that a client waits for.
struct Recording {
    client: u64,
    name: String,
    until: u64,
}

/// A running switch.
pub struct Program {
    /// The first thread's part.
    lane: Lane,
    /// What the other threads need, until they are started.
    others: Vec<Equipment>,
    /// The other threads.
    workers: Vec<Worker>,
    /// Their notices.
    notices: Option<Receiver<Notice>>,
    /// The name of the port on each bridge.
    links: Vec<(String, String)>,
    journal: Journal,
    listener: UnixListener,
    clients: Vec<Client>,
    next_client: u64,
    recordings: Vec<Recording>,
}

impl Program {
    /// Starts the other threads, each of which restricts itself by `enter`, and takes over the guests of the switch
    /// before this one.
    ///
    /// # Errors
    /// The kernel has no room for a thread.
    pub fn take_over(
        &mut self,
        enter: fn() -> io::Result<()>,
        report: &mut dyn FnMut(&str),
    ) -> io::Result<()> {
        let (sender, notices) = channel();
        if let Some(first) = self.lane.bell() {
            for equipment in self.others.drain(..) {
                let worker = Worker::spawn(equipment, (sender.clone(), first.clone()), enter)?;
                self.workers.push(worker);
            }
            self.notices = Some(notices);
        }
        for guest in self.journal.known().guests.clone() {
            let (name, domain) = (guest.name.clone(), guest.rings.domain);
            // Its rings are looked at in the first turn.
            match self.at(guest.mac, move |switch, _| switch.attach(guest, 0)) {
                Ok(()) => report(&format!("{name} (domain {domain}) is taken over")),
                Err(error) => {
                    report(&format!("{name} (domain {domain}) is left alone: {error}"));
                    self.write(JournalEntry::Detach(domain), report);
                }
            }
        }
        Ok(())
    }

    /// Serves until something can be read from `stop`. The guests stay as they are, for the next switch.
    ///
    /// # Errors
    /// The kernel has no memory for the poll.
    pub fn run(&mut self, stop: BorrowedFd<'_>, report: &mut dyn FnMut(&str)) -> io::Result<()> {
        loop {
            let turn = self.turn(stop, report)?;
            let mut others = turn.others.iter().copied();
            if others.next() == Some(true) {
                return Ok(());
            }
            if others.next() == Some(true) && self.clients.len() < CLIENTS_MAX {
                self.accept(report);
            }
            for (at, _) in others.enumerate().filter(|(_, is)| *is) {
                self.client(at, report);
            }
            let gone: Vec<_> = self
                .clients
                .extract_if(.., |client| client.is_gone())
                .collect();
            for client in gone {
                self.each(move |switch, _| switch.forget_all(client.id));
            }
            self.recordings(turn.now);
            while let Some(notice) = self.notice() {
                self.tell(&notice, report);
            }
            self.lane.settle(&turn);
        }
    }

    /// Waits for something to do, and takes a turn. (The toolstack's `ready`, which waits in the same way, is above this
    /// crate.)
    fn turn(&mut self, stop: BorrowedFd<'_>, report: &mut dyn FnMut(&str)) -> io::Result<Turn> {
        let recordings = self.recordings.iter();
        let until = recordings.map(|recording| recording.until).min();
        let watched = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let others = [watched(stop), watched(self.listener.as_fd())].into_iter();
        let others = others.chain(self.clients.iter().map(Client::poll));
        self.lane.next(others, until, report)
    }

    /// The next notice of any thread.
    fn notice(&mut self) -> Option<Notice> {
        let others = self.notices.as_ref();
        let own = self.lane.switch.notice();
        own.or_else(|| others?.try_recv().ok())
    }

    /// Has one of the threads do this.
    fn on<T: Send + 'static>(
        &mut self,
        thread: usize,
        work: impl FnOnce(&mut Dom0Switch, u64) -> T + Send + 'static,
    ) -> T {
        let worker = thread.checked_sub(1).and_then(|at| self.workers.get(at));
        match worker {
            Some(worker) => worker.run(work),
            None => {
                let now = self.lane.now();
                work(&mut self.lane.switch, now)
            }
        }
    }

    /// Has the thread do this that serves the guest with this MAC address.
    fn at<T: Send + 'static>(
        &mut self,
        mac: Mac,
        work: impl FnOnce(&mut Dom0Switch, u64) -> T + Send + 'static,
    ) -> T {
        self.on(queue_of(mac, self.workers.len() + 1), work)
    }

    /// Has each thread do this, and returns the results.
    fn each<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Dom0Switch, u64) -> T + Clone + Send + 'static,
    ) -> Vec<T> {
        let threads = 0..=self.workers.len();
        threads
            .map(|thread| self.on(thread, work.clone()))
            .collect()
    }

    /// Has the thread do this that knows of what it is about.
    fn first<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Dom0Switch, u64) -> Result<T, Refusal> + Clone + Send + 'static,
    ) -> Result<T, Refusal> {
        for thread in 0..self.workers.len() {
            let result = self.on(thread, work.clone());
            if !matches!(result, Err(Refusal::Unknown)) {
                return result;
            }
        }
        self.on(self.workers.len(), work)
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
            let is_waited_for = matches!(order, SwitchOrder::Attach(_) | SwitchOrder::Awake(_));
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
        let done = |()| SwitchReply::Done;
        let done = match order {
            SwitchOrder::Attach(guest) => self.attach(*guest, report),
            SwitchOrder::Awake(awake) => {
                let guest = self.first(move |switch, _| switch.awake(&awake));
                guest.and_then(|guest| self.attach(guest, report))
            }
            SwitchOrder::Prepare { rings, features } => {
                self.prepare(rings, features, client).map(done)
            }
            SwitchOrder::Detach(domain) => self.detach(domain, report),
            SwitchOrder::Sleep(sleeper) => self.sleep(*sleeper, client).map(done),
            SwitchOrder::Hold(name) => self.first(move |switch, _| switch.hold(&name)).map(done),
            SwitchOrder::Suspend(name) => self
                .first(move |switch, now| switch.suspend(&name, now))
                .map(done),
            SwitchOrder::Open(name) => self
                .first(move |switch, now| switch.open(&name, now))
                .map(done),
            SwitchOrder::Drop(name) => self
                .first(move |switch, _| switch.drop_held(&name))
                .map(done),
            SwitchOrder::Relay(name) => self.first(move |switch, _| switch.relay(&name)).map(done),
            SwitchOrder::Forget(name) => {
                self.first(move |switch, _| switch.forget(&name)).map(done)
            }
            SwitchOrder::Status => {
                let parts = self.each(|switch, _| switch.status());
                Ok(SwitchReply::Status(Box::new(SwitchStatus::merge(parts))))
            }
            SwitchOrder::Ended(domains) => {
                let parts = self.each(move |switch, _| switch.ended(&domains));
                Ok(SwitchReply::Ended(parts.concat()))
            }
            SwitchOrder::Frames => {
                let parts = self.each(|switch, _| switch.frames().collect::<Vec<_>>());
                Ok(SwitchReply::Frames(parts.concat()))
            }
            SwitchOrder::Dump {
                name,
                bounds,
                milliseconds,
            } => {
                let its = name.clone();
                match self.first(move |switch, _| switch.dump(&its, bounds)) {
                    Ok(()) => {
                        let length = milliseconds.saturating_mul(1_000_000);
                        self.recordings.push(Recording {
                            client,
                            name,
                            until: self.lane.now().saturating_add(length),
                        });
                        return None;
                    }
                    Err(error) => Err(error),
                }
            }
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

    fn attach(
        &mut self,
        guest: Guest,
        report: &mut dyn FnMut(&str),
    ) -> Result<SwitchReply, Refusal> {
        let links = self.links.iter();
        let mut link = links.filter(|(bridge, _)| *bridge == guest.bridge);
        let link = link.next().map(|(_, link)| link.clone());
        let domain = guest.rings.domain;
        if !self.workers.is_empty() {
            // Its own thread looks at its own guests only.
            for other in self.journal.known().guests.iter() {
                if other.rings.domain == domain {
                    return Err(Refusal::Taken("the domain"));
                }
                if other.name == guest.name {
                    return Err(Refusal::Taken("the name"));
                }
            }
        }
        // First the journal: if this switch is killed in between, the next one finds this guest or none.
        self.write(JournalEntry::Attach(Box::new(guest.clone())), report);
        match self.at(guest.mac, move |switch, now| switch.attach(guest, now)) {
            Ok(()) => Ok(SwitchReply::Attached {
                link: link.unwrap_or_default(),
            }),
            Err(error) => {
                let is_there = self
                    .each(move |switch, _| switch.guests().any(|one| one.rings.domain == domain));
                if !is_there.contains(&true) {
                    self.write(JournalEntry::Detach(domain), report);
                }
                Err(error)
            }
        }
    }

    fn detach(
        &mut self,
        domain: u16,
        report: &mut dyn FnMut(&str),
    ) -> Result<SwitchReply, Refusal> {
        if self.on(0, move |switch, _| switch.unprepare(domain)) {
            return Ok(SwitchReply::Done);
        }
        let detached = self.first(move |switch, _| switch.detach(domain));
        detached.map(|status| {
            self.write(JournalEntry::Detach(domain), report);
            SwitchReply::Detached(Box::new(status))
        })
    }

    /// With several threads, the MAC address decides which one has to map the rings, and that is not known yet.
    fn prepare(&mut self, rings: Rings, features: Features, client: u64) -> Result<(), Refusal> {
        match self.workers.is_empty() {
            true => self.on(0, move |switch, _| switch.prepare(&rings, features, client)),
            false => Err(Refusal::Threads),
        }
    }

    fn sleep(&mut self, sleeper: Sleeper, client: u64) -> Result<(), Refusal> {
        let home = queue_of(sleeper.mac, self.workers.len() + 1);
        for other in (0..=self.workers.len()).filter(|other| *other != home) {
            let name = sleeper.name.clone();
            if self.on(other, move |switch, _| switch.may_sleep(&name)) {
                return Err(Refusal::Taken("the name"));
            }
        }
        self.on(home, move |switch, _| switch.sleep(sleeper, client))
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
            let name = recording.name;
            let file = self.first(move |switch, _| switch.dumped(&name));
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

//! The maker: the process that has Xen's devices and makes guests. One thread of it polls everything and owns the machine of the
//! services; what takes long is done by others, and what strangers send is read by another process, the front.
//!
//! | what | where |
//! |---|---|
//! | what has happened becomes events, and actions are carried out | this file, `act.rs` |
//! | the front: how it is started, told and heard | `front.rs` |
//! | guests that run: are they heard, do they still live | `guests.rs` |
//! | the file, at the start and again at SIGHUP; guests of an earlier daemon | `setup.rs` |
//! | what it tells of itself | `report.rs` |

mod act;
mod bridges;
mod dom0;
mod front;
mod guests;
mod later;
mod report;
mod setup;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use super::bell;
use super::birth::Birth;
use super::cause::Cause;
use super::channel::{ToFront, Wake, Way};
use super::clock::Clock;
use super::config::{Config, Service};
use super::dns::Counts;
use super::fleet::{Action, Event, Fleet, Id, Prefix, State};
use super::log::{Level, line};
use super::maker::{Order, Told};
use super::names::Names;
use super::status::{Done, Frames, Request};
use super::wire::{Port, Witness};
use dom0::Ports;
use front::{Fronts, Listening, StatusSource};
use guests::Guest;
use later::Later;
use mayfly_links::Links;
use mayfly_switch::control::Connection;
use mayfly_toolstack::host;
use mayfly_toolstack::readable::ready;
use report::{Away, Kept};
pub use setup::Error;

/// How often guests that run are looked at.
const TICK: Duration = Duration::from_millis(200);
/// How long after something has happened the status tells of it.
const TELL: Duration = Duration::from_millis(100);
/// How long guests may take to go when the daemon ends with them.
const LAST: Duration = Duration::from_secs(60);

/// What is kept of a service beside its state.
struct Entry {
    service: Service,
    /// What has become of frames that came while it had no guest.
    frames: Frames,
    /// The birth that is under way, or the last one.
    birth: Option<Birth>,
    guest: Option<Guest>,
    /// DNS queries for its address.
    queries: u64,
    /// What its last guest had served when it was last asked.
    requests: Option<u64>,
}

/// The daemon.
pub struct Daemon {
    path: PathBuf,
    config: Config,
    ids: BTreeMap<String, Id>,
    next: u32,
    entries: BTreeMap<Id, Entry>,
    fleet: Fleet,
    actions: Vec<Action>,
    /// What a frame is read to.
    buffer: Vec<u8>,
    names: Names,
    /// DNS queries, as the fronts have counted them.
    queries: Counts,
    listening: Listening,
    fronts: Fronts,
    way: Way,
    clock: Clock,
    links: Box<dyn Ports>,
    /// What becomes of links.
    hears: Links,
    xen: Box<dyn host::Xen>,
    ports: BTreeMap<String, Port>,
    macs: BTreeMap<(String, [u8; 6]), Id>,
    /// Gone when the daemon ends: then the thread does.
    orders: Option<mpsc::Sender<Order>>,
    maker: Option<JoinHandle<()>>,
    told: bell::Receiver<Told>,
    signals: Signals,
    wakes: BTreeMap<Cause, u64>,
    kept: Arc<Mutex<Kept>>,
    status: StatusSource,
    /// What the administrator wants, and who waits for the answer.
    requests: bell::Receiver<Wanted>,
    requesting: bell::Sender<Wanted>,
    /// Guests that wait, made ahead.
    pool: usize,
    began: Instant,
    tick_at: Instant,
    /// When it is looked whether images and sites were replaced.
    files_at: Instant,
    /// When the status is written down again, as something has happened.
    tell_at: Option<Instant>,
    later: Later,
    /// For the next guest that goes on: it was opened when nobody waited.
    witness: Option<Witness>,
    /// Whether somebody has looked at the status since the guests were asked what they have served, and when they may be asked again.
    is_looked_at: Arc<AtomicBool>,
    count_at: Instant,
    /// The switch, once a guest was on it.
    switch: Option<Connection>,
    /// Who was turned away, as the log has it, and when it says so again.
    away: Away,
    complain_at: Instant,
    /// MiB that guests made ahead may have, as the maker knows it.
    room: u64,
    /// Whether the guests of an earlier daemon were found.
    is_searched: bool,
}

/// What the administrator wants, and where the answer goes.
struct Wanted {
    request: Request,
    done: mpsc::Sender<Done>,
}

/// What signals have been received, as descriptors that become readable.
struct Signals {
    reload: UnixStream,
    stop: UnixStream,
}

/// What may have something to read.
enum Source {
    Front,
    Witness(Id),
    Told,
    Requests,
    Links,
    Reload,
    Stop,
}

impl Daemon {
    /// Serves until SIGTERM or SIGINT. Guests stay, unless they are to be destroyed then.
    ///
    /// # Errors
    /// No front lasts. Guests stay.
    pub fn serve(&mut self, destroy: bool) -> Result<(), Error> {
        line(Level::Info, "ready")
            .with("services", self.entries.len())
            .write();
        loop {
            let (mut is_over, mut heard) = (false, Ok(()));
            for source in self.wait() {
                match source {
                    Source::Stop => is_over = true,
                    Source::Front => heard = heard.and_then(|()| self.hear_front()),
                    source => self.come(source),
                }
            }
            self.pass();
            self.carry_out();
            heard = heard.and_then(|()| self.mind_front());
            if is_over || heard.is_err() {
                self.end(destroy && heard.is_ok());
                return heard.map_err(Error::Front);
            }
        }
    }

    /// Waits until something has happened, or it is time.
    fn wait(&self) -> Vec<Source> {
        let read = |source, fd| (source, fd, PollFlags::IN);
        let mut sources = vec![
            read(Source::Told, self.told.as_fd()),
            read(Source::Requests, self.requests.as_fd()),
            read(Source::Reload, self.signals.reload.as_fd()),
            read(Source::Stop, self.signals.stop.as_fd()),
        ];
        if self.later.at().is_none() {
            sources.push(read(Source::Links, self.hears.as_fd()));
        }
        if let Some(front) = &self.fronts.current {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, self.way.is_waiting());
            sources.push((Source::Front, front.as_fd(), flags));
        }
        for (&id, entry) in &self.entries {
            if let Some(witness) = entry.guest.as_ref().and_then(Guest::witness) {
                sources.push(read(Source::Witness(id), witness.as_fd()));
            }
        }
        ready(sources, self.deadline()).unwrap_or_default()
    }

    fn deadline(&self) -> Option<Instant> {
        let has_guests = self.entries.values().any(|entry| entry.guest.is_some());
        let tick = has_guests.then_some(self.tick_at);
        let fleet = self.fleet.deadline();
        let deadlines = [tick, self.tell_at, self.later.at(), fleet];
        deadlines.into_iter().flatten().min()
    }

    /// Takes what has come.
    fn come(&mut self, source: Source) {
        self.is_news(Instant::now());
        match source {
            Source::Links => self.links_have_changed(),
            Source::Witness(id) => self.witness(id),
            Source::Told => {
                for told in self.told.take() {
                    self.told(told);
                }
            }
            Source::Requests => {
                for Wanted { request, done } in self.requests.take() {
                    // Who has asked may have gone.
                    let _ = done.send(self.request(&request));
                }
            }
            Source::Reload => {
                let _ = (&self.signals.reload).read(&mut [0; 16]);
                self.reload();
            }
            Source::Front | Source::Stop => {}
        }
        // What comes next may depend on it.
        self.carry_out();
    }

    /// Does what is due.
    fn pass(&mut self) {
        let now = Instant::now();
        if self.later.at().is_some_and(|at| at <= now) {
            self.catch_up();
        }
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.look_after_guests(now);
            self.look_at_files(now);
            self.count_requests(now);
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            self.tell();
        }
        if self.fleet.deadline().is_some_and(|at| at <= now) {
            self.step(now, Event::Time);
        }
    }

    /// Something has happened that the status has to tell.
    fn is_news(&mut self, now: Instant) {
        self.tell_at.get_or_insert(now + TELL);
    }

    fn step(&mut self, now: Instant, event: Event) {
        self.is_news(now);
        self.fleet.step(now, event, &mut self.actions);
    }

    /// Somebody wants a service. If there is a guest, or will be one, what he has sent is for that.
    fn wake(&mut self, wake: &Wake, at: Instant) {
        let id = wake.service;
        let has_guest = |fleet: &Fleet| fleet.takes(id) || fleet.holds(id);
        let was_there = has_guest(&self.fleet)
            || (self.fleet.unit(id)).is_some_and(|unit| matches!(unit.state, State::Running(_)));
        if !has_guest(&self.fleet) {
            self.step(at, Event::Wanted(id, Some(Prefix::from(wake.from))));
        }
        let is_woken = has_guest(&self.fleet);
        let is_born = is_woken && !was_there;
        if let Some(ticket) = wake.ticket {
            let decided = ToFront::Decided(ticket, is_woken);
            match is_born {
                // It goes with the news that the guest is there: the front has one message to read, and what it answers, or has held,
                // leads to the guest at once. The front is not kept waiting for longer than all else that is put off.
                true => self.way.put(&decided),
                false => self.way.say(&decided, None),
            }
        }
        if is_born {
            self.hurry(Instant::now());
            *self.wakes.entry(wake.cause).or_default() += 1;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.birth = Some(Birth::new(wake.cause, at));
            }
        }
        if is_born && let Some(entry) = self.entries.get(&id) {
            let (name, cause, from) = (entry.service.name.clone(), wake.cause, wake.from);
            self.note(move || {
                line(Level::Info, "woken")
                    .with("service", name)
                    .with("by", cause.name())
                    .with("from", from)
            });
        }
        self.carry_out();
        if is_born && wake.ticket.is_none() {
            // Nothing waits for a decision, but who has asked for the name comes soon: the front then knows that it is to hold what he sends.
            self.way.mark();
        }
    }

    fn birth(&mut self, id: Id) -> Option<&mut Birth> {
        self.entries.get_mut(&id)?.birth.as_mut()
    }

    fn end(&mut self, destroy: bool) {
        self.catch_up();
        if destroy {
            line(Level::Info, "ending, and all guests with it").write();
            for id in self.ids.clone().into_values() {
                self.fleet.leave(id, &mut self.actions);
            }
            let end = Instant::now() + LAST;
            self.carry_out();
            // Nobody is served any more; only what the maker says counts.
            while self.fleet.used().0 > 0 && Instant::now() < end {
                let told = [((), self.told.as_fd(), PollFlags::IN)];
                let _ = ready(told, Some(end));
                self.come(Source::Told);
            }
        } else {
            line(Level::Info, "ending; guests stay").write();
            // Nobody else would let them go on.
            let units = self.fleet.units();
            let suspended = units.filter(|(_, unit)| matches!(unit.state, State::Suspended(..)));
            let suspended: Vec<_> = suspended.map(|(id, unit)| (id, unit.domid())).collect();
            for (id, domid) in suspended {
                self.resume(id, domid.unwrap_or_default());
            }
        }
        self.fronts.current = None;
        self.orders = None;
        if let Some(maker) = self.maker.take() {
            // It removes the guests that were made ahead.
            let _ = maker.join();
        }
    }
}

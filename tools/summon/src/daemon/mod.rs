//! The daemon: one thread that polls everything and owns the machine of the services; what takes long is done by others.
//!
//! | what | where |
//! |---|---|
//! | what has happened becomes events, and actions are carried out | this file, `act.rs` |
//! | frames for services that sleep | `frames.rs` |
//! | guests that run: are they heard, do they still live | `guests.rs` |
//! | the file, at the start and again at SIGHUP; guests of an earlier daemon | `setup.rs` |
//! | what it tells of itself | `report.rs` |

mod act;
mod bridges;
mod frames;
mod guests;
mod report;
mod setup;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::asker::{Answer, Question};
use super::bell;
use super::birth::Birth;
use super::config::{Config, Service};
use super::dns::{self, Dns};
use super::fleet::{Action, Event, Fleet, Id, Prefix, State};
use super::held::Held;
use super::log::{Level, line};
use super::maker::{Order, Told};
use super::names::Names;
use super::status::{Done, Request};
use super::wire::Port;
use guests::Guest;
use mayfly_links::Links;
use mayfly_switch::control::Connection;
use mayfly_xen::Xen;
use report::{Away, Kept};

/// How often guests that run are looked at.
const TICK: Duration = Duration::from_millis(200);
/// How long after something has happened the status tells of it.
const TELL: Duration = Duration::from_millis(100);
/// How long guests may take to go when the daemon ends with them.
const LAST: Duration = Duration::from_secs(60);

/// Why a service was woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// A DNS query.
    Dns,
    /// An ARP request.
    Arp,
    /// A neighbour solicitation.
    Nd,
    /// A SYN.
    Syn,
    /// A UDP datagram.
    Udp,
    /// `hatch summon wake`, or `restart`.
    Command,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Dns,
        Self::Arp,
        Self::Nd,
        Self::Syn,
        Self::Udp,
        Self::Command,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Arp => "arp",
            Self::Nd => "nd",
            Self::Syn => "syn",
            Self::Udp => "udp",
            Self::Command => "command",
        }
    }
}

/// What is kept of a service beside its state.
struct Entry {
    service: Service,
    held: Held,
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
    dns: Dns,
    links: Links,
    /// What becomes of links.
    hears: Links,
    xen: Xen,
    ports: BTreeMap<String, Port>,
    macs: BTreeMap<(String, [u8; 6]), Id>,
    addresses: BTreeMap<(String, IpAddr), Id>,
    /// Gone when the daemon ends: then the thread does.
    orders: Option<mpsc::Sender<Order>>,
    maker: Option<JoinHandle<()>>,
    told: bell::Receiver<Told>,
    questions: mpsc::Sender<Question>,
    answers: bell::Receiver<Answer>,
    signals: Signals,
    wakes: BTreeMap<Cause, u64>,
    kept: Arc<Mutex<Kept>>,
    /// What the administrator wants, and who waits for the answer.
    requests: bell::Receiver<Wanted>,
    requesting: bell::Sender<Wanted>,
    /// Guests that wait, made ahead.
    pool: usize,
    began: Instant,
    tick_at: Instant,
    /// When the status is written down again, as something has happened.
    tell_at: Option<Instant>,
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
    Dns(dns::Source),
    Port(String),
    Witness(Id),
    Told,
    Answers,
    Requests,
    Links,
    Reload,
    Stop,
}

impl Daemon {
    /// Serves until SIGTERM or SIGINT. Guests stay, unless they are to be destroyed then.
    pub fn serve(&mut self, destroy: bool) {
        line(Level::Info, "ready")
            .with("services", self.entries.len())
            .write();
        loop {
            let mut is_over = false;
            for source in self.wait() {
                match source {
                    Source::Stop => is_over = true,
                    source => self.come(source),
                }
            }
            self.pass();
            self.carry_out();
            if is_over {
                break;
            }
        }
        self.end(destroy);
    }

    /// Waits until something has happened, or it is time.
    fn wait(&self) -> Vec<Source> {
        let mut sources = vec![
            Source::Told,
            Source::Answers,
            Source::Requests,
            Source::Links,
            Source::Reload,
            Source::Stop,
        ];
        let mut polled = vec![
            PollFd::from_borrowed_fd(self.told.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.answers.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.requests.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.hears.as_fd(), PollFlags::IN),
            PollFd::new(&self.signals.reload, PollFlags::IN),
            PollFd::new(&self.signals.stop, PollFlags::IN),
        ];
        for (bridge, port) in &self.ports {
            sources.push(Source::Port(bridge.clone()));
            polled.push(PollFd::new(port, PollFlags::IN));
        }
        for (&id, entry) in &self.entries {
            if let Some(witness) = entry.guest.as_ref().and_then(Guest::witness) {
                sources.push(Source::Witness(id));
                polled.push(PollFd::new(witness, PollFlags::IN));
            }
        }
        for (source, fd) in self.dns.sources() {
            let flags = match self.dns.is_writing(source) {
                true => PollFlags::OUT,
                false => PollFlags::IN,
            };
            sources.push(Source::Dns(source));
            polled.push(PollFd::from_borrowed_fd(fd, flags));
        }
        let timeout = self.deadline().map(|at| {
            let wait = at.saturating_duration_since(Instant::now());
            // Not a moment too early, or it would be looked again.
            Timespec::try_from(wait + Duration::from_millis(1)).unwrap_or_default()
        });
        if poll(&mut polled, timeout.as_ref()).is_err() {
            // Interrupted by a signal: whose descriptor is readable the next time.
            return Vec::new();
        }
        let ready = polled.iter().map(|fd| !fd.revents().is_empty());
        let ready = sources.into_iter().zip(ready);
        ready
            .filter_map(|(source, is)| is.then_some(source))
            .collect()
    }

    fn deadline(&self) -> Option<Instant> {
        let has_guests = self.entries.values().any(|entry| entry.guest.is_some());
        let tick = has_guests.then_some(self.tick_at);
        let fleet = self.fleet.deadline();
        let deadlines = [tick, self.tell_at, fleet, self.dns.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Takes what has come.
    fn come(&mut self, source: Source) {
        self.tell_at.get_or_insert_with(|| Instant::now() + TELL);
        match source {
            Source::Dns(source) => {
                let mut queries = Vec::new();
                self.dns.serve(source, &self.names, &mut queries);
                for query in queries {
                    if let Some(entry) = self.entries.get_mut(&query.service) {
                        entry.queries += 1;
                    }
                    self.wake(query.service, Cause::Dns, query.from, query.at);
                    if let Some(birth) = self.birth(query.service)
                        && birth.woken() == query.at
                    {
                        birth.span("answer", query.at, query.answered);
                    }
                }
            }
            Source::Port(bridge) => self.frames(&bridge),
            Source::Links => self.links_have_changed(),
            Source::Witness(id) => self.witness(id),
            Source::Told => {
                for told in self.told.take() {
                    self.told(told);
                }
            }
            Source::Answers => {
                for (id, said) in self.answers.take() {
                    self.asked(id, said);
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
            Source::Stop => {}
        }
        // What comes next may depend on it.
        self.carry_out();
    }

    /// Does what is due.
    fn pass(&mut self) {
        let now = Instant::now();
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.look_after_guests(now);
            self.count_requests(now);
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            self.tell();
        }
        if self.fleet.deadline().is_some_and(|at| at <= now) {
            self.step(now, Event::Time);
        }
        if self.dns.deadline().is_some_and(|at| at <= now) {
            self.dns.expire(&self.names);
        }
    }

    fn step(&mut self, now: Instant, event: Event) {
        self.tell_at.get_or_insert(now + TELL);
        self.fleet.step(now, event, &mut self.actions);
    }

    /// Somebody wants a service; whether there is a guest, or will be one.
    fn wake(&mut self, id: Id, cause: Cause, from: IpAddr, at: Instant) -> bool {
        if self.fleet.takes(id) || self.fleet.holds(id) {
            return true;
        }
        let unit = self.fleet.unit(id);
        let is_there = unit.is_some_and(|unit| matches!(unit.state, State::Running(_)));
        self.step(at, Event::Wanted(id, Some(Prefix::from(from))));
        if is_there {
            // It was about to go.
            self.carry_out();
            return true;
        }
        let is_woken = self.fleet.takes(id) || self.fleet.holds(id);
        if is_woken {
            *self.wakes.entry(cause).or_default() += 1;
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.birth = Some(Birth::new(cause, at));
            }
            // First what somebody waits for.
            self.carry_out();
            if let Some(entry) = self.entries.get(&id) {
                line(Level::Info, "woken")
                    .with("service", &entry.service.name)
                    .with("by", cause.name())
                    .with("from", from)
                    .write();
            }
        }
        is_woken
    }

    fn birth(&mut self, id: Id) -> Option<&mut Birth> {
        self.entries.get_mut(&id)?.birth.as_mut()
    }

    fn end(&mut self, destroy: bool) {
        if destroy {
            line(Level::Info, "ending, and all guests with it").write();
            for id in self.ids.clone().into_values() {
                self.fleet.leave(id, &mut self.actions);
            }
            let end = Instant::now() + LAST;
            self.carry_out();
            // Nobody is served any more; only what the maker says counts.
            while self.fleet.used().0 > 0
                && let Some(left) = end.checked_duration_since(Instant::now())
            {
                let mut told = [PollFd::from_borrowed_fd(self.told.as_fd(), PollFlags::IN)];
                let left = Timespec::try_from(left).unwrap_or_default();
                let _ = poll(&mut told, Some(&left));
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
        self.orders = None;
        if let Some(maker) = self.maker.take() {
            // It removes the guests that were made ahead.
            let _ = maker.join();
        }
    }
}

//! The maker: the process that has Xen's devices and makes guests. One of its threads polls everything and owns the
//! services' states. Other threads do what takes long, and another process, the front, reads the input of strangers.
//!
//! | task | file |
//! |---|---|
//! | turns input into events and carries out actions | this file, `act.rs` |
//! | starts the front, and exchanges messages with it | `front.rs` |
//! | supervises running guests | `guests.rs` |
//! | services whose guests are on the switch | `switched.rs` |
//! | the back ends of services whose file names none | `back_ends.rs` |
//! | reads the file, at the start and at SIGHUP; finds guests of an earlier daemon | `setup.rs` |
//! | reports the status | `report.rs` |

mod act;
mod back_ends;
mod bridges;
mod dom0;
mod error;
mod front;
mod guests;
mod later;
mod report;
mod setup;
mod switched;
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
use super::cause::WakeCause;
use super::channel::{FrontSender, ToFront, Wake};
use super::clock::Clock;
use super::config::{Service, SummonConfig};
use super::dns::QueryCounts;
use super::fleet::{Fleet, FleetAction, FleetEvent, Prefix, ServiceId, ServiceState};
use super::log::{Level, line};
use super::maker::{MakerOrder, MakerReport};
use super::names::Names;
use super::status::{CommandResult, FrameCounts, ServiceCommand};
use super::wire::{BridgePort, Witness};
use back_ends::BackEnds;
use dom0::Ports;
pub use error::DaemonError;
use front::{Fronts, Listening, StatusSource};
use guests::RunningGuest;
use later::Later;
use mayfly_links::Links;
use mayfly_switch::control::SwitchConnection;
use mayfly_toolstack::host;
use mayfly_toolstack::readable::ready;
use report::{Away, Kept};
use switched::Switched;

/// The time between two checks of running guests.
const TICK: Duration = Duration::from_millis(200);
/// The delay of the status after an event.
const TELL: Duration = Duration::from_millis(100);
/// The time for removing all guests when the daemon ends with them.
const LAST: Duration = Duration::from_secs(60);

/// A service without its state, which is in the fleet.
struct ServiceEntry {
    /// Shared with the thread that makes its guests.
    service: Arc<Service>,
    /// Counters of frames that came while it had no guest.
    frames: FrameCounts,
    /// The present or last birth.
    birth: Option<Birth>,
    guest: Option<RunningGuest>,
    /// DNS queries for its address.
    queries: u64,
    /// The number of requests that its last guest had served when it was last asked.
    requests: Option<u64>,
    /// The domain of its new guest, if that was heard before it was known.
    heard: Option<u16>,
}

/// The daemon.
pub struct Daemon {
    path: PathBuf,
    config: SummonConfig,
    ids: BTreeMap<String, ServiceId>,
    next: u32,
    entries: BTreeMap<ServiceId, ServiceEntry>,
    fleet: Fleet,
    actions: Vec<FleetAction>,
    /// The buffer for a frame.
    buffer: Vec<u8>,
    names: Names,
    /// DNS queries, as the fronts have counted them.
    queries: QueryCounts,
    listening: Listening,
    fronts: Fronts,
    way: FrontSender,
    clock: Clock,
    links: Box<dyn Ports>,
    /// The kernel's events about links.
    link_events: Links,
    xen: Box<dyn host::Xen>,
    ports: BTreeMap<String, BridgePort>,
    macs: BTreeMap<(String, [u8; 6]), ServiceId>,
    /// The orders to the maker's other thread. Dropped when the daemon ends, which ends the thread.
    orders: Option<mpsc::Sender<MakerOrder>>,
    maker: Option<JoinHandle<()>>,
    told: bell::BellReceiver<MakerReport>,
    signals: Signals,
    wakes: BTreeMap<WakeCause, u64>,
    kept: Arc<Mutex<Kept>>,
    status: StatusSource,
    /// The administrator's commands, with the channels for the answers.
    requests: bell::BellReceiver<PendingCommand>,
    requesting: bell::BellSender<PendingCommand>,
    /// The number of guests in the pool.
    pool: usize,
    began: Instant,
    tick_at: Instant,
    /// The time of the next check of images and sites.
    files_at: Instant,
    /// The time at which the status is recorded again, after an event.
    tell_at: Option<Instant>,
    later: Later,
    /// A packet socket for the next guest that is unpaused, opened before it is needed.
    witness: Option<Witness>,
    /// Whether the status was read since the guests were last asked for their counters.
    is_looked_at: Arc<AtomicBool>,
    count_at: Instant,
    /// The connection for questions to the switch, once a guest was on it.
    switch: Option<SwitchConnection>,
    /// The connection for the notices of the switch, as long as there are services on it.
    switched: Switched,
    back_ends: BackEnds,
    /// The refused clients that were logged, and the time of the next such line.
    away: Away,
    complain_at: Instant,
    /// The memory for guests made ahead that the other thread was told, in MiB.
    room: u64,
    /// Whether the guests of an earlier daemon were found.
    is_searched: bool,
}

/// A command of the administrator, with the channel for the answer.
struct PendingCommand {
    request: ServiceCommand,
    done: mpsc::Sender<CommandResult>,
}

/// Received signals, as descriptors that become readable.
struct Signals {
    reload: UnixStream,
    stop: UnixStream,
}

/// A source of input.
enum Source {
    Front,
    Witness(ServiceId),
    Switch,
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
    /// Too many fronts in a row have ended. Guests stay.
    pub fn serve(&mut self, destroy: bool) -> Result<(), DaemonError> {
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
                return heard.map_err(DaemonError::Front);
            }
        }
    }

    /// Waits for input or the next deadline.
    fn wait(&self) -> Vec<Source> {
        let read = |source, fd| (source, fd, PollFlags::IN);
        let mut sources = vec![
            read(Source::Told, self.told.as_fd()),
            read(Source::Requests, self.requests.as_fd()),
            read(Source::Reload, self.signals.reload.as_fd()),
            read(Source::Stop, self.signals.stop.as_fd()),
        ];
        if self.later.at().is_none() {
            sources.push(read(Source::Links, self.link_events.as_fd()));
        }
        if let Some(front) = &self.fronts.current {
            let mut flags = PollFlags::IN;
            flags.set(PollFlags::OUT, self.way.is_waiting());
            sources.push((Source::Front, front.as_fd(), flags));
        }
        if let Some(notices) = &self.switched.notices {
            sources.push(read(Source::Switch, notices.as_fd()));
        }
        for (&id, entry) in &self.entries {
            if let Some(witness) = entry.guest.as_ref().and_then(RunningGuest::witness) {
                sources.push(read(Source::Witness(id), witness.as_fd()));
            }
        }
        ready(sources, self.deadline()).unwrap_or_default()
    }

    fn deadline(&self) -> Option<Instant> {
        let has_guests = self.entries.values().any(|entry| entry.guest.is_some());
        let misses_switch = self.switched.notices.is_none()
            && self.entries.values().any(ServiceEntry::is_on_switch);
        let tick = (has_guests || misses_switch).then_some(self.tick_at);
        let fleet = self.fleet.deadline();
        let deadlines = [tick, self.tell_at, self.later.at(), fleet];
        deadlines.into_iter().flatten().min()
    }

    /// Reads the input of a source.
    fn come(&mut self, source: Source) {
        self.is_news(Instant::now());
        match source {
            Source::Links => self.links_have_changed(),
            Source::Witness(id) => self.witness(id),
            Source::Switch => self.hear_switch(),
            Source::Told => {
                for told in self.told.take() {
                    self.told(told);
                }
            }
            Source::Requests => {
                for PendingCommand { request, done } in self.requests.take() {
                    // The client may be gone.
                    let _ = done.send(self.request(&request));
                }
            }
            Source::Reload => {
                let _ = (&self.signals.reload).read(&mut [0; 16]);
                self.reload();
            }
            Source::Front | Source::Stop => {}
        }
        // The next input may depend on these actions.
        self.carry_out();
    }

    /// Does the work that is due.
    fn pass(&mut self) {
        let now = Instant::now();
        if self.later.at().is_some_and(|at| at <= now) {
            self.catch_up();
        }
        if now >= self.tick_at {
            self.tick_at = now + TICK;
            self.look_after_guests(now);
            self.look_at_files(now);
            self.meet_switch();
            self.count_requests(now);
        }
        if self.tell_at.is_some_and(|at| at <= now) {
            self.tell_at = None;
            self.tell();
            self.publish_switched();
        }
        if self.fleet.deadline().is_some_and(|at| at <= now) {
            self.step(now, FleetEvent::Time);
        }
    }

    /// Schedules a new record of the status, after an event.
    fn is_news(&mut self, now: Instant) {
        self.tell_at.get_or_insert(now + TELL);
    }

    fn step(&mut self, now: Instant, event: FleetEvent) {
        self.is_news(now);
        self.fleet.step(now, event, &mut self.actions);
    }

    /// Handles a wake. If there is a guest, or will be one, the client's packet is for it.
    fn wake(&mut self, wake: &Wake, at: Instant) {
        let id = wake.service;
        let has_guest = |fleet: &Fleet| fleet.takes(id) || fleet.holds(id);
        let was_there = has_guest(&self.fleet)
            || (self.fleet.unit(id))
                .is_some_and(|unit| matches!(unit.state, ServiceState::Running(_)));
        if !has_guest(&self.fleet) {
            self.step(at, FleetEvent::Wanted(id, Some(Prefix::from(wake.from))));
        }
        let is_woken = has_guest(&self.fleet);
        let is_born = is_woken && !was_there;
        if let Some(ticket) = wake.ticket {
            let decided = ToFront::Decided(ticket, is_woken);
            match is_born {
                // The decision goes together with the news that the guest is there, so that the front has one packet to
                // read and sends the held frames at once. It waits no longer than other postponed work.
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
            // No frame waits for this decision. But the client that has asked for the name will send one soon, and by
            // then the front should know that it has to hold it.
            self.way.mark();
        }
    }

    fn birth(&mut self, id: ServiceId) -> Option<&mut Birth> {
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
            // Only the other thread's reports are handled any more.
            while self.fleet.used().0 > 0 && Instant::now() < end {
                let told = [((), self.told.as_fd(), PollFlags::IN)];
                let _ = ready(told, Some(end));
                self.come(Source::Told);
            }
        } else {
            line(Level::Info, "ending; guests stay").write();
            // Paused guests are unpaused, because no one else would do that.
            let units = self.fleet.units();
            let suspended =
                units.filter(|(_, unit)| matches!(unit.state, ServiceState::Suspended(..)));
            let suspended: Vec<_> = suspended.map(|(id, unit)| (id, unit.domid())).collect();
            for (id, domid) in suspended {
                self.resume(id, domid.unwrap_or_default());
            }
        }
        self.fronts.current = None;
        self.orders = None;
        if let Some(maker) = self.maker.take() {
            // The thread removes the guests that were made ahead.
            let _ = maker.join();
        }
    }
}

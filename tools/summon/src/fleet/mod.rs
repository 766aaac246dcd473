//! What becomes of each service: a pure machine of (state, event, time) to actions. It does no I/O and knows no clock.
//!
//! ```text
//!                 wanted                made                  heard
//!  ┌─► asleep ──────────► being born ─────────► proving ─────────────► running ─┐
//!  │     │ ▲  no room ▲        │ failed            │ silent, ended         │    │ quiet, no connection
//!  │     ▼ │          │        ▼                   ▼                       ▼    ▼
//!  │    queued ───────┘   backed off ◄──────────── dying ◄──────────────────────┘
//!  └───────────────────────────┴───────────────────┘
//! ```
//!
//! A guest that is to be suspended goes from running to suspended, and back as soon as it is wanted; it dies when others need its room.
//!
//! Births are limited: for each network of clients, altogether by time, and by how many guests and how much memory there may be. Who is over
//! the first limit is refused; who is over the others waits in a queue that serves the networks in turn.

mod limits;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::channel::Stance;
use super::config::{Asleep, Limits};
pub use limits::Prefix;
use limits::{Bucket, Prefixes, Queue, Rate};
pub use unit::{After, Running, State, Unit};

/// How long after a guest was asked for its connections, and had some or did not answer, it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long it is looked whether somebody has come to a guest between its answer, that it has no connections, and the moment from which
/// on nothing has reached it any more.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Why a guest goes whose image or site was replaced.
const OUTDATED: &str = "its image or its site was replaced";

/// A service. It means the same one as long as the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id(pub u32);

/// What is to be known of a service here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// MiB of memory.
    pub memory: u64,
    /// It goes to sleep when it has been quiet for so long, and has no connections.
    pub idle: Duration,
    /// And after so long in any case, if there is such a limit.
    pub idle_hard: Option<Duration>,
    /// A guest that runs has to be heard of in this time.
    pub start_timeout: Duration,
    /// No guest lives for longer, if there is such a limit.
    pub lifetime: Option<Duration>,
    /// What becomes of it then.
    pub asleep: Asleep,
    /// Whether it sleeps at all.
    pub on_demand: bool,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants the service. Nobody in particular when it is the daemon itself.
    Wanted(Id, Option<Prefix>),
    /// Its guest was made, and runs.
    Made(Id, u16),
    /// It could not be made, and nothing of it is there.
    NotMade(Id, String),
    /// Its guest has sent something.
    Heard(Id),
    /// How many connections its guest has; nothing when it does not say.
    Connections(Id, Option<u32>),
    /// Its guest has ended by itself; whether that is a failure, and what happened.
    Ended(Id, bool, String),
    /// Its guest was removed; what is left of it, if anything.
    Removed(Id, Option<String>),
    /// A guest of it was found, and runs.
    Found(Id, u16),
    /// Time has passed.
    Time,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a guest.
    Make(Id),
    /// Take what is sent to it, and remove its guest.
    Remove(Id, u16),
    /// Take what is sent to it, and have its guest stand still.
    Suspend(Id, u16),
    /// Let its guest go on.
    Resume(Id, u16),
    /// Take what is sent to it, though its guest runs.
    Shut(Id),
    /// Give to its guest what was taken, and what comes.
    Open(Id),
    /// Ask its guest for its connections.
    Ask(Id),
    /// Nobody will be there for what is held of it.
    Drop(Id),
    /// Somebody should know.
    Tell(Id, Tell),
    /// It is not a service any more, and nothing of it is left.
    Gone(Id),
}

/// What the administrator wants of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// A guest, even if it has failed lately.
    Wake,
    /// Sleep, whoever is connected.
    Sleep,
    /// A new guest in place of the one there is, or a first one.
    Restart,
}

impl Command {
    /// As it is written everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Sleep => "sleep",
            Self::Restart => "restart",
        }
    }
}

/// What somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It waits for others.
    Queued,
    /// Its guest is there, and was heard.
    Up,
    /// Its guest goes, and why.
    Down(&'static str),
    /// It is asleep.
    Asleep,
    /// It is asleep, and its guest stands still.
    Suspended,
    /// Its guest goes on.
    Resumed,
    /// It does not come up: why, and how long nobody tries.
    Failed(String, Duration),
}

/// Why somebody does not get a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Their network has had too many.
    pub prefix: u64,
    /// Too many wait.
    pub queue: u64,
    /// The service has failed.
    pub backed_off: u64,
}

/// All services.
pub struct Fleet {
    units: BTreeMap<Id, Unit>,
    limits: Limits,
    births: Bucket,
    prefixes: Prefixes,
    queue: Queue<Id>,
    /// When the queue has to be looked at again, if only time is in its way.
    pump_at: Option<Instant>,
    /// Who did not get a guest.
    pub refused: Refused,
}

impl Fleet {
    /// No services.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            units: BTreeMap::new(),
            limits,
            births: Bucket::FULL,
            prefixes: Prefixes::new(),
            queue: Queue::new(),
            pump_at: None,
            refused: Refused::default(),
        }
    }

    /// Changes the limits.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Adds a service, which is asleep.
    pub fn add(&mut self, id: Id, spec: Spec) {
        self.units.insert(id, Unit::new(spec));
    }

    /// Changes a service. `is_other` when a guest of the old one is no guest of the new one.
    pub fn change(&mut self, id: Id, spec: Spec, is_other: bool, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.spec = spec;
        unit.leaving = false;
        if is_other {
            unit.is_old = unit.state == State::BeingBorn;
            self.end(id, "it was changed", actions);
        }
    }

    /// A service's guest is of files that were replaced, and goes as soon as nobody uses it.
    pub fn outdate(&mut self, id: Id, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        match unit.state {
            State::Suspended(domid, _) => {
                unit.remove(id, domid, After::Sleep, OUTDATED, actions);
            }
            State::Proving(..) | State::Running(_) => unit.is_outdated = true,
            // The next one is of the new ones.
            _ => {}
        }
    }

    /// Removes a service. What there is of it is removed first.
    pub fn leave(&mut self, id: Id, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.leaving = true;
        self.end(id, "it is not a service any more", actions);
        if let Some(unit) = self.units.get(&id)
            && matches!(unit.state, State::Asleep | State::BackedOff(_))
        {
            self.units.remove(&id);
            actions.push(Action::Gone(id));
        }
    }

    /// Ends a service's guest, or its wait for one.
    pub fn end(&mut self, id: Id, why: &'static str, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        match unit.state {
            State::Queued => {
                self.queue.remove(&id);
                unit.state = State::Asleep;
                actions.push(Action::Drop(id));
            }
            State::BackedOff(_) => unit.state = State::Asleep,
            State::Proving(domid, _)
            | State::Running(Running { domid, .. })
            | State::Suspended(domid, _) => {
                unit.remove(id, domid, After::Sleep, why, actions);
            }
            // One that is being made is looked at when it is made.
            State::Asleep | State::BeingBorn | State::Dying(_) => {}
        }
    }

    /// A service.
    #[must_use]
    pub fn unit(&self, id: Id) -> Option<&Unit> {
        self.units.get(&id)
    }

    /// All services.
    pub fn units(&self) -> impl Iterator<Item = (Id, &Unit)> {
        self.units.iter().map(|(&id, unit)| (id, unit))
    }

    /// Whether what is sent to a service is to be held: there will be a guest for it.
    #[must_use]
    pub fn holds(&self, id: Id) -> bool {
        let state = self.units.get(&id).map(|unit| unit.state);
        matches!(
            state,
            Some(State::Queued | State::BeingBorn | State::Dying(After::Birth(_)))
        )
    }

    /// Whether a service's guest takes by itself what is sent to it.
    #[must_use]
    pub fn takes(&self, id: Id) -> bool {
        let state = self.units.get(&id).map(|unit| unit.state);
        match state {
            Some(State::Proving(..)) => true,
            Some(State::Running(running)) => !running.leaves(),
            _ => false,
        }
    }

    /// How the front is to stand to a service.
    #[must_use]
    pub fn stance(&self, id: Id) -> Stance {
        let state = self.units.get(&id).map(|unit| unit.state);
        match state {
            _ if self.holds(id) => Stance::Holds,
            _ if self.takes(id) => Stance::Takes,
            // Whether somebody wants what leaves is to be seen yet.
            Some(State::Running(running)) if running.leaves() => Stance::Leaves,
            _ => Stance::Sleeps,
        }
    }

    /// Does what the administrator wants.
    ///
    /// # Errors
    /// Why it can't be done.
    pub fn command(
        &mut self,
        now: Instant,
        id: Id,
        command: Command,
        actions: &mut Vec<Action>,
    ) -> Result<(), &'static str> {
        let unit = self.units.get_mut(&id).filter(|unit| !unit.leaving);
        let unit = unit.ok_or("it is not a service any more")?;
        if let State::BackedOff(_) = unit.state
            && command != Command::Sleep
        {
            unit.row = 0;
            unit.state = State::Asleep;
        }
        match (command, unit.state) {
            (Command::Sleep, _) if !unit.spec.on_demand => {
                return Err("it never sleeps (on_demand = false)");
            }
            // It sleeps as soon as it is made; and one that is being made is new.
            (Command::Sleep, State::BeingBorn) => unit.is_old = true,
            (Command::Restart, State::BeingBorn) => {}
            (Command::Sleep, State::Dying(After::Birth(_))) => {
                unit.state = State::Dying(After::Sleep);
            }
            (Command::Sleep, State::Suspended(..)) => {}
            (Command::Sleep, State::Running(Running { domid, .. })) => {
                unit.sleep(now, id, domid, actions);
            }
            (Command::Sleep, _) => self.end(id, "it was told to sleep", actions),
            (Command::Restart, _) => match unit.domid() {
                Some(domid) => {
                    unit.remove(id, domid, After::Birth(None), "restart", actions);
                }
                None => self.wanted(now, id, None, actions),
            },
            (Command::Wake, _) => self.wanted(now, id, None, actions),
        }
        self.pump(now, actions);
        Ok(())
    }

    /// Goes on with what has happened.
    pub fn step(&mut self, now: Instant, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Wanted(id, prefix) => self.wanted(now, id, prefix, actions),
            Event::Made(id, domid) => self.made(now, id, domid, actions),
            Event::NotMade(id, why) => self.not_made(now, id, why, actions),
            Event::Heard(id) => self.heard(now, id, actions),
            Event::Connections(id, open) => self.connections(now, id, open, actions),
            Event::Ended(id, is_failure, what) => self.ended(now, id, is_failure, what, actions),
            Event::Removed(id, trouble) => self.removed(now, id, trouble, actions),
            Event::Found(id, domid) => {
                if let Some(unit) = self.units.get_mut(&id)
                    && unit.state == State::Asleep
                {
                    unit.state = State::Running(Running::new(domid, now));
                    unit.is_outdated = false;
                }
            }
            Event::Time => {
                let ids: Vec<Id> = self.units.keys().copied().collect();
                for id in ids {
                    self.passed(now, id, actions);
                }
            }
        }
        self.pump(now, actions);
    }

    fn wanted(&mut self, now: Instant, id: Id, prefix: Option<Prefix>, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id).filter(|unit| !unit.leaving) else {
            return;
        };
        match unit.state {
            State::Asleep | State::Dying(After::Sleep) => {}
            // It costs nobody anything.
            State::Suspended(domid, _) => {
                unit.resumes += 1;
                unit.state = State::Running(Running::new(domid, now));
                actions.extend([Action::Resume(id, domid), Action::Tell(id, Tell::Resumed)]);
                return;
            }
            State::Running(_) => return unit.stay(now, id, actions),
            State::BackedOff(_) | State::Dying(After::BackOff) => {
                self.refused.backed_off += 1;
                return;
            }
            _ => return,
        }
        let rate = Rate {
            each: Duration::from_secs(10) / self.limits.births_per_prefix.max(1),
            burst: self.limits.births_per_prefix,
        };
        if let Some(prefix) = prefix
            && !self.prefixes.take(prefix, rate, now)
        {
            self.refused.prefix += 1;
            return;
        }
        if unit.state != State::Asleep {
            unit.state = State::Dying(After::Birth(prefix));
        } else if self.queue.len() < self.limits.queue {
            unit.state = State::Queued;
            self.queue.push(prefix, id);
            // Most often only for a moment: until the event is done with.
            self.pump(now, actions);
            if self.units.get(&id).map(|unit| unit.state) == Some(State::Queued) {
                actions.push(Action::Tell(id, Tell::Queued));
            }
        } else {
            self.refused.queue += 1;
        }
    }

    /// Makes guests for who waits, as far as there is room.
    fn pump(&mut self, now: Instant, actions: &mut Vec<Action>) {
        self.pump_at = None;
        while let Some(&id) = self.queue.front() {
            let (guests, memory) = self.used();
            let need = self.units.get(&id).map_or(0, |unit| unit.spec.memory);
            if guests >= self.limits.running || memory + need > self.limits.memory {
                self.make_room(now, actions);
                return;
            }
            let rate = Rate {
                each: Duration::from_secs(1) / self.limits.births_per_second.max(1),
                burst: self.limits.burst,
            };
            if let Err(later) = self.births.take(rate, now) {
                self.pump_at = Some(later);
                return;
            }
            self.queue.pop();
            if let Some(unit) = self.units.get_mut(&id) {
                unit.state = State::BeingBorn;
                actions.push(Action::Make(id));
            }
        }
    }

    /// Makes room for who waits, if nobody is on the way out already: the guest goes that has been suspended longest; without one,
    /// the guest that has run longest, if it has had its turn. Otherwise one that sends something again and again, for whatever
    /// reason, would keep its place for ever.
    fn make_room(&mut self, now: Instant, actions: &mut Vec<Action>) {
        let is_dying = |unit: &Unit| matches!(unit.state, State::Dying(_));
        if self.units.values().any(is_dying) {
            return;
        }
        let suspended = self
            .units
            .iter()
            .filter_map(|(&id, unit)| match unit.state {
                State::Suspended(_, since) => Some((since, id)),
                _ => None,
            });
        if let Some((_, id)) = suspended.min() {
            return self.end(id, "others need the room", actions);
        }
        let running = self
            .units
            .iter()
            .filter_map(|(&id, unit)| match unit.state {
                State::Running(running) if unit.spec.on_demand => Some((running.since, id)),
                _ => None,
            });
        if let Some((since, id)) = running.min() {
            let until = since + self.limits.turn;
            if until <= now {
                self.end(id, "others wait, and it has had its turn", actions);
            } else {
                self.pump_at = Some(until);
            }
        }
    }

    /// Guests, and MiB of memory that they have.
    #[must_use]
    pub fn used(&self) -> (usize, u64) {
        let there = self.units.values().filter(|unit| unit.has_guest());
        there.fold((0, 0), |(guests, memory), unit| {
            (guests + 1, memory + unit.spec.memory)
        })
    }

    fn made(&mut self, now: Instant, id: Id, domid: u16, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.births += 1;
        unit.is_outdated = false;
        unit.state = State::Proving(domid, now);
        if unit.leaving || std::mem::take(&mut unit.is_old) {
            self.end(id, "it was changed meanwhile", actions);
        }
    }

    fn not_made(&mut self, now: Instant, id: Id, why: String, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.is_old = false;
        if unit.leaving {
            self.units.remove(&id);
            actions.extend([Action::Drop(id), Action::Gone(id)]);
        } else {
            unit.fail(now, id, why, actions);
        }
    }

    fn heard(&mut self, now: Instant, id: Id, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        match &mut unit.state {
            State::Proving(domid, _) => {
                unit.state = State::Running(Running::new(*domid, now));
                actions.push(Action::Tell(id, Tell::Up));
            }
            State::Running(_) => unit.stay(now, id, actions),
            _ => {}
        }
    }

    fn connections(&mut self, now: Instant, id: Id, open: Option<u32>, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let State::Running(running) = &mut unit.state else {
            return;
        };
        // Who was heard meanwhile is not quiet any more.
        if running.asked.is_none() || running.leaves.is_some() {
            return;
        }
        let (domid, was_heard) = (running.domid, running.heard > running.since);
        match open {
            Some(1..) => running.asked = Some(now),
            // It went on, and nothing was heard of it: perhaps it can't.
            None if unit.spec.asleep == Asleep::Suspend && !was_heard => {
                unit.remove(id, domid, After::Sleep, "it is silent", actions);
            }
            Some(0) | None => {
                running.leaves = Some(now);
                actions.push(Action::Shut(id));
            }
        }
    }

    fn ended(
        &mut self,
        now: Instant,
        id: Id,
        is_failure: bool,
        what: String,
        actions: &mut Vec<Action>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let Some(domid) = unit.domid() else {
            return;
        };
        let after = if is_failure {
            unit.trouble = Some(what);
            After::BackOff
        } else {
            After::Sleep
        };
        unit.settle(now);
        unit.remove(id, domid, after, "it has ended", actions);
    }

    fn removed(
        &mut self,
        now: Instant,
        id: Id,
        trouble: Option<String>,
        actions: &mut Vec<Action>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let State::Dying(after) = unit.state else {
            return;
        };
        unit.deaths += 1;
        let has_failed = trouble.is_some() || after == After::BackOff;
        unit.trouble = trouble.or(unit.trouble.take());
        unit.state = State::Asleep;
        if unit.leaving {
            self.units.remove(&id);
            actions.push(Action::Drop(id));
            actions.push(Action::Gone(id));
            return;
        }
        match after {
            _ if has_failed => {
                let why = unit.trouble.clone().unwrap_or_default();
                unit.fail(now, id, why, actions);
            }
            After::Birth(prefix) => {
                unit.state = State::Queued;
                self.queue.push(prefix, id);
            }
            After::Sleep | After::BackOff => actions.push(Action::Tell(id, Tell::Asleep)),
        }
        self.again(now, id, actions);
    }

    /// What never sleeps is wanted at once.
    fn again(&mut self, now: Instant, id: Id, actions: &mut Vec<Action>) {
        if let Some(unit) = self.units.get(&id)
            && !unit.spec.on_demand
            && unit.state == State::Asleep
        {
            self.wanted(now, id, None, actions);
        }
    }

    fn passed(&mut self, now: Instant, id: Id, actions: &mut Vec<Action>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.settle(now);
        match &mut unit.state {
            State::BackedOff(until) if *until <= now => {
                unit.state = State::Asleep;
                self.again(now, id, actions);
            }
            State::Proving(domid, since)
                if now.duration_since(*since) >= unit.spec.start_timeout =>
            {
                let domid = *domid;
                let silence = unit.spec.start_timeout;
                unit.trouble = Some(format!("its guest said nothing for {silence:?}"));
                unit.remove(id, domid, After::BackOff, "it is silent", actions);
            }
            State::Running(running)
                if unit
                    .spec
                    .lifetime
                    .is_some_and(|most| now.duration_since(running.since) >= most) =>
            {
                let domid = running.domid;
                unit.remove(id, domid, After::Sleep, "its lifetime is over", actions);
            }
            State::Running(running) if unit.spec.on_demand || unit.is_outdated => {
                let hard = unit.spec.idle_hard.filter(|_| unit.spec.on_demand);
                let quiet = now.duration_since(running.heard);
                let domid = running.domid;
                if let Some(since) = running.leaves {
                    if now.duration_since(since) >= LAST_LOOK {
                        // Of connections that are no more.
                        actions.push(Action::Drop(id));
                        unit.sleep(now, id, domid, actions);
                    }
                } else if hard.is_some_and(|hard| quiet >= hard) {
                    unit.remove(id, domid, After::Sleep, "quiet for too long", actions);
                } else if quiet >= unit.spec.idle
                    && running
                        .asked
                        .is_none_or(|asked| now.duration_since(asked) >= ASK_AGAIN)
                {
                    running.asked = Some(now);
                    actions.push(Action::Ask(id));
                }
            }
            _ => {}
        }
    }

    /// When time has to be told next, whatever happens until then.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let units = self.units.values().filter_map(Unit::deadline);
        units.chain(self.pump_at).min()
    }
}

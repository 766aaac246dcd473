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

mod event;
mod limits;
mod queue;
mod step;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::channel::Stance;
use super::config::Limits;
pub use event::{Action, Command, Event, Id, Refused, Spec, Tell};
pub use limits::Prefix;
use limits::{Bucket, Prefixes, Queue};
pub use unit::{After, Running, State, Unit};

/// How long after a guest was asked for its connections, and had some or did not answer, it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long it is looked whether somebody has come to a guest between its answer, that it has no connections, and the moment from which
/// on nothing has reached it any more.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// Why a guest goes whose image or site was replaced.
const OUTDATED: &str = "its image or its site was replaced";

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

    /// Whether a service's guest runs, and was heard.
    #[must_use]
    pub fn runs(&self, id: Id) -> bool {
        let state = self.units.get(&id).map(|unit| unit.state);
        matches!(state, Some(State::Running(_)))
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

    /// When time has to be told next, whatever happens until then.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let units = self.units.values().filter_map(Unit::deadline);
        units.chain(self.pump_at).min()
    }
}

//! The states of the services: a pure function from (state, event, time) to actions, without I/O and without a clock.
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
//! With `asleep = "suspend"`, a guest goes from running to suspended, and back as soon as it is wanted. It dies when
//! others need its room.
//!
//! Births are limited for each network of clients, in time, and by the number and memory of guests. Beyond the first
//! limit a client is refused; beyond the others the service waits in a queue that serves the networks in turn.

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
use super::config::SummonLimits;
pub use event::{Command, FleetAction, FleetEvent, LogNews, Refused, ServiceId, ServiceSpec};
pub use limits::Prefix;
use limits::{Bucket, Prefixes, Queue};
pub use unit::{AfterRemoval, Running, ServiceState, Unit};

/// The time after which a guest is asked for its connections again, if it had some or did not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The time for which packets are held after a guest has answered that it has no connections. It shows whether a client
/// came between that answer and the moment from which packets are held.
const LAST_LOOK: Duration = Duration::from_millis(500);

/// The reason for removing a guest whose image or site was replaced.
const OUTDATED: &str = "its image or its site was replaced";

/// All services.
pub struct Fleet {
    units: BTreeMap<ServiceId, Unit>,
    limits: SummonLimits,
    births: Bucket,
    prefixes: Prefixes,
    queue: Queue<ServiceId>,
    /// The time at which the queue can go on, if only the rate limit stops it.
    pump_at: Option<Instant>,
    /// Counters of refused wakes.
    pub refused: Refused,
}

impl Fleet {
    /// A fleet without services.
    #[must_use]
    pub fn new(limits: SummonLimits) -> Self {
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
    pub fn limit(&mut self, limits: SummonLimits) {
        self.limits = limits;
    }

    /// Adds a service, asleep.
    pub fn add(&mut self, id: ServiceId, spec: ServiceSpec) {
        self.units.insert(id, Unit::new(spec));
    }

    /// Changes a service. `is_other` says that its present guest does not fit the new settings.
    pub fn change(
        &mut self,
        id: ServiceId,
        spec: ServiceSpec,
        is_other: bool,
        actions: &mut Vec<FleetAction>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.spec = spec;
        unit.leaving = false;
        if is_other {
            unit.is_old = unit.state == ServiceState::BeingBorn;
            self.end(id, "it was changed", actions);
        }
    }

    /// Marks a service's guest as outdated, because its files were replaced: it is removed as soon as it is not in use.
    pub fn outdate(&mut self, id: ServiceId, actions: &mut Vec<FleetAction>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        match unit.state {
            ServiceState::Suspended(domid, _) => {
                unit.remove(id, domid, AfterRemoval::Sleep, OUTDATED, actions);
            }
            ServiceState::Proving(..) | ServiceState::Running(_) => unit.is_outdated = true,
            // The next guest uses the new files.
            _ => {}
        }
    }

    /// Removes a service, after its guest.
    pub fn leave(&mut self, id: ServiceId, actions: &mut Vec<FleetAction>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.leaving = true;
        self.end(id, "it is not a service any more", actions);
        if let Some(unit) = self.units.get(&id)
            && matches!(
                unit.state,
                ServiceState::Asleep | ServiceState::BackedOff(_)
            )
        {
            self.units.remove(&id);
            actions.push(FleetAction::Gone(id));
        }
    }

    /// Removes a service's guest, or ends its wait for one.
    pub fn end(&mut self, id: ServiceId, why: &'static str, actions: &mut Vec<FleetAction>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        match unit.state {
            ServiceState::Queued => {
                self.queue.remove(&id);
                unit.state = ServiceState::Asleep;
                actions.push(FleetAction::Drop(id));
            }
            ServiceState::BackedOff(_) => unit.state = ServiceState::Asleep,
            ServiceState::Proving(domid, _)
            | ServiceState::Running(Running { domid, .. })
            | ServiceState::Suspended(domid, _) => {
                unit.remove(id, domid, AfterRemoval::Sleep, why, actions);
            }
            // A guest that is being made is removed when it is ready.
            ServiceState::Asleep | ServiceState::BeingBorn | ServiceState::Dying(_) => {}
        }
    }

    /// A service.
    #[must_use]
    pub fn unit(&self, id: ServiceId) -> Option<&Unit> {
        self.units.get(&id)
    }

    /// All services.
    pub fn units(&self) -> impl Iterator<Item = (ServiceId, &Unit)> {
        self.units.iter().map(|(&id, unit)| (id, unit))
    }

    /// Whether a service's packets are held, because there will be a guest for them.
    #[must_use]
    pub fn holds(&self, id: ServiceId) -> bool {
        let state = self.units.get(&id).map(|unit| unit.state);
        matches!(
            state,
            Some(
                ServiceState::Queued
                    | ServiceState::BeingBorn
                    | ServiceState::Dying(AfterRemoval::Birth(_))
            )
        )
    }

    /// Whether a service's guest runs and has sent something.
    #[must_use]
    pub fn runs(&self, id: ServiceId) -> bool {
        let state = self.units.get(&id).map(|unit| unit.state);
        matches!(state, Some(ServiceState::Running(_)))
    }

    /// Whether a service's guest takes its packets itself.
    #[must_use]
    pub fn takes(&self, id: ServiceId) -> bool {
        let state = self.units.get(&id).map(|unit| unit.state);
        match state {
            Some(ServiceState::Proving(..)) => true,
            Some(ServiceState::Running(running)) => !running.leaves(),
            _ => false,
        }
    }

    /// The front's treatment of packets for a service.
    #[must_use]
    pub fn stance(&self, id: ServiceId) -> Stance {
        let state = self.units.get(&id).map(|unit| unit.state);
        match state {
            _ if self.holds(id) => Stance::Holds,
            _ if self.takes(id) => Stance::Takes,
            // A packet would show that the guest is still wanted.
            Some(ServiceState::Running(running)) if running.leaves() => Stance::Leaves,
            _ => Stance::Sleeps,
        }
    }

    /// Carries out a command of the administrator.
    ///
    /// # Errors
    /// The reason why that is not possible.
    pub fn command(
        &mut self,
        now: Instant,
        id: ServiceId,
        command: Command,
        actions: &mut Vec<FleetAction>,
    ) -> Result<(), &'static str> {
        let unit = self.units.get_mut(&id).filter(|unit| !unit.leaving);
        let unit = unit.ok_or("it is not a service any more")?;
        if let ServiceState::BackedOff(_) = unit.state
            && command != Command::Sleep
        {
            unit.row = 0;
            unit.state = ServiceState::Asleep;
        }
        match (command, unit.state) {
            (Command::Sleep, _) if !unit.spec.on_demand => {
                return Err("it never sleeps (on_demand = false)");
            }
            // A guest that is being made is removed when it is ready. For a restart it is new enough.
            (Command::Sleep, ServiceState::BeingBorn) => unit.is_old = true,
            (Command::Restart, ServiceState::BeingBorn) => {}
            (Command::Sleep, ServiceState::Dying(AfterRemoval::Birth(_))) => {
                unit.state = ServiceState::Dying(AfterRemoval::Sleep);
            }
            (Command::Sleep, ServiceState::Suspended(..)) => {}
            (Command::Sleep, ServiceState::Running(Running { domid, .. })) => {
                unit.sleep(now, id, domid, actions);
            }
            (Command::Sleep, _) => self.end(id, "it was told to sleep", actions),
            (Command::Restart, _) => match unit.domid() {
                Some(domid) => {
                    unit.remove(id, domid, AfterRemoval::Birth(None), "restart", actions);
                }
                None => self.wanted(now, id, None, actions),
            },
            (Command::Wake, _) => self.wanted(now, id, None, actions),
        }
        self.pump(now, actions);
        Ok(())
    }

    /// The latest time of the next [`FleetEvent::Time`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let units = self.units.values().filter_map(Unit::deadline);
        units.chain(self.pump_at).min()
    }
}

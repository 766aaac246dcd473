//! A service and its state.

use std::time::{Duration, Instant};

use super::super::config::Asleep;
use super::{ASK_AGAIN, FleetAction, LAST_LOOK, LogNews, OUTDATED, Prefix, ServiceId, ServiceSpec};

/// The age at which a guest counts as started: its end is no failure to start.
const PROVEN: Duration = Duration::from_secs(10);
/// The pause after a failure. Each further failure in a row doubles it, up to the second value.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// The state of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceState {
    /// No guest.
    Asleep,
    /// No guest yet, because there is no room.
    Queued,
    /// Its guest is being made.
    BeingBorn,
    /// Its guest runs, since this time, and has not sent anything yet.
    Proving(u16, Instant),
    /// Its guest runs.
    Running(Running),
    /// Its guest is paused, since this time.
    Suspended(u16, Instant),
    /// Its guest is being removed.
    Dying(AfterRemoval),
    /// It has failed, and gets no guest before this time.
    BackedOff(Instant),
}

/// A running guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// The number of its domain.
    pub domid: u16,
    /// The time since which it runs.
    pub since: Instant,
    /// The time at which it last sent something.
    pub heard: Instant,
    /// The time at which it was asked for its connections, while the answer counts.
    pub(super) asked: Option<Instant>,
    /// The time since which its packets are held: it had no connections, and is removed unless it sends something.
    pub(super) leaves: Option<Instant>,
}

/// The state after the guest is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterRemoval {
    /// Sleep.
    Sleep,
    /// A birth, because a client wants the service already.
    Birth(Option<Prefix>),
    /// A pause after a failure.
    BackOff,
}

/// A service.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Its settings.
    pub spec: ServiceSpec,
    /// Its state.
    pub state: ServiceState,
    /// Guests that were made.
    pub births: u64,
    /// Guests that were unpaused after they had been suspended.
    pub resumes: u64,
    /// Guests that were removed or have ended.
    pub deaths: u64,
    /// Guests that could not be made, or have failed.
    pub failures: u64,
    /// The last failure.
    pub trouble: Option<String>,
    /// Failures in a row.
    pub(super) row: u32,
    /// Whether the service is to be removed.
    pub(super) leaving: bool,
    /// Whether the guest that is being made is not wanted any more.
    pub(super) is_old: bool,
    /// Whether the files of its guest were replaced. Then the guest is removed as soon as it is not in use.
    pub is_outdated: bool,
}

impl Running {
    /// Whether it is removed soon unless it sends something.
    #[must_use]
    pub fn leaves(&self) -> bool {
        self.leaves.is_some()
    }

    pub(super) fn new(domid: u16, now: Instant) -> Self {
        Self {
            domid,
            since: now,
            heard: now,
            asked: None,
            leaves: None,
        }
    }
}

impl Unit {
    /// A service, asleep.
    pub(super) fn new(spec: ServiceSpec) -> Self {
        Self {
            spec,
            state: ServiceState::Asleep,
            births: 0,
            resumes: 0,
            deaths: 0,
            failures: 0,
            trouble: None,
            row: 0,
            leaving: false,
            is_old: false,
            is_outdated: false,
        }
    }

    /// Whether it has a guest, which occupies memory.
    pub(super) fn has_guest(&self) -> bool {
        !matches!(
            self.state,
            ServiceState::Asleep | ServiceState::Queued | ServiceState::BackedOff(_)
        )
    }

    /// The number of its guest's domain.
    #[must_use]
    pub fn domid(&self) -> Option<u16> {
        match self.state {
            ServiceState::Proving(domid, _)
            | ServiceState::Running(Running { domid, .. })
            | ServiceState::Suspended(domid, _) => Some(domid),
            _ => None,
        }
    }

    /// Keeps a guest that was about to be removed, and gives it the held packets.
    pub(super) fn stay(&mut self, now: Instant, id: ServiceId, actions: &mut Vec<FleetAction>) {
        if let ServiceState::Running(running) = &mut self.state {
            running.heard = now;
            running.asked = None;
            if running.leaves.take().is_some() {
                actions.push(FleetAction::Open(id));
            }
        }
    }

    /// Sends an idle guest to sleep.
    pub(super) fn sleep(
        &mut self,
        now: Instant,
        id: ServiceId,
        domid: u16,
        actions: &mut Vec<FleetAction>,
    ) {
        if self.is_outdated {
            return self.remove(id, domid, AfterRemoval::Sleep, OUTDATED, actions);
        }
        if self.spec.asleep != Asleep::Suspend {
            return self.remove(id, domid, AfterRemoval::Sleep, "it is idle", actions);
        }
        self.settle(now);
        self.state = ServiceState::Suspended(domid, now);
        actions.extend([
            FleetAction::Suspend(id, domid),
            FleetAction::Tell(id, LogNews::Suspended),
        ]);
    }

    pub(super) fn remove(
        &mut self,
        id: ServiceId,
        domid: u16,
        after: AfterRemoval,
        why: &'static str,
        actions: &mut Vec<FleetAction>,
    ) {
        self.state = ServiceState::Dying(after);
        actions.push(FleetAction::Tell(id, LogNews::Down(why)));
        actions.push(FleetAction::Remove(id, domid));
    }

    pub(super) fn fail(
        &mut self,
        now: Instant,
        id: ServiceId,
        why: String,
        actions: &mut Vec<FleetAction>,
    ) {
        self.failures += 1;
        let pause = BACK_OFF
            .saturating_mul(1 << self.row.min(16))
            .min(BACK_OFF_MAX);
        self.row = self.row.saturating_add(1);
        self.state = ServiceState::BackedOff(now + pause);
        self.trouble = Some(why.clone());
        actions.push(FleetAction::Drop(id));
        actions.push(FleetAction::Tell(id, LogNews::Failed(why, pause)));
    }

    /// Forgets failures, if a guest has started since.
    pub(super) fn settle(&mut self, now: Instant) {
        if let ServiceState::Running(running) = self.state
            && now.duration_since(running.since) >= PROVEN
        {
            self.row = 0;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            ServiceState::Proving(_, since) => Some(since + self.spec.start_timeout),
            ServiceState::BackedOff(until) => Some(until),
            ServiceState::Running(running) => {
                let end = self.spec.lifetime.map(|most| running.since + most);
                let goes = self.spec.on_demand || self.is_outdated;
                let sleep = goes.then(|| self.sleeps_at(running));
                end.into_iter().chain(sleep).min()
            }
            _ => None,
        }
    }

    /// The time at which an idle guest has to be asked or removed.
    fn sleeps_at(&self, running: Running) -> Instant {
        let soft = match (running.leaves, running.asked) {
            (Some(since), _) => since + LAST_LOOK,
            (None, Some(asked)) => asked + ASK_AGAIN,
            (None, None) => running.heard + self.spec.idle,
        };
        let hard = self.spec.idle_hard.filter(|_| self.spec.on_demand);
        let hard = hard.map(|hard| running.heard + hard);
        hard.map_or(soft, |hard| soft.min(hard))
    }
}

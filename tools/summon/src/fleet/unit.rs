//! A service and its state.

use std::time::{Duration, Instant};

use super::super::config::Asleep;
use super::{ASK_AGAIN, Action, Id, LAST_LOOK, OUTDATED, Prefix, Spec, Tell};

/// The age at which a guest counts as started: its end is no failure to start.
const PROVEN: Duration = Duration::from_secs(10);
/// The pause after a failure. Each further failure in a row doubles it, up to the second value.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// The state of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
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
    Dying(After),
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
pub enum After {
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
    pub spec: Spec,
    /// Its state.
    pub state: State,
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
    pub(super) fn new(spec: Spec) -> Self {
        Self {
            spec,
            state: State::Asleep,
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
            State::Asleep | State::Queued | State::BackedOff(_)
        )
    }

    /// The number of its guest's domain.
    #[must_use]
    pub fn domid(&self) -> Option<u16> {
        match self.state {
            State::Proving(domid, _)
            | State::Running(Running { domid, .. })
            | State::Suspended(domid, _) => Some(domid),
            _ => None,
        }
    }

    /// Keeps a guest that was about to be removed, and gives it the held packets.
    pub(super) fn stay(&mut self, now: Instant, id: Id, actions: &mut Vec<Action>) {
        if let State::Running(running) = &mut self.state {
            running.heard = now;
            running.asked = None;
            if running.leaves.take().is_some() {
                actions.push(Action::Open(id));
            }
        }
    }

    /// Sends an idle guest to sleep.
    pub(super) fn sleep(&mut self, now: Instant, id: Id, domid: u16, actions: &mut Vec<Action>) {
        if self.is_outdated {
            return self.remove(id, domid, After::Sleep, OUTDATED, actions);
        }
        if self.spec.asleep != Asleep::Suspend {
            return self.remove(id, domid, After::Sleep, "nobody asks", actions);
        }
        self.settle(now);
        self.state = State::Suspended(domid, now);
        actions.extend([
            Action::Suspend(id, domid),
            Action::Tell(id, Tell::Suspended),
        ]);
    }

    pub(super) fn remove(
        &mut self,
        id: Id,
        domid: u16,
        after: After,
        why: &'static str,
        actions: &mut Vec<Action>,
    ) {
        self.state = State::Dying(after);
        actions.push(Action::Tell(id, Tell::Down(why)));
        actions.push(Action::Remove(id, domid));
    }

    pub(super) fn fail(&mut self, now: Instant, id: Id, why: String, actions: &mut Vec<Action>) {
        self.failures += 1;
        let pause = BACK_OFF
            .saturating_mul(1 << self.row.min(16))
            .min(BACK_OFF_MAX);
        self.row = self.row.saturating_add(1);
        self.state = State::BackedOff(now + pause);
        self.trouble = Some(why.clone());
        actions.push(Action::Drop(id));
        actions.push(Action::Tell(id, Tell::Failed(why, pause)));
    }

    /// Forgets failures, if a guest has started since.
    pub(super) fn settle(&mut self, now: Instant) {
        if let State::Running(running) = self.state
            && now.duration_since(running.since) >= PROVEN
        {
            self.row = 0;
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Proving(_, since) => Some(since + self.spec.start_timeout),
            State::BackedOff(until) => Some(until),
            State::Running(running) => {
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

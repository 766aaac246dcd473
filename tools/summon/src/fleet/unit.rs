//! A service and its state.

use std::time::{Duration, Instant};

use super::super::config::Asleep;
use super::{ASK_AGAIN, Action, Id, LAST_LOOK, OUTDATED, Prefix, Spec, Tell};

/// Who has lived for so long has come up, whatever happens then.
const PROVEN: Duration = Duration::from_secs(10);
/// After a failure nobody tries for so long; twice as long after each more.
const BACK_OFF: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);

/// How a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// No guest.
    Asleep,
    /// No guest yet: there is no room.
    Queued,
    /// Being made.
    BeingBorn,
    /// Runs, and was not heard yet.
    Proving(u16, Instant),
    /// Runs.
    Running(Running),
    /// Its guest stands still, since then.
    Suspended(u16, Instant),
    /// Being removed.
    Dying(After),
    /// No guest until then: it has failed.
    BackedOff(Instant),
}

/// A guest that runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    /// Its number.
    pub domid: u16,
    /// Since when.
    pub since: Instant,
    /// When it was last heard.
    pub heard: Instant,
    /// When it was asked for its connections, if that has to be waited for.
    pub(super) asked: Option<Instant>,
    /// Since when what is sent to it is held: it had no connections, and goes unless it is heard once more.
    pub(super) leaves: Option<Instant>,
}

/// What comes after a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Sleep.
    Sleep,
    /// A birth: somebody wants it already.
    Birth(Option<Prefix>),
    /// A pause.
    BackOff,
}

/// A service and what is known of it.
#[derive(Clone, Debug)]
pub struct Unit {
    /// What it is to be.
    pub spec: Spec,
    /// How it is.
    pub state: State,
    /// Guests that were made.
    pub births: u64,
    /// Guests that went on after they had been suspended.
    pub resumes: u64,
    /// Guests that are gone.
    pub deaths: u64,
    /// Guests that could not be made, or have failed.
    pub failures: u64,
    /// What was last wrong.
    pub trouble: Option<String>,
    /// Failures in a row.
    pub(super) row: u32,
    /// It is to be removed for good.
    pub(super) leaving: bool,
    /// What is being made is of a make that is not wanted any more.
    pub(super) is_old: bool,
    /// Its guest is of files that were replaced, and goes as soon as nobody uses it.
    pub is_outdated: bool,
}

impl Running {
    /// Whether it goes soon, unless it is heard once more.
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
    /// A service that is asleep.
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

    /// Whether it has memory.
    pub(super) fn has_guest(&self) -> bool {
        !matches!(
            self.state,
            State::Asleep | State::Queued | State::BackedOff(_)
        )
    }

    /// The number of its guest.
    #[must_use]
    pub fn domid(&self) -> Option<u16> {
        match self.state {
            State::Proving(domid, _)
            | State::Running(Running { domid, .. })
            | State::Suspended(domid, _) => Some(domid),
            _ => None,
        }
    }

    /// Who was about to go stays, and gets what was held.
    pub(super) fn stay(&mut self, now: Instant, id: Id, actions: &mut Vec<Action>) {
        if let State::Running(running) = &mut self.state {
            running.heard = now;
            running.asked = None;
            if running.leaves.take().is_some() {
                actions.push(Action::Open(id));
            }
        }
    }

    /// Sends a guest to sleep that nobody asks for any more.
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

    /// Forgets failures that were followed by a life.
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

    /// When a guest that nobody uses has to be looked at.
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

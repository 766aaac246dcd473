//! The handling of each event.

use std::time::Instant;

use super::super::config::Asleep;
use super::{ASK_AGAIN, Action, After, Event, Fleet, Id, LAST_LOOK, Running, State, Tell};

impl Fleet {
    /// Handles an event and adds the actions that follow.
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
        // The guest has sent something in the meantime, so it is not quiet any more.
        if running.asked.is_none() || running.leaves.is_some() {
            return;
        }
        let (domid, was_heard) = (running.domid, running.heard > running.since);
        match open {
            Some(1..) => running.asked = Some(now),
            // The guest was unpaused and has sent nothing: perhaps it cannot.
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

    /// Wakes a service that never sleeps.
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
                        // The answer is about connections that are gone.
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
}

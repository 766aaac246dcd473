//! The handling of each event.

use std::time::Instant;

use super::super::config::Asleep;
use super::{
    ASK_AGAIN, AfterRemoval, Fleet, FleetAction, FleetEvent, LAST_LOOK, LogNews, Running,
    ServiceId, ServiceState,
};

impl Fleet {
    /// Handles an event and adds the actions that follow.
    pub fn step(&mut self, now: Instant, event: FleetEvent, actions: &mut Vec<FleetAction>) {
        match event {
            FleetEvent::Wanted(id, prefix) => self.wanted(now, id, prefix, actions),
            FleetEvent::Made(id, domid) => self.made(now, id, domid, actions),
            FleetEvent::NotMade(id, why) => self.not_made(now, id, why, actions),
            FleetEvent::Heard(id) => self.heard(now, id, actions),
            FleetEvent::Connections(id, open) => self.connections(now, id, open, actions),
            FleetEvent::Ended(id, is_failure, what) => {
                self.ended(now, id, is_failure, what, actions)
            }
            FleetEvent::Removed(id, trouble) => self.removed(now, id, trouble, actions),
            FleetEvent::Found(id, domid) => {
                if let Some(unit) = self.units.get_mut(&id)
                    && unit.state == ServiceState::Asleep
                {
                    unit.state = ServiceState::Running(Running::new(domid, now));
                    unit.is_outdated = false;
                }
            }
            FleetEvent::Time => {
                let ids: Vec<ServiceId> = self.units.keys().copied().collect();
                for id in ids {
                    self.passed(now, id, actions);
                }
            }
        }
        self.pump(now, actions);
    }

    fn made(&mut self, now: Instant, id: ServiceId, domid: u16, actions: &mut Vec<FleetAction>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.births += 1;
        unit.is_outdated = false;
        unit.state = ServiceState::Proving(domid, now);
        if unit.leaving || std::mem::take(&mut unit.is_old) {
            self.end(id, "it was changed meanwhile", actions);
        }
    }

    fn not_made(
        &mut self,
        now: Instant,
        id: ServiceId,
        why: String,
        actions: &mut Vec<FleetAction>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.is_old = false;
        if unit.leaving {
            self.units.remove(&id);
            actions.extend([FleetAction::Drop(id), FleetAction::Gone(id)]);
        } else {
            unit.fail(now, id, why, actions);
        }
    }

    fn heard(&mut self, now: Instant, id: ServiceId, actions: &mut Vec<FleetAction>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        match &mut unit.state {
            ServiceState::Proving(domid, _) => {
                unit.state = ServiceState::Running(Running::new(*domid, now));
                actions.push(FleetAction::Tell(id, LogNews::Up));
            }
            ServiceState::Running(_) => unit.stay(now, id, actions),
            _ => {}
        }
    }

    fn connections(
        &mut self,
        now: Instant,
        id: ServiceId,
        open: Option<u32>,
        actions: &mut Vec<FleetAction>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let ServiceState::Running(running) = &mut unit.state else {
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
                unit.remove(id, domid, AfterRemoval::Sleep, "it is silent", actions);
            }
            Some(0) | None => {
                running.leaves = Some(now);
                actions.push(FleetAction::Shut(id));
            }
        }
    }

    fn ended(
        &mut self,
        now: Instant,
        id: ServiceId,
        is_failure: bool,
        what: String,
        actions: &mut Vec<FleetAction>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let Some(domid) = unit.domid() else {
            return;
        };
        let after = if is_failure {
            unit.trouble = Some(what);
            AfterRemoval::BackOff
        } else {
            AfterRemoval::Sleep
        };
        unit.settle(now);
        unit.remove(id, domid, after, "it has ended", actions);
    }

    fn removed(
        &mut self,
        now: Instant,
        id: ServiceId,
        trouble: Option<String>,
        actions: &mut Vec<FleetAction>,
    ) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        let ServiceState::Dying(after) = unit.state else {
            return;
        };
        unit.deaths += 1;
        let has_failed = trouble.is_some() || after == AfterRemoval::BackOff;
        unit.trouble = trouble.or(unit.trouble.take());
        unit.state = ServiceState::Asleep;
        if unit.leaving {
            self.units.remove(&id);
            actions.push(FleetAction::Drop(id));
            actions.push(FleetAction::Gone(id));
            return;
        }
        match after {
            _ if has_failed => {
                let why = unit.trouble.clone().unwrap_or_default();
                unit.fail(now, id, why, actions);
            }
            AfterRemoval::Birth(prefix) => {
                unit.state = ServiceState::Queued;
                self.queue.push(prefix, id);
            }
            AfterRemoval::Sleep | AfterRemoval::BackOff => {
                actions.push(FleetAction::Tell(id, LogNews::Asleep))
            }
        }
        self.again(now, id, actions);
    }

    /// Wakes a service that never sleeps.
    fn again(&mut self, now: Instant, id: ServiceId, actions: &mut Vec<FleetAction>) {
        if let Some(unit) = self.units.get(&id)
            && !unit.spec.on_demand
            && unit.state == ServiceState::Asleep
        {
            self.wanted(now, id, None, actions);
        }
    }

    fn passed(&mut self, now: Instant, id: ServiceId, actions: &mut Vec<FleetAction>) {
        let Some(unit) = self.units.get_mut(&id) else {
            return;
        };
        unit.settle(now);
        match &mut unit.state {
            ServiceState::BackedOff(until) if *until <= now => {
                unit.state = ServiceState::Asleep;
                self.again(now, id, actions);
            }
            ServiceState::Proving(domid, since)
                if now.duration_since(*since) >= unit.spec.start_timeout =>
            {
                let domid = *domid;
                let silence = unit.spec.start_timeout;
                unit.trouble = Some(format!("its guest has sent nothing for {silence:?}"));
                unit.remove(id, domid, AfterRemoval::BackOff, "it is silent", actions);
            }
            ServiceState::Running(running)
                if unit
                    .spec
                    .lifetime
                    .is_some_and(|most| now.duration_since(running.since) >= most) =>
            {
                let domid = running.domid;
                unit.remove(
                    id,
                    domid,
                    AfterRemoval::Sleep,
                    "its lifetime is over",
                    actions,
                );
            }
            ServiceState::Running(running) if unit.spec.on_demand || unit.is_outdated => {
                let hard = unit.spec.idle_hard.filter(|_| unit.spec.on_demand);
                let quiet = now.duration_since(running.heard);
                let domid = running.domid;
                if let Some(since) = running.leaves {
                    if now.duration_since(since) >= LAST_LOOK {
                        // The answer is about connections that are gone.
                        actions.push(FleetAction::Drop(id));
                        unit.sleep(now, id, domid, actions);
                    }
                } else if hard.is_some_and(|hard| quiet >= hard) {
                    unit.remove(
                        id,
                        domid,
                        AfterRemoval::Sleep,
                        "quiet for too long",
                        actions,
                    );
                } else if quiet >= unit.spec.idle
                    && running
                        .asked
                        .is_none_or(|asked| now.duration_since(asked) >= ASK_AGAIN)
                {
                    running.asked = Some(now);
                    actions.push(FleetAction::Ask(id));
                }
            }
            _ => {}
        }
    }
}

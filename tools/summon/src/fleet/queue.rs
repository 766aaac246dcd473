//! The choice of the service that gets a guest next, and of the guest that makes room for it.

use std::time::{Duration, Instant};

use super::limits::{Prefix, Rate};
use super::{Action, After, Fleet, Id, Running, State, Tell, Unit};

impl Fleet {
    pub(super) fn wanted(
        &mut self,
        now: Instant,
        id: Id,
        prefix: Option<Prefix>,
        actions: &mut Vec<Action>,
    ) {
        let Some(unit) = self.units.get_mut(&id).filter(|unit| !unit.leaving) else {
            return;
        };
        match unit.state {
            State::Asleep | State::Dying(After::Sleep) => {}
            // A resume takes no room from others.
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
            // Most often the wait ends at once, when the event's other actions are known.
            self.pump(now, actions);
            if self.units.get(&id).map(|unit| unit.state) == Some(State::Queued) {
                actions.push(Action::Tell(id, Tell::Queued));
            }
        } else {
            self.refused.queue += 1;
        }
    }

    /// Makes guests for waiting services, as far as there is room.
    pub(super) fn pump(&mut self, now: Instant, actions: &mut Vec<Action>) {
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

    /// Makes room for a waiting service, unless a guest is being removed already. Removes the guest that has been
    /// suspended longest; if none is, the guest that has run longest, once it has had its turn. Without the turn, a
    /// guest that sends something again and again would keep its place for ever.
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

    /// The number of guests, and their memory in MiB.
    #[must_use]
    pub fn used(&self) -> (usize, u64) {
        let there = self.units.values().filter(|unit| unit.has_guest());
        there.fold((0, 0), |(guests, memory), unit| {
            (guests + 1, memory + unit.spec.memory)
        })
    }
}

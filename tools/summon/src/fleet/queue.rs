//! The choice of the service that gets a guest next, and of the guest that makes room for it.

use std::time::{Duration, Instant};

use super::limits::{Prefix, Rate};
use super::{AfterRemoval, Fleet, FleetAction, LogNews, Running, ServiceId, ServiceState, Unit};

impl Fleet {
    pub(super) fn wanted(
        &mut self,
        now: Instant,
        id: ServiceId,
        prefix: Option<Prefix>,
        actions: &mut Vec<FleetAction>,
    ) {
        let Some(unit) = self.units.get_mut(&id).filter(|unit| !unit.leaving) else {
            return;
        };
        match unit.state {
            ServiceState::Asleep | ServiceState::Dying(AfterRemoval::Sleep) => {}
            // A resume takes no room from others.
            ServiceState::Suspended(domid, _) => {
                unit.resumes += 1;
                unit.state = ServiceState::Running(Running::new(domid, now));
                actions.extend([
                    FleetAction::Resume(id, domid),
                    FleetAction::Tell(id, LogNews::Resumed),
                ]);
                return;
            }
            ServiceState::Running(_) => return unit.stay(now, id, actions),
            ServiceState::BackedOff(_) | ServiceState::Dying(AfterRemoval::BackOff) => {
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
        if unit.state != ServiceState::Asleep {
            unit.state = ServiceState::Dying(AfterRemoval::Birth(prefix));
        } else if self.queue.len() < self.limits.queue {
            unit.state = ServiceState::Queued;
            self.queue.push(prefix, id);
            // Most often the wait ends at once, when the event's other actions are known.
            self.pump(now, actions);
            if self.units.get(&id).map(|unit| unit.state) == Some(ServiceState::Queued) {
                actions.push(FleetAction::Tell(id, LogNews::Queued));
            }
        } else {
            self.refused.queue += 1;
        }
    }

    /// Makes guests for waiting services, as far as there is room.
    pub(super) fn pump(&mut self, now: Instant, actions: &mut Vec<FleetAction>) {
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
                unit.state = ServiceState::BeingBorn;
                actions.push(FleetAction::Make(id));
            }
        }
    }

    /// Makes room for a waiting service, unless a guest is being removed already. Removes the guest that has been
    /// suspended longest; if none is, the guest that has run longest, once it has had its turn. Without the turn, a
    /// guest that sends something again and again would keep its place for ever.
    fn make_room(&mut self, now: Instant, actions: &mut Vec<FleetAction>) {
        let is_dying = |unit: &Unit| matches!(unit.state, ServiceState::Dying(_));
        if self.units.values().any(is_dying) {
            return;
        }
        let suspended = self
            .units
            .iter()
            .filter_map(|(&id, unit)| match unit.state {
                ServiceState::Suspended(_, since) => Some((since, id)),
                _ => None,
            });
        if let Some((_, id)) = suspended.min() {
            return self.end(id, "others need the room", actions);
        }
        let running = self
            .units
            .iter()
            .filter_map(|(&id, unit)| match unit.state {
                ServiceState::Running(running) if unit.spec.on_demand => Some((running.since, id)),
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

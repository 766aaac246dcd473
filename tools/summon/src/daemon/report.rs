//! What the daemon tells of itself.

use std::fmt::Display;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::super::fleet::{Id, State, Unit};
use super::super::log::{Level, line};
use super::super::status::{Counts, Frames, Service, State as Told, Status, Step, Totals};
use super::super::{guard, status};
use super::setup::Error;
use super::{Cause, Daemon, Entry};

/// How often guests are asked what they have served, at most.
const COUNT: Duration = Duration::from_secs(5);
/// How often the log says at most who was turned away.
const COMPLAIN: Duration = Duration::from_secs(10);

/// Who was turned away, altogether.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Away {
    /// DNS queries that were not answered, or cut.
    queries: u64,
    /// Wakes.
    wakes: u64,
    /// Frames for services that slept.
    frames: u64,
}

impl Daemon {
    /// Says who was turned away since it was last said.
    fn complain(&mut self, now: Instant) {
        let (queries, refused) = (&self.dns.counts, &self.fleet.refused);
        let held = self.entries.values().map(|entry| entry.held.dropped);
        let away = Away {
            queries: queries.limited + queries.dropped,
            wakes: refused.prefix + refused.queue + refused.backed_off,
            frames: held.sum(),
        };
        if away == self.away {
            return;
        }
        if now < self.complain_at {
            self.tell_at = Some(self.complain_at);
            return;
        }
        let before = std::mem::replace(&mut self.away, away);
        self.complain_at = now + COMPLAIN;
        line(Level::Warning, "turned away")
            .with("queries", away.queries - before.queries)
            .with("wakes", away.wakes - before.wakes)
            // A service that is no more has taken its count with it.
            .with("frames", away.frames.saturating_sub(before.frames))
            .write();
    }

    /// Serves the status from here on.
    pub(super) fn serve_status(&self) -> Result<(), Error> {
        let (kept, began) = (Arc::clone(&self.status), self.began);
        let is_looked_at = Arc::clone(&self.is_looked_at);
        let source = move || {
            is_looked_at.store(true, Ordering::Relaxed);
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            // It is written when something happens, and time passes without that.
            let mut status = (**kept).clone();
            let before = std::mem::replace(&mut status.uptime_ms, millis(began.elapsed()));
            let passed = status.uptime_ms.saturating_sub(before);
            let services = status.services.iter_mut();
            for uptime_ms in services.filter_map(|service| service.uptime_ms.as_mut()) {
                *uptime_ms = uptime_ms.saturating_add(passed);
            }
            Arc::new(status)
        };
        let daemon = &self.config.daemon;
        let listen =
            |at: &dyn Display, error| Error::Listen(format!("cannot listen on {at}: {error}"));
        if let Some(address) = daemon.status {
            status::serve(address, source.clone()).map_err(|error| listen(&address, error))?;
        }
        let path = daemon.socket.display();
        match status::tell(&daemon.socket, source) {
            Ok(true) => Ok(()),
            Ok(false) => Err(Error::Listen(format!("{path}: another daemon has it"))),
            Err(error) => Err(listen(&path, error)),
        }
    }

    /// Asks guests that run what they have served, if somebody has looked at the status: the next look shows it.
    pub(super) fn count_requests(&mut self, now: Instant) {
        if now < self.count_at || !self.is_looked_at.swap(false, Ordering::Relaxed) {
            return;
        }
        self.count_at = now + COUNT;
        let running = self
            .fleet
            .units()
            .filter(|(_, unit)| matches!(unit.state, State::Running(running) if !running.leaves()));
        for id in running.map(|(id, _)| id).collect::<Vec<_>>() {
            self.ask(id);
        }
    }

    /// Writes down how everything is.
    pub(super) fn tell(&mut self) {
        let now = Instant::now();
        self.complain(now);
        let names: Vec<Id> = self
            .config
            .services
            .iter()
            .filter_map(|service| self.ids.get(&service.name).copied())
            .collect();
        let mut services = Vec::new();
        for id in names {
            let guarded = match self.entries.get(&id).and_then(|entry| entry.guest.as_ref()) {
                Some(guest) if self.config.daemon.guard => {
                    guard::dropped(&mut self.links, guest.vif.index)
                        .unwrap_or(0)
                        .into()
                }
                _ => 0,
            };
            if let (Some(entry), Some(unit)) = (self.entries.get(&id), self.fleet.unit(id)) {
                services.push(service(entry, unit, guarded, now));
            }
        }
        let status = Status {
            uptime_ms: millis(self.began.elapsed()),
            services,
            totals: self.totals(),
        };
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(status);
    }

    fn totals(&self) -> Totals {
        let (running, memory) = self.fleet.used();
        let queued = self.fleet.units();
        let queued = queued
            .filter(|(_, unit)| unit.state == State::Queued)
            .count();
        let queries = &self.dns.counts;
        let refused = &self.fleet.refused;
        Totals {
            queries: counts([
                ("answered", queries.answered),
                ("forwarded", queries.forwarded),
                ("refused", queries.refused),
                ("limited", queries.limited),
                ("dropped", queries.dropped),
            ]),
            wakes: counts(Cause::ALL.map(|cause| {
                let count = self.wakes.get(&cause).copied();
                (cause.name(), count.unwrap_or(0))
            })),
            refused: counts([
                ("prefix", refused.prefix),
                ("queue", refused.queue),
                ("backed-off", refused.backed_off),
            ]),
            running,
            memory,
            queued,
            pool: self.pool,
        }
    }
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> Counts {
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

fn service(entry: &Entry, unit: &Unit, guarded: u64, now: Instant) -> Service {
    let (state, since) = match unit.state {
        State::Asleep => (Told::Asleep, None),
        State::Queued => (Told::Queued, None),
        State::BeingBorn => (Told::BeingBorn, None),
        State::Proving(_, since) => (Told::Running, Some(since)),
        State::Running(running) => (Told::Running, Some(running.since)),
        State::Suspended(..) => (Told::Suspended, None),
        State::Dying(_) => (Told::Dying, None),
        State::BackedOff(_) => (Told::BackedOff, None),
    };
    let steps = entry.birth.iter().flat_map(|birth| birth.spans());
    Service {
        name: entry.service.name.clone(),
        hosts: entry.service.hosts.clone(),
        state,
        domid: unit.domid(),
        uptime_ms: since.map(|since| millis(now.saturating_duration_since(since))),
        births: unit.births,
        resumes: unit.resumes,
        deaths: unit.deaths,
        failures: unit.failures,
        last_trouble: unit.trouble.clone(),
        last_boot: steps
            .map(|span| Step {
                what: span.what,
                from_us: span.from_us,
                to_us: span.to_us,
            })
            .collect(),
        memory: entry.service.memory,
        queries: entry.queries,
        requests: entry.requests,
        frames: Frames {
            held: entry.held.held,
            replayed: entry.held.replayed,
            dropped: entry.held.dropped,
        },
        guarded,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

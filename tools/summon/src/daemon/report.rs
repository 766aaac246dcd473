//! Collects the status that the daemon reports.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use super::super::cause::WakeCause;
use super::super::fleet::{ServiceId, ServiceState, Unit};
use super::super::log::{Level, line};
use super::super::status::{
    BirthStep, CountsByKind, ServiceStatus, ShownState, SummonStatus, Totals,
};
use super::super::{guard, status};
use super::error::DaemonError;
use super::front::StatusSource;
use super::{Daemon, PendingCommand, ServiceEntry};
use mayfly_links::Links;
use mayfly_toolstack::traffic::{self, NetworkTraffic};

/// The least time between two requests for guests' counters.
const COUNT: Duration = Duration::from_secs(5);
/// The least time between two log lines about refused clients.
const COMPLAIN: Duration = Duration::from_secs(10);

/// The longest wait for the switch's counters.
const COUNTERS: Duration = Duration::from_secs(1);
/// The time that the daemon has for a command of the administrator.
const PATIENCE: Duration = Duration::from_secs(5);

/// The last recorded state.
#[derive(Clone, Default)]
pub(super) struct Kept {
    status: SummonStatus,
    /// The index of each service's guarded vif; the filter there counts what it drops.
    guarded: Vec<Option<u32>>,
}

/// Counters of what was refused or dropped since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Away {
    /// DNS queries that were not answered, or answered truncated.
    queries: u64,
    /// Refused wakes.
    wakes: u64,
    /// Dropped frames for sleeping services.
    frames: u64,
}

impl Daemon {
    /// Logs what was refused since the last such line.
    fn complain(&mut self, now: Instant) {
        let (queries, refused) = (&self.queries, &self.fleet.refused);
        let held = self.entries.values().map(|entry| entry.frames.dropped);
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
            // Saturating, because a removed service's count is missing.
            .with("frames", away.frames.saturating_sub(before.frames))
            .write();
    }

    /// Starts to serve the status and the administrator's commands at the local socket.
    pub(super) fn serve_status(&self) -> Result<(), DaemonError> {
        let daemon = &self.config.daemon;
        let listen = |at: &dyn Display, error| {
            DaemonError::Listen(format!("cannot listen on {at}: {error}"))
        };
        let status = Arc::clone(&self.status);
        let source = move || status();
        let requesting = self.requesting.clone();
        let doer = move |request| {
            let (done, answer) = mpsc::channel();
            requesting.send(PendingCommand { request, done });
            let late = |_| Err("the daemon does not answer".to_owned());
            answer.recv_timeout(PATIENCE).unwrap_or_else(late)
        };
        let path = daemon.socket.display();
        match status::tell(&daemon.socket, source, doer) {
            Ok(true) => Ok(()),
            Ok(false) => Err(DaemonError::Listen(format!(
                "{path}: another daemon has it"
            ))),
            Err(error) => Err(listen(&path, error)),
        }
    }

    /// Asks running guests for their counters, if the status was read since. The next status shows them.
    pub(super) fn count_requests(&mut self, now: Instant) {
        if now < self.count_at || !self.is_looked_at.swap(false, Ordering::Relaxed) {
            return;
        }
        self.count_at = now + COUNT;
        let running = self.fleet.units().filter(
            |(_, unit)| matches!(unit.state, ServiceState::Running(running) if !running.leaves()),
        );
        for id in running.map(|(id, _)| id).collect::<Vec<_>>() {
            self.ask(id);
        }
    }

    /// Records the state of everything, for the status.
    pub(super) fn tell(&mut self) {
        let now = Instant::now();
        self.complain(now);
        let names: Vec<ServiceId> = self
            .config
            .services
            .iter()
            .filter_map(|service| self.ids.get(&service.name).copied())
            .collect();
        let is_guarded = self.config.daemon.guard;
        let mut kept = Kept::default();
        for id in names {
            if let (Some(entry), Some(unit)) = (self.entries.get(&id), self.fleet.unit(id)) {
                kept.status.services.push(service(entry, unit, now));
                let guest = entry.guest.as_ref().filter(|_| is_guarded);
                kept.guarded.push(guest.map(|guest| guest.vif.index));
            }
        }
        kept.status.uptime_ms = millis(self.began.elapsed());
        kept.status.totals = self.totals();
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
    }

    fn totals(&self) -> Totals {
        let (running, memory) = self.fleet.used();
        let queued = self.fleet.units();
        let queued = queued
            .filter(|(_, unit)| unit.state == ServiceState::Queued)
            .count();
        let queries = &self.queries;
        let refused = &self.fleet.refused;
        Totals {
            queries: counts([
                ("answered", queries.answered),
                ("forwarded", queries.forwarded),
                ("refused", queries.refused),
                ("limited", queries.limited),
                ("dropped", queries.dropped),
            ]),
            wakes: counts(WakeCause::ALL.map(|cause| {
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

/// The status, for any thread. The thread that serves it asks the kernel for its counters when it is read, because the
/// removal of an interface holds the same lock in the kernel for long.
pub(super) fn source(
    kept: &Arc<Mutex<Kept>>,
    is_looked_at: &Arc<AtomicBool>,
    (began, switch): (Instant, PathBuf),
) -> Result<StatusSource, DaemonError> {
    let (kept, is_looked_at) = (Arc::clone(kept), Arc::clone(is_looked_at));
    let links = Mutex::new(Links::asking()?);
    Ok(Arc::new(move || {
        is_looked_at.store(true, Ordering::Relaxed);
        let Kept {
            mut status,
            guarded,
        } = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // The record is written at events, so the times are brought up to date here.
        let before = std::mem::replace(&mut status.uptime_ms, millis(began.elapsed()));
        let passed = status.uptime_ms.saturating_sub(before);
        let mut links = links.lock().unwrap_or_else(PoisonError::into_inner);
        let switched = traffic::on_switch(&switch, COUNTERS);
        for (service, vif) in status.services.iter_mut().zip(guarded) {
            if let Some(uptime_ms) = &mut service.uptime_ms {
                *uptime_ms = uptime_ms.saturating_add(passed);
            }
            let dropped = vif.and_then(|vif| guard::dropped(&mut links, vif).ok());
            let guest = service.domid.and_then(|domid| switched.get(&domid));
            let of_switch = guest.map(|guest| guest.counters.guarded());
            service.guarded = of_switch.unwrap_or(dropped.unwrap_or(0).into());
            let find = |domid| NetworkTraffic::find(guest, domid);
            service.traffic = service.domid.and_then(find);
        }
        Arc::new(status)
    }))
}

fn counts<const N: usize>(counts: [(&str, u64); N]) -> CountsByKind {
    let counts = counts.into_iter();
    counts
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
}

fn service(entry: &ServiceEntry, unit: &Unit, now: Instant) -> ServiceStatus {
    let (state, since) = match unit.state {
        ServiceState::Asleep => (ShownState::Asleep, None),
        ServiceState::Queued => (ShownState::Queued, None),
        ServiceState::BeingBorn => (ShownState::BeingBorn, None),
        ServiceState::Proving(_, since) => (ShownState::Running, Some(since)),
        ServiceState::Running(running) => (ShownState::Running, Some(running.since)),
        ServiceState::Suspended(..) => (ShownState::Suspended, None),
        ServiceState::Dying(_) => (ShownState::Dying, None),
        ServiceState::BackedOff(_) => (ShownState::BackedOff, None),
    };
    let steps = entry.birth.iter().flat_map(|birth| birth.spans());
    ServiceStatus {
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
            .map(|span| BirthStep {
                what: span.what,
                from_us: span.from_us,
                to_us: span.to_us,
            })
            .collect(),
        memory: entry.service.memory,
        queries: entry.queries,
        requests: entry.requests,
        frames: entry.frames,
        guarded: 0,
        network: entry.service.network,
        traffic: None,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

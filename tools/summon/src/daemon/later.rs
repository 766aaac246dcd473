//! Work that is postponed while a service is being woken: log lines, the kernel's events about links, and other work
//! that no client waits for. If dom0 has few CPUs, it would delay the guest's first answer.

use std::time::{Duration, Instant};

use super::super::log::Line;
use super::Daemon;

/// The longest delay. A guest that was made ahead answers within that time.
const LATER: Duration = Duration::from_millis(20);

type Task = Box<dyn FnOnce(&mut Daemon)>;

/// The postponed work, in order.
#[derive(Default)]
pub(super) struct Later {
    /// The time at which it is done; `None` while no service is being woken, when nothing is postponed.
    at: Option<Instant>,
    tasks: Vec<Task>,
}

impl Later {
    /// The time at which the postponed work has to be done.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }
}

impl Daemon {
    /// Postpones work from now on, because a service is being woken.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.later.at.get_or_insert(now + LATER);
    }

    /// Does some work now, or later while a service is being woken.
    pub(super) fn later(&mut self, task: impl FnOnce(&mut Self) + 'static) {
        match self.later.at {
            Some(_) => self.later.tasks.push(Box::new(task)),
            None => task(self),
        }
    }

    /// Writes a log line, now or later. The line is composed only when it is written.
    pub(super) fn note(&mut self, line: impl FnOnce() -> Line + 'static) {
        self.later(|_| line().write());
    }

    /// Does all postponed work.
    pub(super) fn catch_up(&mut self) {
        self.later.at = None;
        for task in std::mem::take(&mut self.later.tasks) {
            task(self);
        }
        self.way.mark();
    }
}

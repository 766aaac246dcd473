//! What is put off while a service is being woken: lines of the log, the kernel's news of links, and whatever else nobody waits for.
//! Where dom0 has few CPUs, the guest's first answer would wait behind it.

use std::time::{Duration, Instant};

use super::super::log::Line;
use super::Daemon;

/// How long it is put off at most. A guest that was made ahead answers within that time.
const LATER: Duration = Duration::from_millis(20);

type Task = Box<dyn FnOnce(&mut Daemon)>;

/// What is put off, in its order.
#[derive(Default)]
pub(super) struct Later {
    /// When it is done. Nothing is put off unless a service is being woken.
    at: Option<Instant>,
    tasks: Vec<Task>,
}

impl Later {
    /// When what was put off has to be done.
    pub(super) fn at(&self) -> Option<Instant> {
        self.at
    }
}

impl Daemon {
    /// A service is being woken: from now on, what nobody waits for is put off.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.later.at.get_or_insert(now + LATER);
    }

    /// Does something that nobody waits for.
    pub(super) fn later(&mut self, task: impl FnOnce(&mut Self) + 'static) {
        match self.later.at {
            Some(_) => self.later.tasks.push(Box::new(task)),
            None => task(self),
        }
    }

    /// Writes a line of the log. It is put together only when there is time for it.
    pub(super) fn note(&mut self, line: impl FnOnce() -> Line + 'static) {
        self.later(|_| line().write());
    }

    /// Does all that was put off.
    pub(super) fn catch_up(&mut self) {
        self.later.at = None;
        for task in std::mem::take(&mut self.later.tasks) {
            task(self);
        }
        self.way.mark();
    }
}

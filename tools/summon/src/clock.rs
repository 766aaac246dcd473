//! Moments that mean the same in both processes.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// How long ago a moment may be that the other process tells.
const PAST: Duration = Duration::from_secs(60);

/// Nanoseconds of the kernel's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(u64);

/// Goes between moments and this process' instants.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    instant: Instant,
    nanoseconds: u64,
}

impl Clock {
    /// Looks at both clocks.
    #[must_use]
    pub fn new() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let part = u64::try_from(time.tv_nsec).unwrap_or_default();
        Self {
            instant: Instant::now(),
            nanoseconds: seconds.saturating_mul(1_000_000_000).saturating_add(part),
        }
    }

    /// What the other process is told.
    #[must_use]
    pub fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.instant).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        Moment(self.nanoseconds.saturating_add(since))
    }

    /// What the other process has told: not later than now, and not long ago, whatever it was.
    #[must_use]
    pub fn instant(&self, moment: Moment, now: Instant) -> Instant {
        let since = Duration::from_nanos(moment.0.saturating_sub(self.nanoseconds));
        let at = self.instant.checked_add(since).unwrap_or(now);
        let first = now.checked_sub(PAST).unwrap_or(self.instant);
        at.clamp(first.min(now), now)
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_an_instant_again_and_none_is_in_the_future() {
        let clock = Clock::new();
        let at = Instant::now();
        let now = at + Duration::from_secs(1);
        assert_eq!(clock.instant(clock.moment(at), now), at);
        assert_eq!(clock.instant(Moment(u64::MAX), now), now);
        let first = clock.instant(Moment(0), now + Duration::from_secs(1000));
        assert_eq!(first, now + Duration::from_secs(1000) - PAST);
    }
}

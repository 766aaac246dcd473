//! Times that both processes understand.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// The greatest age of a moment from the other process.
const PAST: Duration = Duration::from_secs(60);

/// Nanoseconds of the kernel's monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(u64);

/// Converts between moments and this process' instants.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    instant: Instant,
    nanoseconds: u64,
}

impl Clock {
    /// Reads both clocks.
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

    /// Converts an instant, for the other process.
    #[must_use]
    pub fn moment(&self, at: Instant) -> Moment {
        let since = at.saturating_duration_since(self.instant).as_nanos();
        let since = u64::try_from(since).unwrap_or(u64::MAX);
        Moment(self.nanoseconds.saturating_add(since))
    }

    /// Converts a moment of the other process. The result is bounded to the minute before `now`.
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

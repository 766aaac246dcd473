//! The delay before a guest is restarted: none at first, then longer while its lives are short.

use std::time::{Duration, Instant};

/// The least time between two births of a guest.
const LEAST: Duration = Duration::from_secs(5);
/// The longest delay before a guest is made again.
const MOST: Duration = Duration::from_secs(320);
/// The life after which a guest counts as started.
const LONG: Duration = Duration::from_secs(60);

/// The pace of one guest's births.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pace {
    /// The time of the last birth, or of the last attempt.
    born: Instant,
    /// The least time from then to the next birth.
    wait: Duration,
}

impl Pace {
    /// The pace of a guest that is made now, after its last birth at the pace `before`.
    pub(super) fn born(before: Option<Self>, now: Instant) -> Self {
        let wait = match before {
            Some(before) if now.saturating_duration_since(before.born) < before.wait + LONG => {
                (before.wait * 2).min(MOST)
            }
            _ => LEAST,
        };
        Self { born: now, wait }
    }

    /// The time from which it may be made again.
    pub(super) fn due(self) -> Instant {
        self.born + self.wait
    }

    /// Whether its delay is the longest.
    pub(super) fn is_slowest(self) -> bool {
        self.wait >= MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_lives_come_ever_later_and_a_long_one_begins_anew() {
        let mut now = Instant::now();
        let mut pace = Pace::born(None, now);
        let mut waits = Vec::new();
        for _ in 0..8 {
            assert!(pace.due() >= now + LEAST);
            waits.push((pace.due() - now).as_secs());
            now = pace.due();
            pace = Pace::born(Some(pace), now);
        }
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 320]);
        assert!(pace.is_slowest());
        now = pace.due() + LONG;
        assert_eq!(Pace::born(Some(pace), now).due(), now + LEAST);
    }
}

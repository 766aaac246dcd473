//! A token bucket, for messages that the messages of others cause.

use smoltcp::time::Instant;

/// The greatest number of tokens.
const BURST: i64 = 50;
/// The time between two tokens in milliseconds: a hundred tokens a second.
const EACH: i64 = 10;

/// A bucket of tokens, stored as the time at which it will be full.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    full_at: i64,
}

impl Limit {
    pub(super) const FULL: Self = Self { full_at: 0 };

    /// Takes a token. Returns `false` if there is none.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let now = now.total_millis();
        let full_at = self.full_at.max(now) + EACH;
        let is_left = full_at - now <= BURST * EACH;
        if is_left {
            self.full_at = full_at;
        }
        is_left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_and_then_a_hundred_a_second() {
        let mut limit = Limit::FULL;
        let mut taken = |from: i64, to: i64| {
            (from..to)
                .flat_map(|at| [at; 10])
                .filter(|&at| limit.take(Instant::from_millis(at)))
                .count()
        };
        assert_eq!(taken(1000, 1001), 10);
        assert_eq!(taken(1001, 2000), 40 + 99);
        assert_eq!(taken(2000, 3000), 100);
        assert_eq!(taken(9000, 9010), 50);
    }
}

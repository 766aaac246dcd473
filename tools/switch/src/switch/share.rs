//! The shares of the guests: deficit round robin among senders, with limits for each.
//!
//! In each round every guest that sends may send frames of a total cost of [`QUANTUM`]. A frame costs as much for each
//! of its receivers. The cost of the last frame beyond the quantum is deducted in the next rounds. So a guest that
//! floods delays another by no more than its quantum and one frame.

use serde::{Deserialize, Serialize};

/// The cost that a guest may spend in a round: four frames of the greatest length. With one of them in each round, the
/// rest of a round would cost as much as the frame.
pub const QUANTUM: i64 = 256 * 1024;
/// The cost of a frame beside its bytes: moving a short frame takes as long as copying this many bytes.
pub const FRAME_COST: i64 = 1024;

/// The cost of one frame for one receiver.
pub(super) fn cost(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX / 2) + FRAME_COST
}

/// The divisor of a second's limit that gives the burst.
const BURST: u64 = 10;
const SECOND: u64 = 1_000_000_000;

/// The limits of a guest's sending, per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SendLimits {
    /// Frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frames: Option<u64>,
    /// Bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl SendLimits {
    /// Whether there is no limit.
    #[must_use]
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// A token bucket for a limit per second.
#[derive(Debug)]
struct Bucket {
    rate: u64,
    /// The tokens times [`SECOND`]; negative after a frame that cost more than was left.
    level: i128,
    since: u64,
}

impl Bucket {
    fn new(rate: u64, now: u64) -> Self {
        let mut bucket = Self {
            rate,
            level: 0,
            since: now,
        };
        bucket.level = bucket.full();
        bucket
    }

    /// The capacity: a tenth of a second's limit. A frame may pass whenever the level is above zero.
    fn full(&self) -> i128 {
        i128::from(self.rate) * i128::from(SECOND / BURST)
    }

    fn refill(&mut self, now: u64) {
        let passed = now.saturating_sub(self.since);
        self.since = now;
        let gained = i128::from(self.rate) * i128::from(passed);
        self.level = (self.level + gained).min(self.full());
    }

    fn charge(&mut self, amount: u64) {
        self.level -= i128::from(amount) * i128::from(SECOND);
    }

    /// The time, in ns, from which the level is above zero again.
    fn ready_at(&self) -> u64 {
        if self.level > 0 || self.rate == 0 {
            return self.since;
        }
        let wait = (-self.level) / i128::from(self.rate) + 1;
        self.since
            .saturating_add(u64::try_from(wait).unwrap_or(u64::MAX))
    }
}

/// One guest's share.
#[derive(Debug)]
pub(super) struct Share {
    deficit: i64,
    frames: Option<Bucket>,
    bytes: Option<Bucket>,
}

impl Share {
    pub(super) fn new(limits: SendLimits, now: u64) -> Self {
        // A limit of 0 would never end.
        let bucket = |rate: u64| Bucket::new(rate.max(1), now);
        Self {
            deficit: 0,
            frames: limits.frames.map(bucket),
            bytes: limits.bytes.map(bucket),
        }
    }

    /// Begins a round; returns the cost that may be spent in it, or 0 while a limit is used up.
    pub(super) fn begin(&mut self, now: u64) -> usize {
        let mut is_ready = true;
        for bucket in [&mut self.frames, &mut self.bytes].into_iter().flatten() {
            bucket.refill(now);
            is_ready &= bucket.level > 0;
        }
        if !is_ready {
            return 0;
        }
        self.deficit = (self.deficit + QUANTUM).min(QUANTUM);
        usize::try_from(self.deficit).unwrap_or(0)
    }

    /// Charges for a frame of this length, whose delivery has had this cost. Returns whether the rest of the round's
    /// frames have to wait: a frame for many has used up the round.
    pub(super) fn charge(&mut self, bytes: usize, spent: i64) -> bool {
        let least = cost(bytes);
        self.deficit = self.deficit.saturating_sub(spent.max(least));
        if let Some(frames) = &mut self.frames {
            frames.charge(1);
        }
        if let Some(limit) = &mut self.bytes {
            limit.charge(bytes as u64);
        }
        self.deficit <= 0 && spent > 2 * least
    }

    /// The time, in ns, until which a limit is used up.
    pub(super) fn limited_until(&self) -> Option<u64> {
        let buckets = [&self.frames, &self.bytes].into_iter().flatten();
        buckets
            .filter(|bucket| bucket.level <= 0)
            .map(Bucket::ready_at)
            .max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_bounded_and_a_debt_is_paid_first() {
        let mut share = Share::new(SendLimits::default(), 0);
        assert_eq!(share.begin(0), 262_144);
        // Unused cost is not saved.
        assert_eq!(share.begin(0), 262_144);
        for _ in 0..4 {
            assert!(!share.charge(65_535, cost(65_535)));
            share.charge(65_535, 3 * cost(65_535));
        }
        let mut rounds = 0;
        while share.begin(0) == 0 {
            rounds += 1;
            assert!(rounds < 10);
        }
        // 16 * 66,559 are more than four rounds.
        assert_eq!(rounds, 4 - 1);
    }

    #[test]
    fn limits_hold_for_a_second_and_tell_when_they_end() {
        let limits = SendLimits {
            frames: Some(100),
            bytes: None,
        };
        let mut share = Share::new(limits, 0);
        let (mut now, mut sent) = (0, 0);
        while now < 10 * SECOND {
            if share.begin(now) > 0 {
                share.charge(60, cost(60));
                sent += 1;
            }
            now = share
                .limited_until()
                .unwrap_or(now + 1_000_000)
                .max(now + 1);
        }
        assert!((1_000..=1_015).contains(&sent), "{sent}");
    }

    #[test]
    fn a_limit_of_nothing_is_one_of_next_to_nothing() {
        let limits = SendLimits {
            frames: Some(0),
            bytes: Some(0),
        };
        let mut share = Share::new(limits, 0);
        share.begin(0);
        share.charge(60, cost(60));
        assert_eq!(share.begin(SECOND), 0);
        assert!(share.limited_until().is_some_and(|until| until > SECOND));
    }
}

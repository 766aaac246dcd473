//! The limits of births: token buckets, and a queue that serves clients' networks in turn.

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The number of buckets for clients' networks. A bucket serves all networks that hash to it, so a flood of forged
/// addresses cannot make the table grow or push a network out.
const BUCKETS: usize = 1024;

/// The network of a client: its /24 or /56.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(IpAddr);

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(v4) => Ipv4Addr::from_bits(v4.to_bits() & !0xff).into(),
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !(u128::MAX >> 56)).into(),
        })
    }
}

/// A token bucket, stored as the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    full_at: Option<Instant>,
}

/// The rate and the size of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// The time between two tokens.
    pub(super) each: Duration,
    /// The number of tokens in a full bucket.
    pub(super) burst: u32,
}

impl Bucket {
    pub(super) const FULL: Self = Self { full_at: None };

    /// Takes a token. If there is none, returns the time at which there will be one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Instant> {
        let full_at = self.full_at.map_or(now, |full_at| full_at.max(now));
        let room = rate.each.saturating_mul(rate.burst.saturating_sub(1));
        match full_at.duration_since(now).checked_sub(room) {
            None | Some(Duration::ZERO) => {
                self.full_at = Some(full_at + rate.each);
                Ok(())
            }
            Some(wait) => Err(now + wait),
        }
    }
}

/// The buckets of clients' networks.
pub(super) struct Prefixes {
    buckets: Vec<Bucket>,
    hasher: RandomState,
}

impl Prefixes {
    pub(super) fn new() -> Self {
        Self {
            buckets: vec![Bucket::FULL; BUCKETS],
            hasher: RandomState::new(),
        }
    }

    pub(super) fn take(&mut self, prefix: Prefix, rate: Rate, now: Instant) -> bool {
        let index = self.hasher.hash_one(prefix) % BUCKETS as u64;
        let bucket = usize::try_from(index)
            .ok()
            .and_then(|index| self.buckets.get_mut(index));
        bucket.is_some_and(|bucket| bucket.take(rate, now).is_ok())
    }
}

/// A queue that serves networks in turn, and each network's entries in order.
#[derive(Debug)]
pub(super) struct Queue<T> {
    turns: VecDeque<(Option<Prefix>, VecDeque<T>)>,
}

impl<T: PartialEq> Queue<T> {
    pub(super) fn new() -> Self {
        Self {
            turns: VecDeque::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.turns.iter().map(|(_, waiting)| waiting.len()).sum()
    }

    pub(super) fn push(&mut self, prefix: Option<Prefix>, one: T) {
        match self.turns.iter_mut().find(|(turn, _)| *turn == prefix) {
            Some((_, waiting)) => waiting.push_back(one),
            None => self.turns.push_back((prefix, VecDeque::from([one]))),
        }
    }

    pub(super) fn front(&self) -> Option<&T> {
        self.turns.front()?.1.front()
    }

    /// Takes the first entry. Its network then goes behind all others.
    pub(super) fn pop(&mut self) -> Option<T> {
        let (prefix, mut waiting) = self.turns.pop_front()?;
        let one = waiting.pop_front();
        if !waiting.is_empty() {
            self.turns.push_back((prefix, waiting));
        }
        one
    }

    pub(super) fn remove(&mut self, gone: &T) {
        for (_, waiting) in &mut self.turns {
            waiting.retain(|one| one != gone);
        }
        self.turns.retain(|(_, waiting)| !waiting.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse::<IpAddr>().unwrap().into()
    }

    #[test]
    fn networks() {
        assert_eq!(prefix("192.0.2.1"), prefix("192.0.2.255"));
        assert_eq!(prefix("192.0.2.1"), prefix("::ffff:192.0.2.9"));
        assert_ne!(prefix("192.0.2.1"), prefix("192.0.3.1"));
        assert_eq!(prefix("2001:db8:0:0100::1"), prefix("2001:db8:0:01ff::1"));
        assert_ne!(prefix("2001:db8:0:0100::1"), prefix("2001:db8:0:0200::1"));
    }

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let rate = Rate {
            each: Duration::from_millis(100),
            burst: 3,
        };
        let start = Instant::now();
        let mut bucket = Bucket::FULL;
        for _ in 0..3 {
            assert_eq!(bucket.take(rate, start), Ok(()));
        }
        let later = start + Duration::from_millis(100);
        assert_eq!(bucket.take(rate, start), Err(later));
        assert_eq!(bucket.take(rate, later), Ok(()));
        assert!(bucket.take(rate, later).is_err());
        let much_later = start + Duration::from_secs(60);
        let given = (0..10).filter(|_| bucket.take(rate, much_later).is_ok());
        assert_eq!(given.count(), 3);
    }

    #[test]
    fn one_network_does_not_keep_another_waiting() {
        let mut queue = Queue::new();
        for n in 0..5 {
            queue.push(Some(prefix("192.0.2.1")), n);
        }
        queue.push(Some(prefix("198.51.100.1")), 10);
        queue.remove(&1);
        assert_eq!(queue.len(), 5);
        let order: Vec<i32> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, [0, 10, 2, 3, 4]);
    }
}

//! Response rate limiting: bounds the answers to each client network.
//!
//! Answers over UDP are counted by the prefix of the client's address, which may be forged. Above the limit every
//! second answer is dropped, and the others are truncated to the header and question: a client that did ask comes again
//! over TCP, and a victim gets no more bytes than were sent in its name.
//!
//! A bucket is shared by all prefixes that hash to it. So a flood of forged addresses cannot push a prefix out of the
//! table. It can only make honest clients that share a bucket use TCP.

use core::net::IpAddr;
use core::num::NonZeroU16;

use super::low;
use mayfly_stream::Millis;

/// The number of buckets, a power of two.
const BUCKETS: usize = 1024;
/// The ticks of a bucket's clock in a millisecond, and in a second.
const TICKS: u64 = 64;
const SECOND: u32 = 64_000;

/// Whether an answer is sent, truncated or dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Send,
    Truncate,
    Drop,
}

/// Token buckets that hold the answers of one second, each as the time at which it will be full
/// again (the generic cell rate algorithm, ITU-T I.371).
#[derive(Clone, Debug)]
pub(super) struct Limiter {
    /// The ticks of one answer; `None` for no limit.
    cost: Option<u32>,
    seed: u64,
    full_at: [u32; BUCKETS],
    slip: bool,
}

impl Limiter {
    pub(super) fn new(limit: Option<NonZeroU16>, seed: u64) -> Self {
        Self {
            cost: limit.map(|limit| SECOND.div_ceil(limit.get().into())),
            seed,
            full_at: [0; BUCKETS],
            slip: false,
        }
    }

    /// Counts one answer.
    pub(super) fn count(&mut self, now: Millis, address: IpAddr) -> Verdict {
        let Some(cost) = self.cost else {
            return Verdict::Send;
        };
        let Some(full_at) = self.full_at.get_mut(bucket(self.seed, address)) else {
            return Verdict::Send;
        };
        // It wraps after 18 hours.
        let now = low(now.wrapping_mul(TICKS));
        // A time further ahead than a bucket can be has passed.
        let ahead = match full_at.wrapping_sub(now) {
            ahead @ 0..=SECOND => ahead,
            _ => 0,
        };
        if ahead + cost <= SECOND {
            *full_at = now.wrapping_add(ahead + cost);
            return Verdict::Send;
        }
        self.slip = !self.slip;
        if self.slip {
            Verdict::Truncate
        } else {
            Verdict::Drop
        }
    }
}

/// The bucket of an address: of its /24 or /56.
fn bucket(seed: u64, address: IpAddr) -> usize {
    let prefix = match address {
        IpAddr::V4(address) => u64::from(address.to_bits() >> 8),
        IpAddr::V6(address) => {
            let [a, b, c, d, e, f, g, ..] = address.octets();
            u64::from_be_bytes([1, a, b, c, d, e, f, g])
        }
    };
    // Multiplicative hashing: the high bits depend on all bits of the prefix and the seed.
    let mixed = (prefix ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ mixed >> 32 ^ seed.rotate_left(32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    low(mixed >> 32) as usize / (1 << (32 - BUCKETS.trailing_zeros()))
}

//! A small deterministic generator: the same seed gives the same frames on every machine.

/// SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator for a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Less than `bound`; 0 for a bound of 0.
    #[allow(clippy::cast_possible_truncation, reason = "less than a usize")]
    pub fn below(&mut self, bound: usize) -> usize {
        (self.bits() % (bound.max(1) as u64)) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// A byte.
    #[allow(clippy::cast_possible_truncation, reason = "eight bits of it")]
    pub fn byte(&mut self) -> u8 {
        self.bits() as u8
    }

    /// Sixteen bits.
    #[allow(clippy::cast_possible_truncation, reason = "sixteen bits of it")]
    pub fn word(&mut self) -> u16 {
        self.bits() as u16
    }

    /// Thirty-two bits.
    #[allow(clippy::cast_possible_truncation, reason = "thirty-two bits of it")]
    pub fn long(&mut self) -> u32 {
        self.bits() as u32
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// Random bytes, fewer than `bound`.
    pub fn noise(&mut self, bound: usize) -> Vec<u8> {
        let length = self.below(bound);
        self.bytes(length)
    }

    /// So many random bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.byte()).collect()
    }
}

//! Pseudo-random numbers: the same seed gives the same lies.

/// Marsaglia's xorshift, with 64 bits of state.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        let mut this = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        // Seeds that are close to each other begin alike.
        for _ in 0..16 {
            this.u64();
        }
        this
    }

    pub(crate) fn u64(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::try_from(self.u64() >> 32).unwrap_or(0)
    }

    pub(crate) fn u16(&mut self) -> u16 {
        u16::try_from(self.u64() >> 48).unwrap_or(0)
    }

    pub(crate) fn u8(&mut self) -> u8 {
        u8::try_from(self.u64() >> 56).unwrap_or(0)
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.u32() % bound
    }

    /// True once in `many` times.
    pub(crate) fn once_in(&mut self, many: u32) -> bool {
        self.below(many) == 0
    }
}

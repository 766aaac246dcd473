//! The time stamp counter, which no safe crate offers.
#![allow(unsafe_code)]

/// The time stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: RDTSC reads no memory; Linux permits it to user programs unless prctl forbids it.
    unsafe { core::arch::x86_64::_rdtsc() }
}

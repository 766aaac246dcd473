//! Xen's paravirtual clock: system time and wall clock, read from `shared_info`.
//!
//! Source: Xen 4.17 public/xen.h, `struct vcpu_time_info` and `wc_*`. Both are
//! sequence locks that Xen writes; a reader gives up after a bound instead of
//! spinning on a version that never settles.

use core::cell::Cell;

use crate::abi::shared_info as layout;
use crate::{SharedPage, SystemTime};

/// Attempts at a consistent copy. Xen's update takes some tens of instructions, so two are the rule.
const ATTEMPTS: usize = 1000;
const NANOS_PER_SEC: u64 = 1_000_000_000;

/// A consistent copy of `vcpu_time_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeInfo {
    /// TSC at the last update.
    pub tsc_timestamp: u64,
    /// System time at the last update, in ns.
    pub system_time: u64,
    /// ns per (shifted) TSC tick, as a fraction of 2^32.
    pub tsc_to_system_mul: u32,
    /// Binary shift of the TSC delta, left when positive.
    pub tsc_shift: i8,
}

impl TimeInfo {
    /// System time at a TSC value. A TSC before the last update gives the time of the update.
    #[inline]
    #[must_use]
    pub fn at(&self, tsc: u64) -> SystemTime {
        // Modulo 2^64: a guest's TSC starts near 0 at its creation, so an update
        // from before that has a timestamp just below 2^64.
        let ticks = tsc.wrapping_sub(self.tsc_timestamp);
        let ticks = if ticks.cast_signed() < 0 { 0 } else { ticks };
        let shift = u32::from(self.tsc_shift.unsigned_abs());
        // Xen writes shifts of -32 to 31; a shift of 64 and more would lose all bits.
        let shifted = if self.tsc_shift < 0 {
            ticks.checked_shr(shift).unwrap_or(0)
        } else {
            ticks.checked_shl(shift).unwrap_or(0)
        };
        let product = u128::from(shifted) * u128::from(self.tsc_to_system_mul);
        #[allow(
            clippy::cast_possible_truncation,
            reason = "96 bits shifted right by 32"
        )]
        let delta = (product >> 32) as u64;
        SystemTime(self.system_time.wrapping_add(delta))
    }

    /// The frequency of the TSC in kHz, computed from the scale; 0 if the scale is invalid.
    #[must_use]
    pub fn tsc_khz(&self) -> u64 {
        // mul / 2^32 ns a shifted tick, so 10^6 * 2^32 / mul shifted ticks a ms.
        let khz = (1_000_000u64 << 32).checked_div(self.tsc_to_system_mul.into());
        let shift = u32::from(self.tsc_shift.unsigned_abs());
        let unshifted = khz.and_then(|khz| match self.tsc_shift < 0 {
            true => khz.checked_shl(shift),
            false => khz.checked_shr(shift),
        });
        unshifted.unwrap_or(0)
    }
}

/// A time of day, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WallClock {
    /// Seconds since 1970-01-01.
    pub seconds: u64,
    /// Nanoseconds within the second, below 10^9.
    pub nanos: u32,
}

/// Copies the time info of the first vCPU and passes the TSC read beside it; `None` if Xen's copy never settles.
#[inline]
#[must_use]
pub fn time_info(
    shared_info: &SharedPage,
    mut tsc: impl FnMut() -> u64,
) -> Option<(TimeInfo, u64)> {
    for _ in 0..ATTEMPTS {
        let version = shared_info.load_acquire(layout::TIME_VERSION);
        if version & 1 != 0 {
            core::hint::spin_loop();
            continue;
        }
        let [mul, shift] = split(shared_info.load64(layout::TSC_TO_SYSTEM_MUL));
        let info = TimeInfo {
            tsc_timestamp: shared_info.load64(layout::TSC_TIMESTAMP),
            system_time: shared_info.load64(layout::SYSTEM_TIME),
            tsc_to_system_mul: mul,
            tsc_shift: shift.to_le_bytes()[0].cast_signed(),
        };
        let tsc = tsc();
        if shared_info.reload_after(layout::TIME_VERSION) == version {
            return Some((info, tsc));
        }
    }
    None
}

/// Both halves of a 64-bit word, low first.
#[inline]
fn split(word: u64) -> [u32; 2] {
    let b = word.to_le_bytes();
    [
        u32::from_le_bytes([b[0], b[1], b[2], b[3]]),
        u32::from_le_bytes([b[4], b[5], b[6], b[7]]),
    ]
}

/// The guest's time: Xen's system time as long as the guest runs on one host. It never goes back, also when the vCPU
/// moves to a CPU whose TSC lags, or the guest to a host that booted later.
#[derive(Debug, Default)]
pub struct Clock {
    last: Cell<u64>,
    /// The guest's time minus Xen's system time, in ns.
    ahead: Cell<i64>,
}

impl Clock {
    /// A clock at zero.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            last: Cell::new(0),
            ahead: Cell::new(0),
        }
    }

    /// The guest's time now; the last one again if `shared_info` is not consistent.
    #[inline]
    pub fn now(&self, shared_info: &SharedPage, tsc: impl FnMut() -> u64) -> SystemTime {
        let mut now = self.last.get();
        if let Some((info, tsc)) = time_info(shared_info, tsc) {
            let guest = info.at(tsc).0.saturating_add_signed(self.ahead.get());
            now = now.max(guest);
            self.last.set(now);
        }
        SystemTime(now)
    }

    /// Goes on from the last time that was told, in a domain whose system time is another one.
    pub fn resumed(&self, shared_info: &SharedPage, tsc: impl FnMut() -> u64) {
        if let Some((info, tsc)) = time_info(shared_info, tsc) {
            let ahead = i128::from(self.last.get()) - i128::from(info.at(tsc).0);
            self.ahead.set(i64::try_from(ahead).unwrap_or(0));
        }
    }

    /// Xen's system time at a time of the guest's.
    #[must_use]
    pub fn system(&self, guest: SystemTime) -> SystemTime {
        SystemTime(guest.0.saturating_sub_signed(self.ahead.get()))
    }
}

/// The wall clock at a system time; `None` if Xen's copy never settles or makes no sense.
#[must_use]
pub fn wall_clock(shared_info: &SharedPage, now: SystemTime) -> Option<WallClock> {
    for _ in 0..ATTEMPTS {
        let version = shared_info.load_acquire(layout::WC_VERSION);
        if version & 1 != 0 {
            core::hint::spin_loop();
            continue;
        }
        let low = shared_info.load_acquire(layout::WC_SEC);
        let nanos = shared_info.load_acquire(layout::WC_NSEC);
        let high = shared_info.load_acquire(layout::WC_SEC_HI);
        if shared_info.reload_after(layout::WC_VERSION) != version {
            continue;
        }
        let boot = (u64::from(high) << 32) | u64::from(low);
        let nanos = u64::from(nanos) + now.0 % NANOS_PER_SEC;
        let seconds = boot
            .checked_add(now.0 / NANOS_PER_SEC)?
            .checked_add(nanos / NANOS_PER_SEC)?;
        let nanos = u32::try_from(nanos % NANOS_PER_SEC).ok()?;
        return Some(WallClock { seconds, nanos });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(version: u32, info: TimeInfo) -> SharedPage {
        let page = SharedPage::leak();
        page.store_release(layout::TIME_VERSION, version);
        page.store64(layout::TSC_TIMESTAMP, info.tsc_timestamp);
        page.store64(layout::SYSTEM_TIME, info.system_time);
        page.store_release(layout::TSC_TO_SYSTEM_MUL, info.tsc_to_system_mul);
        page.copy_in(layout::TSC_SHIFT, &[info.tsc_shift.to_le_bytes()[0], 0xff]);
        page
    }

    const HALF: TimeInfo = TimeInfo {
        tsc_timestamp: 1000,
        system_time: 5_000_000,
        tsc_to_system_mul: 1 << 31,
        tsc_shift: 0,
    };

    #[test]
    fn multiplies_in_128_bits_and_shifts_both_ways() {
        assert_eq!(HALF.at(3000).0, 5_001_000);
        assert_eq!(HALF.at(900).0, 5_000_000, "a TSC that lags");
        let up = TimeInfo {
            tsc_shift: 2,
            ..HALF
        };
        assert_eq!(up.at(3000).0, 5_004_000);
        let down = TimeInfo {
            tsc_shift: -3,
            ..HALF
        };
        assert_eq!(down.at(3000).0, 5_000_125);
        let long = TimeInfo {
            tsc_to_system_mul: u32::MAX,
            ..HALF
        };
        let year: u64 = 3_000_000_000 * 86_400 * 365;
        let expected =
            5_000_000 + u64::try_from((u128::from(year) * u128::from(u32::MAX)) >> 32).unwrap();
        assert_eq!(long.at(1000 + year).0, expected);
        for tsc_shift in [i8::MIN, -64, 64, i8::MAX] {
            let odd = TimeInfo { tsc_shift, ..HALF };
            assert_eq!(odd.at(u64::MAX).0, 5_000_000);
        }
    }

    #[test]
    fn reads_what_xen_wrote() {
        let info = TimeInfo {
            tsc_shift: -7,
            ..HALF
        };
        assert_eq!(time_info(&page(2, info), || 77), Some((info, 77)));
    }

    #[test]
    fn a_version_that_never_settles_ends_the_wait() {
        let odd = page(3, HALF);
        assert_eq!(time_info(&odd, || 0), None);
        let moving = page(2, HALF);
        let mut version = 2;
        let bump = || {
            version += 2;
            moving.store_release(layout::TIME_VERSION, version);
            0
        };
        assert_eq!(time_info(&moving, bump), None);
    }

    #[test]
    fn an_update_from_before_the_guest_existed_counts() {
        let info = TimeInfo {
            tsc_timestamp: u64::MAX - 999,
            ..HALF
        };
        assert_eq!(info.at(1000).0, 5_001_000);
    }

    #[test]
    fn the_clock_never_goes_back() {
        let page = page(2, HALF);
        let clock = Clock::new();
        assert_eq!(clock.now(&page, || 3000).0, 5_001_000);
        assert_eq!(clock.now(&page, || 2000).0, 5_001_000);
        page.store_release(layout::TIME_VERSION, 3);
        assert_eq!(clock.now(&page, || 9000).0, 5_001_000);
    }

    #[test]
    fn time_goes_on_where_it_stopped_on_another_host() {
        let clock = Clock::new();
        let stopped = clock.now(&page(2, HALF), || 3000);
        for system_time in [70_000, 9_000_000_000] {
            let other = page(
                2,
                TimeInfo {
                    system_time,
                    ..HALF
                },
            );
            clock.resumed(&other, || 1000);
            assert_eq!(clock.now(&other, || 1000), stopped);
            assert_eq!(clock.now(&other, || 1200).0, stopped.0 + 100);
            let system = clock.system(SystemTime(stopped.0 + 100));
            assert_eq!(system.0, system_time + 100);
            assert!(clock.system(SystemTime(u64::MAX)).0 > u64::MAX / 2, "never");
            clock.last.set(stopped.0);
        }
    }

    #[test]
    fn wall_clock_adds_system_time() {
        let page = SharedPage::leak();
        page.store_release(layout::WC_SEC, 10);
        page.store_release(layout::WC_NSEC, 999_999_999);
        page.store_release(layout::WC_SEC_HI, 1);
        let now = SystemTime(2_000_000_002);
        let expected = WallClock {
            seconds: (1 << 32) + 13,
            nanos: 1,
        };
        assert_eq!(wall_clock(&page, now), Some(expected));
        page.store_release(layout::WC_VERSION, 1);
        assert_eq!(wall_clock(&page, now), None);
    }
}

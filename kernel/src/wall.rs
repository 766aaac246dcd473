//! The time of day.

use core::cell::Cell;

use mayfly_drivers::SystemTime;

/// 2020-01-01T00:00:00Z in seconds since 1970. An earlier time means that the host's clock was never set.
const PAST: u64 = 1_577_836_800;

/// The time of day, which is remembered while Xen is setting its clock.
#[derive(Debug, Default)]
pub struct Wall {
    /// Seconds since 1970 at system time zero.
    began: Cell<Option<u64>>,
}

impl Wall {
    /// Seconds since 1970 at `now`; `None` if the host's clock was never set. `read` is the time by Xen's clock, `None`
    /// while Xen is setting that.
    pub fn unix_seconds(&self, read: Option<u64>, now: SystemTime) -> Option<u64> {
        let uptime = now.0 / 1_000_000_000;
        if let Some(read) = read {
            self.began.set(read.checked_sub(uptime));
        }
        let seconds = self.began.get()?.saturating_add(uptime);
        (seconds >= PAST).then_some(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_goes_on_while_the_clock_is_set_and_is_not_made_up() {
        let wall = Wall::default();
        let at = |seconds: u64| SystemTime(seconds * 1_000_000_000);
        assert_eq!(wall.unix_seconds(None, at(100)), None);
        assert_eq!(
            wall.unix_seconds(Some(1_800_000_000), at(100)),
            Some(1_800_000_000)
        );
        assert_eq!(wall.unix_seconds(None, at(105)), Some(1_800_000_005));
        // Set back, to a time that can be, and to none.
        assert_eq!(
            wall.unix_seconds(Some(1_700_000_000), at(110)),
            Some(1_700_000_000)
        );
        assert_eq!(wall.unix_seconds(Some(111), at(111)), None);
        assert_eq!(wall.unix_seconds(None, at(112)), None);
        assert_eq!(wall.unix_seconds(Some(5), at(113)), None);
    }
}

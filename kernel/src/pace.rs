//! How many frames the guest sleeps for: one, unless it is busy.
//!
//! To be woken for each frame costs both sides more than the frame itself: the back end notifies,
//! Xen switches, the guest notifies for one answer. A busy guest has a few frames gathered before it is
//! woken, and answers them with one notification.
//!
//! Busy is who sleeps no more than [`IDLE`] times as long as it works, wake after wake; and that is also
//! what a frame may have to wait for those that come after it. So a lone query never waits, nor do the
//! handful of frames of a first answer, and the waits follow from what waking costs on the machine at hand.

use mayfly_drivers::SystemTime;

/// Frames that are gathered at most.
const MOST: u32 = 32;
/// A frame waits for others at most so many times as long as the guest worked before it slept.
const IDLE: u64 = 4;
/// And never longer than this.
const LONGEST: u64 = 2_000_000;
/// Wakes that follow one another as closely as this are looked at.
const SOON: u64 = 2 * LONGEST;
/// After so many of them in a row.
const STREAK: u8 = 16;
/// Full batches after which more is tried than once came in time.
const TRY_AGAIN: u8 = 64;

/// What a sleep is to end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batch {
    /// So many frames, 1 to 32.
    pub frames: u32,
    /// Or, if they are not there by then, this time.
    pub until: SystemTime,
}

/// What is known of the last wakes.
#[derive(Debug, Clone)]
pub struct Pace {
    /// The last wake that found frames.
    woke: SystemTime,
    /// The last sleep's beginning, if it was looked at.
    slept: Option<SystemTime>,
    /// Wakes with frames in a row, each soon after the one before.
    streak: u8,
    /// Frames that were waited for.
    target: u32,
    /// As many as came in time when too many were waited for.
    ceiling: u32,
    /// Full batches until the ceiling is lifted.
    lift: u8,
    /// What the present sleep was to end with.
    batch: Option<Batch>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            woke: SystemTime(0),
            slept: None,
            streak: 0,
            target: 1,
            ceiling: MOST,
            lift: TRY_AGAIN,
            batch: None,
        }
    }
}

impl Pace {
    /// What to sleep for after a wake that found so many frames. `now` is the time at which the work is done; it
    /// is asked for only if it matters, because to read the clock may be an exit.
    pub fn next(
        &mut self,
        woke: SystemTime,
        frames: u32,
        now: impl FnOnce() -> SystemTime,
    ) -> Option<Batch> {
        let waited = self.batch.filter(|batch| frames < batch.frames);
        if frames == 0 {
            // Another event: the batch has the rest of its time.
            self.batch = waited.filter(|batch| woke < batch.until);
            if waited.is_some() && self.batch.is_none() {
                self.rest();
            }
            return self.batch;
        }
        let is_soon = woke.0.saturating_sub(self.woke.0) <= SOON;
        self.woke = woke;
        if !is_soon {
            self.rest();
            return None;
        }
        self.streak = self.streak.saturating_add(1);
        if self.streak < STREAK {
            return None;
        }
        let now = now();
        let work = now.0.saturating_sub(woke.0);
        let slept = self.slept.replace(now)?;
        let sleep = woke.0.saturating_sub(slept.0);
        // A sleep that ends with its time ends a little after it.
        let idle = if self.batch.is_some() { 2 * IDLE } else { IDLE };
        if sleep > idle.saturating_mul(work) {
            self.rest();
            return None;
        }
        match waited {
            // It was in vain: there are no more on their way.
            Some(batch) if woke >= batch.until => {
                self.ceiling = frames;
                self.lift = TRY_AGAIN;
                self.target = frames;
            }
            Some(_) => {}
            None => self.grow(),
        }
        self.batch = (self.target > 1).then(|| Batch {
            frames: self.target,
            until: SystemTime(now.0.saturating_add(work.saturating_mul(IDLE).min(LONGEST))),
        });
        self.batch
    }

    /// A batch came in time.
    fn grow(&mut self) {
        self.lift -= 1;
        if self.lift == 0 {
            self.lift = TRY_AGAIN;
            self.ceiling = (2 * self.ceiling).min(MOST);
        }
        self.target = (2 * self.target).min(self.ceiling);
    }

    /// The guest has little to do.
    fn rest(&mut self) {
        *self = Self {
            woke: self.woke,
            ..Self::default()
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: u64 = 1000;

    /// A guest with its clock.
    struct Guest {
        pace: Pace,
        now: u64,
        /// Whether the clock may be read a second time.
        may_look: bool,
    }

    impl Guest {
        fn new() -> Self {
            Self {
                pace: Pace::default(),
                now: 5_000_000 * US,
                may_look: true,
            }
        }

        /// Sleeps for so long, and then works for so long on so many frames.
        fn wake(&mut self, sleep: u64, work: u64, frames: u32) -> Option<Batch> {
            let woke = self.now + sleep;
            self.now = woke + work;
            let batch = self.pace.next(SystemTime(woke), frames, || {
                assert!(self.may_look, "the clock was read");
                SystemTime(self.now)
            });
            if let Some(batch) = batch {
                assert!((2..=MOST).contains(&batch.frames));
                let wait = batch.until.0 - self.now;
                let work = if frames == 0 { LONGEST } else { work };
                assert!(
                    wait <= LONGEST && wait <= IDLE * work,
                    "{wait} after {work}"
                );
            }
            batch
        }

        /// A few dozen wakes for one frame each, close to one another.
        fn make_busy(&mut self) -> Batch {
            let batch = (0..40).find_map(|_| self.wake(10 * US, 10 * US, 1));
            batch.expect("it is busy")
        }
    }

    #[test]
    fn the_first_frames_and_few_frames_do_not_wait() {
        let mut guest = Guest::new();
        guest.may_look = false;
        for _ in 1..STREAK {
            assert_eq!(guest.wake(5 * US, 50 * US, 1), None);
        }
        let mut guest = Guest::new();
        guest.may_look = false;
        for _ in 0..1000 {
            assert_eq!(guest.wake(2 * LONGEST + US, 50 * US, 3), None);
        }
    }

    #[test]
    fn who_mostly_sleeps_does_not_wait() {
        let mut guest = Guest::new();
        for _ in 0..1000 {
            assert_eq!(guest.wake(41 * US, 10 * US, 1), None);
        }
    }

    #[test]
    fn who_is_busy_waits_for_more_and_more() {
        let mut guest = Guest::new();
        let mut batch = guest.make_busy();
        assert_eq!(batch.frames, 2);
        for frames in [4, 8, 16, 32, 32] {
            batch = guest.wake(10 * US, 30 * US, batch.frames).unwrap();
            assert_eq!(batch.frames, frames);
        }
        // And stops to when there is less to do.
        assert_eq!(guest.wake(1500 * US, 30 * US, 32), None);
        assert_eq!(guest.wake(10 * US, 30 * US, 1), None);
    }

    #[test]
    fn what_does_not_come_is_not_waited_for_again_and_again() {
        // Five clients, each of which asks again when it has its answer.
        let mut guest = Guest::new();
        let mut batch = Some(guest.make_busy());
        let (mut full, mut vain) = (0, 0);
        for _ in 0..1000 {
            let frames = batch.map_or(1, |batch| batch.frames.min(5));
            let in_vain = batch.filter(|batch| batch.frames > frames);
            let sleep = in_vain.map_or(10 * US, |batch| batch.until.0 - guest.now + 20 * US);
            (full, vain) = match in_vain {
                Some(_) => (full, vain + 1),
                None => (full + 1, vain),
            };
            batch = guest.wake(sleep, 20 * US, frames);
        }
        assert!(vain * u32::from(TRY_AGAIN) < 2 * full, "{vain} of {full}");
        assert!(batch.is_some());
    }

    #[test]
    fn a_batch_of_which_nothing_comes_is_the_last() {
        let mut guest = Guest::new();
        let batch = guest.make_busy();
        let rest = batch.until.0 - guest.now;
        assert_eq!(guest.wake(rest / 2, 0, 0), Some(batch), "another event");
        assert_eq!(guest.wake(rest, 0, 0), None);
        assert_eq!(guest.wake(10 * US, 10 * US, 1), None);
    }

    #[test]
    fn no_clock_makes_it_wait_for_long() {
        // A clock that stands still, or goes back.
        let mut guest = Guest::new();
        guest.make_busy();
        for now in [u64::MAX, 0, 1, u64::MAX, u64::MAX] {
            let batch = guest
                .pace
                .next(SystemTime(now), 1, || SystemTime(now.saturating_add(7)));
            assert!(batch.is_none_or(|batch| batch.until.0 <= now.saturating_add(7 + 28)));
        }
    }
}

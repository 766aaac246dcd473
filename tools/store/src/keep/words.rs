//! The words by which the keeper, the worker and its copy know of one another.

use std::rc::Rc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::process::Pid;
use rustix::thread::futex;

use super::journal::WORDS;
use super::sys::Memory;

/// The process that would replace the worker, and the log that it would repeat, in one word: the number of the process
/// twice, plus that of the log. 0 while there is none.
const CURRENT: usize = WORDS;
/// Rises whenever a copy has to look around.
const BELL: usize = WORDS + 8;
/// The number of workers that the keeper has asked for.
const WANTED: usize = WORDS + 12;
/// The number of these that were made, or could not be.
const MADE: usize = WORDS + 16;
/// The process of the last one of these; 0 if it could not be made.
const WORKER: usize = WORDS + 20;

#[derive(Clone, Debug)]
pub(super) struct Words(pub(super) Rc<Memory>);

impl Words {
    fn half(&self, offset: usize) -> &AtomicU32 {
        self.0.half(offset)
    }

    fn current_word(&self) -> &AtomicU64 {
        self.0.word(CURRENT)
    }

    /// Returns the copy that would replace the worker, and its log.
    pub(super) fn current(&self) -> Option<(Pid, usize)> {
        let word = self.raw_current();
        let process = Pid::from_raw(i32::try_from(word >> 1).ok()?)?;
        Some((process, usize::from(word & 1 != 0)))
    }

    pub(super) fn raw_current(&self) -> u64 {
        self.current_word().load(Ordering::Acquire)
    }

    /// Replaces it in one step.
    pub(super) fn set_current(&self, copy: Option<(Pid, usize)>) {
        let word = copy.map_or(0, |(process, log)| {
            let process = u64::try_from(process.as_raw_nonzero().get()).unwrap_or(0);
            process << 1 | u64::from(log != 0)
        });
        self.current_word().store(word, Ordering::Release);
        self.ring();
    }

    /// Has all copies look around.
    pub(super) fn ring(&self) {
        self.half(BELL).fetch_add(1, Ordering::AcqRel);
        // This fails never: the word exists.
        let _ = futex::wake(self.half(BELL), futex::Flags::empty(), i32::MAX as u32);
    }

    pub(super) fn bell(&self) -> u32 {
        self.half(BELL).load(Ordering::Acquire)
    }

    /// Sleeps until the bell has rung since `heard`.
    pub(super) fn wait_for_bell(&self, heard: u32) {
        // An error is an early end of the sleep, and the caller looks around each time.
        let _ = futex::wait(self.half(BELL), futex::Flags::empty(), heard, None);
    }

    pub(super) fn wanted(&self) -> u32 {
        self.half(WANTED).load(Ordering::Acquire)
    }

    pub(super) fn is_wanted(&self) -> bool {
        self.wanted() != self.half(MADE).load(Ordering::Acquire)
    }

    /// Asks for another worker.
    pub(super) fn want(&self) {
        self.half(WANTED).fetch_add(1, Ordering::AcqRel);
        self.ring();
    }

    /// Answers [`Words::want`].
    pub(super) fn made(&self, wanted: u32, worker: Option<Pid>) {
        let number = worker.map_or(0, |worker| worker.as_raw_nonzero().get());
        let number = u32::try_from(number).unwrap_or(0);
        self.half(WORKER).store(number, Ordering::Release);
        let made = self.half(MADE);
        made.store(wanted, Ordering::Release);
        let _ = futex::wake(made, futex::Flags::empty(), 1);
    }

    /// Waits for that answer, not much longer than `bound`. Returns the worker.
    pub(super) fn wait_for_worker(&self, bound: Duration) -> Option<Pid> {
        let made = self.half(MADE);
        let seen = made.load(Ordering::Acquire);
        if self.is_wanted() {
            let bound = Timespec::try_from(bound).unwrap_or_default();
            let _ = futex::wait(made, futex::Flags::empty(), seen, Some(&bound));
        }
        if self.is_wanted() {
            return None;
        }
        let worker = self.half(WORKER).load(Ordering::Acquire);
        Pid::from_raw(i32::try_from(worker).ok()?)
    }
}

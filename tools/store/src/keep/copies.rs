//! The copies of the worker, as it makes them, and as they wait for its end.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, set_parent_process_death_signal};

use super::journal::Journal;
use super::sys::{Copied, copy_process_with_descriptors};
use super::words::Words;

/// What has happened to the process that called [`Copies::renew`].
#[derive(Debug)]
pub(crate) enum Renewed {
    /// It is the worker as before, and its copy is new. The file descriptor becomes readable when the copy has ended;
    /// there is none when file descriptors have run out.
    Copied(Option<OwnedFd>),
    /// It is the worker's successor: the memory is that of the last copy, and the journal has what came since.
    Succeeds,
}

/// The worker's side of its copies.
#[derive(Debug)]
pub(crate) struct Copies {
    words: Words,
    /// The way to the keeper.
    keeper: OwnedFd,
}

/// Ends this process without any destructor: file descriptors that these would close belong to the copy as well.
pub(super) fn leave(code: i32) -> ! {
    std::process::exit(code)
}

impl Copies {
    pub(super) fn new(words: Words, keeper: OwnedFd) -> Self {
        Self { words, keeper }
    }

    /// Returns the way to the keeper.
    pub(crate) fn keeper(&self) -> BorrowedFd<'_> {
        self.keeper.as_fd()
    }

    /// Makes a copy of this process as it is now, which takes the place of the last one, and empties the journal.
    ///
    /// In the copy this returns only after this process has ended, and then in a process that replaces this one.
    pub(crate) fn renew(&self, journal: &mut Journal) -> io::Result<Renewed> {
        let log = journal.empty_other();
        let wanted = self.words.wanted();
        // Named before it exists: who kills the worker by its name kills no new copy.
        name(COPY);
        let copied = copy_process_with_descriptors();
        if !matches!(copied, Ok(Copied::Copy)) {
            name(WORKER);
        }
        match copied? {
            Copied::Original(copy) => {
                // The step: before it, the last copy and its log are what counts, after it the new ones.
                self.words.set_current(Some((copy, log)));
                journal.turn(log);
                match pidfd_open(copy, PidfdFlags::empty()) {
                    // It was killed at once.
                    Err(Errno::SRCH) => self.renew(journal),
                    watched => Ok(Renewed::Copied(watched.ok())),
                }
            }
            Copied::Copy => {
                self.wait(log, wanted);
                journal.reopen(log);
                Ok(Renewed::Succeeds)
            }
        }
    }

    /// Goes on without a copy.
    pub(crate) fn give_up(&self) {
        self.words.set_current(None);
    }

    /// The life of a copy. Returns only in a new worker.
    ///
    /// `served` is the number of workers that the keeper had asked for when this copy was made. (Whether the last of them
    /// was announced already does not matter: it may be the one that has made this copy.)
    fn wait(&self, log: usize, mut served: u32) {
        begin_as(COPY);
        let own = (rustix::process::getpid(), log);
        let mut is_known = false;
        loop {
            let heard = self.words.bell();
            let is_current = self.words.current() == Some(own);
            is_known |= is_current;
            let wanted = self.words.wanted();
            if !is_current && (is_known || wanted != served) {
                // Another copy has taken its place, or the worker ended before it was known.
                leave(0);
            }
            if is_current && wanted != served {
                served = wanted;
                match copy_process_with_descriptors() {
                    Ok(Copied::Copy) => return begin_as(WORKER),
                    Ok(Copied::Original(worker)) => self.words.made(wanted, Some(worker)),
                    Err(_) => self.words.made(wanted, None),
                }
            }
            self.words.wait_for_bell(heard);
        }
    }
}

/// The names of the processes, as `ps -o comm` shows them.
pub(super) const WORKER: &CStr = c"store-worker";
const COPY: &CStr = c"store-copy";

fn name(name: &CStr) {
    // A name is for people alone.
    let _ = rustix::thread::set_name(name);
}

/// Names this process, and has the kernel end it when the keeper ends.
pub(super) fn begin_as(own: &CStr) {
    name(own);
    // This fails for no valid signal.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
}

/// Returns a file descriptor that becomes readable when the process has ended; `None` if it has.
pub(super) fn watch(process: Pid) -> Option<OwnedFd> {
    pidfd_open(process, PidfdFlags::empty()).ok()
}

//! The keeper: the process with the pid file, which starts a new worker when one has ended.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::thread::sleep;
use std::time::Duration;

use nix::unistd::execv;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdGetfdFlags, pidfd_getfd};

use super::copies::{Copies, WORKER, begin_as, watch};
use super::journal::{self, Journal, SIZE};
use super::sys::{Copied, Memory, copy_process, forget_children};
use super::words::Words;

/// A record that ends this many workers in a row is repeated no more.
const TRIES: u32 = 3;
/// The longest pause before another worker is started.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// The time for a copy to make a worker, after which the keeper looks whether the copy still exists.
const PATIENCE: Duration = Duration::from_millis(50);
/// The longest message between worker and keeper in bytes.
const MESSAGE: usize = 128 << 10;

/// The first byte of a message of the worker's.
const READY: u8 = 1;
const FETCH: u8 = 2;
const EXECUTE: u8 = 3;

/// The two sides after [`keep`].
pub enum Side {
    /// The process that was there before.
    Keeper(Keeper),
    /// Its child.
    Worker(Kept),
}

/// What makes a worker one that is kept.
#[derive(Debug)]
pub struct Kept {
    pub(crate) journal: Journal,
    pub(crate) copies: Copies,
}

/// The keeper's state.
pub struct Keeper {
    words: Words,
    socket: OwnedFd,
    worker: Pid,
    /// The processes that have ended since there was a new copy, and the record that they processed.
    ended: u32,
    at: (u64, u64),
    tries: u32,
}

/// Splits this process in two. It has one thread.
///
/// # Errors
/// The kernel has no memory or no process left.
pub fn keep() -> io::Result<Side> {
    let memory = std::rc::Rc::new(Memory::new(SIZE)?);
    let (ours, theirs) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    forget_children();
    let words = Words(std::rc::Rc::clone(&memory));
    match copy_process()? {
        Copied::Original(worker) => Ok(Side::Keeper(Keeper {
            words,
            socket: ours,
            worker,
            ended: 0,
            at: (0, 0),
            tries: 0,
        })),
        Copied::Copy => {
            drop(ours);
            begin_as(WORKER);
            exit_on_panic();
            Ok(Side::Worker(Kept {
                journal: Journal::within(memory),
                copies: Copies::new(words, theirs),
            }))
        }
    }
}

/// A worker that panics ends at once. To unwind would close file descriptors that its copy needs.
fn exit_on_panic() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        super::copies::leave(101);
    }));
}

impl Copies {
    /// Tells the keeper that requests are answered.
    pub(crate) fn tell_ready(&self) -> io::Result<()> {
        self.tell(&[READY])
    }

    fn tell(&self, message: &[u8]) -> io::Result<()> {
        rustix::net::send(self.keeper(), message, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    fn hear(&self) -> io::Result<Vec<u8>> {
        receive(self.keeper())
    }

    /// Has the keeper take these file descriptors too. Returns the numbers that they have there, in the same order.
    pub(crate) fn give(&self, descriptors: &[i32]) -> io::Result<Vec<i32>> {
        // Answers to a worker that has ended.
        let mut stale = [0; 16];
        let at_once = RecvFlags::DONTWAIT;
        while matches!(
            rustix::net::recv(self.keeper(), &mut stale[..], at_once),
            Ok((1.., _))
        ) {}
        let mut message = vec![FETCH];
        for number in descriptors {
            message.extend_from_slice(&number.to_ne_bytes());
        }
        self.tell(&message)?;
        let numbers = numbers(&self.hear()?);
        match numbers.len() == descriptors.len() {
            true => Ok(numbers),
            false => Err(io::Error::other("the keeper got no file descriptors")),
        }
    }

    /// Has the keeper execute a program with the file descriptors that it was given. Returns only if that fails: when it
    /// succeeds, this process ends.
    pub(crate) fn execute(&self, words: &[CString]) -> io::Error {
        let mut message = vec![EXECUTE];
        for word in words {
            message.extend_from_slice(word.as_bytes_with_nul());
        }
        match self.tell(&message).and_then(|()| self.hear()) {
            Ok(answer) if answer.is_empty() => {
                // The keeper's end of the socket was closed by the execution.
                self.give_up();
                super::copies::leave(0)
            }
            Ok(answer) => match <[u8; 4]>::try_from(answer) {
                Ok(code) => io::Error::from_raw_os_error(i32::from_ne_bytes(code)),
                Err(_) => io::ErrorKind::InvalidData.into(),
            },
            Err(error) => error,
        }
    }
}

fn numbers(bytes: &[u8]) -> Vec<i32> {
    let (all, _) = bytes.as_chunks::<4>();
    all.iter().copied().map(i32::from_ne_bytes).collect()
}

/// Receives a message; an empty one means that the other side has gone.
fn receive(socket: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut message = vec![0; MESSAGE];
    loop {
        match rustix::net::recv(socket, &mut message[..], RecvFlags::empty()) {
            Ok((length, _)) => {
                message.truncate(length);
                return Ok(message);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Keeper {
    /// Keeps a worker running until `stop` is readable. `ready` is called when the first one answers requests.
    ///
    /// # Errors
    /// The worker has ended and cannot be replaced.
    pub fn run(mut self, stop: BorrowedFd<'_>, ready: impl FnOnce()) -> io::Result<()> {
        let mut ready = Some(ready);
        let mut given = Vec::new();
        let mut watched = watch(self.worker);
        loop {
            let Some(worker) = &watched else {
                self.replace()?;
                watched = watch(self.worker);
                continue;
            };
            let mut ready_to_read = [
                PollFd::from_borrowed_fd(stop, PollFlags::IN),
                PollFd::from_borrowed_fd(self.socket.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(worker.as_fd(), PollFlags::IN),
            ];
            match poll(&mut ready_to_read, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let [stops, speaks, ended] =
                ready_to_read.map(|it| it.revents().intersects(PollFlags::IN));
            if stops {
                return Ok(());
            }
            if speaks {
                let message = receive(self.socket.as_fd())?;
                match message.split_first() {
                    // The worker and its copy have ended.
                    None => watched = None,
                    Some((&READY, _)) => {
                        if let Some(ready) = ready.take() {
                            ready();
                        }
                    }
                    Some((&FETCH, rest)) => given = self.fetch(worker, rest),
                    Some((&EXECUTE, rest)) => {
                        let error = self.execute(&given, rest);
                        given.clear();
                        self.tell(&error.raw_os_error().to_ne_bytes());
                    }
                    _ => {}
                }
            } else if ended {
                watched = None;
                given.clear();
            }
        }
    }

    fn tell(&self, message: &[u8]) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // A worker that has ended meanwhile needs no answer.
        let _ = rustix::net::send(&self.socket, message, flags);
    }

    /// Has the copy make another worker.
    fn replace(&mut self) -> io::Result<()> {
        self.judge();
        if self.ended > TRIES {
            let pause = Duration::from_millis(10 << (self.ended - TRIES).min(8));
            sleep(pause.min(PAUSE_MAX));
        }
        let lost = || io::Error::other("the worker has ended, and there is no copy of it");
        let (copy, _) = self.words.current().ok_or_else(lost)?;
        let copy = watch(copy).ok_or_else(lost)?;
        self.words.want();
        loop {
            if let Some(worker) = self.words.wait_for_worker(PATIENCE) {
                self.worker = worker;
                return Ok(());
            }
            let mut ended = [PollFd::new(&copy, PollFlags::IN)];
            let now = rustix::event::Timespec::default();
            if poll(&mut ended, Some(&now)).is_ok_and(|count| count > 0) {
                return Err(lost());
            }
            if !self.words.is_wanted() {
                // It could not; perhaps it can later.
                sleep(PATIENCE);
                self.words.want();
            }
        }
    }

    /// Counts the workers that have ended in a row. When the same record has ended several, the next one drops it.
    fn judge(&mut self) {
        let current = self.words.raw_current();
        let at = (current, journal::begun(&self.words.0));
        self.ended = match self.at.0 == current {
            true => self.ended + 1,
            false => 1,
        };
        self.tries = match at.1 {
            0 => 0,
            _ if at == self.at => self.tries + 1,
            _ => 1,
        };
        self.at = at;
        if self.tries >= TRIES {
            journal::condemn(&self.words.0, at.1);
        }
    }

    /// Takes file descriptors of the worker's, and tells it their numbers here.
    fn fetch(&self, worker: &OwnedFd, message: &[u8]) -> Vec<OwnedFd> {
        let take = |number| pidfd_getfd(worker, number, PidfdGetfdFlags::empty());
        let taken: Result<Vec<_>, _> = numbers(message).into_iter().map(take).collect();
        let taken = taken.unwrap_or_default();
        let mut answer = Vec::new();
        for descriptor in &taken {
            answer.extend_from_slice(&descriptor.as_raw_fd().to_ne_bytes());
        }
        self.tell(&answer);
        taken
    }

    /// Executes a program. Returns only if that fails.
    fn execute(&self, given: &[OwnedFd], message: &[u8]) -> Errno {
        // Ends the copy, which nobody would end otherwise. The worker makes a new one if it goes on.
        self.words.set_current(None);
        for descriptor in given {
            if let Err(error) = fcntl_setfd(descriptor, FdFlags::empty()) {
                return error;
            }
        }
        let words = message.split_inclusive(|byte| *byte == 0);
        let words = words.map(|word| CString::from_vec_with_nul(word.to_vec()));
        let Ok(words) = words.collect::<Result<Vec<_>, _>>() else {
            return Errno::INVAL;
        };
        match words.first().map(|program| execv(program, &words)) {
            Some(Err(error)) => Errno::from_raw_os_error(error as i32),
            _ => Errno::INVAL,
        }
    }
}

/// Makes words of a command line.
pub(crate) fn words(all: impl IntoIterator<Item = OsString>) -> io::Result<Vec<CString>> {
    let words = all.into_iter().map(|word| CString::new(word.into_vec()));
    Ok(words.collect::<Result<_, _>>()?)
}

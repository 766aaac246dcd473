//! The entry from the C library, in the place of std's.
//!
//! hatch runs once for each guest. Before `main`, std reads `/proc/self/maps` to find the guard page below the stack, and maps a second
//! stack for a handler that reports an overflow: a twentieth of what the start and end of `hatch create` cost. What else std does before
//! `main` is done here.
#![allow(unsafe_code, reason = "the entry has a name that the C library calls")]

use std::ffi::{c_char, c_int};
use std::fs::File;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::{stderr, stdin, stdout};

use super::cli;

/// The entry. std reads the arguments where the C library has left them.
// SAFETY: this is the one function of this name, with the parameters that the C library passes.
#[unsafe(no_mangle)]
extern "C" fn main(_count: c_int, _words: *const *const c_char) -> c_int {
    open_standard_streams();
    // A write to a pipe or socket that nobody reads is an error of the write, and not the end of the program.
    // SAFETY: there is no other thread yet, and no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    // This writes what standard output still holds.
    std::process::exit(cli::main().into())
}

/// Opens `/dev/null` for each standard stream that is closed. Otherwise the next file or socket would take its number, and what is printed
/// would be written there.
fn open_standard_streams() {
    let streams = [stdin(), stdout(), stderr()];
    let mut polled = streams.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::empty()));
    if poll(&mut polled, Some(&Timespec::default())).is_err() {
        return;
    }
    let is_closed = |fd: &PollFd<'_>| fd.revents().contains(PollFlags::NVAL);
    for _ in polled.iter().filter(|fd| is_closed(fd)) {
        // The lowest free number is that of the stream.
        std::mem::forget(File::options().read(true).write(true).open("/dev/null"));
    }
}

//! File descriptors that a predecessor in this process has left open.
#![allow(
    unsafe_code,
    reason = "file descriptors are taken over by their numbers"
)]

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// The first file descriptor behind standard input, output and error.
const FIRST: i32 = 3;

/// Takes over the file descriptors with these numbers. They are closed when another program is executed.
///
/// The caller opens nothing before this call that it still holds: what is open was left by the predecessor.
///
/// # Errors
/// A number is not that of an open file descriptor, or it is there twice.
pub fn inherit(numbers: impl IntoIterator<Item = i32>) -> io::Result<HashMap<i32, OwnedFd>> {
    let mut taken = HashMap::new();
    for number in numbers {
        if number < FIRST || taken.contains_key(&number) {
            return Err(io::Error::other(format!(
                "file descriptor {number} cannot be taken over"
            )));
        }
        // SAFETY: nothing else in this process owns the number. It is none of the standard ones, this process has opened nothing that it still
        // holds (see above), and no number is taken twice. If the number is not open, the call below fails and the value is forgotten.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        if let Err(error) = fcntl_setfd(descriptor.as_fd(), FdFlags::CLOEXEC) {
            std::mem::forget(descriptor);
            return Err(error.into());
        }
        taken.insert(number, descriptor);
    }
    Ok(taken)
}

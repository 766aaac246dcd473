//! The scheduling policy of this process.
#![allow(unsafe_code, reason = "a system call that no crate wraps")]

use std::io;

/// `SCHED_BATCH` (sched(7)): when this process wakes, it does not take the CPU from another one.
pub(crate) fn batch() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    // SAFETY: the kernel reads one `sched_param`; 0 is this thread.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameters) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

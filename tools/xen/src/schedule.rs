//! The scheduling policy of threads.
#![allow(unsafe_code, reason = "a system call that no crate wraps")]

use std::io;

/// Sets `SCHED_BATCH` (sched(7)) for a thread, or for the calling one: when it wakes, it does not take the CPU from
/// another one.
///
/// # Errors
/// There is no such thread, or it is another user's.
pub fn batch(thread: Option<i32>) -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: 0 };
    let thread = thread.unwrap_or(0);
    // SAFETY: the kernel reads one `sched_param`.
    let result =
        unsafe { libc::sched_setscheduler(thread, libc::SCHED_BATCH, &raw const parameters) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The policy of the calling thread, as proc(5) has it (field 41 of `stat`).
    fn policy() -> String {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let after_name = stat.rsplit_once(") ").unwrap().1;
        after_name.split(' ').nth(41 - 3).unwrap().to_owned()
    }

    #[test]
    fn the_policy_of_one_thread_changes() {
        let before = policy();
        let changed = std::thread::spawn(|| {
            batch(None).unwrap();
            policy()
        });
        assert_eq!(changed.join().unwrap(), libc::SCHED_BATCH.to_string());
        assert_eq!(policy(), before);
        assert!(batch(Some(i32::MAX)).is_err());
    }
}

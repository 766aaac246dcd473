//! Drops privileges. Open devices stay open; all other rights of root are given up.
//!
//! `/dev/xen/privcmd` and xenstored's socket check the rights of the process when it opens them, and not afterwards.
//! netlink checks those of the sender of each message. Only this thread, and threads that it starts later, give up
//! their rights; so this has to be called before there are other threads.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

/// The capabilities to make interfaces ports of bridges, and to schedule netback's threads of them: those of the kernel
/// have all capabilities, so a process with fewer may not.
pub const PORTS: CapabilitySet = CapabilitySet::NET_ADMIN.union(CapabilitySet::SYS_NICE);
/// The capability to read the files of all users, for processes that open images and packs later.
pub const FILES: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// Gives up all capabilities except these, and the ability to regain them by executing programs.
///
/// # Errors
/// The kernel's. It does not refuse to drop capabilities.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    let less = CapabilitySets {
        effective: held.effective & kept,
        permitted: held.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    // Where a system call filter forbids changes, there may be nothing to change.
    if less.effective == held.effective
        && less.permitted == held.permitted
        && held.inheritable.is_empty()
    {
        return Ok(());
    }
    Ok(set_capabilities(None, less)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::thread::no_new_privs;

    #[test]
    fn what_is_given_up_does_not_come_back() {
        // In a thread of its own: the others keep their capabilities.
        let thread = std::thread::spawn(|| {
            let before = capabilities(None).unwrap();
            keep(PORTS | FILES).unwrap();
            let after = capabilities(None).unwrap();
            assert_eq!(after.permitted, before.permitted & (PORTS | FILES));
            assert_eq!(after.effective, before.effective & (PORTS | FILES));
            assert!(after.inheritable.is_empty() && no_new_privs().unwrap());
            keep(CapabilitySet::empty()).unwrap();
            assert!(capabilities(None).unwrap().permitted.is_empty());
            // More is refused, for every user.
            let more = CapabilitySets {
                effective: PORTS,
                permitted: PORTS,
                inheritable: PORTS,
            };
            assert!(set_capabilities(None, more).is_err());
        });
        thread.join().unwrap();
    }
}

//! Drops privileges: opened devices stay open, everything else that root may do is given up.
//!
//! `/dev/xen/privcmd` and xenstored's socket look at who opens them, and at nobody afterwards. netlink looks at who sends.
//! What is given up is this thread's, and that of threads that it starts later; so it comes before there are others.

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs,
};

/// Makes interfaces ports of bridges.
pub const PORTS: CapabilitySet = CapabilitySet::NET_ADMIN;
/// Reads files of whoever they are, as who opens images and packs later needs it.
pub const FILES: CapabilitySet = CapabilitySet::DAC_READ_SEARCH;

/// Gives up all capabilities but these, and the way back to them through programs.
///
/// # Errors
/// The kernel's. It refuses nobody to become less.
pub fn keep(kept: CapabilitySet) -> io::Result<()> {
    set_no_new_privs(true)?;
    let held = capabilities(None)?;
    let less = CapabilitySets {
        effective: held.effective & kept,
        permitted: held.permitted & kept,
        inheritable: CapabilitySet::empty(),
    };
    // Where a filter of system calls forbids to change them, there may be nothing to change.
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
        // A thread of its own: the others keep what they have.
        let thread = std::thread::spawn(|| {
            let before = capabilities(None).unwrap();
            keep(PORTS | FILES).unwrap();
            let after = capabilities(None).unwrap();
            assert_eq!(after.permitted, before.permitted & (PORTS | FILES));
            assert_eq!(after.effective, before.effective & (PORTS | FILES));
            assert!(after.inheritable.is_empty() && no_new_privs().unwrap());
            keep(CapabilitySet::empty()).unwrap();
            assert!(capabilities(None).unwrap().permitted.is_empty());
            // More is refused, whoever runs this.
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

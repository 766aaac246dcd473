//! Drops privileges: opened devices stay open, everything else that root may do is given up.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

/// Gives up all capabilities of this thread, and the way back to them through programs.
///
/// # Errors
/// The kernel's. It refuses nobody to become less.
pub fn give_up() -> io::Result<()> {
    set_no_new_privs(true)?;
    let none = CapabilitySets {
        effective: CapabilitySet::empty(),
        permitted: CapabilitySet::empty(),
        inheritable: CapabilitySet::empty(),
    };
    Ok(set_capabilities(None, none)?)
}

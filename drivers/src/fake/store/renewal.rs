//! The new domain of a guest that was suspended.

use super::FakeStore;
use crate::fake::machine::{Machine, Remote};

impl FakeStore {
    /// The guest's new domain is introduced, with an empty ring and a port of its own. Nothing that the guest has written
    /// is in its home.
    pub(in crate::fake) fn renew(&mut self, machine: &mut Machine) {
        self.forget();
        self.remove(b"control");
        self.remove(b"data");
        self.page.zero();
        self.port = machine.open_port(Remote::Store).expect("a free port");
        self.kicked = false;
    }
}

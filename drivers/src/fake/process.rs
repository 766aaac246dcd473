//! A process of domain 0 that is the network back end in place of netback, and the operations that Xen offers it on the
//! guest's grants and event channels.

use std::vec::Vec;

use super::FakeXen;
use super::machine::Remote;
use super::store::FakeStore;
use crate::SharedPage;

/// A process of domain 0. It acts only when a test calls it.
#[derive(Debug, Clone, Copy)]
pub struct Process<'x>(&'x FakeXen);

impl FakeXen {
    /// A process of domain 0.
    #[must_use]
    pub fn process(&self) -> Process<'_> {
        Process(self)
    }
}

impl Process<'_> {
    /// Maps a granted page, until [`Process::unmap`].
    #[must_use]
    pub fn map(&self, gref: u32, write: bool) -> Option<SharedPage> {
        self.0.with(|world| world.machine.process_maps(gref, write))
    }

    /// Ends one mapping.
    pub fn unmap(&self, gref: u32) {
        self.0.with(|world| world.machine.process_unmaps(gref));
    }

    /// A granted page, for one grant copy by Xen.
    #[must_use]
    pub fn page(&self, gref: u32, write: bool) -> Option<SharedPage> {
        self.0
            .with(|world| world.machine.process_copies(gref, write))
    }

    /// Binds to a port of the guest. The process's own port has the same number.
    #[must_use]
    pub fn bind(&self, port: u32) -> Option<u32> {
        let bound = self
            .0
            .with(|world| world.machine.bind_to(port, Remote::Process));
        bound.map(crate::EventPort::get)
    }

    /// Closes the process's end of an event channel.
    pub fn unbind(&self, port: u32) {
        if let Some(port) = crate::EventPort::try_new(port) {
            self.0.with(|world| world.machine.unbind(port));
        }
    }

    /// Notifies the guest.
    pub fn notify(&self, port: u32) {
        if let Some(port) = crate::EventPort::try_new(port) {
            self.0.with(|world| world.machine.notify_guest(port));
        }
    }

    /// The ports on which the guest has notified the process since the last call.
    #[must_use]
    pub fn raised(&self) -> Vec<u32> {
        let ports = self.0.with(|world| world.machine.take_raised());
        ports.into_iter().map(crate::EventPort::get).collect()
    }

    /// Runs `f` on xenstore.
    pub fn store<T>(&self, f: impl FnOnce(&mut FakeStore) -> T) -> T {
        self.0.with(|world| f(&mut world.store))
    }
}

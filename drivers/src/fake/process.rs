//! A process of domain 0 that serves the guest's network in netback's place: what Xen lets it do with the guest's grants and event channels.

use std::vec::Vec;

use super::FakeXen;
use super::machine::Remote;
use super::store::FakeStore;
use crate::SharedPage;

/// What a process of domain 0 can do. It runs when a test lets it.
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

    /// A granted page, for one copy by Xen.
    #[must_use]
    pub fn page(&self, gref: u32, write: bool) -> Option<SharedPage> {
        self.0
            .with(|world| world.machine.process_copies(gref, write))
    }

    /// Binds to a port of the guest. Its own is of the same number.
    #[must_use]
    pub fn bind(&self, port: u32) -> Option<u32> {
        let bound = self
            .0
            .with(|world| world.machine.bind_to(port, Remote::Process));
        bound.map(crate::EventPort::get)
    }

    /// Closes its end.
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

    /// The ports by which the guest has notified since this was last asked.
    #[must_use]
    pub fn raised(&self) -> Vec<u32> {
        let ports = self.0.with(|world| world.machine.take_raised());
        ports.into_iter().map(crate::EventPort::get).collect()
    }

    /// Looks at xenstore, or changes it.
    pub fn store<T>(&self, f: impl FnOnce(&mut FakeStore) -> T) -> T {
        self.0.with(|world| f(&mut world.store))
    }
}

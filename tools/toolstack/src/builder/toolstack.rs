//! The connections that guests are made and removed with.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ToolstackError;
use super::netback::{self, NetbackThreads, PROC};
use crate::host::{Links, Store, Xen};

/// The folder of state that lasts until dom0 restarts, as its domains do.
const RUN: &str = "/run/hatch";

/// Creates and removes guests, any number of them one after the other.
pub struct Toolstack {
    pub(crate) xen: Box<dyn Xen>,
    pub(crate) store: Box<dyn Store>,
    pub(super) links: Box<dyn Links>,
    /// The longest wait for the back end, the kernel or xenstored.
    pub(crate) bound: Duration,
    /// The folder with the marks of births and the switch's socket.
    pub(super) run: PathBuf,
    /// The scheduling of netback's threads.
    pub(super) netback: NetbackThreads,
    /// The folder of proc(5).
    pub(super) proc: PathBuf,
}

impl Toolstack {
    /// Opens the connections to Xen, xenstored and netlink. `bound` is the longest wait for any of them.
    ///
    /// # Errors
    /// One of them is missing, or access to it is denied.
    pub fn open(bound: Duration) -> Result<Self, ToolstackError> {
        let store = mayfly_xenstore::Client::connect(bound)?;
        let xen = mayfly_xen::Xen::open()?;
        let links = mayfly_links::Links::open()?;
        Ok(Self::over(
            Box::new(xen),
            Box::new(store),
            Box::new(links),
            bound,
        ))
    }

    /// The same over connections that are open.
    #[must_use]
    pub fn over(
        xen: Box<dyn Xen>,
        store: Box<dyn Store>,
        links: Box<dyn Links>,
        bound: Duration,
    ) -> Self {
        Self {
            xen,
            store,
            links,
            bound,
            run: RUN.into(),
            netback: NetbackThreads::default(),
            proc: PROC.into(),
        }
    }

    /// Uses another folder than `/run/hatch`.
    #[must_use]
    pub fn with_run(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.run);
        self
    }

    /// Schedules netback's threads of new guests like this.
    #[must_use]
    pub fn with_netback(mut self, threads: NetbackThreads) -> Self {
        self.netback = threads;
        self
    }

    /// Schedules netback's threads of a guest whose interface was just connected.
    pub(super) fn schedule_netback(&self, domid: u16) {
        netback::apply(self.netback, &self.proc, domid);
    }

    /// The folder of the marks of births that xenstored has not been told of.
    pub(crate) fn marks(&self) -> PathBuf {
        self.run.join("making")
    }

    /// Xen, for purposes other than creating guests.
    pub fn xen(&mut self) -> &mut dyn Xen {
        &mut *self.xen
    }

    /// xenstored, for purposes other than creating guests.
    pub fn store(&mut self) -> &mut dyn Store {
        &mut *self.store
    }

    /// Both, for functions that need the two.
    pub fn ways(&mut self) -> (&mut dyn Store, &mut dyn Xen) {
        (&mut *self.store, &mut *self.xen)
    }
}

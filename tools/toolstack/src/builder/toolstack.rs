//! The connections that guests are made and removed with.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ToolstackError;
use super::config::random_uuid;
use super::making::SpareMark;
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
    /// The mark of the next birth on the switch, if it was made ahead.
    pub(super) spare: Option<SpareMark>,
}

impl Toolstack {
    /// A UUID for the next guest on the switch. It is another one once a guest has it.
    ///
    /// # Errors
    /// The kernel has no random numbers.
    pub fn next_uuid(&self) -> io::Result<[u8; 16]> {
        self.spare
            .as_ref()
            .map_or_else(random_uuid, |spare| Ok(spare.uuid()))
    }

    /// Makes the mark of the next birth on the switch ahead: of a guest with [`Self::next_uuid`]. A process that makes
    /// many guests calls this while nobody waits.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn make_mark_ahead(&mut self) -> io::Result<()> {
        if self.spare.is_none() {
            self.spare = Some(SpareMark::leave(&self.marks())?);
        }
        Ok(())
    }

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
            spare: None,
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

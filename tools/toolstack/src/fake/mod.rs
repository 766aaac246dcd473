//! A simulated dom0: Xen, links and xenstored in memory, with faults on request.
#![allow(
    clippy::missing_panics_doc,
    reason = "only tests call it, and a test that cannot go on fails"
)]

pub mod elf;
mod links;
mod switch;
mod xen;

use std::io;
use std::time::Duration;

pub use links::FakeLinks;
pub use mayfly_xenstore::memory::{FakeStore, Tree};
pub use switch::FakeSwitch;
pub use xen::{FakeGuest, FakeXen};

use crate::builder::Toolstack;
use crate::builder::index::IndexEntry;
use crate::paths;

/// The longest wait for a part of the simulation. None takes any time.
const BOUND: Duration = Duration::from_secs(5);

/// A simulated dom0, as a test sees it.
#[derive(Clone, Default)]
pub struct FakeHost {
    /// Its Xen.
    pub xen: FakeXen,
    /// The contents of its xenstored.
    pub store: Tree,
    /// Its links.
    pub links: FakeLinks,
}

impl FakeHost {
    /// A dom0 with a bridge, `xenbr0`, and a netback that connects as soon as it is asked to.
    #[must_use]
    pub fn new() -> Self {
        let host = Self::default();
        host.store.set("/local/domain/0/name", "Domain-0");
        // Linux has set its watches.
        host.store
            .set("/local/domain/0/control/feature-poweroff", "1");
        host.links.add_bridge("xenbr0");
        host.store.behaves(|nodes, path| {
            // It also takes over a front end that is connected.
            let state_of = |path: &str| nodes.get(path).cloned();
            if let Some(rest) = path.strip_prefix("/local/domain/0/backend/vif/")
                && let Some((domid, _)) = rest.split_once('/')
                && rest.ends_with("/state")
                && state_of(path).as_deref() == Some(b"1")
                && state_of(&format!("/local/domain/{domid}/device/vif/0/state")).as_deref()
                    == Some(b"4")
            {
                nodes.insert(path.to_owned(), b"4".to_vec());
            }
            let front = path.strip_prefix("/local/domain/");
            let domid = front.and_then(|rest| rest.strip_suffix("/device/vif/0/state"));
            let state = nodes.get(path).cloned();
            if let (Some(domid), Some(b"4")) = (domid, state.as_deref()) {
                let back = format!("/local/domain/0/backend/vif/{domid}/0/state");
                if let Some(value) = nodes.get_mut(&back) {
                    *value = b"4".to_vec();
                }
            }
        });
        host
    }

    /// The domain of a name in the index.
    #[must_use]
    pub fn domid(&self, name: &str) -> Option<u16> {
        let entry = self.store.get(&paths::name_path(name))?;
        Some(entry.parse::<IndexEntry>().ok()?.domid)
    }

    /// A toolstack of this dom0.
    ///
    /// # Errors
    /// The kernel of the machine that the test runs on gives no descriptor.
    pub fn toolstack(&self) -> io::Result<Toolstack> {
        Ok(Toolstack::over(
            Box::new(self.xen.clone()),
            Box::new(FakeStore::new(&self.store)?),
            Box::new(self.links.clone()),
            BOUND,
        ))
    }
}

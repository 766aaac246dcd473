//! [`Machine`] on a real Xen: hypercalls, mapped rings and event channels of dom0.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::{io, mem};

use anyhow::{Context as _, Result};
use mayfly_drivers::SharedPage;
use mayfly_xen::{DomainInfo, Evtchn, Gntdev, GrantMapping, KernelRing, Xen};
use mayfly_xenstore::ErrorCode;

use super::machine::{Machine, News};
use super::ring;
use crate::core::{DomainState, Host};

/// `GNTTAB_RESERVED_XENSTORE` (Xen's `grant_table.h`): the grant reference of every domain's ring.
const RING: u32 = 1;

enum Pages {
    Kernel(SharedPage),
    Granted(GrantMapping),
    /// To be mapped by [`Machine::recover`].
    Noted,
}

/// A domain's ring and event channel.
struct Ring {
    pages: Pages,
    /// The local port; `None` when the event channel could not be bound.
    port: Option<u32>,
    /// The domain has broken the protocol and is no longer served.
    is_shut: bool,
}

/// Handles to Xen's devices, and the rings and ports of this process.
pub struct Dom0 {
    events: Evtchn,
    /// Missing only within [`Machine::recover`].
    grants: Option<Gntdev>,
    xen: Xen,
    /// The ring of dom0's kernel, until dom0 is attached.
    kernel: Option<SharedPage>,
    rings: HashMap<u16, Ring>,
    ports: HashMap<u32, u16>,
    /// The port of VIRQ_DOM_EXC.
    exceptions: Option<u32>,
    /// The states of all domains, between [`Machine::read_states`] and [`Machine::forget_states`].
    seen: Option<HashMap<u16, DomainState>>,
}

fn state(info: &DomainInfo) -> DomainState {
    DomainState {
        is_shutdown: info.shutdown().is_some(),
        is_dying: info.is_dying(),
    }
}

impl Dom0 {
    /// Opens the way to Xen, and binds to dom0's kernel.
    ///
    /// # Errors
    /// This is not dom0, or another xenstored runs.
    pub fn open() -> Result<Self> {
        let events = Evtchn::open()?;
        let kernel = KernelRing::open()?;
        let mut this = Self::with(events, kernel.page)?;
        let port = this.bind(0, kernel.port);
        let port = port.context("the kernel's event channel: does another xenstored run?")?;
        this.adopt(0, port);
        Ok(this)
    }

    /// Goes on with the event channels of a predecessor in this process. [`Host::adopt`] attaches its rings.
    ///
    /// # Errors
    /// This is not dom0, or another xenstored runs.
    pub fn inherit(events: OwnedFd) -> Result<Self> {
        Self::with(Evtchn::inherit(events)?, KernelRing::open()?.page)
    }

    fn with(events: Evtchn, kernel: SharedPage) -> Result<Self> {
        let exceptions = events
            .bind_domain_exceptions()
            .context("VIRQ_DOM_EXC: does another xenstored run?")?;
        Ok(Self {
            events,
            grants: Some(Gntdev::open()?),
            xen: Xen::open()?,
            kernel: Some(kernel),
            rings: HashMap::new(),
            ports: HashMap::new(),
            exceptions: Some(exceptions),
            seen: None,
        })
    }

    fn map(&self, domid: u16) -> Option<GrantMapping> {
        self.grants.as_ref()?.map(domid, &[RING], true).ok()
    }

    fn bind(&mut self, domid: u16, port: u32) -> Option<u32> {
        let ours = self.events.bind(domid, port).ok()?;
        self.ports.insert(ours, domid);
        Some(ours)
    }

    /// Keeps a domain's ring, which is not shut.
    fn keep(&mut self, domid: u16, pages: Pages, port: Option<u32>) {
        let ring = Ring {
            pages,
            port,
            is_shut: false,
        };
        self.rings.insert(domid, ring);
    }

    fn unbind(&mut self, port: Option<u32>) {
        if let Some(port) = port {
            self.ports.remove(&port);
            // An error means that the port is closed already.
            let _ = self.events.unbind(port);
        }
    }
}

impl Host for Dom0 {
    fn state(&mut self, domid: u16) -> Option<DomainState> {
        if let Some(seen) = &self.seen {
            return seen.get(&domid).copied();
        }
        // A domain whose state cannot be read counts as running, so that an error removes no nodes.
        match self.xen.info(domid) {
            Ok(info) => info.map(|info| state(&info)),
            Err(_) => Some(DomainState::default()),
        }
    }

    fn attach(&mut self, domid: u16, _: u64, port: u32) -> Result<(), ErrorCode> {
        let mapping = self.map(domid).ok_or(ErrorCode::EINVAL)?;
        ring::announce_reset(mapping.page(0).ok_or(ErrorCode::EINVAL)?);
        let port = self.bind(domid, port).ok_or(ErrorCode::EINVAL)?;
        self.keep(domid, Pages::Granted(mapping), Some(port));
        Ok(())
    }

    fn adopt(&mut self, domid: u16, port: u32) {
        let pages = if domid == 0 {
            self.kernel.take().map(Pages::Kernel)
        } else {
            self.map(domid).map(Pages::Granted)
        };
        let port = (port != 0).then_some(port);
        let Some(pages) = pages else {
            // The domain has withdrawn the grant. Its connection stays, so that its end is noticed.
            return self.unbind(port);
        };
        self.ports.extend(port.map(|port| (port, domid)));
        self.keep(domid, pages, port);
        if self.page(domid).is_some_and(ring::is_shut) {
            self.shut(domid);
        }
    }

    fn attach_again(&mut self, domid: u16, port: u32) {
        let old = self.rings.get_mut(&domid).and_then(|ring| ring.port.take());
        self.unbind(old);
        if let Some(page) = self.page(domid) {
            ring::announce_reset(page);
        }
        let port = self.bind(domid, port);
        if let Some(ring) = self.rings.get_mut(&domid) {
            ring.port = port;
            ring.is_shut = false;
        }
    }

    fn detach(&mut self, domid: u16) {
        if let Some(ring) = self.rings.remove(&domid) {
            self.unbind(ring.port);
        }
    }
}

impl Machine for Dom0 {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }

    fn descriptors(&self) -> Vec<i32> {
        let grants = self.grants.as_ref().map(|grants| grants.as_fd());
        let own = [self.events.as_fd(), self.xen.as_fd()];
        let all = own.into_iter().chain(grants);
        all.map(|descriptor| descriptor.as_raw_fd()).collect()
    }

    fn events(&mut self) -> News {
        let mut ports = Vec::new();
        let result = self.events.take(|port| ports.push(port));
        // Unmasked before the rings are read, so that no later event is lost.
        let _ = self.events.unmask(&ports);
        if result.is_err() {
            return News::Lost;
        }
        let rings = ports.iter().filter_map(|port| self.ports.get(port));
        News::Of {
            rings: rings.copied().collect(),
            domains: self.exceptions.is_some_and(|port| ports.contains(&port)),
        }
    }

    fn read_states(&mut self) {
        let all = self.xen.list().ok();
        self.seen = all.map(|all| all.iter().map(|info| (info.domid, state(info))).collect());
    }

    fn forget_states(&mut self) {
        self.seen = None;
    }

    fn page(&self, domid: u16) -> Option<&SharedPage> {
        match &self.rings.get(&domid)?.pages {
            Pages::Kernel(page) => Some(page),
            Pages::Granted(mapping) => mapping.page(0),
            Pages::Noted => None,
        }
    }

    fn port(&self, domid: u16) -> Option<u32> {
        self.rings.get(&domid)?.port
    }

    fn begin(&mut self, domid: u16) {
        if let Some(page) = self.page(domid) {
            ring::reset(page);
        }
    }

    fn notify(&self, domid: u16) {
        if let Some(port) = self.rings.get(&domid).and_then(|ring| ring.port) {
            // This fails if the domain has closed its end. Then nobody waits for it.
            let _ = self.events.notify(port);
        }
    }

    fn ports(&self) -> HashMap<u16, u32> {
        self.ports
            .iter()
            .map(|(port, domid)| (*domid, *port))
            .collect()
    }

    fn receive_exceptions(&mut self, receive: bool) {
        if let Some(port) = self.exceptions.take() {
            // An error means that the port is closed already.
            let _ = self.events.unbind(port);
        }
        if receive {
            self.exceptions = self.events.bind_domain_exceptions().ok();
        }
    }

    fn shut(&mut self, domid: u16) {
        if let Some(ring) = self.rings.get_mut(&domid) {
            ring.is_shut = true;
        }
    }

    fn is_shut(&self, domid: u16) -> bool {
        self.rings.get(&domid).is_some_and(|ring| ring.is_shut)
    }

    fn note_attached(&mut self, domid: u16, port: Option<u32>) {
        let pages = match self.rings.get_mut(&domid) {
            Some(ring) if domid == 0 => mem::replace(&mut ring.pages, Pages::Noted),
            _ => Pages::Noted,
        };
        self.note_detached(domid);
        self.ports.extend(port.map(|port| (port, domid)));
        self.keep(domid, pages, port);
    }

    fn note_detached(&mut self, domid: u16) {
        if let Some(ring) = self.rings.remove(&domid) {
            if let Some(port) = ring.port {
                self.ports.remove(&port);
            }
            if let Pages::Granted(mapping) = ring.pages {
                mapping.abandon();
            }
        }
    }

    fn close_unknown_port(&mut self) {
        let known = |port: u32| self.ports.contains_key(&port) || self.exceptions == Some(port);
        self.events.unbind_unknown(known);
    }

    fn revive(&mut self) -> io::Result<()> {
        self.seen = None;
        for ring in self.rings.values_mut() {
            if let Pages::Granted(_) = ring.pages
                && let Pages::Granted(mapping) = mem::replace(&mut ring.pages, Pages::Noted)
            {
                mapping.abandon();
            }
        }
        self.grants = match self.grants.take() {
            Some(grants) => Some(grants.renewed()?),
            None => None,
        };
        // The worker may have ended when it had just left all to a successor.
        self.events.never_block()?;
        if let Ok(port) = self.events.bind_domain_exceptions() {
            self.exceptions = Some(port);
        }
        Ok(())
    }

    fn recover(&mut self) -> io::Result<()> {
        let noted = self.rings.iter();
        let noted = noted.filter(|(_, ring)| matches!(ring.pages, Pages::Noted));
        let noted: Vec<u16> = noted.map(|(domid, _)| *domid).collect();
        for domid in noted {
            match self.map(domid) {
                Some(mapping) => {
                    if let Some(ring) = self.rings.get_mut(&domid) {
                        ring.pages = Pages::Granted(mapping);
                    }
                }
                // As in `adopt`.
                None => self.detach(domid),
            }
        }
        let ports: Vec<u32> = self.ports.keys().copied().chain(self.exceptions).collect();
        self.events.unmask(&ports)
    }

    fn complete_begin(&mut self, domid: u16) {
        if let Some(page) = self.page(domid) {
            ring::complete_reset(page);
        }
    }
}

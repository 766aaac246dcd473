//! A fake machine for the daemon: a domain has written its first requests into its ring when it is introduced.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "each test uses a part of it, and fails where it cannot go on"
)]

use std::collections::HashMap;
use std::io;
use std::os::fd::BorrowedFd;

use mayfly_drivers::SharedPage;
use mayfly_store::core::{DomainState, Host};
use mayfly_store::daemon::{Machine, News};
use mayfly_xenstore::ErrorCode;

/// Offsets in `struct xenstore_domain_interface` (public/io/xs_wire.h).
pub(crate) const REQ_PROD: usize = 2052;
pub(crate) const RSP_CONS: usize = 2056;
pub(crate) const RSP_PROD: usize = 2060;
pub(crate) const ERROR: usize = 2072;

/// The first requests of a domain, and its producer index, which may lie.
pub(crate) struct Requests {
    pub(crate) bytes: Vec<u8>,
    pub(crate) produced: u32,
}

impl Requests {
    /// Requests with the right index.
    pub(crate) fn honest(bytes: Vec<u8>) -> Self {
        let produced = u32::try_from(bytes.len()).unwrap();
        Self { bytes, produced }
    }
}

/// A fake machine. `requests` gives a domain's first requests; `notified` is the domain's reaction to an event.
pub(crate) struct Fake<R, N> {
    requests: R,
    notified: N,
    pages: HashMap<u16, SharedPage>,
    shut: Vec<u16>,
}

impl<R: Fn(u16) -> Requests, N: Fn(u16, &SharedPage)> Fake<R, N> {
    pub(crate) fn new(requests: R, notified: N) -> Self {
        Self {
            requests,
            notified,
            pages: HashMap::new(),
            shut: Vec::new(),
        }
    }
}

impl<R: Fn(u16) -> Requests, N: Fn(u16, &SharedPage)> Host for Fake<R, N> {
    fn state(&mut self, _: u16) -> Option<DomainState> {
        Some(DomainState::default())
    }
    fn attach(&mut self, domid: u16, _: u64, _: u32) -> Result<(), ErrorCode> {
        self.pages.insert(domid, SharedPage::leak());
        Ok(())
    }
    fn adopt(&mut self, domid: u16, _: u32) {
        self.pages.insert(domid, SharedPage::leak());
    }
    fn attach_again(&mut self, _: u16, _: u32) {}
    fn detach(&mut self, domid: u16) {
        self.pages.remove(&domid);
    }
}

impl<R: Fn(u16) -> Requests, N: Fn(u16, &SharedPage)> Machine for Fake<R, N> {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
    fn descriptors(&self) -> Vec<i32> {
        Vec::new()
    }
    fn events(&mut self) -> News {
        News::Lost
    }
    fn read_states(&mut self) {}
    fn forget_states(&mut self) {}
    fn page(&self, domid: u16) -> Option<&SharedPage> {
        self.pages.get(&domid)
    }
    fn port(&self, domid: u16) -> Option<u32> {
        self.pages.contains_key(&domid).then_some(1)
    }
    fn begin(&mut self, domid: u16) {
        let page = &self.pages[&domid];
        let Requests { bytes, produced } = (self.requests)(domid);
        page.copy_in(0, &bytes);
        page.store_release(REQ_PROD, produced);
    }
    fn notify(&self, domid: u16) {
        if let Some(page) = self.page(domid) {
            (self.notified)(domid, page);
        }
    }
    fn ports(&self) -> HashMap<u16, u32> {
        HashMap::new()
    }
    fn receive_exceptions(&mut self, _: bool) {}
    fn shut(&mut self, domid: u16) {
        self.shut.push(domid);
    }
    fn is_shut(&self, domid: u16) -> bool {
        self.shut.contains(&domid)
    }
    // Nobody keeps the daemon in the tests that use this.
    fn note_attached(&mut self, _: u16, _: Option<u32>) {}
    fn note_detached(&mut self, _: u16) {}
    fn close_unknown_port(&mut self) {}
    fn revive(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn recover(&mut self) -> io::Result<()> {
        Ok(())
    }
    fn complete_begin(&mut self, _: u16) {}
}

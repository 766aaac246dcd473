//! A machine without Xen whose state lies in files, so that it outlives the processes of the daemon:
//!
//! - `domains`: a byte for each domain: 0 none, 1 runs, 2 has shut down;
//! - `ring-N`: the ring page of domain N;
//! - `port-N`: exists while the port of domain N is bound;
//! - `events`: FIFO of the numbers of domains, as `u16`; 0xffff is VIRQ_DOM_EXC;
//! - `end-WHERE`: the daemon's process that comes there removes it, and ends.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use mayfly_drivers::SharedPage;
use mayfly_store::core::{DomainState, Host};
use mayfly_store::daemon::{Machine, News};
use mayfly_xenstore::ErrorCode;

/// The number of VIRQ_DOM_EXC among the events.
pub(crate) const EXCEPTION: u16 = u16::MAX;
/// A domain about which the machine cannot be asked: the process panics.
pub(crate) const POISON: u16 = 60_000;
/// Offsets of the ring page's words.
pub(crate) const REQ_CONS: u64 = 2048;
pub(crate) const REQ_PROD: u64 = 2052;
pub(crate) const RSP_CONS: u64 = 2056;
pub(crate) const RSP_PROD: u64 = 2060;
pub(crate) const ERROR: u64 = 2072;
const FEATURES: usize = 2064;

pub(crate) struct Files {
    folder: PathBuf,
    events: File,
    states: File,
    pages: HashMap<u16, Option<SharedPage>>,
    shut: Vec<u16>,
}

impl Files {
    pub(crate) fn open(folder: &Path) -> Self {
        let mut events = File::options();
        let events = events.read(true).write(true).custom_flags(0o4000);
        Self {
            folder: folder.to_owned(),
            events: events.open(folder.join("events")).unwrap(),
            states: File::open(folder.join("domains")).unwrap(),
            pages: HashMap::new(),
            shut: Vec::new(),
        }
    }

    fn map(&self, domid: u16) -> SharedPage {
        let path = self.folder.join(format!("ring-{domid}"));
        let file = File::options().read(true).write(true).open(path).unwrap();
        crate::pages::map(&file)
    }

    fn port_file(&self, domid: u16) -> PathBuf {
        self.folder.join(format!("port-{domid}"))
    }

    fn may_end(&self, place: &str) {
        if fs::remove_file(self.folder.join(format!("end-{place}"))).is_ok() {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        }
    }

    /// Binds a port, which fails if it is bound.
    fn bind(&self, domid: u16) -> Result<(), ErrorCode> {
        let mut new = File::options();
        let file = new.write(true).create_new(true);
        file.open(self.port_file(domid))
            .map(drop)
            .map_err(|_| ErrorCode::EINVAL)
    }
}

impl Host for Files {
    fn state(&mut self, domid: u16) -> Option<DomainState> {
        assert_ne!(domid, POISON, "a poisonous request");
        let mut state = 0;
        let byte = std::slice::from_mut(&mut state);
        self.states.read_exact_at(byte, domid.into()).unwrap();
        (state != 0).then_some(DomainState {
            is_shutdown: state == 2,
            is_dying: false,
        })
    }
    fn attach(&mut self, domid: u16, _: u64, _: u32) -> Result<(), ErrorCode> {
        self.may_end("attach");
        let page = self.map(domid);
        page.store_release(FEATURES, 0);
        self.bind(domid)?;
        self.may_end("bound");
        self.pages.insert(domid, Some(page));
        Ok(())
    }
    fn adopt(&mut self, _: u16, _: u32) {}
    fn attach_again(&mut self, domid: u16, _: u32) {
        let _ = fs::remove_file(self.port_file(domid));
        self.may_end("unbound");
        self.bind(domid).unwrap();
        self.may_end("bound-again");
    }
    fn detach(&mut self, domid: u16) {
        self.pages.remove(&domid);
        self.may_end("detach");
        let _ = fs::remove_file(self.port_file(domid));
        self.may_end("detached");
    }
}

impl Machine for Files {
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.as_fd())
    }
    fn descriptors(&self) -> Vec<i32> {
        vec![self.events.as_raw_fd(), self.states.as_raw_fd()]
    }
    fn events(&mut self) -> News {
        let mut bytes = [0; 4096];
        let length = self.events.read(&mut bytes).unwrap_or(0);
        self.may_end("events");
        let (numbers, _) = bytes[..length].as_chunks::<2>();
        let numbers = numbers.iter().map(|number| u16::from_ne_bytes(*number));
        let (virqs, rings) = numbers.partition::<Vec<u16>, _>(|number| *number == EXCEPTION);
        News::Of {
            rings,
            domains: !virqs.is_empty(),
        }
    }
    fn read_states(&mut self) {}
    fn forget_states(&mut self) {}
    fn page(&self, domid: u16) -> Option<&SharedPage> {
        self.pages.get(&domid)?.as_ref()
    }
    fn port(&self, domid: u16) -> Option<u32> {
        self.pages.contains_key(&domid).then_some(domid.into())
    }
    fn begin(&mut self, domid: u16) {
        let page = self.pages[&domid].as_ref().unwrap();
        self.may_end("begin");
        for offset in [REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD, ERROR] {
            page.store_release(offset as usize, 0);
        }
        self.may_end("emptied");
        page.store_release(FEATURES, 3);
        self.may_end("begun");
    }
    fn notify(&self, _: u16) {
        self.may_end("notify");
    }
    fn ports(&self) -> HashMap<u16, u32> {
        HashMap::new()
    }
    fn receive_exceptions(&mut self, _: bool) {}
    fn shut(&mut self, domid: u16) {
        self.may_end("shut");
        self.shut.push(domid);
    }
    fn is_shut(&self, domid: u16) -> bool {
        self.shut.contains(&domid)
    }
    fn note_attached(&mut self, domid: u16, port: Option<u32>) {
        assert_eq!(port, Some(domid.into()));
        self.shut.retain(|shut| *shut != domid);
        self.pages.insert(domid, None);
    }
    fn note_detached(&mut self, domid: u16) {
        self.pages.remove(&domid);
    }
    fn close_unknown_port(&mut self) {
        for domid in 1..100 {
            if !self.pages.contains_key(&domid) {
                let _ = fs::remove_file(self.port_file(domid));
            }
        }
    }
    fn revive(&mut self) -> io::Result<()> {
        // Files stay mapped in a copy of a process.
        Ok(())
    }
    fn recover(&mut self) -> io::Result<()> {
        self.may_end("recover");
        let noted = self.pages.iter().filter(|(_, page)| page.is_none());
        let all: Vec<u16> = noted.map(|(domid, _)| *domid).collect();
        for domid in all {
            let page = self.map(domid);
            self.pages.insert(domid, Some(page));
        }
        Ok(())
    }
    fn complete_begin(&mut self, domid: u16) {
        let features = self.page(domid).map(|page| page.load_acquire(FEATURES));
        if features == Some(0) {
            self.begin(domid);
        }
    }
}

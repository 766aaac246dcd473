//! A simulated Xen that keeps domains.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

use mayfly_xen::{DomainInfo, MapEntry, NewDomain, PAGE_SIZE, TscMode};

use crate::host::{Pages, Xen};

/// `XEN_DOMINF_*` (public/domctl.h).
const DYING: u32 = 1 << 0;
const SHUTDOWN: u32 = 1 << 2;
const PAUSED: u32 = 1 << 3;
const SHUTDOWN_SHIFT: u32 = 16;

/// ESRCH, Xen's error for a domain that does not exist.
const ESRCH: i32 = 3;

/// A simulated Xen. Clones share their state.
#[derive(Clone, Default)]
pub struct FakeXen(Rc<RefCell<State>>);

#[derive(Default)]
struct State {
    guests: BTreeMap<u16, FakeGuest>,
    last: u16,
    refused: BTreeMap<&'static str, i32>,
    asked: Vec<&'static str>,
}

/// A domain.
#[derive(Clone, Default)]
pub struct FakeGuest {
    handle: [u8; 16],
    flags: u32,
    ran: bool,
    /// The memory that was written, by frame.
    pub memory: BTreeMap<u64, Vec<u8>>,
    /// The first frame of the grant table.
    pub grants: Vec<u8>,
    /// The `HVM_PARAM_*`.
    pub params: BTreeMap<u32, u64>,
    /// The memory limit, in MiB.
    pub max_mib: u64,
    ports: u32,
}

impl FakeXen {
    /// A domain.
    #[must_use]
    pub fn guest(&self, domid: u16) -> Option<FakeGuest> {
        self.0.borrow().guests.get(&domid).cloned()
    }

    /// The numbers of all domains.
    #[must_use]
    pub fn domids(&self) -> Vec<u16> {
        self.0.borrow().guests.keys().copied().collect()
    }

    /// Adds a domain that another toolstack made.
    pub fn add(&self, domid: u16, handle: [u8; 16]) {
        let guest = FakeGuest {
            handle,
            ran: true,
            ..FakeGuest::default()
        };
        self.0.borrow_mut().guests.insert(domid, guest);
    }

    /// Shuts a domain down, for a reason of sched.h.
    pub fn ends(&self, domid: u16, reason: u32) {
        if let Some(guest) = self.0.borrow_mut().guests.get_mut(&domid) {
            guest.flags |= SHUTDOWN | reason << SHUTDOWN_SHIFT;
        }
    }

    /// Makes calls of this name fail with this error number, or none if the name is empty.
    pub fn refuses(&self, call: &'static str, error: i32) {
        let mut state = self.0.borrow_mut();
        state.refused.clear();
        if !call.is_empty() {
            state.refused.insert(call, error);
        }
    }

    /// The names of the calls so far.
    #[must_use]
    pub fn asked(&self) -> Vec<&'static str> {
        self.0.borrow().asked.clone()
    }

    fn ask<T>(
        &self,
        call: &'static str,
        answer: impl FnOnce(&mut State) -> T,
    ) -> Result<T, mayfly_xen::Error> {
        let mut state = self.0.borrow_mut();
        state.asked.push(call);
        match state.refused.get(call) {
            Some(error) => Err(refusal(call, *error)),
            None => Ok(answer(&mut state)),
        }
    }

    fn of<T>(
        &self,
        call: &'static str,
        domain: u16,
        answer: impl FnOnce(&mut FakeGuest) -> T,
    ) -> Result<T, mayfly_xen::Error> {
        self.ask(call, |state| state.guests.get_mut(&domain).map(answer))?
            .ok_or_else(|| refusal(call, ESRCH))
    }
}

fn refusal(call: &'static str, error: i32) -> mayfly_xen::Error {
    mayfly_xen::Error::Call {
        call,
        source: io::Error::from_raw_os_error(error),
    }
}

fn info(domid: u16, guest: &FakeGuest) -> DomainInfo {
    DomainInfo {
        domid,
        handle: guest.handle,
        flags: guest.flags,
        pages: guest.memory.len() as u64,
        max_pages: guest.max_mib << 8,
        cpu_ns: u64::from(guest.ran),
        vcpus: 1,
    }
}

impl Xen for FakeXen {
    fn create(&mut self, new: &NewDomain) -> Result<u16, mayfly_xen::Error> {
        self.ask("create", |state| {
            state.last += 1;
            let guest = FakeGuest {
                handle: new.handle,
                flags: PAUSED,
                ..FakeGuest::default()
            };
            state.guests.insert(state.last, guest);
            state.last
        })
    }

    fn max_vcpus(&mut self, domain: u16, _: u32) -> Result<(), mayfly_xen::Error> {
        self.of("max_vcpus", domain, |_| ())
    }

    fn max_mem(&mut self, domain: u16, kib: u64) -> Result<(), mayfly_xen::Error> {
        self.of("max_mem", domain, |guest| guest.max_mib = kib >> 10)
    }

    fn paging_pool(&mut self, domain: u16, _: u64) -> Result<(), mayfly_xen::Error> {
        self.of("paging_pool", domain, |_| ())
    }

    fn tsc_mode(&mut self, domain: u16, _: TscMode) -> Result<(), mayfly_xen::Error> {
        self.of("tsc_mode", domain, |_| ())
    }

    fn pvh_context(&mut self, domain: u16, _: u32, _: u32) -> Result<(), mayfly_xen::Error> {
        self.of("pvh_context", domain, |_| ())
    }

    fn pause(&mut self, domain: u16) -> Result<(), mayfly_xen::Error> {
        self.of("pause", domain, |guest| guest.flags |= PAUSED)
    }

    fn unpause(&mut self, domain: u16) -> Result<(), mayfly_xen::Error> {
        self.of("unpause", domain, |guest| {
            guest.flags &= !PAUSED;
            guest.ran = true;
        })
    }

    fn destroy(&mut self, domain: u16) -> Result<(), mayfly_xen::Error> {
        self.of("destroy", domain, |guest| guest.flags |= DYING)?;
        self.0.borrow_mut().guests.remove(&domain);
        Ok(())
    }

    fn shutdown(&mut self, domain: u16, reason: u8) -> Result<(), mayfly_xen::Error> {
        self.of("shutdown", domain, |_| ())?;
        self.ends(domain, u32::from(reason));
        Ok(())
    }

    fn populate(&mut self, domain: u16, gfns: &[u64], _: u32) -> Result<usize, mayfly_xen::Error> {
        self.of("populate", domain, |_| gfns.len())
    }

    fn memory_map(&mut self, domain: u16, _: &[MapEntry]) -> Result<(), mayfly_xen::Error> {
        self.of("memory_map", domain, |_| ())
    }

    fn param(&mut self, domain: u16, index: u32, value: u64) -> Result<(), mayfly_xen::Error> {
        self.of("param", domain, |guest| {
            guest.params.insert(index, value);
        })
    }

    fn event_channel(&mut self, domain: u16) -> Result<u32, mayfly_xen::Error> {
        self.of("event_channel", domain, |guest| {
            guest.ports += 1;
            guest.ports
        })
    }

    fn info(&mut self, domain: u16) -> Result<Option<DomainInfo>, mayfly_xen::Error> {
        self.ask("info", |state| {
            state.guests.get(&domain).map(|guest| info(domain, guest))
        })
    }

    fn list(&mut self) -> Result<Vec<DomainInfo>, mayfly_xen::Error> {
        self.ask("list", |state| {
            let all = state.guests.iter();
            all.map(|(domid, guest)| info(*domid, guest)).collect()
        })
    }

    fn free_memory(&mut self) -> Result<u64, mayfly_xen::Error> {
        self.ask("free_memory", |_| 1 << 20)
    }

    fn map(&self, domain: u16, gfns: &[u64]) -> Result<Box<dyn Pages>, mayfly_xen::Error> {
        self.of("map", domain, |_| ())?;
        Ok(Box::new(Mapped {
            xen: self.clone(),
            domain,
            frames: Some(gfns.to_vec()),
        }))
    }

    fn map_grants(&self, domain: u16) -> Result<Box<dyn Pages>, mayfly_xen::Error> {
        self.of("map_grants", domain, |_| ())?;
        Ok(Box::new(Mapped {
            xen: self.clone(),
            domain,
            frames: None,
        }))
    }
}

/// Pages of a domain, or its grant table.
struct Mapped {
    xen: FakeXen,
    domain: u16,
    frames: Option<Vec<u64>>,
}

impl Pages for Mapped {
    fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.xen.0.borrow_mut();
        let Some(guest) = state.guests.get_mut(&self.domain) else {
            return Ok(());
        };
        for (at, byte) in (offset..).zip(bytes) {
            let page = match &self.frames {
                Some(frames) => {
                    let frame = frames.get(at / PAGE_SIZE);
                    let frame = frame.ok_or(io::ErrorKind::InvalidInput)?;
                    guest.memory.entry(*frame).or_default()
                }
                None => &mut guest.grants,
            };
            page.resize(PAGE_SIZE, 0);
            if let Some(place) = page.get_mut(at % PAGE_SIZE) {
                *place = *byte;
            }
        }
        Ok(())
    }

    fn zero(&self, offset: usize, length: usize) -> io::Result<()> {
        self.write(offset, &vec![0; length])
    }

    fn read_file(
        &self,
        offset: usize,
        length: usize,
        file: BorrowedFd<'_>,
        position: u64,
    ) -> io::Result<()> {
        let file = std::fs::File::from(file.try_clone_to_owned()?);
        let mut bytes = vec![0; length];
        file.read_exact_at(&mut bytes, position)?;
        self.write(offset, &bytes)
    }
}

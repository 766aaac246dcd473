//! A simulated Xen that keeps domains.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;
use std::time::Duration;

use mayfly_xen::{CpuPolicy, DomainCall, DomainInfo, NewDomain, PAGE_SIZE, TscInfo};

use crate::host::{Pages, Xen};
use crate::lifecycle::{SuspendSignal, Suspended};

/// `XEN_DOMINF_*` (public/domctl.h).
const DYING: u32 = 1 << 0;
const SHUTDOWN: u32 = 1 << 2;
const PAUSED: u32 = 1 << 3;
const SHUTDOWN_SHIFT: u32 = 16;

/// How a guest reads the time that was told nothing else.
const TSC: TscInfo = TscInfo {
    mode: 2,
    khz: 1_000_000,
    incarnation: 1,
    nsec: 7,
};

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
    /// The pages that it was given.
    pub populated: BTreeSet<u64>,
    /// The state of its vCPU.
    pub context: Vec<u8>,
    /// How it reads the time.
    pub tsc: Option<TscInfo>,
    /// Whether it was suspended and then went on.
    pub resumed: bool,
    /// The number of times that it is asked for until it has suspended itself.
    suspends_after: Option<u32>,
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

    /// Has a domain suspend itself after it was asked for so many times.
    pub fn suspends_after(&self, domid: u16, times: u32) {
        if let Some(guest) = self.0.borrow_mut().guests.get_mut(&domid) {
            guest.suspends_after = Some(times);
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
        pages: guest.populated.len() as u64,
        max_pages: guest.max_mib << 8,
        cpu_ns: u64::from(guest.ran),
        vcpus: 1,
    }
}

impl Suspended for FakeXen {
    fn version(&self) -> (u32, u32) {
        (4, 17)
    }

    fn context(&mut self, domain: u16) -> Result<Vec<u8>, mayfly_xen::Error> {
        self.of("context", domain, |guest| guest.context.clone())
    }

    fn set_context(&mut self, domain: u16, records: &[u8]) -> Result<(), mayfly_xen::Error> {
        self.of("set_context", domain, |guest| {
            guest.context = records.to_vec();
        })
    }

    fn tsc_info(&mut self, domain: u16) -> Result<TscInfo, mayfly_xen::Error> {
        self.of("tsc_info", domain, |guest| guest.tsc.unwrap_or(TSC))
    }

    fn set_tsc_info(&mut self, domain: u16, info: &TscInfo) -> Result<(), mayfly_xen::Error> {
        self.of("set_tsc_info", domain, |guest| guest.tsc = Some(*info))
    }

    fn cpu_policy(&mut self, domain: u16) -> Result<CpuPolicy, mayfly_xen::Error> {
        self.of("cpu_policy", domain, |_| CpuPolicy {
            leaves: vec![1; 24],
            msrs: vec![2; 16],
        })
    }

    fn set_cpu_policy(&mut self, domain: u16, _: &CpuPolicy) -> Result<(), mayfly_xen::Error> {
        self.of("set_cpu_policy", domain, |_| ())
    }

    fn get_param(&mut self, domain: u16, index: u32) -> Result<u64, mayfly_xen::Error> {
        self.of("get_param", domain, |guest| {
            guest.params.get(&index).copied().unwrap_or(0)
        })
    }

    fn last_gfn(&mut self, domain: u16) -> Result<u64, mayfly_xen::Error> {
        self.of("last_gfn", domain, |guest| {
            guest.populated.last().copied().unwrap_or(0)
        })
    }

    fn own_pages(
        &mut self,
        domain: u16,
        first: u64,
        count: usize,
    ) -> Result<Vec<u64>, mayfly_xen::Error> {
        self.of("own_pages", domain, |guest| {
            let own = guest.populated.range(first..first + count as u64);
            own.copied().collect()
        })
    }

    fn resume(&mut self, domain: u16) -> Result<(), mayfly_xen::Error> {
        self.of("resume", domain, |guest| {
            guest.flags &= !(SHUTDOWN | 0xff << SHUTDOWN_SHIFT);
            guest.resumed = true;
        })
    }

    fn suspend_signal(&mut self, domain: u16, _: u32) -> io::Result<Box<dyn SuspendSignal>> {
        self.of("suspend_signal", domain, |_| ())
            .map_err(io::Error::other)?;
        let xen = self.clone();
        Ok(Box::new(FakeSignal { xen, domain }))
    }
}

/// The suspend event channel of a domain, which suspends as soon as it is notified.
struct FakeSignal {
    xen: FakeXen,
    domain: u16,
}

impl SuspendSignal for FakeSignal {
    fn notify(&mut self) -> io::Result<()> {
        self.xen.ends(self.domain, 2);
        Ok(())
    }

    fn wait(&mut self, _: Duration) -> io::Result<()> {
        Ok(())
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

    fn paging_pool(&mut self, domain: u16, _: u64) -> Result<(), mayfly_xen::Error> {
        self.of("paging_pool", domain, |_| ())
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

    fn batch(
        &mut self,
        domain: u16,
        calls: &[DomainCall<'_>],
    ) -> Result<Vec<u64>, mayfly_xen::Error> {
        let answers = calls.iter().map(|call| match *call {
            DomainCall::MaxVcpus(_) => self.of("max_vcpus", domain, |_| 0),
            DomainCall::MaxMem(kib) => self.of("max_mem", domain, |guest| {
                guest.max_mib = kib >> 10;
                0
            }),
            DomainCall::TscMode(_) => self.of("tsc_mode", domain, |_| 0),
            DomainCall::Populate { gfns, order } => self.of("populate", domain, |guest| {
                let all = gfns.iter().flat_map(|gfn| *gfn..gfn + (1 << order));
                guest.populated.extend(all);
                gfns.len() as u64
            }),
            DomainCall::MemoryMap(_) => self.of("memory_map", domain, |_| 0),
            DomainCall::EventChannel => self.of("event_channel", domain, |guest| {
                guest.ports += 1;
                u64::from(guest.ports)
            }),
            DomainCall::Param(index, value) => self.of("param", domain, |guest| {
                guest.params.insert(index, value);
                0
            }),
            DomainCall::PvhContext { .. } => self.of("pvh_context", domain, |_| 0),
        });
        // As Xen does, it carries out those after a failed one.
        let answers: Vec<_> = answers.collect();
        answers.into_iter().collect()
    }

    fn info(&mut self, domain: u16) -> Result<Option<DomainInfo>, mayfly_xen::Error> {
        let answer = self.ask("info", |state| {
            state.guests.get_mut(&domain).map(|guest| {
                let is_now = guest.suspends_after == Some(0);
                guest.suspends_after = guest.suspends_after.and_then(|times| times.checked_sub(1));
                (is_now, info(domain, guest))
            })
        })?;
        if let Some((true, _)) = answer {
            self.ends(domain, 2);
            return self.info(domain);
        }
        Ok(answer.map(|(_, info)| info))
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
    fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        let state = self.xen.0.borrow();
        let guest = state.guests.get(&self.domain);
        let mut at = offset;
        let mut rest = into;
        while !rest.is_empty() {
            let frame = self.frames.as_ref().and_then(|all| all.get(at / PAGE_SIZE));
            let frame = frame.ok_or(io::ErrorKind::InvalidInput)?;
            let start = at % PAGE_SIZE;
            let (part, behind) = rest.split_at_mut(rest.len().min(PAGE_SIZE - start));
            match guest.and_then(|guest| guest.memory.get(frame)?.get(start..)) {
                Some(page) => part.copy_from_slice(page.get(..part.len()).unwrap_or_default()),
                None => part.fill(0),
            }
            at += part.len();
            rest = behind;
        }
        Ok(())
    }

    fn is_zero(&self, page: usize) -> io::Result<bool> {
        let mut content = [0; PAGE_SIZE];
        self.read(page * PAGE_SIZE, &mut content)?;
        Ok(content == [0; PAGE_SIZE])
    }

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

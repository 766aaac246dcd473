//! Memory, grants, event channels and the clock of the fake Xen.

mod renewal;

use core::cell::RefCell;
use core::mem::size_of;
use core::ptr::NonNull;
use std::borrow::ToOwned;
use std::collections::HashMap;
use std::string::String;
use std::vec::Vec;

use super::counts::Counts;
use crate::abi::{
    GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING, PAGE_SIZE, grant_entry_v1,
};
use crate::{DomId, Errno, EventPort, Gfn, Resumed, SharedPage, ShutdownReason, TransmitPages};

/// The gfn of the xenstore ring.
pub(super) const STORE_GFN: u64 = 0xf_effc;
/// The gfn of the console ring.
pub(super) const CONSOLE_GFN: u64 = 0xf_effe;
/// The gfn of the first page that the guest allocates.
const FIRST_GFN: u64 = 0x100;
/// The greatest number of frames of the grant table.
const MAX_GRANT_FRAMES: usize = 8;
/// The number of consecutive pages in one allocation.
const SLAB: usize = 512;
/// The default limit of a guest's pages; a test may lower it.
const MAX_PAGES: usize = 4096;
const ENTRY_SIZE: usize = size_of::<grant_entry_v1>();
const PER_FRAME: usize = PAGE_SIZE / ENTRY_SIZE;
/// `EINVAL` and `ENOSPC` (public/errno.h).
const EINVAL: Errno = Errno(22);
const ENOSPC: Errno = Errno(28);

std::thread_local! {
    /// Pages of earlier fakes on this thread.
    static POOL: RefCell<Pool> = RefCell::default();
}

/// Pages that live for ever, and the gfn that each has.
#[derive(Debug, Default)]
struct Pool {
    pages: Vec<SharedPage>,
    index: HashMap<usize, usize>,
}

impl Pool {
    fn get(&mut self, index: usize) -> SharedPage {
        while self.pages.len() <= index {
            for page in SharedPage::leak_many(SLAB) {
                self.index
                    .insert(page.address().as_ptr().addr(), self.pages.len());
                self.pages.push(page);
            }
        }
        self.pages[index].alias()
    }
}

/// The peer of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remote {
    Unbound(DomId),
    Store,
    Console,
    Netback,
    /// A process that is the back end in place of netback.
    Process,
}

#[derive(Debug, Clone, Copy)]
struct Port {
    remote: Remote,
    pending: bool,
}

/// The fake machine that the guest runs on.
#[derive(Debug)]
pub struct Machine {
    pool: Pool,
    next_page: usize,
    free_pages: Vec<usize>,
    allocated: usize,
    /// Pages that frames are composed in.
    transmit: usize,
    /// The greatest number of pages that the guest may hold at once.
    pub page_limit: usize,
    /// The greatest number of frames of the guest's grant table.
    pub grant_frame_limit: usize,
    grant_frames: Vec<SharedPage>,
    /// Pages that the toolstack has shared on the guest's behalf and that the guest has not taken yet.
    preconnected: Vec<SharedPage>,
    ports: Vec<Option<Port>>,
    console: SharedPage,
    console_port: EventPort,
    console_given: bool,
    now: u64,
    /// The guest's calls, counted by kind.
    pub counts: Counts,
    /// The bytes that the guest wrote to I/O port 0xe9.
    pub debug: Vec<u8>,
    /// The reason for which the guest has stopped; `None` while it runs.
    pub shutdown: Option<ShutdownReason>,
    /// The outcome of the guest's next suspends.
    pub resumes: Resumed,
    /// The number of times that the guest has suspended.
    pub suspended: u32,
    violations: Vec<String>,
    /// Ports on which the guest has notified a process of domain 0.
    raised: Vec<EventPort>,
    /// The number of mappings by such a process, by grant reference.
    mapped: HashMap<u32, usize>,
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The thread may be ending and its pool gone; then the pages are leaked.
        let _ = POOL.try_with(|pool| {
            let mut pool = pool.borrow_mut();
            if pool.pages.len() < self.pool.pages.len() {
                *pool = core::mem::take(&mut self.pool);
            }
        });
    }
}

impl Machine {
    pub(super) fn new() -> Self {
        let mut pool = POOL.with(RefCell::take);
        let console = pool.get(0);
        console.zero();
        let mut machine = Self {
            pool,
            next_page: 1,
            free_pages: Vec::new(),
            allocated: 0,
            transmit: 0,
            page_limit: MAX_PAGES,
            grant_frame_limit: MAX_GRANT_FRAMES,
            grant_frames: Vec::new(),
            preconnected: Vec::new(),
            // Port 0 is never a channel.
            ports: std::vec![None],
            console,
            console_port: EventPort::try_new(1).expect("in range"),
            console_given: false,
            now: 1_000_000_000,
            counts: Counts::default(),
            debug: Vec::new(),
            shutdown: None,
            resumes: Resumed::SameDomain,
            suspended: 0,
            violations: Vec::new(),
            raised: Vec::new(),
            mapped: HashMap::new(),
        };
        machine.console_port = machine.open_port(Remote::Console).expect("the first port");
        machine
    }

    /// Nanoseconds of system time.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets time pass.
    pub fn advance_to(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// The guest's violations of the rules of Xen and its back ends.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Records a violation by the guest.
    pub fn violation(&mut self, what: &str) {
        self.violations.push(what.to_owned());
    }

    /// The number of pages that the guest holds, without the transmit pages, which it never frees.
    #[must_use]
    pub fn pages_allocated(&self) -> usize {
        self.allocated
    }

    /// The console ring.
    #[must_use]
    pub fn console(&self) -> SharedPage {
        self.console.alias()
    }

    pub(super) fn console_port(&self) -> EventPort {
        self.console_port
    }

    pub(super) fn hand_out_console(&mut self) -> Option<SharedPage> {
        (!core::mem::replace(&mut self.console_given, true)).then(|| self.console.alias())
    }

    /// Allocates a page that belongs to Xen or the toolstack.
    pub(super) fn own_page(&mut self) -> SharedPage {
        let page = self.pool.get(self.next_page);
        self.next_page += 1;
        page.zero();
        page
    }

    /// Allocates consecutive pages that the toolstack shares on the guest's behalf.
    pub(super) fn preconnect(&mut self, count: usize) -> &[SharedPage] {
        self.preconnected = (0..count).map(|_| self.own_page()).collect();
        &self.preconnected
    }

    pub(super) fn preconnected_page(&mut self, gfn: Gfn) -> Option<SharedPage> {
        let here = |page: &SharedPage| self.gfn(page.address()) == gfn;
        let at = self.preconnected.iter().position(here)?;
        self.allocated += 1;
        Some(self.preconnected.remove(at))
    }

    pub(super) fn alloc_page(&mut self) -> Option<SharedPage> {
        if self.allocated + self.transmit >= self.page_limit {
            return None;
        }
        self.allocated += 1;
        let index = self.free_pages.pop().unwrap_or_else(|| {
            self.next_page += 1;
            self.next_page - 1
        });
        Some(self.pool.get(index))
    }

    pub(super) fn transmit_pages(&mut self, count: usize) -> Option<TransmitPages> {
        if count > SLAB || self.allocated + self.transmit + count > self.page_limit {
            return None;
        }
        if self.next_page % SLAB + count > SLAB {
            self.next_page = self.next_page.next_multiple_of(SLAB);
        }
        self.transmit += count;
        let first = self.pool.get(self.next_page);
        self.next_page += count;
        Some(TransmitPages::in_slab(&first, count))
    }

    pub(super) fn free_page(&mut self, page: &SharedPage) {
        let gfn = self.gfn(page.address()).0;
        for frame in &self.grant_frames {
            for index in 0..PER_FRAME {
                let entry: grant_entry_v1 = frame.read(index * ENTRY_SIZE);
                if entry.flags & GTF_PERMIT_ACCESS != 0 && u64::from(entry.frame) == gfn {
                    self.violations
                        .push("a page was freed while it was granted".to_owned());
                    return;
                }
            }
        }
        self.allocated -= 1;
        self.free_pages.push((gfn - FIRST_GFN) as usize);
    }

    pub(super) fn gfn(&self, page: NonNull<u8>) -> Gfn {
        Gfn(FIRST_GFN + self.pool.index[&page.as_ptr().addr()] as u64)
    }

    pub(super) fn grant_frame(&mut self, index: u32) -> Result<SharedPage, Errno> {
        let index = index as usize;
        if index >= self.grant_frame_limit {
            return Err(EINVAL);
        }
        while self.grant_frames.len() <= index {
            let page = self.own_page();
            self.grant_frames.push(page);
        }
        Ok(self.grant_frames[index].alias())
    }

    fn granted(&mut self, gref: u32, write: bool) -> Option<(SharedPage, SharedPage, usize)> {
        match self.find_granted(gref, write) {
            Ok(found) => Some(found),
            Err(violation) => {
                self.violation(violation);
                None
            }
        }
    }

    fn find_granted(
        &self,
        gref: u32,
        write: bool,
    ) -> Result<(SharedPage, SharedPage, usize), &'static str> {
        let index = gref as usize;
        let frame = self.grant_frames.get(index / PER_FRAME);
        let frame = frame.ok_or("a grant reference beyond the table")?;
        let offset = index % PER_FRAME * ENTRY_SIZE;
        let entry: grant_entry_v1 = frame.read(offset);
        if entry.flags & GTF_PERMIT_ACCESS == 0 || entry.domid != 0 {
            return Err("a grant reference that grants nothing");
        }
        if write && entry.flags & GTF_READONLY != 0 {
            return Err("a page to be written is granted read-only");
        }
        let page = (entry.frame as u64)
            .checked_sub(FIRST_GFN)
            .and_then(|index| self.pool.pages.get(index as usize))
            .ok_or("a grant of no page of the guest")?;
        Ok((page.alias(), frame.alias(), offset))
    }

    /// The page of a grant; `None` if there is no such grant, which is no violation by the guest: a process may ask for
    /// any reference.
    pub(super) fn process_copies(&self, gref: u32, write: bool) -> Option<SharedPage> {
        let (page, ..) = self.find_granted(gref, write).ok()?;
        Some(page)
    }

    /// Maps a grant for a process; `None` if there is no such grant.
    pub(super) fn process_maps(&mut self, gref: u32, write: bool) -> Option<SharedPage> {
        let (page, frame, offset) = self.find_granted(gref, write).ok()?;
        let in_use = if write {
            GTF_READING | GTF_WRITING
        } else {
            GTF_READING
        };
        frame.store16(offset, frame.load16(offset) | in_use);
        *self.mapped.entry(gref).or_default() += 1;
        Some(page)
    }

    /// Ends one mapping of a grant by a process.
    pub(super) fn process_unmaps(&mut self, gref: u32) {
        if let Some(times) = self.mapped.get_mut(&gref) {
            *times -= 1;
            if *times == 0 {
                self.mapped.remove(&gref);
                self.unmap_grant(gref);
            }
        }
    }

    /// The number of grants that a process has mapped.
    #[must_use]
    pub fn mapped_by_process(&self) -> usize {
        self.mapped.len()
    }

    /// Records that the guest has notified a process.
    pub(super) fn raise(&mut self, port: EventPort) {
        if !self.raised.contains(&port) {
            self.raised.push(port);
        }
    }

    pub(super) fn take_raised(&mut self) -> Vec<EventPort> {
        core::mem::take(&mut self.raised)
    }

    /// The page of a grant, for one copy by the back end.
    pub(super) fn copy_grant(&mut self, gref: u32, write: bool) -> Option<SharedPage> {
        self.granted(gref, write).map(|(page, ..)| page)
    }

    /// Whether a grant allows writing.
    #[must_use]
    pub fn is_writable(&self, gref: u32) -> bool {
        let index = gref as usize;
        self.grant_frames
            .get(index / PER_FRAME)
            .is_some_and(|frame| {
                let entry: grant_entry_v1 = frame.read(index % PER_FRAME * ENTRY_SIZE);
                entry.flags & (GTF_PERMIT_ACCESS | GTF_READONLY) == GTF_PERMIT_ACCESS
            })
    }

    /// Maps a grant for reading and writing, until [`Machine::unmap_grant`].
    pub(super) fn map_grant(&mut self, gref: u32) -> Option<SharedPage> {
        let (page, frame, offset) = self.granted(gref, true)?;
        frame.store16(offset, frame.load16(offset) | GTF_READING | GTF_WRITING);
        Some(page)
    }

    /// Maps a grant if it still exists; returns whether it did.
    pub(super) fn keep_mapped(&mut self, gref: u32) -> bool {
        let index = gref as usize;
        let Some(frame) = self.grant_frames.get(index / PER_FRAME) else {
            return false;
        };
        let offset = index % PER_FRAME * ENTRY_SIZE;
        let flags = frame.load16(offset);
        let is_granted = flags & GTF_PERMIT_ACCESS != 0;
        if is_granted {
            frame.store16(offset, flags | GTF_READING);
        }
        is_granted
    }

    pub(super) fn unmap_grant(&mut self, gref: u32) {
        let index = gref as usize;
        if let Some(frame) = self.grant_frames.get(index / PER_FRAME) {
            let offset = index % PER_FRAME * ENTRY_SIZE;
            frame.store16(offset, frame.load16(offset) & !(GTF_READING | GTF_WRITING));
        }
    }

    pub(super) fn open_port(&mut self, remote: Remote) -> Result<EventPort, Errno> {
        let free = (1..self.ports.len()).find(|&port| self.ports[port].is_none());
        let number = free.unwrap_or(self.ports.len());
        let port = EventPort::try_new(number as u32).ok_or(ENOSPC)?;
        if number == self.ports.len() {
            self.ports.push(None);
        }
        self.ports[number] = Some(Port {
            remote,
            pending: false,
        });
        Ok(port)
    }

    fn port(&mut self, port: EventPort) -> Result<&mut Port, Errno> {
        match self.ports.get_mut(port.get() as usize) {
            Some(Some(port)) => Ok(port),
            _ => Err(EINVAL),
        }
    }

    pub(super) fn close_port(&mut self, port: EventPort) -> Result<(), Errno> {
        self.port(port)?;
        self.ports[port.get() as usize] = None;
        Ok(())
    }

    pub(super) fn remote(&mut self, port: EventPort) -> Result<Remote, Errno> {
        match self.port(port) {
            Ok(port) => Ok(port.remote),
            Err(error) => {
                self.violation("an event on a closed port");
                Err(error)
            }
        }
    }

    /// Binds netback to a port that the guest left unbound for domain 0.
    pub(super) fn bind(&mut self, number: u32) -> Option<EventPort> {
        let port = self.bind_to(number, Remote::Netback);
        if port.is_none() {
            self.violation("an event channel that is not there to be bound");
        }
        port
    }

    /// Binds a peer in domain 0 to a port that the guest left unbound for it.
    pub(super) fn bind_to(&mut self, number: u32, remote: Remote) -> Option<EventPort> {
        let port = EventPort::try_new(number)?;
        match self.port(port) {
            Ok(entry) if entry.remote == Remote::Unbound(DomId(0)) => {
                entry.remote = remote;
                Some(port)
            }
            _ => None,
        }
    }

    /// Netback, or a process, closes its end.
    pub(super) fn unbind(&mut self, port: EventPort) {
        if let Ok(entry) = self.port(port)
            && matches!(entry.remote, Remote::Netback | Remote::Process)
        {
            entry.remote = Remote::Unbound(DomId(0));
        }
    }

    /// Sets a port of the guest pending.
    pub(super) fn notify_guest(&mut self, port: EventPort) {
        if let Ok(entry) = self.port(port) {
            entry.pending = true;
        }
    }

    pub(super) fn is_pending(&mut self, port: EventPort) -> bool {
        self.port(port).is_ok_and(|entry| entry.pending)
    }

    pub(super) fn take_pending(&mut self, port: EventPort) -> bool {
        self.port(port)
            .is_ok_and(|entry| core::mem::take(&mut entry.pending))
    }
}

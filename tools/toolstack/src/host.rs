//! What a toolstack works with: Xen, dom0's links, and (in `mayfly-xenstore`) xenstored. Tests put their own in the place of each.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use mayfly_links::{Bridge, Instruction, Link};
use mayfly_xen::{DomainInfo, MapEntry, Mapping, NewDomain, TscMode};
pub use mayfly_xenstore::Store;

/// Xen, as dom0 speaks to it. [`mayfly_xen::Xen`] says more of each call.
pub trait Xen {
    /// Makes a domain, paused and empty; gives its number.
    ///
    /// # Errors
    /// Xen's.
    fn create(&mut self, new: &NewDomain) -> Result<u16, mayfly_xen::Error>;

    /// How many vCPUs it has.
    ///
    /// # Errors
    /// Xen's.
    fn max_vcpus(&mut self, domain: u16, vcpus: u32) -> Result<(), mayfly_xen::Error>;

    /// How much memory it may have.
    ///
    /// # Errors
    /// Xen's.
    fn max_mem(&mut self, domain: u16, kib: u64) -> Result<(), mayfly_xen::Error>;

    /// Memory for its page tables.
    ///
    /// # Errors
    /// Xen's.
    fn paging_pool(&mut self, domain: u16, bytes: u64) -> Result<(), mayfly_xen::Error>;

    /// How RDTSC behaves.
    ///
    /// # Errors
    /// Xen's.
    fn tsc_mode(&mut self, domain: u16, mode: TscMode) -> Result<(), mayfly_xen::Error>;

    /// What its vCPU starts with.
    ///
    /// # Errors
    /// Xen's.
    fn pvh_context(
        &mut self,
        domain: u16,
        entry: u32,
        start_info: u32,
    ) -> Result<(), mayfly_xen::Error>;

    /// Pauses it.
    ///
    /// # Errors
    /// Xen's.
    fn pause(&mut self, domain: u16) -> Result<(), mayfly_xen::Error>;

    /// Lets it run.
    ///
    /// # Errors
    /// Xen's.
    fn unpause(&mut self, domain: u16) -> Result<(), mayfly_xen::Error>;

    /// Destroys it.
    ///
    /// # Errors
    /// Xen's.
    fn destroy(&mut self, domain: u16) -> Result<(), mayfly_xen::Error>;

    /// Has it end for this reason.
    ///
    /// # Errors
    /// Xen's.
    fn shutdown(&mut self, domain: u16, reason: u8) -> Result<(), mayfly_xen::Error>;

    /// Gives it memory: extents of 2^`order` pages. Says how many were made.
    ///
    /// # Errors
    /// Xen's.
    fn populate(
        &mut self,
        domain: u16,
        gfns: &[u64],
        order: u32,
    ) -> Result<usize, mayfly_xen::Error>;

    /// The memory map that it may ask for.
    ///
    /// # Errors
    /// Xen's.
    fn memory_map(&mut self, domain: u16, entries: &[MapEntry]) -> Result<(), mayfly_xen::Error>;

    /// Sets an `HVM_PARAM_*`.
    ///
    /// # Errors
    /// Xen's.
    fn param(&mut self, domain: u16, index: u32, value: u64) -> Result<(), mayfly_xen::Error>;

    /// Makes an event channel of it to dom0.
    ///
    /// # Errors
    /// Xen's.
    fn event_channel(&mut self, domain: u16) -> Result<u32, mayfly_xen::Error>;

    /// What Xen knows of it, or `None` when there is none of this number.
    ///
    /// # Errors
    /// Xen's.
    fn info(&mut self, domain: u16) -> Result<Option<DomainInfo>, mayfly_xen::Error>;

    /// All domains.
    ///
    /// # Errors
    /// Xen's.
    fn list(&mut self) -> Result<Vec<DomainInfo>, mayfly_xen::Error>;

    /// MiB of the host's memory that are free.
    ///
    /// # Errors
    /// Xen's.
    fn free_memory(&mut self) -> Result<u64, mayfly_xen::Error>;

    /// Pages of it, to be written to.
    ///
    /// # Errors
    /// Xen's.
    fn map(&self, domain: u16, gfns: &[u64]) -> Result<Box<dyn Pages>, mayfly_xen::Error>;

    /// The first frame of its grant table, to be written to.
    ///
    /// # Errors
    /// Xen's.
    fn map_grants(&self, domain: u16) -> Result<Box<dyn Pages>, mayfly_xen::Error>;
}

/// Pages of a domain, one after the other.
pub trait Pages {
    /// Copies bytes in.
    ///
    /// # Errors
    /// They go beyond the pages.
    fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Zeroes bytes.
    ///
    /// # Errors
    /// They go beyond the pages.
    fn zero(&self, offset: usize, length: usize) -> io::Result<()>;

    /// Reads a part of a file into them.
    ///
    /// # Errors
    /// It goes beyond the pages, or the file ends before.
    fn read_file(
        &self,
        offset: usize,
        length: usize,
        file: BorrowedFd<'_>,
        position: u64,
    ) -> io::Result<()>;
}

/// dom0's links. [`mayfly_links::Links`] says more of each call.
pub trait Links {
    /// The link of this name.
    ///
    /// # Errors
    /// The kernel's.
    fn find(&mut self, name: &str) -> Result<Link, mayfly_links::Error>;

    /// The bridge of this name.
    ///
    /// # Errors
    /// The kernel's.
    fn bridge(&mut self, name: &str) -> Result<Bridge, mayfly_links::Error>;

    /// Waits until a link is there.
    ///
    /// # Errors
    /// The kernel's.
    fn appeared(&mut self, name: &str, bound: Duration) -> Result<Link, mayfly_links::Error>;

    /// Waits until it is gone.
    ///
    /// # Errors
    /// The kernel's.
    fn gone(&mut self, name: &str, bound: Duration) -> Result<(), mayfly_links::Error>;

    /// Makes a link a port of a bridge, and sets it up.
    ///
    /// # Errors
    /// The kernel's.
    fn attach(
        &mut self,
        link: &mut Link,
        bridge: &Bridge,
        mtu: Option<u32>,
    ) -> Result<(), mayfly_links::Error>;

    /// Whether a port gets what is for everybody.
    ///
    /// # Errors
    /// The kernel's.
    fn flood(&mut self, link: &Link, floods: bool) -> Result<(), mayfly_links::Error>;

    /// Has a bridge send what is for a MAC address to this port of its.
    ///
    /// # Errors
    /// The kernel's.
    fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error>;

    /// Forgets what was told so far.
    ///
    /// # Errors
    /// The kernel's.
    fn pass(&mut self) -> Result<(), mayfly_links::Error>;

    /// Waits until something is connected to a link, as its features tell; says whether it was heard of.
    ///
    /// # Errors
    /// The kernel's.
    fn connected(&mut self, name: &str, bound: Duration) -> Result<bool, mayfly_links::Error>;

    /// Waits until something is connected to a link.
    ///
    /// # Errors
    /// The kernel's.
    fn running(&mut self, name: &str, bound: Duration) -> Result<(), mayfly_links::Error>;

    /// Drops what comes from a link unless this program lets it pass.
    ///
    /// # Errors
    /// The kernel's.
    fn filter(&mut self, link: u32, program: &[Instruction]) -> Result<(), mayfly_links::Error>;
}

impl Xen for mayfly_xen::Xen {
    fn create(&mut self, new: &NewDomain) -> Result<u16, mayfly_xen::Error> {
        Self::create(self, new)
    }

    fn max_vcpus(&mut self, domain: u16, vcpus: u32) -> Result<(), mayfly_xen::Error> {
        Self::max_vcpus(self, domain, vcpus)
    }

    fn max_mem(&mut self, domain: u16, kib: u64) -> Result<(), mayfly_xen::Error> {
        Self::max_mem(self, domain, kib)
    }

    fn paging_pool(&mut self, domain: u16, bytes: u64) -> Result<(), mayfly_xen::Error> {
        Self::paging_pool(self, domain, bytes)
    }

    fn tsc_mode(&mut self, domain: u16, mode: TscMode) -> Result<(), mayfly_xen::Error> {
        Self::tsc_mode(self, domain, mode)
    }

    fn pvh_context(
        &mut self,
        domain: u16,
        entry: u32,
        start_info: u32,
    ) -> Result<(), mayfly_xen::Error> {
        Self::pvh_context(self, domain, entry, start_info)
    }

    fn pause(&mut self, domain: u16) -> Result<(), mayfly_xen::Error> {
        Self::pause(self, domain)
    }

    fn unpause(&mut self, domain: u16) -> Result<(), mayfly_xen::Error> {
        Self::unpause(self, domain)
    }

    fn destroy(&mut self, domain: u16) -> Result<(), mayfly_xen::Error> {
        Self::destroy(self, domain)
    }

    fn shutdown(&mut self, domain: u16, reason: u8) -> Result<(), mayfly_xen::Error> {
        Self::shutdown(self, domain, reason)
    }

    fn populate(
        &mut self,
        domain: u16,
        gfns: &[u64],
        order: u32,
    ) -> Result<usize, mayfly_xen::Error> {
        Self::populate(self, domain, gfns, order)
    }

    fn memory_map(&mut self, domain: u16, entries: &[MapEntry]) -> Result<(), mayfly_xen::Error> {
        Self::memory_map(self, domain, entries)
    }

    fn param(&mut self, domain: u16, index: u32, value: u64) -> Result<(), mayfly_xen::Error> {
        Self::param(self, domain, index, value)
    }

    fn event_channel(&mut self, domain: u16) -> Result<u32, mayfly_xen::Error> {
        Self::event_channel(self, domain)
    }

    fn info(&mut self, domain: u16) -> Result<Option<DomainInfo>, mayfly_xen::Error> {
        Self::info(self, domain)
    }

    fn list(&mut self) -> Result<Vec<DomainInfo>, mayfly_xen::Error> {
        Self::list(self)
    }

    fn free_memory(&mut self) -> Result<u64, mayfly_xen::Error> {
        Self::free_memory(self)
    }

    fn map(&self, domain: u16, gfns: &[u64]) -> Result<Box<dyn Pages>, mayfly_xen::Error> {
        Ok(Box::new(Self::map(self, domain, gfns)?))
    }

    fn map_grants(&self, domain: u16) -> Result<Box<dyn Pages>, mayfly_xen::Error> {
        Ok(Box::new(Self::map_grants(self, domain)?))
    }
}

impl Pages for Mapping {
    fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        Self::write(self, offset, bytes)
    }

    fn zero(&self, offset: usize, length: usize) -> io::Result<()> {
        Self::zero(self, offset, length)
    }

    fn read_file(
        &self,
        offset: usize,
        length: usize,
        file: BorrowedFd<'_>,
        position: u64,
    ) -> io::Result<()> {
        Self::read_file(self, offset, length, file, position)
    }
}

impl Links for mayfly_links::Links {
    fn find(&mut self, name: &str) -> Result<Link, mayfly_links::Error> {
        Self::find(self, name)
    }

    fn bridge(&mut self, name: &str) -> Result<Bridge, mayfly_links::Error> {
        Self::bridge(self, name)
    }

    fn appeared(&mut self, name: &str, bound: Duration) -> Result<Link, mayfly_links::Error> {
        Self::appeared(self, name, bound)
    }

    fn gone(&mut self, name: &str, bound: Duration) -> Result<(), mayfly_links::Error> {
        Self::gone(self, name, bound)
    }

    fn attach(
        &mut self,
        link: &mut Link,
        bridge: &Bridge,
        mtu: Option<u32>,
    ) -> Result<(), mayfly_links::Error> {
        Self::attach(self, link, bridge, mtu)
    }

    fn flood(&mut self, link: &Link, floods: bool) -> Result<(), mayfly_links::Error> {
        Self::flood(self, link, floods)
    }

    fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error> {
        Self::direct(self, link, mac)
    }

    fn pass(&mut self) -> Result<(), mayfly_links::Error> {
        Self::pass(self)
    }

    fn connected(&mut self, name: &str, bound: Duration) -> Result<bool, mayfly_links::Error> {
        Self::connected(self, name, bound)
    }

    fn running(&mut self, name: &str, bound: Duration) -> Result<(), mayfly_links::Error> {
        Self::running(self, name, bound)
    }

    fn filter(&mut self, link: u32, program: &[Instruction]) -> Result<(), mayfly_links::Error> {
        Self::filter(self, link, program)
    }
}

//! The interfaces that the toolstack works with: Xen, dom0's links, and (in `mayfly-xenstore`) xenstored. Tests
//! implement each of them.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use crate::lifecycle::xen::Suspended;
use mayfly_links::{Bridge, Instruction, Link};
use mayfly_xen::{DomainCall, DomainInfo, Mapping, NewDomain};
pub use mayfly_xenstore::Store;

/// Xen's control interface in dom0. [`mayfly_xen::Xen`] describes each call in more detail.
pub trait Xen: Suspended {
    /// Creates a domain, paused and empty; returns its domid.
    ///
    /// # Errors
    /// Xen's.
    fn create(&mut self, new: &NewDomain) -> Result<u16, mayfly_xen::Error>;

    /// Sets the size of the pool for the domain's page tables, in bytes.
    ///
    /// # Errors
    /// Xen's.
    fn paging_pool(&mut self, domain: u16, bytes: u64) -> Result<(), mayfly_xen::Error>;

    /// Pauses the domain.
    ///
    /// # Errors
    /// Xen's.
    fn pause(&mut self, domain: u16) -> Result<(), mayfly_xen::Error>;

    /// Unpauses the domain.
    ///
    /// # Errors
    /// Xen's.
    fn unpause(&mut self, domain: u16) -> Result<(), mayfly_xen::Error>;

    /// Destroys the domain.
    ///
    /// # Errors
    /// Xen's.
    fn destroy(&mut self, domain: u16) -> Result<(), mayfly_xen::Error>;

    /// Shuts the domain down for this reason (`SHUTDOWN_*`, sched.h).
    ///
    /// # Errors
    /// Xen's.
    fn shutdown(&mut self, domain: u16, reason: u8) -> Result<(), mayfly_xen::Error>;

    /// Makes calls about a domain that is being made, in this order. Returns their answers.
    ///
    /// # Errors
    /// Xen's for the first call that failed.
    fn batch(
        &mut self,
        domain: u16,
        calls: &[DomainCall<'_>],
    ) -> Result<Vec<u64>, mayfly_xen::Error>;

    /// Xen's information on the domain; `None` if there is no domain with this domid.
    ///
    /// # Errors
    /// Xen's.
    fn info(&mut self, domain: u16) -> Result<Option<DomainInfo>, mayfly_xen::Error>;

    /// All domains.
    ///
    /// # Errors
    /// Xen's.
    fn list(&mut self) -> Result<Vec<DomainInfo>, mayfly_xen::Error>;

    /// The free memory of the host, in MiB.
    ///
    /// # Errors
    /// Xen's.
    fn free_memory(&mut self) -> Result<u64, mayfly_xen::Error>;

    /// Maps pages of the domain for writing.
    ///
    /// # Errors
    /// Xen's.
    fn map(&self, domain: u16, gfns: &[u64]) -> Result<Box<dyn Pages>, mayfly_xen::Error>;

    /// Maps the first frame of the domain's grant table for writing.
    ///
    /// # Errors
    /// Xen's.
    fn map_grants(&self, domain: u16) -> Result<Box<dyn Pages>, mayfly_xen::Error>;
}

/// Mapped pages of a domain, addressed by the offset from the first.
pub trait Pages {
    /// Copies bytes out.
    ///
    /// # Errors
    /// The bytes go beyond the pages.
    fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()>;

    /// Whether a page, counted from 0, is all zeros.
    ///
    /// # Errors
    /// There is no such page.
    fn is_zero(&self, page: usize) -> io::Result<bool>;

    /// Copies bytes in.
    ///
    /// # Errors
    /// The bytes go beyond the pages.
    fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()>;

    /// Zeroes bytes.
    ///
    /// # Errors
    /// The bytes go beyond the pages.
    fn zero(&self, offset: usize, length: usize) -> io::Result<()>;

    /// Reads a part of a file into them.
    ///
    /// # Errors
    /// The part goes beyond the pages, or beyond the file's end.
    fn read_file(
        &self,
        offset: usize,
        length: usize,
        file: BorrowedFd<'_>,
        position: u64,
    ) -> io::Result<()>;
}

/// dom0's network links. [`mayfly_links::Links`] describes each call in more detail.
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

    /// Waits until a link exists.
    ///
    /// # Errors
    /// The kernel's.
    fn appeared(&mut self, name: &str, bound: Duration) -> Result<Link, mayfly_links::Error>;

    /// Waits until a link is gone.
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

    /// Sets whether a port is flooded with broadcast, multicast and unknown unicast frames.
    ///
    /// # Errors
    /// The kernel's.
    fn flood(&mut self, link: &Link, floods: bool) -> Result<(), mayfly_links::Error>;

    /// Adds a MAC address to the bridge's forwarding table, for this port.
    ///
    /// # Errors
    /// The kernel's.
    fn direct(&mut self, link: &Link, mac: [u8; 6]) -> Result<(), mayfly_links::Error>;

    /// Discards the notifications so far.
    ///
    /// # Errors
    /// The kernel's.
    fn pass(&mut self) -> Result<(), mayfly_links::Error>;

    /// Waits until a back end is connected to a link, as its features show; returns whether the kernel reported that.
    ///
    /// # Errors
    /// The kernel's.
    fn connected(&mut self, name: &str, bound: Duration) -> Result<bool, mayfly_links::Error>;

    /// Waits until a link has its carrier.
    ///
    /// # Errors
    /// The kernel's.
    fn running(&mut self, name: &str, bound: Duration) -> Result<(), mayfly_links::Error>;

    /// Drops the frames that arrive from a link unless this program accepts them.
    ///
    /// # Errors
    /// The kernel's.
    fn filter(&mut self, link: u32, program: &[Instruction]) -> Result<(), mayfly_links::Error>;
}

impl Xen for mayfly_xen::Xen {
    fn create(&mut self, new: &NewDomain) -> Result<u16, mayfly_xen::Error> {
        Self::create(self, new)
    }

    fn paging_pool(&mut self, domain: u16, bytes: u64) -> Result<(), mayfly_xen::Error> {
        Self::paging_pool(self, domain, bytes)
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

    fn batch(
        &mut self,
        domain: u16,
        calls: &[DomainCall<'_>],
    ) -> Result<Vec<u64>, mayfly_xen::Error> {
        Self::batch(self, domain, calls)
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
    fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        Self::read(self, offset, into)
    }

    fn is_zero(&self, page: usize) -> io::Result<bool> {
        Self::is_zero(self, page)
    }

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

//! The grant table, version 1: the frames of this domain that other domains may access.
//!
//! Source: Xen 4.17 public/grant_table.h. Entries are allocated from a bump index and a free list, so neither boot nor
//! reuse scans the table. An entry that is still mapped by the other domain when it ends is quarantined together with
//! its page: neither is used again until Xen reports that the mapping is gone.

use alloc::vec::Vec;
use core::mem::size_of;

use crate::abi::{
    GNTTAB_NR_RESERVED_ENTRIES, GTF_PERMIT_ACCESS, GTF_READING, GTF_READONLY, GTF_WRITING,
    PAGE_SIZE, grant_entry_v1,
};
use crate::{DomId, Errno, Gfn, GrantRef, Hypervisor, SharedPage, TransmitPages};

/// The number of entries in one frame of the table.
#[allow(clippy::cast_possible_truncation, reason = "512")]
const PER_FRAME: u32 = (PAGE_SIZE / size_of::<grant_entry_v1>()) as u32;
/// The greatest number of frames that the guest asks for: twice the entries that one vif can have in flight.
const MAX_FRAMES: usize = 4;
/// The number of attempts to end an entry whose flags change meanwhile.
const END_ATTEMPTS: usize = 4;

/// The access that a grant gives to the other domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read only.
    Read,
    /// Read and write.
    ReadWrite,
}

/// The error of a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantError {
    /// All entries of the greatest allowed number of frames are in use.
    Full,
    /// Xen refused another frame for the table.
    Xen(Errno),
    /// The gfn does not fit the 32 bits of a version 1 entry.
    Frame,
}

/// The other domain still has the page mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse;

/// This domain's grant table.
#[derive(Debug)]
pub struct GrantTable {
    frames: Vec<SharedPage>,
    /// The first entry that was never used.
    next: u32,
    free: Vec<u32>,
    quarantine: Vec<(GrantRef, SharedPage)>,
}

impl GrantTable {
    /// Maps the table's first frame: 512 entries, 8 of which belong to the toolstack.
    ///
    /// # Errors
    /// Xen's errno.
    pub fn new(xen: &impl Hypervisor) -> Result<Self, Errno> {
        Self::used_below(xen, GrantRef(GNTTAB_NR_RESERVED_ENTRIES))
    }

    /// Maps the first frame of a table whose entries below `free` are used by the toolstack.
    ///
    /// # Errors
    /// Xen's errno.
    pub fn used_below(xen: &impl Hypervisor, free: GrantRef) -> Result<Self, Errno> {
        let mut frames = Vec::with_capacity(MAX_FRAMES);
        frames.push(xen.grant_frame(0)?);
        Ok(Self {
            frames,
            next: free.0.clamp(GNTTAB_NR_RESERVED_ENTRIES, PER_FRAME),
            free: Vec::new(),
            quarantine: Vec::new(),
        })
    }

    /// Maps the table of the new domain in which the guest was resumed. Nothing is granted in it, so all entries that
    /// were in use can be ended.
    ///
    /// # Errors
    /// Xen's errno.
    pub fn resumed(&self, xen: &impl Hypervisor) -> Result<(), Errno> {
        for (index, page) in (0..).zip(&self.frames) {
            xen.map_grant_frame(index, page)?;
        }
        Ok(())
    }

    /// Grants `domain` access to a page.
    ///
    /// # Errors
    /// [`GrantError`]; nothing is granted then.
    #[inline]
    pub fn grant(
        &mut self,
        xen: &impl Hypervisor,
        domain: DomId,
        page: &SharedPage,
        access: Access,
    ) -> Result<GrantRef, GrantError> {
        self.grant_frame(xen, domain, xen.gfn(page), access)
    }

    /// Grants `domain` read access to one of the transmit pages.
    ///
    /// # Errors
    /// [`GrantError`]; nothing is granted then.
    #[inline]
    pub fn grant_transmit(
        &mut self,
        xen: &impl Hypervisor,
        domain: DomId,
        pages: &TransmitPages,
        page: usize,
    ) -> Result<GrantRef, GrantError> {
        self.grant_frame(xen, domain, xen.transmit_gfn(pages, page), Access::Read)
    }

    /// Grants `domain` access to a frame of this domain.
    ///
    /// # Errors
    /// [`GrantError`]; nothing is granted then.
    #[inline]
    fn grant_frame(
        &mut self,
        xen: &impl Hypervisor,
        domain: DomId,
        gfn: Gfn,
        access: Access,
    ) -> Result<GrantRef, GrantError> {
        let frame = u32::try_from(gfn.0).map_err(|_| GrantError::Frame)?;
        let index = match self.free.pop() {
            Some(index) => index,
            None => self.bump(xen)?,
        };
        let Some((page, offset)) = self.entry(index) else {
            return Err(GrantError::Full);
        };
        let flags = match access {
            Access::Read => GTF_PERMIT_ACCESS | GTF_READONLY,
            Access::ReadWrite => GTF_PERMIT_ACCESS,
        };
        // The flags make the entry valid, so they must not be seen before the rest
        // (grant_table.h, "Introducing a valid entry"): here all is one store.
        let entry = u64::from(flags) | u64::from(domain.0) << 16 | u64::from(frame) << 32;
        page.store64(offset, entry);
        Ok(GrantRef(index))
    }

    /// Ends a grant, so that its page can be reused.
    ///
    /// # Errors
    /// [`InUse`] while the other domain has the page mapped. The entry stays as it is.
    pub fn end(&mut self, grant: GrantRef) -> Result<(), InUse> {
        let Some((page, offset)) = self.entry(grant.0) else {
            return Err(InUse);
        };
        // "Invalidating an unused entry" (grant_table.h): the flags go to zero in one
        // exchange, which fails if Xen set GTF_reading or GTF_writing meanwhile.
        let mut flags = page.load16(offset);
        for _ in 0..END_ATTEMPTS {
            if flags & (GTF_READING | GTF_WRITING) != 0 {
                return Err(InUse);
            }
            match page.compare_exchange16(offset, flags, 0) {
                Ok(_) => {
                    self.free.push(grant.0);
                    return Ok(());
                }
                Err(found) => flags = found,
            }
        }
        Err(InUse)
    }

    /// Ends a grant and frees its page; if the page is still mapped, both are quarantined.
    pub fn release(&mut self, xen: &impl Hypervisor, grant: GrantRef, page: SharedPage) {
        match self.end(grant) {
            Ok(()) => xen.free_page(page),
            Err(InUse) => self.quarantine.push((grant, page)),
        }
    }

    /// Frees quarantined pages and entries that are no longer mapped.
    pub fn sweep(&mut self, xen: &impl Hypervisor) {
        for (grant, page) in core::mem::take(&mut self.quarantine) {
            self.release(xen, grant, page);
        }
    }

    /// The number of quarantined pages: pages that another domain still maps although their grant has ended.
    #[must_use]
    pub fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// Allocates an entry that was never used. Maps another frame of the table when the last is used up.
    fn bump(&mut self, xen: &impl Hypervisor) -> Result<u32, GrantError> {
        let index = self.next;
        let frame = index / PER_FRAME;
        if frame as usize >= self.frames.len() {
            if self.frames.len() >= MAX_FRAMES {
                return Err(GrantError::Full);
            }
            self.frames
                .push(xen.grant_frame(frame).map_err(GrantError::Xen)?);
        }
        self.next += 1;
        Ok(index)
    }

    #[inline]
    fn entry(&self, index: u32) -> Option<(&SharedPage, usize)> {
        let page = self.frames.get((index / PER_FRAME) as usize)?;
        Some((
            page,
            (index % PER_FRAME) as usize * size_of::<grant_entry_v1>(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeXen;
    use std::vec::Vec;

    const DOM0: DomId = DomId(0);

    fn page(xen: &FakeXen) -> (SharedPage, Gfn) {
        let page = xen.alloc_page().unwrap();
        let gfn = xen.gfn(&page);
        (page, gfn)
    }

    #[test]
    fn an_entry_is_written_as_the_header_says() {
        let xen = FakeXen::new();
        let mut grants = GrantTable::new(&xen).unwrap();
        let table = xen.grant_frame(0).unwrap();
        for (access, flags) in [
            (Access::ReadWrite, GTF_PERMIT_ACCESS),
            (Access::Read, GTF_PERMIT_ACCESS | GTF_READONLY),
        ] {
            let grant = grants
                .grant_frame(&xen, DomId(7), Gfn(0x1234), access)
                .unwrap();
            assert!(grant.0 >= GNTTAB_NR_RESERVED_ENTRIES);
            let entry: grant_entry_v1 = table.read(grant.0 as usize * 8);
            assert_eq!((entry.flags, entry.domid, entry.frame), (flags, 7, 0x1234));
        }
        assert_eq!(
            grants.grant_frame(&xen, DOM0, Gfn(1 << 32), Access::Read),
            Err(GrantError::Frame)
        );
    }

    #[test]
    fn the_table_grows_to_its_bound_and_reuses_what_ended() {
        let xen = FakeXen::new();
        let mut grants = GrantTable::new(&xen).unwrap();
        let mut refs = Vec::new();
        let error = loop {
            match grants.grant_frame(&xen, DOM0, Gfn(1), Access::Read) {
                Ok(grant) => refs.push(grant.0),
                Err(error) => break error,
            }
        };
        assert_eq!(error, GrantError::Full);
        assert_eq!(refs.len(), 4 * 512 - 8);
        assert_eq!(xen.with(|world| world.machine.counts.grant_frame), 4);
        refs.dedup();
        assert_eq!(refs.len(), 4 * 512 - 8, "no entry twice");
        grants.end(GrantRef(1000)).unwrap();
        let again = grants.grant_frame(&xen, DOM0, Gfn(1), Access::Read);
        assert_eq!(again, Ok(GrantRef(1000)));
    }

    #[test]
    fn a_mapped_page_is_quarantined_until_it_is_unmapped() {
        let xen = FakeXen::new();
        let mut grants = GrantTable::new(&xen).unwrap();
        let (page, gfn) = page(&xen);
        let grant = grants
            .grant_frame(&xen, DOM0, gfn, Access::ReadWrite)
            .unwrap();
        let table = xen.grant_frame(0).unwrap();
        let offset = grant.0 as usize * 8;
        for mapped in [GTF_READING, GTF_READING | GTF_WRITING] {
            table.store16(offset, GTF_PERMIT_ACCESS | mapped);
            assert_eq!(grants.end(grant), Err(InUse));
        }
        grants.release(&xen, grant, page);
        grants.sweep(&xen);
        assert_eq!(grants.quarantined(), 1);
        assert_eq!(xen.with(|world| world.machine.pages_allocated()), 1);
        let other = grants.grant_frame(&xen, DOM0, gfn, Access::Read).unwrap();
        assert_ne!(other, grant);
        grants.end(other).unwrap();
        table.store16(offset, GTF_PERMIT_ACCESS);
        grants.sweep(&xen);
        assert_eq!(grants.quarantined(), 0);
        assert_eq!(xen.with(|world| world.machine.pages_allocated()), 0);
        assert_eq!(xen.with(|world| world.machine.violations().len()), 0);
    }

    #[test]
    fn a_reference_beyond_the_table_ends_nothing() {
        let xen = FakeXen::new();
        let mut grants = GrantTable::new(&xen).unwrap();
        assert_eq!(grants.end(GrantRef(u32::MAX)), Err(InUse));
    }
}

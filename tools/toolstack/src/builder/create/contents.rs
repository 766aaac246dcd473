//! Writes the initial contents of a guest's memory.

use std::os::fd::AsFd;

use mayfly_drivers::abi::{XENSTORE_RECONNECT, xenstore_domain_interface};
use mayfly_handoff::network::Preconnected;

use super::super::ToolstackError;
use super::super::acpi;
use super::super::image::Ramdisk;
use super::super::info;
use super::super::layout::ACPI_GFN;
use super::super::rings::{self, Grants};
use super::super::toolstack::Toolstack;
use super::CreatePlan;
use super::machine::special_pages;
use crate::host::Pages;
use mayfly_xen::PAGE_SIZE;

/// The number of a module's pages that are mapped at a time.
const CHUNK: u64 = 1024;

/// The pages of a new guest that the builder writes to, mapped together: a mapping costs as much as several of its pages. They stay mapped
/// until the guest runs, because unmapping them takes long in the kernel and would delay the guest.
pub(super) struct Mapped {
    pages: Box<dyn Pages>,
    gfns: Vec<u64>,
    /// The number of special pages, which are the first.
    specials: usize,
    /// The place of the image's first page.
    image: usize,
    /// The guest's grant table.
    _table: Box<dyn Pages>,
}

impl Mapped {
    /// The offset of an address of the image or of the information.
    fn offset(&self, address: u64) -> Result<usize, ToolstackError> {
        let page = PAGE_SIZE as u64;
        let image = self.gfns.get(self.image..).unwrap_or_default();
        let at = image.binary_search(&(address / page));
        let at = at.map_err(|_| std::io::Error::other("an address that is not mapped"))?;
        let inside = usize::try_from(address % page).unwrap_or(0);
        Ok((self.image + at) * PAGE_SIZE + inside)
    }

    /// Tells the guest, in the special pages, to wait until xenstored is told of it: both implementations of xenstored
    /// clear this word then (xs_wire.h, "The ring reconnection feature" of xenstore-ring.txt).
    pub(super) fn is_introduced_later(&self) -> Result<(), ToolstackError> {
        let at = PAGE_SIZE + xenstore_domain_interface::CONNECTION;
        Ok(self.pages.write(at, &XENSTORE_RECONNECT.to_le_bytes())?)
    }

    /// Fills the special pages and both rings.
    fn fill(&self, plan: &CreatePlan<'_>, grants: Option<&Grants>) -> Result<(), ToolstackError> {
        let (pages, specials) = (&self.pages, self.specials);
        pages.write(0, &IDENT_PT)?;
        // The pages of xenstore and of the console.
        pages.zero(PAGE_SIZE, (specials - 1) * PAGE_SIZE)?;
        if plan.layout.acpi {
            let tables = acpi::tables(ACPI_GFN * PAGE_SIZE as u64);
            pages.write((specials - 1) * PAGE_SIZE, &tables)?;
        }
        if let (Some(rings), Some(grants)) = (&plan.layout.rings, grants) {
            pages.write(specials * PAGE_SIZE, &rings::tx_ring())?;
            pages.write((specials + 1) * PAGE_SIZE, &rings::rx_ring(rings, grants))?;
        }
        Ok(())
    }
}

impl Toolstack {
    /// Maps a guest's memory as far as the builder writes to it, and its grant table; fills the special pages, both
    /// rings and the grant table.
    pub(super) fn rings(
        &mut self,
        plan: &CreatePlan<'_>,
        domid: u16,
        grants: Option<&Grants>,
    ) -> Result<Mapped, ToolstackError> {
        let mut gfns = special_pages(plan);
        let specials = gfns.len();
        let rings = plan.layout.rings.as_ref();
        gfns.extend(rings.iter().flat_map(|rings| [rings.tx(), rings.rx()]));
        let image = gfns.len();
        gfns.extend(plan.image.headers().pages());
        let info = plan.layout.info / PAGE_SIZE as u64;
        gfns.extend(info..info + info::pages(&plan.config.cmdline));
        let pages = self.xen.map(domid, &gfns)?;
        let table = self.xen.map_grants(domid)?;
        table.write(0, &rings::grant_table(rings, plan.config.console))?;
        let mapped = Mapped {
            pages,
            gfns,
            specials,
            image,
            _table: table,
        };
        mapped.fill(plan, grants)?;
        Ok(mapped)
    }

    /// Loads the image, the start info and the module.
    pub(super) fn load(
        &mut self,
        plan: &CreatePlan<'_>,
        domid: u16,
        (mapped, network): (&Mapped, Option<&Preconnected>),
    ) -> Result<(), ToolstackError> {
        let pages = &mapped.pages;
        for (number, segment) in plan.image.headers().loaded().enumerate() {
            let at = mapped.offset(segment.memory.start)?;
            let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
            let filled = size(segment.size);
            let all = size(segment.memory.end - segment.memory.start);
            plan.image.copy((number, segment), &**pages, at)?;
            pages.zero(at + filled, all - filled)?;
        }
        plan.image.check()?;
        let information = info::encode(&plan.layout, &plan.config.cmdline, network);
        pages.write(mapped.offset(plan.layout.info)?, &information)?;
        if let (Some(module), Some(ramdisk)) = (&plan.layout.module, plan.ramdisk) {
            self.module(domid, module.start, module.end - module.start, ramdisk)?;
        }
        Ok(())
    }

    pub(super) fn module(
        &self,
        domid: u16,
        start: u64,
        size: u64,
        ramdisk: &Ramdisk,
    ) -> Result<(), ToolstackError> {
        let page = PAGE_SIZE as u64;
        let mut done = 0;
        while done < size {
            let now = (size - done).min(CHUNK * page);
            let first = (start + done) / page;
            let gfns: Vec<u64> = (first..first + now.div_ceil(page)).collect();
            let pages = self.xen.map(domid, &gfns)?;
            let bytes = usize::try_from(now).unwrap_or(usize::MAX);
            pages.read_file(0, bytes, ramdisk.file().as_fd(), done)?;
            // The guest can read the last page to its end.
            pages.zero(bytes, gfns.len() * PAGE_SIZE - bytes)?;
            done += now;
        }
        Ok(ramdisk.check()?)
    }
}

/// A 32-bit page directory that maps 4 GiB one to one, for those Intel CPUs that cannot run a guest without paging:
/// present, writable, user, accessed, dirty, 4 MiB pages. A constant, because to make one takes longer than to copy it.
static IDENT_PT: [u8; PAGE_SIZE] = ident_pt();

const fn ident_pt() -> [u8; PAGE_SIZE] {
    let mut page = [0; PAGE_SIZE];
    let (entries, _) = page.as_chunks_mut::<4>();
    let mut number = 0;
    while number < entries.len() {
        #[allow(clippy::cast_possible_truncation, reason = "1,024 entries")]
        let address = (number as u32) << 22;
        entries[number] = (address | 0xe7).to_le_bytes();
        number += 1;
    }
    page
}

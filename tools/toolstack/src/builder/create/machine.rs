//! Creates the machine: vCPU, memory, event channels, and the initial contents of memory.

use std::os::fd::AsFd;

use mayfly_drivers::abi::{XENSTORE_RECONNECT, xenstore_domain_interface};
use mayfly_drivers::{DomId, EventPort, Gfn, GrantRef};
use mayfly_handoff::network::{PATH_MAX, Preconnected, Random};

use super::super::ToolstackError;
use super::super::acpi;
use super::super::config::{GuestConfig, random_bytes};
use super::super::image::Ramdisk;
use super::super::info;
use super::super::keys::Ports;
use super::super::layout::{self, ACPI_GFN, CONSOLE_GFN, IDENT_PT_GFN, XENSTORE_GFN};
use super::super::rings::{self, Grants};
use super::super::toolstack::Toolstack;
use super::CreatePlan;
use crate::host::{Pages, Xen};
use crate::paths;
use mayfly_xen::PAGE_SIZE;
use mayfly_xen::TscMode;

/// `HVM_PARAM_*` (hvm/params.h).
const HVM_PARAM_STORE_PFN: u32 = 1;
const HVM_PARAM_STORE_EVTCHN: u32 = 2;
const HVM_PARAM_TIMER_MODE: u32 = 10;
const HVM_PARAM_IDENT_PT: u32 = 12;
const HVM_PARAM_CONSOLE_PFN: u32 = 17;
const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
/// `HVMPTM_no_delay_for_missed_ticks`, libxl's choice.
const NO_DELAY_FOR_MISSED_TICKS: u64 = 1;
/// The KiB that libxl adds to a guest's memory limit (LIBXL_MAXMEM_CONSTANT), for special pages and slack.
const SLACK_KIB: u64 = 1024;
/// The number of a module's pages that are mapped at a time.
const CHUNK: u64 = 1024;

impl Toolstack {
    /// Sets what a guest with so many pages of RAM may have.
    pub(super) fn limits(
        &mut self,
        config: &GuestConfig,
        ram_pages: u64,
        domid: u16,
    ) -> Result<(), ToolstackError> {
        self.xen.max_vcpus(domid, 1)?;
        self.xen.max_mem(domid, (config.memory << 10) + SLACK_KIB)?;
        if config.tsc != TscMode::Default {
            self.xen.tsc_mode(domid, config.tsc)?;
        }
        if let Some(bytes) = layout::paging_pool(ram_pages) {
            self.xen.paging_pool(domid, bytes)?;
        }
        self.xen
            .param(domid, HVM_PARAM_TIMER_MODE, NO_DELAY_FOR_MISSED_TICKS)?;
        Ok(())
    }

    pub(super) fn memory(
        &mut self,
        plan: &CreatePlan<'_>,
        domid: u16,
    ) -> Result<(), ToolstackError> {
        for (order, gfns) in plan.layout.extents() {
            populate(&mut *self.xen, domid, &gfns, order)?;
        }
        self.xen.populate(domid, &special_pages(plan), 0)?;
        self.xen.memory_map(domid, &plan.layout.memory_map())?;
        Ok(())
    }

    /// Makes the event channels of a guest, and tells it those of xenstore and of the console.
    pub(super) fn channels(
        &mut self,
        domid: u16,
        has_console: bool,
        has_network: bool,
    ) -> Result<Ports, ToolstackError> {
        let xenstore = self.xen.event_channel(domid)?;
        let console = if has_console {
            Some(self.xen.event_channel(domid)?)
        } else {
            None
        };
        let network = match has_network {
            true => Some((
                self.xen.event_channel(domid)?,
                self.xen.event_channel(domid)?,
            )),
            false => None,
        };
        let mut params = vec![
            (HVM_PARAM_STORE_PFN, XENSTORE_GFN),
            (HVM_PARAM_STORE_EVTCHN, u64::from(xenstore)),
            (HVM_PARAM_IDENT_PT, IDENT_PT_GFN * PAGE_SIZE as u64),
        ];
        if let Some(port) = console {
            params.push((HVM_PARAM_CONSOLE_PFN, CONSOLE_GFN));
            params.push((HVM_PARAM_CONSOLE_EVTCHN, u64::from(port)));
        }
        for (index, value) in params {
            self.xen.param(domid, index, value)?;
        }
        Ok(Ports {
            xenstore,
            console,
            network,
        })
    }

    /// Fills the special pages, both rings and the grant table; returns the mappings.
    pub(super) fn rings(
        &mut self,
        plan: &CreatePlan<'_>,
        domid: u16,
        grants: Option<&Grants>,
    ) -> Result<[Box<dyn Pages>; 2], ToolstackError> {
        let mut gfns = special_pages(plan);
        let specials = gfns.len();
        if let Some(rings) = &plan.layout.rings {
            gfns.extend([rings.tx(), rings.rx()]);
        }
        let pages = self.xen.map(domid, &gfns)?;
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
        let table = self.xen.map_grants(domid)?;
        table.write(
            0,
            &rings::grant_table(plan.layout.rings.as_ref(), plan.config.console),
        )?;
        Ok([pages, table])
    }

    /// Loads the image, the start info and the module; returns the mappings of the first two.
    pub(super) fn load(
        &mut self,
        plan: &CreatePlan<'_>,
        domid: u16,
        network: Option<&Preconnected>,
    ) -> Result<Box<dyn Pages>, ToolstackError> {
        let first = plan.layout.image.start;
        let end = plan.layout.info / PAGE_SIZE as u64 + layout::INFO_PAGES;
        let gfns: Vec<u64> = (first..end).collect();
        let pages = self.xen.map(domid, &gfns)?;
        let offset = |address: u64| {
            usize::try_from(address - first * PAGE_SIZE as u64)
                .map_err(|_| ToolstackError::from(std::io::Error::other("an address")))
        };
        let file = plan.image.file().as_fd();
        for segment in &plan.image.headers().segments {
            let (at, size) = (
                offset(segment.memory.start)?,
                usize::try_from(segment.size).unwrap_or(usize::MAX),
            );
            pages.read_file(at, size, file, segment.offset)?;
            let rest = offset(segment.memory.end)?.saturating_sub(at + size);
            pages.zero(at + size, rest)?;
        }
        plan.image.check()?;
        let information = info::encode(&plan.layout, &plan.config.cmdline, network);
        pages.write(offset(plan.layout.info)?, &information)?;
        if let (Some(module), Some(ramdisk)) = (&plan.layout.module, plan.ramdisk) {
            self.module(domid, module.start, module.end - module.start, ramdisk)?;
        }
        Ok(pages)
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

impl CreatePlan<'_> {
    /// The handoff structure of the guest's network, if that is connected before the guest runs.
    pub(super) fn network(
        &self,
        domid: u16,
        ports: &Ports,
    ) -> Result<Option<Preconnected>, ToolstackError> {
        let (Some(rings), Some((tx, rx)), Some(vif)) =
            (&self.layout.rings, ports.network, &self.config.vif)
        else {
            return Ok(None);
        };
        let mut backend = [0; PATH_MAX];
        let path = paths::backend(domid);
        if let Some(place) = backend.get_mut(..path.len()) {
            place.copy_from_slice(path.as_bytes());
        }
        let port = |port| {
            EventPort::try_new(port).ok_or(ToolstackError::Backend(
                "was given an invalid event channel",
            ))
        };
        let grants = Grants::of(rings);
        Ok(Some(Preconnected {
            first: Gfn(rings.first),
            rx_buffers: rings.buffers as usize,
            tx_ring: GrantRef(grants.tx_ring),
            rx_ring: GrantRef(grants.rx_ring),
            rx_first: GrantRef(grants.rx_first),
            free: GrantRef(grants.free),
            tx_port: port(tx)?,
            rx_port: port(rx)?,
            store_port: port(ports.xenstore)?,
            store: Gfn(XENSTORE_GFN),
            domain: DomId(0),
            mac: vif.mac,
            backend,
            random: random_bytes().map(Random),
        }))
    }
}

/// Allocates extents, and smaller ones where Xen has none of that size.
pub(crate) fn populate(
    xen: &mut dyn Xen,
    domid: u16,
    gfns: &[u64],
    order: u32,
) -> Result<(), ToolstackError> {
    let made = xen.populate(domid, gfns, order)?;
    let smaller = if order > 9 { 9 } else { 0 };
    for gfn in gfns.get(made..).unwrap_or_default() {
        let parts: Vec<u64> = (0..1 << (order - smaller))
            .map(|n| gfn + (n << smaller))
            .collect();
        populate(xen, domid, &parts, smaller)?;
    }
    Ok(())
}

/// Tells the guest, in the special pages, to wait until xenstored is told of it: both implementations of xenstored
/// clear this word then (xs_wire.h, "The ring reconnection feature" of xenstore-ring.txt).
pub(super) fn introduced_later(pages: &dyn Pages) -> Result<(), ToolstackError> {
    let at = PAGE_SIZE + xenstore_domain_interface::CONNECTION;
    Ok(pages.write(at, &XENSTORE_RECONNECT.to_le_bytes())?)
}

/// The gfns of the guest's special pages: the identity map first, xenstore's second, then the others; that of the ACPI
/// tables, if there are any, last.
fn special_pages(plan: &CreatePlan<'_>) -> Vec<u64> {
    let mut gfns = vec![IDENT_PT_GFN, XENSTORE_GFN];
    gfns.extend(plan.config.console.then_some(CONSOLE_GFN));
    gfns.extend(plan.layout.acpi.then_some(ACPI_GFN));
    gfns
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

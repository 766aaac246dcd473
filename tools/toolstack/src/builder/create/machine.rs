//! Creates the machine: vCPU, memory, event channels.

use mayfly_drivers::{DomId, EventPort, Gfn, GrantRef};
use mayfly_handoff::network::{PATH_MAX, Preconnected, Random};

use super::super::ToolstackError;
use super::super::config::{GuestConfig, random_bytes};
use super::super::keys::Ports;
use super::super::layout::{self, ACPI_GFN, CONSOLE_GFN, IDENT_PT_GFN, XENSTORE_GFN};
use super::super::rings::Grants;
use super::super::toolstack::Toolstack;
use super::CreatePlan;
use crate::host::Xen;
use crate::paths;
use mayfly_xen::{DomainCall, PAGE_SIZE, TscMode};

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
/// The number of extents that are allocated at a time.
const TOGETHER: usize = 1024;

impl Toolstack {
    /// Gives a guest its vCPU, its limits, its memory and its event channels.
    pub(super) fn equip(
        &mut self,
        plan: &CreatePlan<'_>,
        domid: u16,
    ) -> Result<Ports, ToolstackError> {
        let (config, layout) = (plan.config, &plan.layout);
        self.paging_pool(domid, layout.ram_pages)?;
        let (extents, special) = (layout.extents(), special_pages(plan));
        let map = layout.memory_map();
        let mut calls = limits(config);
        let populate = |(order, gfns)| DomainCall::Populate { gfns, order };
        calls.extend(extents.iter().map(|(order, gfns)| populate((*order, gfns))));
        calls.push(populate((0, &special)));
        calls.push(DomainCall::MemoryMap(&map));
        let channels = Channels {
            has_console: config.console,
            has_network: layout.rings.is_some(),
        };
        calls.extend(channels.calls());
        let answers = self.xen.batch(domid, &calls)?;
        for (call, made) in calls.iter().zip(&answers) {
            if let DomainCall::Populate { gfns, order } = call {
                let made = usize::try_from(*made).unwrap_or(usize::MAX);
                populate_smaller(
                    &mut *self.xen,
                    domid,
                    gfns.get(made..).unwrap_or_default(),
                    *order,
                )?;
            }
        }
        channels.ports(&answers)
    }

    /// Sets what a guest with so many pages of RAM may have.
    pub(super) fn limits(
        &mut self,
        config: &GuestConfig,
        ram_pages: u64,
        domid: u16,
    ) -> Result<(), ToolstackError> {
        self.paging_pool(domid, ram_pages)?;
        self.xen.batch(domid, &limits(config))?;
        Ok(())
    }

    /// Makes the pool for page tables larger, if a guest with so many pages of RAM needs it.
    fn paging_pool(&mut self, domid: u16, ram_pages: u64) -> Result<(), ToolstackError> {
        if let Some(bytes) = layout::paging_pool(ram_pages) {
            self.xen.paging_pool(domid, bytes)?;
        }
        Ok(())
    }

    /// Makes the event channels of a guest that connects its network itself, and tells it of them.
    pub(super) fn channels(
        &mut self,
        domid: u16,
        has_console: bool,
    ) -> Result<Ports, ToolstackError> {
        let channels = Channels {
            has_console,
            has_network: false,
        };
        let calls: Vec<_> = channels.calls().collect();
        let ports = channels.ports(&self.xen.batch(domid, &calls)?)?;
        self.xen.batch(domid, &params(&ports))?;
        Ok(ports)
    }

    /// Tells a guest of its event channels, and sets the state of its vCPU.
    pub(super) fn context(
        &mut self,
        plan: &CreatePlan<'_>,
        domid: u16,
        ports: &Ports,
    ) -> Result<(), ToolstackError> {
        let mut calls = params(ports);
        calls.push(DomainCall::PvhContext {
            entry: plan.image.headers().entry,
            start_info: u32::try_from(plan.layout.info).unwrap_or(u32::MAX),
        });
        self.xen.batch(domid, &calls)?;
        Ok(())
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
    for gfns in gfns.chunks(TOGETHER) {
        let made = xen.batch(domid, &[DomainCall::Populate { gfns, order }])?;
        let made = made.first().and_then(|made| usize::try_from(*made).ok());
        let rest = gfns.get(made.unwrap_or(0)..).unwrap_or_default();
        populate_smaller(xen, domid, rest, order)?;
    }
    Ok(())
}

/// Allocates, in smaller extents, those of this order that Xen did not have.
fn populate_smaller(
    xen: &mut dyn Xen,
    domid: u16,
    gfns: &[u64],
    order: u32,
) -> Result<(), ToolstackError> {
    let smaller = if order > 9 { 9 } else { 0 };
    for gfn in gfns {
        let parts: Vec<u64> = (0..1 << (order - smaller))
            .map(|n| gfn + (n << smaller))
            .collect();
        populate(xen, domid, &parts, smaller)?;
    }
    Ok(())
}

/// The calls that limit a guest.
fn limits<'a>(config: &GuestConfig) -> Vec<DomainCall<'a>> {
    let mut calls = vec![
        DomainCall::MaxVcpus(1),
        DomainCall::MaxMem((config.memory << 10) + SLACK_KIB),
        DomainCall::Param(HVM_PARAM_TIMER_MODE, NO_DELAY_FOR_MISSED_TICKS),
    ];
    if config.tsc != TscMode::Default {
        calls.push(DomainCall::TscMode(config.tsc));
    }
    calls
}

/// The event channels that a guest gets.
#[derive(Clone, Copy)]
struct Channels {
    has_console: bool,
    has_network: bool,
}

impl Channels {
    fn count(self) -> usize {
        1 + usize::from(self.has_console) + 2 * usize::from(self.has_network)
    }

    /// The calls that make them.
    fn calls<'a>(self) -> impl Iterator<Item = DomainCall<'a>> {
        std::iter::repeat_n(DomainCall::EventChannel, self.count())
    }

    /// Their ports, which are the last answers.
    fn ports(self, answers: &[u64]) -> Result<Ports, ToolstackError> {
        let made = answers.get(answers.len().saturating_sub(self.count())..);
        let mut made = made.unwrap_or_default().iter();
        let mut next = || {
            let port = made.next().and_then(|port| u32::try_from(*port).ok());
            port.ok_or_else(|| std::io::Error::other("an event channel is missing"))
        };
        Ok(Ports {
            xenstore: next()?,
            console: self.has_console.then(&mut next).transpose()?,
            network: match self.has_network {
                true => Some((next()?, next()?)),
                false => None,
            },
        })
    }
}

/// The calls that tell a guest of the rings of xenstore and of the console.
fn params(ports: &Ports) -> Vec<DomainCall<'static>> {
    let mut calls = vec![
        DomainCall::Param(HVM_PARAM_STORE_PFN, XENSTORE_GFN),
        DomainCall::Param(HVM_PARAM_STORE_EVTCHN, u64::from(ports.xenstore)),
        DomainCall::Param(HVM_PARAM_IDENT_PT, IDENT_PT_GFN * PAGE_SIZE as u64),
    ];
    if let Some(port) = ports.console {
        calls.push(DomainCall::Param(HVM_PARAM_CONSOLE_PFN, CONSOLE_GFN));
        calls.push(DomainCall::Param(HVM_PARAM_CONSOLE_EVTCHN, u64::from(port)));
    }
    calls
}

/// The gfns of the guest's special pages: the identity map first, xenstore's second, then the others; that of the ACPI
/// tables, if there are any, last.
pub(super) fn special_pages(plan: &CreatePlan<'_>) -> Vec<u64> {
    let mut gfns = vec![IDENT_PT_GFN, XENSTORE_GFN];
    gfns.extend(plan.config.console.then_some(CONSOLE_GFN));
    gfns.extend(plan.layout.acpi.then_some(ACPI_GFN));
    gfns
}

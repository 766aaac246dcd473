//! Making a guest, in the order in which it overlaps most.

mod shell;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mayfly_drivers::netfront::preconnected::{PATH_MAX, Preconnected};
use mayfly_drivers::{DomId, EventPort, Gfn, GrantRef};

use super::config::{Config, Connect};
use super::image::{Image, Ramdisk};
use super::keys::{self, Op, Ports};
use super::layout::{self, CONSOLE_GFN, IDENT_PT_GFN, Layout, XENSTORE_GFN};
use super::making::Maker;
use super::names::{self, XlLock};
use super::report::Timeline;
use super::rings::{self, Grants};
use super::steps::{Step, Steps};
use super::{Cause, Error, Failure, info};
use crate::net::{Bridge, Links, vif_name};
use crate::xen::abi::PAGE_SIZE;
use crate::xen::sys::Mapping;
use crate::xen::{NewDomain, TscMode, Xen};
use crate::xenstore::{Client, Code, Id, Request, TransactionId};

pub use shell::Shell;

/// `HVM_PARAM_*` (hvm/params.h).
const HVM_PARAM_STORE_PFN: u32 = 1;
const HVM_PARAM_STORE_EVTCHN: u32 = 2;
const HVM_PARAM_TIMER_MODE: u32 = 10;
const HVM_PARAM_IDENT_PT: u32 = 12;
const HVM_PARAM_CONSOLE_PFN: u32 = 17;
const HVM_PARAM_CONSOLE_EVTCHN: u32 = 18;
/// `HVMPTM_no_delay_for_missed_ticks`, libxl's choice.
const NO_DELAY_FOR_MISSED_TICKS: u64 = 1;
/// Frames of a guest's grant table: 2,048 entries.
const GRANT_FRAMES: u16 = 4;
/// What libxl adds to a guest's limit of memory (LIBXL_MAXMEM_CONSTANT), in KiB: special pages, and some.
const SLACK_KIB: u64 = 1024;
/// Pages of a module that are mapped at a time.
const CHUNK: u64 = 1024;
/// How long the claim of a name is tried again that meets other people's changes.
const CLAIM_BOUND: Duration = Duration::from_secs(2);

/// Makes and removes guests. It can make many, one after the other.
pub struct Builder {
    pub(super) xen: Xen,
    pub(super) store: Client,
    pub(super) links: Links,
    /// How long the back end, the kernel and xenstored may take.
    pub(super) bound: Duration,
}

/// A guest that was made.
#[derive(Debug)]
pub struct Created {
    /// Its number.
    pub domid: u16,
    /// Whether its network was connected before it runs.
    pub preconnected: bool,
    /// What took how long.
    pub timeline: Timeline,
}

/// What has been done and would have to be undone.
#[derive(Default)]
struct Done {
    making: bool,
    /// The transaction of the claim, as long as nothing is in it.
    open: Option<TransactionId>,
    domain: Option<u16>,
    keys: bool,
    connecting: bool,
    claim: Option<Claim>,
    claimed: bool,
}

/// A claim that xenstored has not answered yet.
struct Claim {
    writes: Vec<Id>,
    end: Id,
}

/// What a guest is to become when it is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// It waits to be unpaused.
    Paused,
    /// It runs.
    Running,
    /// It counts as being made until it is given away.
    Shell,
}

/// All that is known before there is a domain.
struct Plan<'a> {
    config: &'a Config,
    image: &'a Image,
    ramdisk: Option<&'a Ramdisk>,
    layout: Layout,
    bridge: Option<Bridge>,
}

impl Builder {
    /// Opens the ways to Xen and xenstored. `bound` is how long anybody may let us wait.
    ///
    /// # Errors
    /// One of them is not there, or not for us.
    pub fn open(bound: Duration) -> Result<Self, Cause> {
        let store = Client::connect(bound)?;
        let xen = Xen::open()?;
        let links = Links::open()?;
        Ok(Self {
            xen,
            store,
            links,
            bound,
        })
    }

    /// Xen, for what is not about making guests.
    pub fn xen(&mut self) -> &mut Xen {
        &mut self.xen
    }

    /// xenstored, for what is not about making guests.
    pub fn store(&mut self) -> &mut Client {
        &mut self.store
    }

    /// Both, for what is about neither alone.
    pub fn ways(&mut self) -> (&mut Client, &mut Xen) {
        (&mut self.store, &mut self.xen)
    }

    /// Makes a guest. When a step fails, what was done is undone.
    ///
    /// # Errors
    /// The step that failed, why, and what of it could not be undone.
    pub fn create(
        &mut self,
        config: &Config,
        image: &Image,
        ramdisk: Option<&Ramdisk>,
        then: Then,
    ) -> Result<Created, Error> {
        let mut steps = Steps::new();
        let plan = steps.run(Step::Check, || self.plan(config, image, ramdisk))?;
        let mut done = Done::default();
        match self.steps(&plan, then, &mut steps, &mut done) {
            Ok(domid) => Ok(Created {
                domid,
                preconnected: plan.layout.rings.is_some(),
                timeline: steps.finish(),
            }),
            Err(failure) => {
                let left = self.undo(&plan, done);
                Err(Error { failure, left })
            }
        }
    }

    /// Checks and decides all that can be before there is a domain.
    fn plan<'a>(
        &mut self,
        config: &'a Config,
        image: &'a Image,
        ramdisk: Option<&'a Ramdisk>,
    ) -> Result<Plan<'a>, Cause> {
        config.check()?;
        layout::check_cmdline(&config.cmdline)?;
        let preconnected = config.vif.is_some()
            && match config.connect {
                Connect::Auto => image.takes_preconnected(),
                Connect::Before => true,
                Connect::Guest => false,
            };
        let layout = Layout::new(
            config.memory,
            image.headers(),
            ramdisk.map(Ramdisk::size),
            preconnected,
        )?;
        let bridge = config
            .vif
            .as_ref()
            .map(|vif| self.links.bridge(&vif.bridge))
            .transpose()?;
        Ok(Plan {
            config,
            image,
            ramdisk,
            layout,
            bridge,
        })
    }

    fn steps(
        &mut self,
        plan: &Plan<'_>,
        then: Then,
        steps: &mut Steps,
        done: &mut Done,
    ) -> Result<u16, Failure> {
        let config = plan.config;
        let lock = XlLock::take();
        let transaction = steps.run(Step::Names, || self.names(config, done))?;
        let domid = steps.run(Step::Domain, || {
            let new = NewDomain {
                handle: config.uuid,
                grant_frames: GRANT_FRAMES,
            };
            let domid = self.xen.create(&new)?;
            done.domain = Some(domid);
            Ok::<_, Cause>(domid)
        })?;
        let mut answers = steps.run(Step::Keys, || self.keys(plan, domid, transaction, done))?;
        let keys_at = steps.now();
        steps.run(Step::Limits, || self.limits(plan, domid))?;
        steps.run(Step::Memory, || self.memory(plan, domid))?;
        let ports = steps.run(Step::Channels, || self.channels(plan, domid))?;
        let grants = plan.layout.rings.as_ref().map(Grants::of);
        steps.run(Step::Rings, || self.rings(plan, domid, grants.as_ref()))?;
        let connect_at = steps.now();
        steps.run(Step::Connect, || {
            done.connecting = grants.is_some();
            let ops = keys::connect(domid, &ports, grants.as_ref());
            answers.extend(self.send(&ops)?);
            Ok::<_, Cause>(self.store.flush()?)
        })?;
        steps.run(Step::Load, || {
            self.load(plan, domid, &ports, grants.as_ref())
        })?;
        let (entry, start_info) = (plan.image.headers().entry, plan.layout.info);
        steps.run(Step::Context, || {
            self.xen
                .pvh_context(domid, entry, u32::try_from(start_info).unwrap_or(u32::MAX))
        })?;
        if let Some(bridge) = &plan.bridge {
            steps.run(Step::Port, || self.port(plan, domid, bridge))?;
            steps.beside("vif", "netback", keys_at);
        }
        // Answers that nobody looks at wake nobody.
        steps.run(Step::Claim, || {
            self.claimed(config, domid, done)?;
            Ok::<_, Cause>(self.store.answers(answers)?)
        })?;
        steps.beside("keys", "xenstored", keys_at);
        if plan.layout.rings.is_some() {
            steps.run(Step::Backend, || self.connected(domid))?;
            steps.beside("connects", "netback", connect_at);
        }
        steps.run(Step::Finish, || {
            if !lock.is_ours() {
                names::again(&mut self.store, &mut self.xen, config)?;
            }
            let mut ops = keys::finish(domid, config, &ports);
            ops.extend((then == Then::Paused).then(|| keys::made(config)));
            let ids = self.send(&ops)?;
            Ok::<_, Cause>(self.store.answers(ids)?)
        })?;
        if then == Then::Running {
            steps.run(Step::Unpause, || self.xen.unpause(domid))?;
            steps.run(Step::Made, || {
                let ids = self.send(&[keys::made(config)])?;
                self.store.answers(ids)
            })?;
        }
        Ok(domid)
    }

    /// Leaves the mark that a guest is being made, and sees whether its name is free.
    fn names(&mut self, config: &Config, done: &mut Done) -> Result<TransactionId, Cause> {
        let path = keys::making_path(&config.uuid);
        let mark = self
            .store
            .send(Request::write(&path, &Maker::this().to_string()))?;
        done.making = true;
        let transaction = names::begin(&mut self.store, &mut self.xen, config)?;
        done.open = Some(transaction);
        self.store.answer(mark)?;
        Ok(transaction)
    }

    /// Sends the claim, and all that can be written already.
    fn keys(
        &mut self,
        plan: &Plan<'_>,
        domid: u16,
        transaction: TransactionId,
        done: &mut Done,
    ) -> Result<Vec<Id>, Cause> {
        done.open = None;
        done.claim = Some(self.claim(plan.config, domid, transaction)?);
        done.keys = true;
        let answers = self.send(&keys::birth(
            domid,
            plan.config,
            plan.layout.rings.is_some(),
        ))?;
        self.store.flush()?;
        Ok(answers)
    }

    fn claim(
        &mut self,
        config: &Config,
        domid: u16,
        transaction: TransactionId,
    ) -> Result<Claim, Cause> {
        let mut writes = Vec::new();
        for op in keys::claim(domid, config) {
            writes.push(self.store.send(op.request().within(transaction))?);
        }
        let end = self
            .store
            .send(Request::transaction_end(transaction, true))?;
        Ok(Claim { writes, end })
    }

    /// Sees that the claim was good. What others changed at the same time makes it void, and then it is made again.
    fn claimed(&mut self, config: &Config, domid: u16, done: &mut Done) -> Result<(), Cause> {
        let end = Instant::now() + CLAIM_BOUND;
        while let Some(claim) = done.claim.take() {
            let written = self.store.answers(claim.writes);
            match self.store.answer(claim.end) {
                Ok(_) => {
                    done.claimed = true;
                    written?;
                }
                Err(error) if error.is(&Code::EAGAIN) && Instant::now() < end => {
                    let transaction = names::begin(&mut self.store, &mut self.xen, config)?;
                    done.claim = Some(self.claim(config, domid, transaction)?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn limits(&mut self, plan: &Plan<'_>, domid: u16) -> Result<(), Cause> {
        self.xen.max_vcpus(domid, 1)?;
        self.xen
            .max_mem(domid, (plan.config.memory << 10) + SLACK_KIB)?;
        if plan.config.tsc != TscMode::Default {
            self.xen.tsc_mode(domid, plan.config.tsc)?;
        }
        if let Some(octets) = plan.layout.paging_pool() {
            self.xen.paging_pool(domid, octets)?;
        }
        self.xen
            .param(domid, HVM_PARAM_TIMER_MODE, NO_DELAY_FOR_MISSED_TICKS)?;
        Ok(())
    }

    fn memory(&mut self, plan: &Plan<'_>, domid: u16) -> Result<(), Cause> {
        for (order, gfns) in plan.layout.extents() {
            self.populate(domid, &gfns, order)?;
        }
        self.xen.populate(domid, &special_pages(plan.config), 0)?;
        self.xen.memory_map(domid, &plan.layout.memory_map())?;
        Ok(())
    }

    /// Makes extents, and smaller ones where Xen has none of that size.
    fn populate(&mut self, domid: u16, gfns: &[u64], order: u32) -> Result<(), Cause> {
        let made = self.xen.populate(domid, gfns, order)?;
        let smaller = if order > 9 { 9 } else { 0 };
        for gfn in gfns.get(made..).unwrap_or_default() {
            let parts: Vec<u64> = (0..1 << (order - smaller))
                .map(|n| gfn + (n << smaller))
                .collect();
            self.populate(domid, &parts, smaller)?;
        }
        Ok(())
    }

    fn channels(&mut self, plan: &Plan<'_>, domid: u16) -> Result<Ports, Cause> {
        let xenstore = self.xen.event_channel(domid)?;
        let console = if plan.config.console {
            Some(self.xen.event_channel(domid)?)
        } else {
            None
        };
        let network = match plan.layout.rings {
            Some(_) => Some((
                self.xen.event_channel(domid)?,
                self.xen.event_channel(domid)?,
            )),
            None => None,
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

    /// Fills the special pages, both rings and the grant table.
    fn rings(&mut self, plan: &Plan<'_>, domid: u16, grants: Option<&Grants>) -> Result<(), Cause> {
        let mut gfns = special_pages(plan.config);
        let specials = gfns.len();
        if let Some(rings) = &plan.layout.rings {
            gfns.extend([rings.tx(), rings.rx()]);
        }
        let pages = self.xen.map(domid, &gfns)?;
        pages.write(0, &ident_pt())?;
        // The page of xenstore, and of the console.
        pages.zero(PAGE_SIZE, (specials - 1) * PAGE_SIZE)?;
        if let (Some(rings), Some(grants)) = (&plan.layout.rings, grants) {
            pages.write(specials * PAGE_SIZE, &rings::tx_ring())?;
            pages.write((specials + 1) * PAGE_SIZE, &rings::rx_ring(rings, grants))?;
        }
        let table = self.xen.map_grants(domid)?;
        table.write(
            0,
            &rings::grant_table(plan.layout.rings.as_ref(), plan.config.console),
        )?;
        Ok(())
    }

    /// Loads image, information and module.
    fn load(
        &mut self,
        plan: &Plan<'_>,
        domid: u16,
        ports: &Ports,
        grants: Option<&Grants>,
    ) -> Result<(), Cause> {
        let network = match (&plan.layout.rings, grants, ports.network, &plan.config.vif) {
            (Some(rings), Some(grants), Some((tx, rx)), Some(vif)) => Some(structure(
                domid,
                rings,
                grants,
                (tx, rx, ports.xenstore),
                vif.mac,
            )?),
            _ => None,
        };
        let first = plan.layout.image.start;
        let end = plan.layout.info / PAGE_SIZE as u64 + layout::INFO_PAGES;
        let gfns: Vec<u64> = (first..end).collect();
        let pages = self.xen.map(domid, &gfns)?;
        let offset = |address: u64| {
            usize::try_from(address - first * PAGE_SIZE as u64)
                .map_err(|_| Cause::from(std::io::Error::other("an address")))
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
        let information = info::encode(&plan.layout, &plan.config.cmdline, network.as_ref());
        pages.write(offset(plan.layout.info)?, &information)?;
        drop(pages);
        if let (Some(module), Some(ramdisk)) = (&plan.layout.module, plan.ramdisk) {
            self.module(domid, module.start, module.end - module.start, ramdisk)?;
        }
        Ok(())
    }

    fn module(&self, domid: u16, start: u64, size: u64, ramdisk: &Ramdisk) -> Result<(), Cause> {
        let page = PAGE_SIZE as u64;
        let mut done = 0;
        while done < size {
            let now = (size - done).min(CHUNK * page);
            let first = (start + done) / page;
            let gfns: Vec<u64> = (first..first + now.div_ceil(page)).collect();
            let pages: Mapping = self.xen.map(domid, &gfns)?;
            let octets = usize::try_from(now).unwrap_or(usize::MAX);
            pages.read_file(0, octets, ramdisk.file().as_fd(), done)?;
            // The guest sees the end of the last page as well.
            pages.zero(octets, gfns.len() * PAGE_SIZE - octets)?;
            done += now;
        }
        Ok(())
    }

    /// Makes the interface a port of its bridge, as soon as it is there.
    fn port(&mut self, plan: &Plan<'_>, domid: u16, bridge: &Bridge) -> Result<(), Cause> {
        let link = self.links.appeared(&vif_name(domid, 0), self.bound)?;
        let mtu = plan.config.vif.as_ref().and_then(|vif| vif.mtu);
        Ok(self.links.attach(&link, bridge, mtu)?)
    }

    /// Waits until the back end is connected.
    pub(super) fn connected(&mut self, domid: u16) -> Result<(), Cause> {
        const TOKEN: &str = "hatch";
        let path = format!("{}/state", keys::backend(domid));
        let end = Instant::now() + self.bound;
        let watch = self.store.send(Request::watch(&path, TOKEN))?;
        let mut read = self.store.send(Request::read(&path))?;
        self.store.answer(watch)?;
        let result = loop {
            match self.store.answer(read)?.as_slice() {
                b"4" => break Ok(()),
                b"5" | b"6" => break Err(Cause::Backend("closed instead of connecting")),
                _ => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.store.event(left)?.is_none() {
                break Err(Cause::Backend("has not connected in time"));
            }
            read = self.store.send(Request::read(&path))?;
        };
        // Goes out with the next request.
        let unwatched = self.store.send(Request::unwatch(&path, TOKEN))?;
        self.store.forget(unwatched);
        // What it has reported since is of no interest any more.
        while self.store.take_event().is_some() {}
        result
    }

    /// Queues requests.
    pub(super) fn send(&mut self, ops: &[Op]) -> Result<Vec<Id>, crate::xenstore::Error> {
        ops.iter().map(|op| self.store.send(op.request())).collect()
    }

    /// Undoes what was done, and says what could not be.
    fn undo(&mut self, plan: &Plan<'_>, mut done: Done) -> Vec<String> {
        let mut left = Vec::new();
        if let Some(open) = done.open
            && let Ok(end) = self.store.send(Request::transaction_end(open, false))
        {
            self.store.forget(end);
        }
        // Whether the claim was good is not known if the failure came first.
        if let Some(claim) = done.claim.take() {
            let _ = self.store.answers(claim.writes);
            done.claimed |= self.store.answer(claim.end).is_ok();
        }
        let is_lost = self.store.is_lost();
        if is_lost {
            left.extend(self.reconnect().err().map(|error| error.to_string()));
            let claimed = |domid| self.store.find(&keys::domain_path(domid));
            done.claimed = matches!(done.domain.map(claimed), Some(Ok(Some(_))));
        }
        if let Some(domid) = done.domain {
            if done.keys && plan.config.vif.is_some() {
                self.quiet(domid, done.connecting);
            }
            if let Err(error) = self.xen.destroy(domid) {
                left.push(format!("domain {domid}: {error}"));
            }
            let mut ops = Vec::new();
            if done.keys {
                ops = keys::death(domid, Some(&plan.config.uuid));
            }
            if done.claimed {
                let mac = plan.config.vif.as_ref().map(|vif| &vif.mac);
                ops.extend(keys::forget(domid, Some(&plan.config.name), mac));
            }
            left.extend(self.remove(&ops));
            left.extend(self.settle(domid).err().map(|error| error.to_string()));
            if is_lost {
                // What had been sent before may have come after.
                left.extend(self.remove(&ops));
            }
        }
        // Last, and only when nothing else is left: by this `hatch gc` finds what is.
        if done.making && left.is_empty() {
            left.extend(self.remove(&[Op::Rm(keys::making_path(&plan.config.uuid))]));
        }
        left
    }
}

/// The special pages that the guest has. The first is that of the identity map.
fn special_pages(config: &Config) -> Vec<u64> {
    let mut gfns = vec![IDENT_PT_GFN, XENSTORE_GFN];
    if config.console {
        gfns.push(CONSOLE_GFN);
    }
    gfns
}

/// A 32-bit page directory that maps 4 GiB one to one, for Intel's CPUs that can't run a guest without paging:
/// present, writable, user, accessed, dirty, 4 MiB.
fn ident_pt() -> Vec<u8> {
    (0..1024u32)
        .flat_map(|n| (n << 22 | 0xe7).to_le_bytes())
        .collect()
}

fn structure(
    domid: u16,
    rings: &super::layout::Rings,
    grants: &Grants,
    (tx, rx, xenstore): (u32, u32, u32),
    mac: [u8; 6],
) -> Result<Preconnected, Cause> {
    let mut backend = [0; PATH_MAX];
    let path = keys::backend(domid);
    if let Some(place) = backend.get_mut(..path.len()) {
        place.copy_from_slice(path.as_bytes());
    }
    let port = |port| {
        EventPort::try_new(port).ok_or(Cause::Backend("was given an event channel that can't be"))
    };
    Ok(Preconnected {
        first: Gfn(rings.first),
        rx_buffers: rings.buffers as usize,
        tx_ring: GrantRef(grants.tx_ring),
        rx_ring: GrantRef(grants.rx_ring),
        rx_first: GrantRef(grants.rx_first),
        free: GrantRef(grants.free),
        tx_port: port(tx)?,
        rx_port: port(rx)?,
        store_port: port(xenstore)?,
        store: Gfn(XENSTORE_GFN),
        domain: DomId(0),
        mac,
        backend,
    })
}

//! Creates a guest. The steps are ordered so that waits overlap.

mod claim;
mod connected;
mod machine;
mod shell;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::config::{Config, Connect};
use super::image::{Image, Ramdisk};
use super::index;
use super::keys::{self, Op, Ports};
use super::layout::{self, Layout};
use super::making::Mark;
use super::names::{self, XlLock};
use super::report::Timeline;
use super::rings::Grants;
use super::steps::{Step, Steps};
use super::{Cause, Error, Failure};
use crate::host::{Links, Store, Xen};
use mayfly_links::{Bridge, Link, vif_name};
use mayfly_xen::NewDomain;
use mayfly_xenstore::{Id, Request, TransactionId};

use claim::Claim;
pub use connected::{Newborn, Wanted};
pub use shell::Shell;

/// Frames of a guest's grant table: 2,048 entries.
const GRANT_FRAMES: u16 = 4;

/// What lives as long as this machine runs, as its domains do.
const RUN: &str = "/run/hatch";

/// How long netback is waited for without a look at what it says.
const SOON: Duration = Duration::from_millis(200);

/// How often, and how many times, it is looked whether a guest that was let run has had a CPU.
const GLANCE: Duration = Duration::from_millis(1);
const GLANCES: u32 = 10;

/// Makes and removes guests. It can make many, one after the other.
pub struct Toolstack {
    pub(super) xen: Box<dyn Xen>,
    pub(super) store: Box<dyn Store>,
    pub(super) links: Box<dyn Links>,
    /// How long the back end, the kernel and xenstored may take.
    pub(super) bound: Duration,
    /// Where the marks of births are, and the switch's socket.
    pub(super) run: PathBuf,
}

/// A guest that was made.
#[derive(Debug)]
pub struct Created {
    /// Its number.
    pub domid: u16,
    /// Its UUID: a shell's own, if it was one.
    pub uuid: [u8; 16],
    /// Whether its network was connected before it runs.
    pub preconnected: bool,
    /// What took how long.
    pub timeline: Timeline,
}

/// A guest that is about to run.
pub struct Soon<'a> {
    /// Its number.
    pub domid: u16,
    /// Its interface, if it has one, and the bridge that this is a port of.
    pub port: Option<(&'a Link, &'a Bridge)>,
    /// The switch's port on its bridge, if it is on the switch.
    pub switch: Option<&'a str>,
    /// dom0's links.
    pub links: &'a mut dyn Links,
}

/// What is called right before a guest runs. For sure, frames reach it when something was asked of the links, or set there.
pub type Ready<'r> = &'r mut dyn FnMut(Soon<'_>) -> Result<(), Cause>;

/// A domain that was made, and what a shell remembers of it.
struct Born {
    domid: u16,
    ports: Ports,
    link: Option<Link>,
}

/// What has been done and would have to be undone.
#[derive(Default)]
struct Done {
    making: bool,
    /// The mark of a birth that xenstored is not told of yet.
    mark: Option<Mark>,
    /// The transaction of the claim, as long as nothing is in it.
    open: Option<TransactionId>,
    domain: Option<u16>,
    keys: bool,
    connecting: bool,
    claim: Option<Claim>,
    claimed: bool,
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

impl Toolstack {
    /// Opens the ways to Xen and xenstored. `bound` is how long anybody may let us wait.
    ///
    /// # Errors
    /// One of them is not there, or not for us.
    pub fn open(bound: Duration) -> Result<Self, Cause> {
        let store = mayfly_xenstore::Client::connect(bound)?;
        let xen = mayfly_xen::Xen::open()?;
        let links = mayfly_links::Links::open()?;
        Ok(Self::over(
            Box::new(xen),
            Box::new(store),
            Box::new(links),
            bound,
        ))
    }

    /// The same over ways that are open.
    #[must_use]
    pub fn over(
        xen: Box<dyn Xen>,
        store: Box<dyn Store>,
        links: Box<dyn Links>,
        bound: Duration,
    ) -> Self {
        Self {
            xen,
            store,
            links,
            bound,
            run: RUN.into(),
        }
    }

    /// With another folder than `/run/hatch`.
    #[must_use]
    pub fn with_run(mut self, folder: &Path) -> Self {
        folder.clone_into(&mut self.run);
        self
    }

    /// Where the marks are of births that xenstored knows nothing of yet.
    pub(crate) fn marks(&self) -> PathBuf {
        self.run.join("making")
    }

    /// Xen, for what is not about making guests.
    pub fn xen(&mut self) -> &mut dyn Xen {
        &mut *self.xen
    }

    /// xenstored, for what is not about making guests.
    pub fn store(&mut self) -> &mut dyn Store {
        &mut *self.store
    }

    /// Both, for what is about neither alone.
    pub fn ways(&mut self) -> (&mut dyn Store, &mut dyn Xen) {
        (&mut *self.store, &mut *self.xen)
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
        self.create_for(config, image, ramdisk, then, &mut |soon| {
            if let Some((vif, _)) = soon.port {
                soon.links.find(&vif.name)?;
            }
            Ok(())
        })
    }

    /// Makes a guest, and calls `ready` right before it runs, when its network is connected if that is to be before
    /// it runs: whatever somebody waits for with a guest can go on then. An error of `ready` is one of the step.
    ///
    /// # Errors
    /// As [`Self::create`]'s.
    pub fn create_for(
        &mut self,
        config: &Config,
        image: &Image,
        ramdisk: Option<&Ramdisk>,
        then: Then,
        ready: Ready<'_>,
    ) -> Result<Created, Error> {
        let mut steps = Steps::new();
        let plan = steps.run(Step::Check, || self.plan(config, image, ramdisk))?;
        let mut done = Done::default();
        match self.steps(&plan, (then, ready), &mut steps, &mut done) {
            Ok(Born { domid, .. }) => Ok(Created {
                domid,
                uuid: config.uuid,
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
        (then, ready): (Then, Ready<'_>),
        steps: &mut Steps,
        done: &mut Done,
    ) -> Result<Born, Failure> {
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
        // The kernel takes its time to unmap a guest's pages: not while somebody waits for the guest.
        let mut mapped = Vec::new();
        steps.run(Step::Rings, || {
            mapped.extend(self.rings(plan, domid, grants.as_ref())?);
            Ok::<_, Cause>(())
        })?;
        steps.run(Step::Front, || {
            let ops = keys::front(domid, &ports, grants.as_ref());
            answers.extend(self.send(&ops)?);
            Ok::<_, Cause>(self.store.flush()?)
        })?;
        steps.run(Step::Load, || {
            mapped.push(self.load(plan, domid, plan.network(domid, &ports)?.as_ref())?);
            Ok::<_, Cause>(())
        })?;
        let (entry, start_info) = (plan.image.headers().entry, plan.layout.info);
        steps.run(Step::Context, || {
            self.xen
                .pvh_context(domid, entry, u32::try_from(start_info).unwrap_or(u32::MAX))
        })?;
        let mut link = None;
        let preconnected = plan.layout.rings.is_some();
        if config.vif.is_some() {
            link = Some(steps.run(Step::Port, || self.port(plan, domid, then))?);
            steps.beside("vif", "netback", keys_at);
        }
        if preconnected {
            let connect_at = steps.now();
            steps.run(Step::Connect, || {
                done.connecting = true;
                self.links.pass()?;
                answers.extend(self.send(&[keys::connect(domid)])?);
                Ok::<_, Cause>(self.store.flush()?)
            })?;
            steps.run(Step::Backend, || self.on_the_network(domid))?;
            steps.beside("connects", "netback", connect_at);
        }
        // Answers that nobody looks at wake nobody: by now most of them are there.
        steps.run(Step::Claim, || {
            answers.extend(self.send(&keys::introduce(domid, &ports))?);
            self.claimed(config, domid, done)?;
            self.store.answers(answers)?;
            if !lock.is_ours() {
                names::again(&mut *self.store, &mut *self.xen, config)?;
            }
            Ok::<_, Cause>(())
        })?;
        steps.beside("keys", "xenstored", keys_at);
        let runs = then == Then::Running;
        let port = link.as_ref().zip(plan.bridge.as_ref());
        // What is on the network needs nothing more for its first answer; another one may look for xenstored at once.
        if runs && preconnected {
            steps.run(Step::Unpause, || self.run(domid, port, ready))?;
        }
        steps.run(Step::Finish, || {
            let mut ops = keys::finish(domid, config, &ports);
            ops.extend((then != Then::Shell).then(|| keys::made(config)));
            self.finish(domid, &ops, preconnected)
        })?;
        if runs && !preconnected {
            steps.run(Step::Unpause, || self.run(domid, port, ready))?;
        }
        drop(mapped);
        Ok(Born { domid, ports, link })
    }

    /// Lets a guest run.
    fn run(
        &mut self,
        domid: u16,
        port: Option<(&Link, &Bridge)>,
        ready: Ready<'_>,
    ) -> Result<(), Cause> {
        let links = &mut *self.links;
        ready(Soon {
            domid,
            port,
            switch: None,
            links,
        })?;
        self.xen.unpause(domid)?;
        self.begun(domid)
    }

    /// Waits until a guest has begun: what is written beside it can wait for that, where it shares a CPU with dom0.
    fn begun(&mut self, domid: u16) -> Result<(), Cause> {
        for _ in 0..GLANCES {
            std::thread::sleep(GLANCE);
            if self.xen.info(domid)?.is_none_or(|info| info.cpu_ns > 0) {
                break;
            }
        }
        Ok(())
    }

    /// Writes what is written last. Of a guest that runs and is gone by then nothing is to be there: who destroyed it has not seen
    /// what is written here. If its back end `connects`, that has to have come to its end.
    fn finish(&mut self, domid: u16, ops: &[Op], connects: bool) -> Result<(), Cause> {
        let ids = self.send(ops)?;
        let state = match connects {
            true => Some(self.store.send(Request::read(&keys::state(domid)))?),
            false => None,
        };
        self.store.answers(ids)?;
        match self.xen.info(domid)? {
            Some(info) if !info.is_dying() => {}
            _ => return Err(Cause::Destroyed),
        }
        if let Some(state) = state
            && self.store.answer(state)? != b"4"
        {
            self.connected(domid)?;
        }
        Ok(())
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
        for id in self.send(&keys::before(domid))? {
            self.store.forget(id);
        }
        let answers = self.send(&keys::birth(
            domid,
            plan.config,
            plan.layout.rings.is_some(),
        ))?;
        self.store.flush()?;
        Ok(answers)
    }

    /// Makes the interface a port of its bridge as soon as it is there. A shell's gets nothing yet of what is for everybody.
    fn port(&mut self, plan: &Plan<'_>, domid: u16, then: Then) -> Result<Link, Cause> {
        let mut link = match self.links.appeared(&vif_name(domid, 0), self.bound) {
            Err(mayfly_links::Error::NotAppeared { .. }) if !self.has_kernel()? => {
                return Err(Cause::Deaf);
            }
            link => link?,
        };
        if let Some(bridge) = &plan.bridge {
            let mtu = plan.config.vif.as_ref().and_then(|vif| vif.mtu);
            self.links.attach(&mut link, bridge, mtu)?;
            if then == Then::Shell {
                self.links.flood(&link, false)?;
            }
        }
        Ok(link)
    }

    /// Waits until frames go to and fro. That it is connected, netback says later, after some ten requests to xenstored which no
    /// frame waits for.
    fn on_the_network(&mut self, domid: u16) -> Result<(), Cause> {
        let vif = vif_name(domid, 0);
        if !matches!(self.links.connected(&vif, SOON), Ok(true)) {
            self.store.ask(keys::plug(domid).request())?;
            self.connected(domid)?;
            self.links.running(&vif, self.bound)?;
        }
        Ok(())
    }

    /// Waits until the back end is connected.
    pub(super) fn connected(&mut self, domid: u16) -> Result<(), Cause> {
        const TOKEN: &str = "hatch";
        let path = keys::state(domid);
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
    pub(super) fn send(&mut self, ops: &[Op]) -> Result<Vec<Id>, mayfly_xenstore::Error> {
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
            done.claimed |= claim.ended(&mut *self.store);
        }
        let is_lost = self.store.is_lost();
        if is_lost {
            left.extend(self.reconnect().err().map(|error| error.to_string()));
            let record = done
                .domain
                .map(|domid| index::record(&mut *self.store, domid));
            done.claimed =
                matches!(record, Some(Ok(Some(record))) if record == plan.config.index());
        }
        if let Some(domid) = done.domain {
            if done.keys && plan.config.vif.is_some() {
                self.quiet(domid, done.connecting);
            }
            if let Err(error) = self.xen.destroy(domid)
                && !error.is_no_such_domain()
            {
                left.push(format!("domain {domid}: {error}"));
            }
            let mut ops = Vec::new();
            if done.keys {
                ops = keys::death(domid, Some(&keys::uuid(&plan.config.uuid)));
            }
            if done.claimed {
                ops.push(Op::Release(domid));
            }
            left.extend(self.remove(&ops));
            left.extend(self.settle(domid).err().map(|error| error.to_string()));
            if is_lost {
                // What had been sent before may have come after.
                left.extend(self.remove(&ops));
            }
            if done.claimed || is_lost {
                left.extend(self.forget(domid, &plan.config.index()));
            }
        }
        // Last, and only when nothing else is left: by this `hatch gc` finds what is.
        if done.making && left.is_empty() {
            left.extend(self.remove(&[Op::Rm(keys::making_path(&plan.config.uuid))]));
        }
        left
    }
}

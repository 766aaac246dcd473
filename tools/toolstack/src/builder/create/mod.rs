//! Creates a guest. The order of the steps makes waits overlap.

mod claim;
mod connected;
mod contents;
mod machine;
mod network;
mod restored;
mod shell;
mod undo;

use std::borrow::Cow;
use std::time::Duration;

use super::config::{Connect, GuestConfig, Network};
use super::image::{Image, Ramdisk};
use super::keys::{self, Ports, StoreOp};
use super::layout::{self, Layout};
use super::names::XlLock;
use super::report::Timeline;
use super::rings::Grants;
use super::steps::{CreateStep, CreateSteps};
use super::toolstack::Toolstack;
use super::{CreateError, FailedStep, ToolstackError};
use crate::host::Links;
use crate::paths;
use mayfly_links::{Bridge, Link};
use mayfly_switch::xenbus::Interface;
use mayfly_xen::NewDomain;
use mayfly_xenstore::{Request, RequestId, TransactionId};

pub(super) use connected::{AT_FIRST, interface_of};
pub use connected::{Newborn, WantedOnSwitch};
pub(crate) use machine::populate;
pub(crate) use restored::RestoredGuest;
pub use restored::{FilledMemory, GuestContents};
pub use shell::Shell;
use undo::DoneSteps;

/// The frames of a guest's grant table, with room for 2,048 entries.
const GRANT_FRAMES: u16 = 4;

/// How often, and how many times at most, Xen is asked whether a guest that was just unpaused has run on a CPU.
const GLANCE: Duration = Duration::from_millis(1);
const GLANCES: u32 = 10;

/// A guest that was made.
#[derive(Debug)]
pub struct Created {
    /// Its number.
    pub domid: u16,
    /// The UUID; the shell's, if it was made from a shell.
    pub uuid: [u8; 16],
    /// Whether its network was connected before it ran.
    pub preconnected: bool,
    /// The duration of each step.
    pub timeline: Timeline,
}

/// A guest right before it runs.
pub struct AboutToRun<'a> {
    /// Its number.
    pub domid: u16,
    /// The guest's interface, if it has one, and the bridge that the interface is a port of.
    pub port: Option<(&'a Link, &'a Bridge)>,
    /// The name of the switch's port on the guest's bridge, if the switch serves the guest.
    pub switch: Option<&'a str>,
    /// dom0's links.
    pub links: &'a mut dyn Links,
}

/// A function that is called right before a guest runs. Once it has made a request to the links, frames are certain to
/// reach the guest.
pub type Ready<'r> = &'r mut dyn FnMut(AboutToRun<'_>) -> Result<(), ToolstackError>;

/// A domain that was created, with the data that a shell keeps.
struct Born {
    domid: u16,
    ports: Ports,
    link: Option<Link>,
}

/// The state that a guest is left in when it has been created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreateAs {
    /// It is paused and waits to be unpaused.
    Paused,
    /// It runs.
    Running,
    /// It is a shell, and counts as being made until it is given away.
    Shell,
}

/// Everything that is decided before there is a domain.
struct CreatePlan<'a> {
    config: &'a GuestConfig,
    image: &'a Image,
    ramdisk: Option<&'a Ramdisk>,
    layout: Layout,
    bridge: Option<Bridge>,
    /// The interface and the switch's port, if the front end does the handshake with the switch.
    switched: Option<(Interface, Link)>,
}

impl CreatePlan<'_> {
    /// The configuration whose keys are those of a guest of netback.
    fn keyed(&self) -> Cow<'_, GuestConfig> {
        match self.switched {
            Some(_) => Cow::Owned(keys::off_netback(self.config)),
            None => Cow::Borrowed(self.config),
        }
    }
}

impl Toolstack {
    /// Creates a guest on the back end that its configuration names. When a step fails, the steps before it are undone.
    ///
    /// # Errors
    /// The step that failed, why, and what of it could not be undone.
    pub fn create(
        &mut self,
        config: &GuestConfig,
        image: &Image,
        ramdisk: Option<&Ramdisk>,
        then: CreateAs,
    ) -> Result<Created, CreateError> {
        if config.network == Network::Switch {
            let wanted = WantedOnSwitch {
                config,
                image,
                ramdisk,
                is_guarded: true,
                is_declared: false,
            };
            let mut switch = CreateSteps::new().run(CreateStep::Check, || {
                let none = |error| ToolstackError::Switch(format!("no switch runs: {error}"));
                self.switch().map_err(none)
            })?;
            return self.create_on_switch(wanted, &mut switch, then, &mut |_| Ok(()));
        }
        self.create_for(config, image, ramdisk, then, &mut |soon| {
            if let Some((vif, _)) = soon.port {
                soon.links.find(&vif.name)?;
            }
            Ok(())
        })
    }

    /// Creates a guest on netback and calls `ready` right before it runs. If the network is to be connected before the guest runs,
    /// it is connected by then, so that work that waits for the guest can go on. An error of `ready` is an error of the
    /// step.
    ///
    /// # Errors
    /// As [`Self::create`]'s.
    pub fn create_for(
        &mut self,
        config: &GuestConfig,
        image: &Image,
        ramdisk: Option<&Ramdisk>,
        then: CreateAs,
        ready: Ready<'_>,
    ) -> Result<Created, CreateError> {
        let mut steps = CreateSteps::new();
        let plan = steps.run(CreateStep::Check, || {
            self.plan(config, (image, ramdisk), config.connect)
        })?;
        self.carry_out(&plan, (then, ready), steps)
    }

    /// Creates the guest of a plan.
    fn carry_out(
        &mut self,
        plan: &CreatePlan<'_>,
        (then, ready): (CreateAs, Ready<'_>),
        mut steps: CreateSteps,
    ) -> Result<Created, CreateError> {
        let config = plan.config;
        let mut done = DoneSteps {
            switched: plan.switched.is_some(),
            ..DoneSteps::default()
        };
        match self.steps(plan, (then, ready), &mut steps, &mut done) {
            Ok(Born { domid, .. }) => Ok(Created {
                domid,
                uuid: config.uuid,
                preconnected: plan.layout.rings.is_some(),
                timeline: steps.finish(),
            }),
            Err(failure) => {
                let left = self.undo(config, done);
                Err(CreateError { failure, left })
            }
        }
    }

    /// Checks and decides everything that can be decided before there is a domain.
    fn plan<'a>(
        &mut self,
        config: &'a GuestConfig,
        (image, ramdisk): (&'a Image, Option<&'a Ramdisk>),
        connect: Connect,
    ) -> Result<CreatePlan<'a>, ToolstackError> {
        config.check()?;
        layout::check_cmdline(&config.cmdline)?;
        let preconnected = config.vif.is_some()
            && match connect {
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
        Ok(CreatePlan {
            config,
            image,
            ramdisk,
            layout,
            bridge,
            switched: None,
        })
    }

    fn steps(
        &mut self,
        plan: &CreatePlan<'_>,
        (then, ready): (CreateAs, Ready<'_>),
        steps: &mut CreateSteps,
        done: &mut DoneSteps,
    ) -> Result<Born, FailedStep> {
        let config = plan.config;
        let lock = XlLock::take();
        let transaction = steps.run(CreateStep::Names, || self.names(config, done))?;
        let domid = steps.run(CreateStep::Domain, || {
            let new = NewDomain {
                handle: config.uuid,
                grant_frames: GRANT_FRAMES,
            };
            let domid = self.xen.create(&new)?;
            done.domain = Some(domid);
            Ok::<_, ToolstackError>(domid)
        })?;
        let preconnected = plan.layout.rings.is_some();
        let mut answers = steps.run(CreateStep::Keys, || {
            let whose = (config, &*plan.keyed());
            let mut answers = self.keys(whose, domid, transaction, (preconnected, done))?;
            if let Some((interface, _)) = &plan.switched {
                let mtu = config.vif.as_ref().and_then(|vif| vif.mtu);
                answers.extend(self.switched(domid, interface, mtu)?);
            }
            Ok::<_, ToolstackError>(answers)
        })?;
        let keys_at = steps.now();
        let ports = steps.run(CreateStep::Memory, || self.equip(plan, domid))?;
        let grants = plan.layout.rings.as_ref().map(Grants::of);
        let mapped = steps.run(CreateStep::Rings, || {
            self.rings(plan, domid, grants.as_ref())
        })?;
        steps.run(CreateStep::Front, || {
            let ops = keys::front(domid, &ports, grants.as_ref());
            answers.extend(self.send(&ops)?);
            Ok::<_, ToolstackError>(self.store.flush()?)
        })?;
        steps.run(CreateStep::Load, || {
            let network = plan.network(domid, &ports)?;
            self.load(plan, domid, (&mapped, network.as_ref()))
        })?;
        steps.run(CreateStep::Context, || self.context(plan, domid, &ports))?;
        let mut link = None;
        if let Some((interface, port)) = &plan.switched {
            steps.run(CreateStep::Port, || self.links.direct(port, interface.mac))?;
        } else if config.vif.is_some() {
            link = Some(steps.run(CreateStep::Port, || {
                self.port((config, plan.bridge.as_ref()), domid, then)
            })?);
            steps.beside("vif", "netback", keys_at);
        }
        if preconnected {
            let connect_at = steps.now();
            steps.run(CreateStep::Connect, || {
                done.connecting = true;
                self.links.pass()?;
                answers.extend(self.send(&[keys::connect(domid)])?);
                Ok::<_, ToolstackError>(self.store.flush()?)
            })?;
            steps.run(CreateStep::Backend, || self.on_the_network(domid))?;
            steps.beside("connects", "netback", connect_at);
        }
        steps.run(CreateStep::Claim, || {
            self.introduced((config, domid, &ports), answers, (&lock, done))
        })?;
        steps.beside("keys", "xenstored", keys_at);
        let runs = then == CreateAs::Running;
        let port = link.as_ref().zip(plan.bridge.as_ref());
        // A guest that is on the network needs nothing more for its first answer. Another one may look for xenstored at
        // once.
        if runs && preconnected {
            steps.run(CreateStep::Unpause, || self.run(domid, port, ready))?;
        }
        steps.run(CreateStep::Finish, || {
            let mut ops = keys::finish(domid, &plan.keyed(), &ports);
            ops.extend((then != CreateAs::Shell).then(|| keys::made(config)));
            self.finish(domid, &ops, preconnected)
        })?;
        if runs && !preconnected {
            steps.run(CreateStep::Unpause, || self.run(domid, port, ready))?;
        }
        drop(mapped);
        if preconnected && plan.switched.is_none() {
            self.schedule_netback(domid);
        }
        Ok(Born { domid, ports, link })
    }

    /// Lets a guest run.
    fn run(
        &mut self,
        domid: u16,
        port: Option<(&Link, &Bridge)>,
        ready: Ready<'_>,
    ) -> Result<(), ToolstackError> {
        let links = &mut *self.links;
        ready(AboutToRun {
            domid,
            port,
            switch: None,
            links,
        })?;
        self.xen.unpause(domid)?;
        self.begun(domid)
    }

    /// Waits until a guest has run on a CPU. Where the guest shares one with dom0, the keys that are written next would
    /// delay it.
    fn begun(&mut self, domid: u16) -> Result<(), ToolstackError> {
        for _ in 0..GLANCES {
            std::thread::sleep(GLANCE);
            if self.xen.info(domid)?.is_none_or(|info| info.cpu_ns > 0) {
                break;
            }
        }
        Ok(())
    }

    /// Writes the last keys. If the guest ran and is gone by then, the keys have to go as well: the program that
    /// destroyed it did not see them, so this is an error. If its back end `connects`, it has to have finished
    /// connecting.
    fn finish(
        &mut self,
        domid: u16,
        ops: &[StoreOp],
        connects: bool,
    ) -> Result<(), ToolstackError> {
        let ids = self.send(ops)?;
        let state = match connects {
            true => Some(self.store.send(Request::read(&paths::state(domid)))?),
            false => None,
        };
        self.store.answers(ids)?;
        match self.xen.info(domid)? {
            Some(info) if !info.is_dying() => {}
            _ => return Err(ToolstackError::Destroyed),
        }
        if let Some(state) = state
            && self.store.answer(state)? != b"4"
        {
            self.connected(domid)?;
        }
        Ok(())
    }

    /// Sends the claim and all keys that can be written already: those of `keyed`.
    fn keys(
        &mut self,
        (config, keyed): (&GuestConfig, &GuestConfig),
        domid: u16,
        transaction: TransactionId,
        (preconnected, done): (bool, &mut DoneSteps),
    ) -> Result<Vec<RequestId>, ToolstackError> {
        done.open = None;
        done.claim = Some(self.claim(config, domid, transaction)?);
        done.keys = true;
        self.clear(&keys::before(domid))?;
        let answers = self.send(&keys::birth(domid, keyed, preconnected))?;
        self.store.flush()?;
        Ok(answers)
    }

    /// Queues the keys by which the switch's process for xenstore does the handshake with a guest.
    fn switched(
        &mut self,
        domid: u16,
        interface: &Interface,
        mtu: Option<u32>,
    ) -> Result<Vec<RequestId>, mayfly_xenstore::Error> {
        self.clear(&[keys::unswitched(domid)])?;
        self.send(&keys::switched(domid, interface, mtu))
    }

    /// Queues removals of what an earlier domain may have left.
    fn clear(&mut self, ops: &[StoreOp]) -> Result<(), mayfly_xenstore::Error> {
        for id in self.send(ops)? {
            self.store.forget(id);
        }
        Ok(())
    }

    /// Queues requests.
    pub(super) fn send(
        &mut self,
        ops: &[StoreOp],
    ) -> Result<Vec<RequestId>, mayfly_xenstore::Error> {
        ops.iter().map(|op| self.store.send(op.request())).collect()
    }
}

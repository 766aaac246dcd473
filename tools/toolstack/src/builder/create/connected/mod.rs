//! A guest whose back end is `hatch switch`. Before it runs, nothing is asked of the kernel's network or of xenstored.
//!
//! ```text
//! hatch   mark ─ domain ─ memory ─ rings ┐┌ load ─ context ┐ unpause ┈┈ names ─ keys ─ port ─ claim
//! switch                                 └┤ maps the rings ├
//! guest                                                             └ answers ─ xenstore
//! ```
//!
//! [`Toolstack::bear`] creates it and lets it run. When it has had the time for its first answer,
//! [`Toolstack::introduce`] tells xenstored and the bridge of it. Until then a file is its mark, by which `hatch gc`
//! finds the remains of a maker that was killed. A name or MAC address that another guest has is found in the second
//! phase, and ends the guest; the switch itself refuses those of its own guests in the first.
//!
//! The back end's directory is not a device of the kernel's: [`paths::switched`] puts it where xenbus does not look.

mod ahead;
mod handed;

use std::time::Duration;

use mayfly_switch::control::SwitchConnection;
use mayfly_switch::port_name;
use mayfly_switch::xenbus::Interface;

use super::super::config::{Connect, GuestConfig};
use super::super::image::{Image, Ramdisk};
use super::super::keys::{self, Ports};
use super::super::layout::{self, Layout};
use super::super::making::{Mark, SpareMark};
use super::super::rings::Grants;
use super::super::steps::{CreateStep, CreateSteps};
use super::super::toolstack::Toolstack;
use super::super::{CreateError, FailedStep, ToolstackError, switch};
use super::contents::Mapped;
use super::{AboutToRun, CreateAs, CreatePlan, Created, DoneSteps, GRANT_FRAMES, Ready};
use crate::host::Pages;
use crate::paths;
pub(in super::super) use handed::{AT_FIRST, interface_of};
use handed::{attach, attached, connected, network, prepare};
use mayfly_xen::NewDomain;

/// The time that a guest has for its first answer, once it has been on a CPU, before xenstored and the bridge are told
/// of it.
const FIRST_ANSWER: Duration = Duration::from_millis(1);

/// A guest that is to be created on the switch.
#[derive(Clone, Copy)]
pub struct WantedOnSwitch<'a> {
    /// Its configuration.
    pub config: &'a GuestConfig,
    /// Its image.
    pub image: &'a Image,
    /// Its module, the packed site.
    pub ramdisk: Option<&'a Ramdisk>,
    /// Whether the switch lets the guest send only from the IP addresses of its command line, if that has any, and not
    /// only from its MAC address.
    pub is_guarded: bool,
    /// Whether it was declared to the switch, so that the switch knows its name and its addresses.
    pub is_declared: bool,
}

/// A guest that the switch serves and that only the switch knows of. If it is dropped, `hatch gc` finds it as it does
/// after this process ended.
pub struct Newborn {
    config: GuestConfig,
    born: OnSwitch,
    done: DoneSteps,
    steps: CreateSteps,
}

impl Newborn {
    /// Its domain.
    #[must_use]
    pub fn domid(&self) -> u16 {
        self.born.domid
    }
}

/// A domain that the switch serves.
struct OnSwitch {
    domid: u16,
    ports: Ports,
    interface: Interface,
    /// The switch's port on the bridge.
    link: String,
    /// Its mapped pages, if any are. To unmap them takes long, so it is done when the guest has answered.
    mapped: Option<KeptPages>,
}

/// Pages that stay mapped until the guest has answered.
enum KeptPages {
    /// All that the builder has written.
    All(#[expect(dead_code, reason = "held only")] Mapped),
    /// Those of the information.
    Information(#[expect(dead_code, reason = "held only")] Box<dyn Pages>),
}

/// A domain that is complete but for its contents.
struct Machine {
    domid: u16,
    ports: Ports,
    mapped: Mapped,
}

impl Toolstack {
    /// Creates a guest whose network the switch serves, and calls `ready` right before it runs. When a step fails, the
    /// steps before it are undone.
    ///
    /// # Errors
    /// The step that failed, why, and what of it could not be undone.
    pub fn create_on_switch(
        &mut self,
        wanted: WantedOnSwitch<'_>,
        switch: &mut SwitchConnection,
        then: CreateAs,
        ready: Ready<'_>,
    ) -> Result<Created, CreateError> {
        let takes_connected = wanted.image.takes_preconnected();
        if !takes_connected || wanted.config.connect == Connect::Guest {
            return self.create_with_handshake(wanted, then, ready);
        }
        let newborn = self.bear(wanted, switch, then, ready)?;
        if then == CreateAs::Running {
            // A guest that ends meanwhile is found below.
            let _ = self.begun(newborn.domid());
            std::thread::sleep(FIRST_ANSWER);
        }
        self.introduce(newborn)
    }

    /// Creates a guest that does the handshake itself, with the switch's process for xenstore.
    fn create_with_handshake(
        &mut self,
        wanted: WantedOnSwitch<'_>,
        then: CreateAs,
        ready: Ready<'_>,
    ) -> Result<Created, CreateError> {
        let mut steps = CreateSteps::new();
        let WantedOnSwitch {
            config,
            image,
            ramdisk,
            is_guarded,
            ..
        } = wanted;
        let plan = steps.run(CreateStep::Check, || {
            let mut plan = self.plan(config, (image, ramdisk), Connect::Guest)?;
            let (Some(vif), Some(bridge)) = (&config.vif, &plan.bridge) else {
                return Err(ToolstackError::Backend("is for guests that have a network"));
            };
            let link = self.links.find(&port_name(bridge.index))?;
            plan.switched = Some((interface_of(config, vif, is_guarded), link));
            Ok(plan)
        })?;
        self.carry_out(&plan, (then, ready), steps)
    }

    /// The first half of it: a guest that runs, if it is to run, and that only the switch knows of.
    ///
    /// # Errors
    /// As [`Self::create_on_switch`]'s.
    pub fn bear(
        &mut self,
        wanted: WantedOnSwitch<'_>,
        switch: &mut SwitchConnection,
        then: CreateAs,
        ready: Ready<'_>,
    ) -> Result<Newborn, CreateError> {
        let mut steps = CreateSteps::new();
        let config = wanted.config;
        let plan = steps.run(CreateStep::Check, || Self::plan_for_switch(wanted))?;
        let mut done = DoneSteps::default();
        let born = self.born(&plan, (&mut *switch, wanted), &mut steps, &mut done);
        let born = born.and_then(|born| {
            if then == CreateAs::Running {
                self.start(&born, ready, &mut steps)?;
            }
            Ok(born)
        });
        self.newborn(born, switch, (config.clone(), done, steps))
    }

    /// Lets a guest run.
    fn start(
        &mut self,
        born: &OnSwitch,
        ready: Ready<'_>,
        steps: &mut CreateSteps,
    ) -> Result<(), FailedStep> {
        let (domid, links) = (born.domid, &mut *self.links);
        steps.run(CreateStep::Unpause, || {
            ready(AboutToRun {
                domid,
                port: None,
                switch: Some(&born.link),
                links,
            })?;
            self.xen.unpause(domid)?;
            // On one CPU the switch runs now, and takes the guest's first frames.
            std::thread::yield_now();
            Ok::<_, ToolstackError>(())
        })
    }

    /// A guest that was born, or what is left of one that could not be.
    fn newborn(
        &mut self,
        born: Result<OnSwitch, FailedStep>,
        switch: &mut SwitchConnection,
        (config, done, steps): (GuestConfig, DoneSteps, CreateSteps),
    ) -> Result<Newborn, CreateError> {
        match born {
            Ok(born) => Ok(Newborn {
                config,
                born,
                done,
                steps,
            }),
            Err(failure) => {
                // All answers first: a request that is still under way would give the switch the guest after it was
                // asked to let go.
                let _ = switch.settle();
                let left = self.undo_on_switch(&config, done);
                Err(CreateError { failure, left })
            }
        }
    }

    /// The second half: the keys that other programs read of a guest that runs already, and the entries of the bridge.
    ///
    /// # Errors
    /// As [`Self::create_on_switch`]'s.
    pub fn introduce(&mut self, newborn: Newborn) -> Result<Created, CreateError> {
        let Newborn {
            config,
            born,
            mut done,
            mut steps,
        } = newborn;
        let domid = born.domid;
        match self.told(&config, born, &mut steps, &mut done) {
            Ok(()) => Ok(Created {
                uuid: config.uuid,
                domid,
                preconnected: true,
                timeline: steps.finish(),
            }),
            Err(failure) => {
                let left = self.undo_on_switch(&config, done);
                Err(CreateError { failure, left })
            }
        }
    }

    fn plan_for_switch(wanted: WantedOnSwitch<'_>) -> Result<CreatePlan<'_>, ToolstackError> {
        let WantedOnSwitch {
            config,
            image,
            ramdisk,
            ..
        } = wanted;
        if config.vif.is_none() {
            return Err(ToolstackError::Backend("is for guests that have a network"));
        }
        if !image.takes_preconnected() {
            return Err(ToolstackError::Backend(
                "is for images that take a network that is connected beforehand",
            ));
        }
        config.check()?;
        layout::check_cmdline(&config.cmdline)?;
        let ramdisk_size = ramdisk.map(Ramdisk::size);
        Ok(CreatePlan {
            config,
            image,
            ramdisk,
            layout: Layout::new(config.memory, image.headers(), ramdisk_size, true)?,
            // The switch has its own port on the bridge.
            bridge: None,
            switched: None,
        })
    }

    /// The domain, on the switch, before its first instruction.
    fn born(
        &mut self,
        plan: &CreatePlan<'_>,
        (switch, wanted): (&mut SwitchConnection, WantedOnSwitch<'_>),
        steps: &mut CreateSteps,
        done: &mut DoneSteps,
    ) -> Result<OnSwitch, FailedStep> {
        let machine = self.machine(plan, steps, done)?;
        let Machine { domid, ports, .. } = machine;
        let whose = (plan.config, plan.layout.rings.as_ref());
        // The switch maps the rings while the image is loaded, if it has a CPU of its own.
        let interface = steps.run(CreateStep::Front, || {
            let interface = connected(whose, wanted.is_guarded, domid, &ports)?;
            attach(switch, &interface, wanted.is_declared)?;
            Ok::<_, ToolstackError>(interface)
        })?;
        self.contents(plan, &machine, steps)?;
        let link = steps.run(CreateStep::Connect, || {
            attached(switch, &interface, wanted.is_declared)
        })?;
        Ok(OnSwitch {
            domid,
            ports,
            interface,
            link,
            mapped: Some(KeptPages::All(machine.mapped)),
        })
    }

    /// The domain with its memory, its event channels and its rings.
    fn machine(
        &mut self,
        plan: &CreatePlan<'_>,
        steps: &mut CreateSteps,
        done: &mut DoneSteps,
    ) -> Result<Machine, FailedStep> {
        let config = plan.config;
        let domid = steps.run(CreateStep::Domain, || {
            let spare = self.spare.take_if(|spare| spare.uuid() == config.uuid);
            let mark = match spare.and_then(SpareMark::used) {
                Some(mark) => mark,
                None => Mark::leave(&self.marks(), &paths::uuid(&config.uuid))?,
            };
            let mark = done.mark.insert(mark);
            let new = NewDomain {
                handle: config.uuid,
                grant_frames: GRANT_FRAMES,
            };
            let domid = self.xen.create(&new)?;
            done.domain = Some(domid);
            mark.name(domid)?;
            Ok::<_, ToolstackError>(domid)
        })?;
        let ports = steps.run(CreateStep::Memory, || self.equip(plan, domid))?;
        let grants = plan.layout.rings.as_ref().map(Grants::of);
        let mapped = steps.run(CreateStep::Rings, || {
            let mapped = self.rings(plan, domid, grants.as_ref())?;
            mapped.is_introduced_later()?;
            Ok::<_, ToolstackError>(mapped)
        })?;
        Ok(Machine {
            domid,
            ports,
            mapped,
        })
    }

    /// Its image and the state of its vCPU.
    fn contents(
        &mut self,
        plan: &CreatePlan<'_>,
        machine: &Machine,
        steps: &mut CreateSteps,
    ) -> Result<(), FailedStep> {
        let Machine {
            domid,
            ports,
            mapped,
        } = machine;
        steps.run(CreateStep::Load, || {
            let network = network(plan, *domid, ports)?;
            self.load(plan, *domid, (mapped, network.as_ref()))
        })?;
        steps.run(CreateStep::Context, || self.context(plan, *domid, ports))
    }

    /// Writes the keys that other programs read of a guest that runs already, and the entries of the bridge.
    fn told(
        &mut self,
        config: &GuestConfig,
        born: OnSwitch,
        steps: &mut CreateSteps,
        done: &mut DoneSteps,
    ) -> Result<(), FailedStep> {
        let OnSwitch {
            domid,
            ports,
            interface,
            link,
            mapped,
        } = born;
        drop(mapped);
        let transaction = steps.run(CreateStep::Names, || self.names(config, done))?;
        let answers = steps.run(CreateStep::Keys, || {
            done.open = None;
            done.claim = Some(self.claim(config, domid, transaction)?);
            done.keys = true;
            self.clear(&keys::before(domid))?;
            self.clear(&[keys::unswitched(domid)])?;
            let answers = self.send(&keys::switched_birth(domid, config, &ports, &interface))?;
            self.store.flush()?;
            Ok::<_, ToolstackError>(answers)
        })?;
        steps.run(CreateStep::Port, || {
            if let Some(vif) = &config.vif {
                let port = self.links.find(&link)?;
                self.links.direct(&port, vif.mac)?;
            }
            Ok::<_, ToolstackError>(())
        })?;
        steps.run(CreateStep::Claim, || {
            self.claimed(config, domid, done)?;
            self.store.answers(answers)?;
            match self.xen.info(domid)? {
                Some(info) if !info.is_dying() => Ok(()),
                _ => Err(ToolstackError::Destroyed),
            }
        })?;
        steps.run(CreateStep::Finish, || {
            let made = self.send(&[keys::made(config)])?;
            self.store.answers(made)?;
            if let Some(mark) = &done.mark {
                mark.remove()?;
            }
            Ok::<_, ToolstackError>(())
        })
    }

    /// Undoes the completed parts, and returns what could not be undone.
    fn undo_on_switch(&mut self, config: &GuestConfig, mut done: DoneSteps) -> Vec<String> {
        let mut left = Vec::new();
        self.end_claim(&mut done);
        if let Some(domid) = done.domain {
            // On a new connection: on the builder's, some requests may not have been answered.
            left.extend(switch::let_go(&self.run, domid, self.bound).err());
            if let Err(error) = self.xen.destroy(domid)
                && !error.is_no_such_domain()
            {
                left.push(format!("domain {domid}: {error}"));
            }
            let mut ops = Vec::new();
            if done.keys {
                ops = keys::death(domid, Some(&paths::uuid(&config.uuid)));
                ops.push(keys::unswitched(domid));
                ops.push(super::StoreOp::Release(domid));
            }
            left.extend(self.remove(&ops));
            if done.claimed {
                left.extend(self.forget(domid, &config.index()));
            }
        }
        if done.making && left.is_empty() {
            left.extend(self.remove(&[super::StoreOp::Rm(paths::making_path(&config.uuid))]));
        }
        if let Some(mark) = &done.mark
            && left.is_empty()
        {
            left.extend(mark.remove().err().map(|error| error.to_string()));
        }
        left
    }
}

#[cfg(test)]
mod tests;

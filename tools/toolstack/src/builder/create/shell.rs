//! Shells: guests created ahead of time, without an identity.

use std::fmt;

use mayfly_handoff::network::{Preconnected, Random};

use super::super::config::{GuestConfig, random_bytes, random_uuid};
use super::super::destroy::DestroyError;
use super::super::image::{Image, Ramdisk};
use super::super::keys::{self, Ports, StoreOp};
use super::super::layout::{self, Layout};
use super::super::lost::KnownGuest;
use super::super::making::{MakingProcess, Mark};
use super::super::names::{self, XlLock};
use super::super::steps::{CreateStep, CreateSteps};
use super::super::toolstack::Toolstack;
use super::super::{CreateError, FailedStep, ToolstackError, info};
use super::{CreateAs, Created, DoneSteps, Ready};
use crate::host::Pages;
use crate::paths;
use mayfly_links::{Bridge, Link};
use mayfly_xen::PAGE_SIZE;

/// A paused guest without an identity.
#[derive(Debug)]
pub struct Shell {
    pub(super) domid: u16,
    pub(super) config: GuestConfig,
    pub(super) layout: Layout,
    pub(super) network: Preconnected,
    pub(super) place: ShellPlace,
}

/// The network of a shell.
#[derive(Debug)]
pub(super) enum ShellPlace {
    /// An interface, and the bridge that it is a port of.
    Port(Link, Bridge),
    /// The switch will serve it.
    Switch(Box<MadeAhead>),
}

/// A shell for the switch. xenstored does not know of it: its mark is a file.
pub(super) struct MadeAhead {
    pub(super) ports: Ports,
    pub(super) mark: Mark,
    /// The pages of its information.
    pub(super) information: Option<Box<dyn Pages>>,
    /// Whether the switch has mapped its rings.
    pub(super) is_prepared: bool,
    /// Random bytes for the guest, which are not in its memory yet.
    pub(super) random: Option<[u8; 32]>,
}

impl fmt::Debug for MadeAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("MadeAhead");
        shown.field("ports", &self.ports).field("mark", &self.mark);
        shown.field("is_prepared", &self.is_prepared);
        shown.finish_non_exhaustive()
    }
}

impl Shell {
    /// The domid.
    #[must_use]
    pub fn domid(&self) -> u16 {
        self.domid
    }

    /// The UUID, which stays when it gets its identity.
    #[must_use]
    pub fn uuid(&self) -> &[u8; 16] {
        &self.config.uuid
    }
}

impl Toolstack {
    /// Creates a shell: a guest like `template`, with a name and a MAC address of its own, whose interface is connected
    /// and is a port of the template's bridge that is not flooded. As long as this process does not give it away it
    /// counts as being made, so that `hatch gc` removes it when the process is gone.
    ///
    /// # Errors
    /// The step that failed.
    pub fn shell(&mut self, template: &GuestConfig, image: &Image) -> Result<Shell, CreateError> {
        let mut steps = CreateSteps::new();
        let config = steps.run(CreateStep::Check, || anonymous(template))?;
        let plan = steps.run(CreateStep::Check, || {
            self.plan(&config, (image, None), config.connect)
        })?;
        let mut done = DoneSteps::default();
        let made = self.steps(
            &plan,
            (CreateAs::Shell, &mut |_| Ok(())),
            &mut steps,
            &mut done,
        );
        let ready = made.and_then(|born| {
            steps.run(CreateStep::Finish, || {
                let network = plan.network(born.domid, &born.ports)?;
                let known = network.zip(born.link).zip(plan.bridge.clone());
                known
                    .map(|((network, link), bridge)| (born.domid, network, link, bridge))
                    .ok_or(ToolstackError::Backend(
                        "is not connected: the image does not take a connected network",
                    ))
            })
        });
        match ready {
            Ok((domid, network, link, bridge)) => {
                let layout = plan.layout.clone();
                Ok(Shell {
                    domid,
                    layout,
                    network,
                    place: ShellPlace::Port(link, bridge),
                    config,
                })
            }
            Err(failure) => {
                let left = self.undo(&config, done);
                Err(CreateError { failure, left })
            }
        }
    }

    /// Puts a shell that the index does not have into the index, and marks it. Returns whether it was missing.
    ///
    /// # Errors
    /// The errors of Xen and xenstored.
    pub fn restore_shell(&mut self, shell: &Shell) -> Result<bool, ToolstackError> {
        if let ShellPlace::Switch(..) = shell.place {
            // It is in no index before it has an identity.
            return Ok(false);
        }
        let config = &shell.config;
        let known = KnownGuest {
            domid: shell.domid,
            uuid: config.uuid,
            name: config.name.clone(),
            mac: config.vif.as_ref().map(|vif| vif.mac).unwrap_or_default(),
        };
        let is_restored = self.restore(&known)?;
        if is_restored {
            let mark = paths::making_path(&config.uuid);
            self.store
                .write(&mark, &MakingProcess::this().to_string())?;
        }
        Ok(is_restored)
    }

    /// Gives a shell its identity: name, MAC address, bridge, command line, module. It is then a guest like others.
    /// When a step fails, the shell is removed.
    ///
    /// # Errors
    /// The step that failed, and what of it could not be undone.
    pub fn give(
        &mut self,
        shell: Shell,
        config: &GuestConfig,
        ramdisk: Option<&Ramdisk>,
        unpause: bool,
    ) -> Result<Created, CreateError> {
        let ready: Ready<'_> = &mut |_| Ok(());
        self.give_for(shell, config, ramdisk, unpause.then_some(ready))
    }

    /// The same, and then lets the guest run. `ready` is called right before, as by [`Self::create_for`].
    ///
    /// # Errors
    /// As [`Self::give`]'s.
    pub fn give_for(
        &mut self,
        mut shell: Shell,
        config: &GuestConfig,
        ramdisk: Option<&Ramdisk>,
        ready: Option<Ready<'_>>,
    ) -> Result<Created, CreateError> {
        let mut steps = CreateSteps::giving();
        match self.rename(&mut shell, config, ramdisk, ready, &mut steps) {
            Ok(()) => Ok(Created {
                domid: shell.domid,
                uuid: shell.config.uuid,
                preconnected: true,
                timeline: steps.finish(),
            }),
            Err(failure) => {
                let (domid, old) = (shell.domid, shell.config.index());
                let discarded = self.discard(shell);
                let mut left: Vec<String> =
                    discarded.err().map(|e| e.to_string()).into_iter().collect();
                // If the new name is claimed already, the index has nothing under the old one.
                left.extend(self.forget(domid, &old));
                Err(CreateError { failure, left })
            }
        }
    }

    /// Removes a shell that is not needed any more, and then its mark, by which `hatch gc` would find it.
    ///
    /// # Errors
    /// The parts of it that are left.
    pub fn discard(&mut self, shell: Shell) -> Result<(), DestroyError> {
        let (domid, uuid) = (shell.domid, &shell.config.uuid);
        if let ShellPlace::Switch(ahead) = shell.place {
            return self.discard_on_switch((domid, uuid), *ahead);
        }
        match self.destroy_known(domid, uuid) {
            Ok(_) | Err(DestroyError::NoSuchDomain(_)) => {}
            Err(error) => return Err(error),
        }
        let left = self.remove(&[StoreOp::Rm(paths::making_path(uuid))]);
        match left.is_empty() {
            true => Ok(()),
            false => Err(DestroyError::Left { domid, left }),
        }
    }

    fn rename(
        &mut self,
        shell: &mut Shell,
        config: &GuestConfig,
        ramdisk: Option<&Ramdisk>,
        ready: Option<Ready<'_>>,
        steps: &mut CreateSteps,
    ) -> Result<(), FailedStep> {
        let domid = shell.domid;
        // The UUID stays: Xen and xenstore use it in many places.
        let config = &GuestConfig {
            uuid: shell.config.uuid,
            ..config.clone()
        };
        let lock = XlLock::take();
        let layout = steps.run(CreateStep::Check, || {
            config.check()?;
            layout::check_cmdline(&config.cmdline)?;
            Ok::<_, ToolstackError>(shell.layout.with_module(ramdisk.map(Ramdisk::size))?)
        })?;
        let ShellPlace::Port(link, _) = &shell.place else {
            return Err(FailedStep {
                step: CreateStep::Check,
                cause: ToolstackError::Backend("is the switch"),
            });
        };
        let link = link.clone();
        let bridge = match &config.vif {
            Some(vif) => Some(steps.run(CreateStep::Check, || self.links.bridge(&vif.bridge))?),
            None => None,
        };
        let transaction = steps.run(CreateStep::Names, || {
            names::begin(&mut *self.store, &mut *self.xen, config)
        })?;
        let mut done = DoneSteps::default();
        let named = steps.run(CreateStep::Keys, || {
            done.claim = Some(self.claim(config, domid, transaction)?);
            let named = self.send(&[keys::name(domid, &config.name)])?;
            self.store.flush()?;
            Ok::<_, ToolstackError>(named)
        })?;
        let inside = self.identity(shell, config, bridge.as_ref(), (&layout, ramdisk), steps);
        // These answers are taken even if another step failed: nothing else would take them.
        let outside = steps.run(CreateStep::Claim, || {
            self.claimed(config, domid, &mut done)?;
            self.store.answers(named)?;
            if !lock.is_ours() {
                names::again(&mut *self.store, &mut *self.xen, config)?;
            }
            Ok::<_, ToolstackError>(())
        });
        inside?;
        outside?;
        if let Some(ready) = ready {
            let port = bridge.as_ref().map(|bridge| (&link, bridge));
            steps.run(CreateStep::Unpause, || self.run(domid, port, ready))?;
        }
        steps.run(CreateStep::Finish, || {
            self.finish(domid, &keys::rename(domid, &shell.config, config), false)
        })
    }

    /// Sets the parts of an identity that are not in xenstore: the port of the bridge, and the data that the guest is
    /// given.
    fn identity(
        &mut self,
        shell: &mut Shell,
        config: &GuestConfig,
        bridge: Option<&Bridge>,
        (layout, ramdisk): (&Layout, Option<&Ramdisk>),
        steps: &mut CreateSteps,
    ) -> Result<(), FailedStep> {
        if let (Some(bridge), ShellPlace::Port(link, old_bridge)) = (bridge, &shell.place) {
            steps.run(CreateStep::Port, || {
                let mtu = |config: &GuestConfig| config.vif.as_ref().and_then(|vif| vif.mtu);
                let (old, new) = (mtu(&shell.config), mtu(config));
                if (old_bridge, old) != (bridge, new) {
                    self.links.attach(&mut link.clone(), bridge, new)?;
                }
                self.links.flood(link, true)
            })?;
        }
        steps.run(CreateStep::Load, || {
            self.inscribe(shell, config, (layout, ramdisk)).map(drop)
        })
    }

    /// Writes what makes a shell this guest into its memory: information, and module. Returns the pages of the
    /// information.
    pub(super) fn inscribe(
        &mut self,
        shell: &mut Shell,
        config: &GuestConfig,
        (layout, ramdisk): (&Layout, Option<&Ramdisk>),
    ) -> Result<Box<dyn Pages>, ToolstackError> {
        let mac = config.vif.as_ref().map_or(shell.network.mac, |vif| vif.mac);
        let random = match &mut shell.place {
            ShellPlace::Switch(ahead) => ahead.random.take(),
            ShellPlace::Port(..) => None,
        };
        let network = Preconnected {
            mac,
            // New random bytes: another guest made from a copy of the same shell may have the shell's.
            random: random.or_else(random_bytes).map(Random),
            ..shell.network
        };
        let information = info::encode(layout, &config.cmdline, Some(&network));
        let pages = match &mut shell.place {
            // It has more if its command line is long.
            ShellPlace::Switch(ahead)
                if info::pages(&config.cmdline) <= info::pages(&shell.config.cmdline) =>
            {
                ahead.information.take()
            }
            _ => None,
        };
        let pages = match pages {
            Some(pages) => pages,
            None => self.information(shell.domid, layout, &config.cmdline)?,
        };
        pages.write(0, &information)?;
        if let (Some(module), Some(ramdisk)) = (&layout.module, ramdisk) {
            let size = module.end - module.start;
            self.module(shell.domid, module.start, size, ramdisk)?;
        }
        Ok(pages)
    }

    /// Maps the pages of a guest's information.
    pub(super) fn information(
        &self,
        domid: u16,
        layout: &Layout,
        cmdline: &str,
    ) -> Result<Box<dyn Pages>, ToolstackError> {
        let first = layout.info / PAGE_SIZE as u64;
        let gfns: Vec<u64> = (first..first + info::pages(cmdline)).collect();
        Ok(self.xen.map(domid, &gfns)?)
    }
}

/// The template with a name, a UUID and a MAC address that no other guest has.
pub(super) fn anonymous(template: &GuestConfig) -> Result<GuestConfig, ToolstackError> {
    let mut config = template.clone();
    let random = random_uuid()?;
    config.uuid = random;
    config.name = format!(
        "shell-{:08x}",
        u32::from_ne_bytes([random[0], random[1], random[2], random[3]])
    );
    config.cmdline.clear();
    config.watched = None;
    if let Some(vif) = &mut config.vif {
        // Locally administered, so that no guest has the same.
        vif.mac = [0x02, 0x16, random[10], random[11], random[12], random[13]];
        vif.ip = None;
    }
    Ok(config)
}

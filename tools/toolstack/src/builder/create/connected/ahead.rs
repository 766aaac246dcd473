//! Shells whose network the switch will serve. xenstored does not know of such a shell. The switch has mapped its rings,
//! and here the pages of its information stay mapped, so that little is left to do when a client waits for it.

use mayfly_switch::control::SwitchConnection;

use super::super::super::config::random_bytes;
use super::super::super::destroy::DestroyError;
use super::super::shell::{MadeAhead, Shell, ShellPlace, anonymous};
use super::*;

impl Toolstack {
    /// Creates a shell, as [`Self::shell`] does, whose network the switch will serve. The switch maps its rings now, if
    /// there is a connection to one; what it has mapped, it releases with the connection, which is dropped here if the
    /// switch is gone.
    ///
    /// # Errors
    /// The step that failed.
    pub fn shell_on_switch(
        &mut self,
        template: &GuestConfig,
        image: &Image,
        switch: &mut Option<SwitchConnection>,
    ) -> Result<Shell, CreateError> {
        let mut steps = CreateSteps::new();
        let config = steps.run(CreateStep::Check, || anonymous(template))?;
        let wanted = WantedOnSwitch {
            config: &config,
            image,
            ramdisk: None,
            is_guarded: false,
            is_declared: false,
        };
        let plan = steps.run(CreateStep::Check, || Self::plan_for_switch(wanted))?;
        let mut done = DoneSteps::default();
        let made = self.machine(&plan, &mut steps, &mut done);
        let made = made.and_then(|machine| {
            self.contents(&plan, &machine, &mut steps)?;
            steps.run(CreateStep::Finish, || {
                let Machine { domid, ports, .. } = machine;
                let network = network(&plan, domid, &ports)?;
                let network = network.ok_or(ToolstackError::Backend("has no rings"))?;
                let information = self.information(domid, &plan.layout, &config.cmdline)?;
                let whose = (&config, plan.layout.rings.as_ref());
                let interface = connected(whose, false, domid, &ports)?;
                let is_prepared = switch.as_mut().map(|switch| prepare(switch, &interface));
                if let Some(Err(_)) = is_prepared {
                    *switch = None;
                }
                let mark = done.mark.take();
                let mark = mark.ok_or(ToolstackError::Backend("has no mark"))?;
                let ahead = MadeAhead {
                    ports,
                    mark,
                    information: Some(information),
                    random: random_bytes(),
                    is_prepared: matches!(is_prepared, Some(Ok(true))),
                };
                Ok::<_, ToolstackError>((domid, network, ahead))
            })
        });
        match made {
            Ok((domid, network, ahead)) => Ok(Shell {
                domid,
                layout: plan.layout.clone(),
                network,
                place: ShellPlace::Switch(Box::new(ahead)),
                config,
            }),
            Err(failure) => {
                let left = self.undo_on_switch(&config, done);
                Err(CreateError { failure, left })
            }
        }
    }

    /// Gives a shell its identity and lets it run, as [`Self::bear`] does with a new guest. Its UUID is the shell's.
    ///
    /// # Errors
    /// As [`Self::bear`]'s; the shell is removed. A shell that is not for the switch is refused.
    pub fn bear_from(
        &mut self,
        mut shell: Shell,
        wanted: WantedOnSwitch<'_>,
        switch: &mut SwitchConnection,
        ready: Ready<'_>,
    ) -> Result<Newborn, CreateError> {
        let mut steps = CreateSteps::giving();
        let config = GuestConfig {
            uuid: shell.config.uuid,
            ..wanted.config.clone()
        };
        let named = self.named(&mut shell, &config, wanted, (&mut *switch, &mut steps));
        let named = named.and_then(|born| {
            self.start(&born, ready, &mut steps)?;
            Ok(born)
        });
        let mark = match shell.place {
            ShellPlace::Switch(ahead) => Some(ahead.mark),
            ShellPlace::Port(..) => None,
        };
        let done = DoneSteps {
            domain: Some(shell.domid),
            mark,
            ..DoneSteps::default()
        };
        self.newborn(named, switch, (config, done, steps))
    }

    /// The shell with its identity, on the switch.
    fn named(
        &mut self,
        shell: &mut Shell,
        config: &GuestConfig,
        wanted: WantedOnSwitch<'_>,
        (switch, steps): (&mut SwitchConnection, &mut CreateSteps),
    ) -> Result<OnSwitch, FailedStep> {
        let (ports, layout) = steps.run(CreateStep::Check, || {
            let ShellPlace::Switch(ahead) = &shell.place else {
                return Err(ToolstackError::Backend("is netback"));
            };
            config.check()?;
            layout::check_cmdline(&config.cmdline)?;
            let layout = shell
                .layout
                .with_module(wanted.ramdisk.map(Ramdisk::size))?;
            Ok((ahead.ports, layout))
        })?;
        let domid = shell.domid;
        let whose = (config, layout.rings.as_ref());
        let interface = steps.run(CreateStep::Front, || {
            let interface = connected(whose, wanted.is_guarded, domid, &ports)?;
            attach(switch, &interface, wanted.is_declared)?;
            Ok::<_, ToolstackError>(interface)
        })?;
        let information = steps.run(CreateStep::Load, || {
            self.inscribe(shell, config, (&layout, wanted.ramdisk))
        })?;
        let link = steps.run(CreateStep::Connect, || {
            attached(switch, &interface, wanted.is_declared)
        })?;
        Ok(OnSwitch {
            domid,
            ports,
            interface,
            link,
            mapped: Some(KeptPages::Information(information)),
        })
    }

    /// Removes such a shell, and then its mark. What is mapped of it is released first: it would keep the domain.
    pub(in super::super) fn discard_on_switch(
        &mut self,
        (domid, uuid): (u16, &[u8; 16]),
        ahead: MadeAhead,
    ) -> Result<(), DestroyError> {
        let MadeAhead {
            mark,
            information,
            is_prepared,
            ..
        } = ahead;
        drop(information);
        let released = match is_prepared {
            true => switch::let_go(&self.run, domid, self.bound),
            false => Ok(false),
        };
        let info = self.xen.info(domid).map_err(ToolstackError::from)?;
        if info.is_some_and(|info| info.handle == *uuid) {
            let destroyed = self.xen.destroy(domid);
            destroyed.map_err(ToolstackError::from)?;
        }
        mark.remove().map_err(ToolstackError::from)?;
        released.map_err(|why| DestroyError::Left {
            domid,
            left: vec![why],
        })?;
        Ok(())
    }
}

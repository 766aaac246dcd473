//! Shells whose network the switch will serve. Neither the switch nor xenstored knows of such a shell.

use mayfly_switch::control::SwitchConnection;

use super::super::super::destroy::DestroyError;
use super::super::super::making::Mark;
use super::super::shell::{Shell, ShellPlace, anonymous};
use super::*;

impl Toolstack {
    /// Creates a shell, as [`Self::shell`] does, whose network the switch will serve.
    ///
    /// # Errors
    /// The step that failed.
    pub fn shell_on_switch(
        &mut self,
        template: &GuestConfig,
        image: &Image,
    ) -> Result<Shell, CreateError> {
        let mut steps = CreateSteps::new();
        let config = steps.run(CreateStep::Check, || anonymous(template))?;
        let wanted = WantedOnSwitch {
            config: &config,
            image,
            ramdisk: None,
            is_guarded: false,
        };
        let plan = steps.run(CreateStep::Check, || Self::plan_for_switch(wanted))?;
        let mut done = DoneSteps::default();
        let made = self.machine(&plan, &mut steps, &mut done);
        let made = made.and_then(|machine| {
            self.contents(&plan, &machine, &mut steps)?;
            steps.run(CreateStep::Finish, || {
                let network = network(&plan, machine.domid, &machine.ports)?;
                let known = network.zip(done.mark.take());
                known
                    .map(|(network, mark)| (machine, network, mark))
                    .ok_or(ToolstackError::Backend("has no rings"))
            })
        });
        match made {
            // Its pages are not mapped any more from here on: they would keep the domain after its end.
            Ok((Machine { domid, ports, .. }, network, mark)) => Ok(Shell {
                domid,
                layout: plan.layout.clone(),
                network,
                place: ShellPlace::Switch(ports, mark),
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
        shell: Shell,
        wanted: WantedOnSwitch<'_>,
        switch: &mut SwitchConnection,
        ready: Ready<'_>,
    ) -> Result<Newborn, CreateError> {
        let mut steps = CreateSteps::giving();
        let config = GuestConfig {
            uuid: shell.config.uuid,
            ..wanted.config.clone()
        };
        let named = self.named(&shell, &config, wanted, (&mut *switch, &mut steps));
        let named = named.and_then(|born| {
            self.start(&born, ready, &mut steps)?;
            Ok(born)
        });
        let mark = match shell.place {
            ShellPlace::Switch(_, mark) => Some(mark),
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
        shell: &Shell,
        config: &GuestConfig,
        wanted: WantedOnSwitch<'_>,
        (switch, steps): (&mut SwitchConnection, &mut CreateSteps),
    ) -> Result<OnSwitch, FailedStep> {
        let (ports, layout) = steps.run(CreateStep::Check, || {
            let ShellPlace::Switch(ports, _) = &shell.place else {
                return Err(ToolstackError::Backend("is netback"));
            };
            config.check()?;
            layout::check_cmdline(&config.cmdline)?;
            let layout = shell
                .layout
                .with_module(wanted.ramdisk.map(Ramdisk::size))?;
            Ok((ports, layout))
        })?;
        let domid = shell.domid;
        let whose = (config, layout.rings.as_ref());
        let interface = steps.run(CreateStep::Front, || {
            let interface = connected(whose, wanted.is_guarded, domid, ports)?;
            attach(switch, &interface)?;
            Ok::<_, ToolstackError>(interface)
        })?;
        steps.run(CreateStep::Load, || {
            self.inscribe(shell, config, (&layout, wanted.ramdisk))
        })?;
        let link = steps.run(CreateStep::Connect, || attached(switch))?;
        Ok(OnSwitch {
            domid,
            ports: *ports,
            interface,
            link,
            mapped: None,
        })
    }

    /// Removes such a shell, and then its mark.
    pub(in super::super) fn discard_on_switch(
        &mut self,
        (domid, uuid): (u16, &[u8; 16]),
        mark: &Mark,
    ) -> Result<(), DestroyError> {
        let info = self.xen.info(domid).map_err(ToolstackError::from)?;
        if info.is_some_and(|info| info.handle == *uuid) {
            let destroyed = self.xen.destroy(domid);
            destroyed.map_err(ToolstackError::from)?;
        }
        Ok(mark.remove().map_err(ToolstackError::from)?)
    }
}

//! Guests that are made of a saved one, by `hatch restore` and `hatch clone`.

use std::fs::File;
use std::io::{BufReader, Read, Seek as _, StdinLock};

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::builder::{CreateAs, Network, Toolstack};
use mayfly_toolstack::config;
use mayfly_toolstack::lifecycle::{GuestDescription, SavedGuest};
use mayfly_toolstack::paths::uuid;
use mayfly_toolstack::watch::{Presence, presence};
use serde_json::json;

use super::back_ends::NetworkName;
use super::exit::Failure;
use mayfly_commands::Exit;

/// What the command line says of guests that are made of a saved one.
#[derive(Args, Debug)]
pub(crate) struct Copies {
    /// Leaves the guest paused.
    #[arg(short, long)]
    paused: bool,

    /// Overrides the name.
    #[arg(long)]
    name: Option<String>,

    /// Overrides the MAC address of the vif. A guest that runs learns its address when its network is connected anew.
    #[arg(long)]
    mac: Option<String>,

    /// Gives the guest these addresses in place of its own. May be given more than once. mayfly takes them; another
    /// guest has to read `vm-data/mayfly/addresses` in xenstore.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    ip: Vec<String>,

    /// Overrides the bridge of the vif.
    #[arg(long)]
    bridge: Option<String>,

    /// The back end of the network. By default that of the saved guest: the switch, if that was on the switch and one
    /// runs that serves the bridge; otherwise netback.
    #[arg(long, value_name = "WHO", value_enum)]
    network: Option<NetworkName>,

    /// Prints the time that each step took.
    #[arg(long)]
    timeline: bool,

    /// Prints JSON, one object a line for each guest, with its timeline.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where a saved guest is read from.
pub(super) trait Source: Read {
    /// Goes back to the beginning.
    fn again(&mut self) -> anyhow::Result<()>;
}

impl Source for File {
    fn again(&mut self) -> anyhow::Result<()> {
        let done = self.rewind();
        done.context("-n needs a file that can be read again")
    }
}

impl Source for StdinLock<'_> {
    fn again(&mut self) -> anyhow::Result<()> {
        anyhow::bail!("standard input can be read only once, and -n needs a file")
    }
}

impl Copies {
    /// Applies what the command line overrides.
    pub(super) fn overridden(&self, description: &mut GuestDescription) -> Result<(), Failure> {
        if !self.ip.is_empty() {
            let cmdline = &mut description.config.cmdline;
            *cmdline = config::with_addresses(cmdline, &self.ip);
            description.is_readdressed = true;
        }
        let config = &mut description.config;
        if let Some(name) = &self.name {
            config.name.clone_from(name);
        }
        if let Some(vif) = &mut config.vif {
            if let Some(mac) = &self.mac {
                let why = || format!("--mac {mac} is no MAC address of a device");
                vif.mac =
                    config::mac(mac).ok_or_else(|| Failure::new(Exit::NotUnderstood, why()))?;
            }
            if let Some(bridge) = &self.bridge {
                vif.bridge.clone_from(bridge);
            }
            if vif.ip.is_some() {
                eprintln!("hatch: the vif's ip is of no effect: hatch sets no filter by it");
            }
        }
        if presence() == Presence::Nobody {
            config.watched = None;
        }
        Ok(())
    }

    /// Restores a guest for each of these descriptions.
    pub(super) fn made(
        &self,
        builder: &mut Toolstack,
        source: &mut dyn Source,
        all: Vec<GuestDescription>,
    ) -> Result<(), Failure> {
        for (made, copy) in all.into_iter().enumerate() {
            let restored = source.again().map_err(Failure::from).and_then(|()| {
                let mut saved = SavedGuest::open(BufReader::new(&mut *source))?;
                saved.description = copy;
                self.restored(builder, saved)
            });
            restored.map_err(|failure| match made {
                0 => failure,
                _ => Failure::new(
                    failure.exit,
                    format!("{}; the {made} before it were made", failure.message),
                ),
            })?;
        }
        Ok(())
    }

    /// Restores a guest and prints what it is.
    pub(super) fn restored<R: Read>(
        &self,
        builder: &mut Toolstack,
        saved: SavedGuest<R>,
    ) -> Result<(), Failure> {
        let name = saved.description.config.name.clone();
        let then = if self.paused {
            CreateAs::Paused
        } else {
            CreateAs::Running
        };
        let mut saved = saved;
        let config = &mut saved.description.config;
        let bridge = config.vif.as_ref().map_or("", |vif| &vif.bridge);
        match self.network {
            Some(name) => config.network = name.into(),
            None if config.network == Network::Switch && !builder.has_switch_on(bridge) => {
                eprintln!("hatch: {name}: no switch serves its bridge; netback does");
                config.network = Network::Netback;
            }
            None => {}
        }
        let created = builder.restore_from(saved, then)?;
        if self.json {
            let line = json!({
                "domid": created.domid,
                "name": name,
                "uuid": uuid(&created.uuid),
                "paused": self.paused,
                "timeline": created.timeline,
            });
            println!("{line}");
        } else {
            println!("{name} is domain {}", created.domid);
            if self.timeline {
                println!("{}", created.timeline);
            }
        }
        Ok(())
    }
}

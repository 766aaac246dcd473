//! `hatch restore`.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::builder::{CreateAs, GuestConfig};
use mayfly_toolstack::config::{self, Overrides};
use mayfly_toolstack::lifecycle::{GuestDescription, SavedGuest};
use mayfly_toolstack::paths::uuid;
use mayfly_toolstack::privileges;
use mayfly_toolstack::watch::{Presence, presence};
use serde_json::json;

use super::exit::Failure;
use super::save::is_stream;
use super::{builder, guest};
use mayfly_commands::Exit;

/// Restores a guest from a file of `hatch save` or `xl save`. The guest goes on where it was, and its connections live.
///
/// If the guest is still there, as after `hatch save -c`, the restored one needs another name and another MAC address,
/// and gets another UUID.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The file; - is standard input. Before it, a configuration file may stand, which replaces the one in the file.
    #[arg(value_name = "[GUEST.cfg] FILE", num_args = 1..=2, required = true)]
    files: Vec<PathBuf>,

    /// Leaves the guest paused.
    #[arg(short, long)]
    paused: bool,

    /// Overrides the name.
    #[arg(long)]
    name: Option<String>,

    /// Overrides the MAC address of the vif. A guest that runs learns its address when its network is connected anew.
    #[arg(long)]
    mac: Option<String>,

    /// Overrides the bridge of the vif.
    #[arg(long)]
    bridge: Option<String>,

    /// Prints the time that each step took.
    #[arg(long)]
    timeline: bool,

    /// Prints JSON, one object with the timeline.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (configuration, path) = match arguments.files.as_slice() {
        [configuration, file] => (Some(configuration), file),
        [file] => (None, file),
        _ => return Err(Failure::new(Exit::NotUnderstood, "no file")),
    };
    let name = path.display().to_string();
    let source: Box<dyn Read> = match is_stream(path) {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(File::open(path).with_context(|| name.clone())?),
    };
    let named = |failure: Failure| {
        let message = format!("{name}: {}", failure.message);
        Failure::new(failure.exit, message)
    };
    let saved = SavedGuest::open(BufReader::new(source));
    let mut saved = saved.map_err(|error| named(error.into()))?;
    if let Some(configuration) = configuration {
        let uuid = saved.description.config.uuid;
        saved.description.config = replaced(configuration, uuid)?;
    }
    overridden(&mut saved.description, arguments)?;
    let config = saved.description.config.clone();
    if config.vif.as_ref().is_some_and(|vif| vif.ip.is_some()) {
        eprintln!("hatch: {name}: the vif's ip is of no effect: hatch sets no filter by it");
    }
    let then = if arguments.paused {
        CreateAs::Paused
    } else {
        CreateAs::Running
    };
    let mut builder = builder(privileges::PORTS)?;
    let created = builder.restore_from(saved, then);
    let created = created.map_err(|error| named(error.into()))?;
    if arguments.json {
        let line = json!({
            "domid": created.domid,
            "name": config.name,
            "uuid": uuid(&created.uuid),
            "paused": arguments.paused,
            "timeline": created.timeline,
        });
        println!("{line}");
    } else {
        println!("{} is domain {}", config.name, created.domid);
        if arguments.timeline {
            println!("{}", created.timeline);
        }
    }
    Ok(())
}

/// The configuration of a file, in place of the saved one.
fn replaced(file: &Path, uuid: [u8; 16]) -> Result<GuestConfig, Failure> {
    let guest = guest(file, &Overrides::default(), presence() == Presence::Here)?;
    let mut config = guest.config(uuid);
    config.watched = Some(guest.watched());
    Ok(config)
}

/// Applies what the command line overrides.
fn overridden(description: &mut GuestDescription, arguments: &Arguments) -> Result<(), Failure> {
    let config = &mut description.config;
    if let Some(name) = &arguments.name {
        config.name.clone_from(name);
    }
    if let Some(vif) = &mut config.vif {
        if let Some(mac) = &arguments.mac {
            let why = || format!("--mac {mac} is no MAC address of a device");
            vif.mac = config::mac(mac).ok_or_else(|| Failure::new(Exit::NotUnderstood, why()))?;
        }
        if let Some(bridge) = &arguments.bridge {
            vif.bridge.clone_from(bridge);
        }
    }
    if presence() == Presence::Nobody {
        config.watched = None;
    }
    Ok(())
}

//! `hatch create`.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::builder::{Config, Image, Ramdisk, Then, Toolstack, mac_text, random_uuid};
use mayfly_toolstack::config::{self, Guest, Overrides};
use mayfly_toolstack::pool::{self, Made, Order, Reply, Wanted};
use mayfly_toolstack::privileges;
use mayfly_toolstack::watch::{Presence, presence};
use serde_json::json;

use super::exit::Failure;
use super::{BOUND, builder, guest};
use mayfly_commands::Exit;

/// Makes a guest from a configuration file as `xl create` takes it, on the network before its first instruction.
///
/// What the file has and hatch does not support is named, and nothing is made. With `-n` the file is a template: the
/// guests are called NAME-1, NAME-2, ... (or as {n} in the name says); each address in the `ip=` words of the command line
/// is counted up within its network, and so is a MAC address.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The configuration.
    #[arg(value_name = "GUEST.cfg", required = !cfg!(feature = "faults"))]
    file: Option<PathBuf>,

    /// Leaves the guest paused.
    #[arg(short, long)]
    paused: bool,

    /// How many guests to make of the file.
    #[arg(short = 'n', long, value_name = "N", requires = "template", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,

    /// Takes the file as a template for many guests.
    #[arg(long)]
    template: bool,

    /// The number of the template's first guest.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "template", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    first: u32,

    /// Gives it a console that `xl console` can attach to.
    #[arg(long)]
    console: bool,

    /// Takes it out of the pool, and fails where there is none (`hatch pool`).
    #[arg(long, conflicts_with = "no_pool")]
    pool: bool,

    /// Makes it from nothing even if there is a pool.
    #[arg(long)]
    no_pool: bool,

    /// Where the pool listens.
    #[arg(long, value_name = "PATH", default_value = pool::SOCKET)]
    socket: PathBuf,

    /// In place of `name`.
    #[arg(long)]
    name: Option<String>,

    /// MiB, in place of `memory`.
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,

    /// The image, in place of `kernel`.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// The pack, in place of `ramdisk`.
    #[arg(long, value_name = "FILE")]
    ramdisk: Option<PathBuf>,

    /// The command line, in place of `cmdline`, `root` and `extra`.
    #[arg(long, value_name = "WORDS")]
    extra: Option<String>,

    /// The vif's MAC address.
    #[arg(long)]
    mac: Option<String>,

    /// The vif's bridge.
    #[arg(long)]
    bridge: Option<String>,

    /// An address, in place of all `ip=` words of the command line, or of {ip} in it; more than once for several.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    ip: Vec<String>,

    /// Tells what each step took.
    #[arg(long)]
    timeline: bool,

    /// Prints JSON: one object a line for each guest, with the timeline.
    #[arg(long)]
    pub(crate) json: bool,

    /// Lists the steps, at whose ends HATCH_FAIL_AT and HATCH_KILL_AT can put a failure.
    #[cfg(feature = "faults")]
    #[arg(long)]
    list_steps: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    #[cfg(feature = "faults")]
    if arguments.list_steps {
        for step in mayfly_toolstack::builder::Step::ALL {
            println!("{step}");
        }
        return Ok(());
    }
    let overrides = Overrides {
        name: arguments.name.clone(),
        memory: arguments.memory,
        kernel: arguments.kernel.clone(),
        ramdisk: arguments.ramdisk.clone(),
        extra: arguments.extra.clone(),
        mac: arguments.mac.clone(),
        bridge: arguments.bridge.clone(),
        ip: arguments.ip.clone(),
    };
    let Some(file) = &arguments.file else {
        return Err(Failure::new(Exit::NotUnderstood, "no configuration file"));
    };
    let guest = guest(file, &overrides, presence() == Presence::Here)?;
    // All of them before the first is made.
    let guests = if arguments.template {
        let last = arguments.first + arguments.count.unwrap_or(1);
        (arguments.first..last)
            .map(|number| config::derived(&guest, number))
            .collect::<Result<_, _>>()?
    } else {
        vec![guest]
    };
    make(arguments, &guests)
}

fn make(arguments: &Arguments, guests: &[Guest]) -> Result<(), Failure> {
    let Some(first) = guests.first() else {
        return Ok(());
    };
    let mut workshop = None;
    for (made, guest) in guests.iter().enumerate() {
        one(arguments, &mut workshop, first, guest).map_err(|failure| match made {
            0 => failure,
            _ => Failure::new(
                failure.exit,
                format!("{}; the {made} before it are made", failure.message),
            ),
        })?;
    }
    Ok(())
}

/// What guests are made with. Files are read once, for all of them.
struct Workshop {
    builder: Toolstack,
    image: Image,
    ramdisk: Option<Ramdisk>,
}

impl Workshop {
    fn open(guest: &Guest) -> Result<Self, Failure> {
        let image =
            Image::open(&guest.kernel).with_context(|| guest.kernel.display().to_string())?;
        let open = |file: &PathBuf| Ramdisk::open(file).with_context(|| file.display().to_string());
        let ramdisk = guest.ramdisk.as_ref().map(open).transpose()?;
        Ok(Self {
            // The files are open.
            builder: builder(privileges::PORTS)?,
            image,
            ramdisk,
        })
    }
}

fn one(
    arguments: &Arguments,
    workshop: &mut Option<Workshop>,
    first: &Guest,
    guest: &Guest,
) -> Result<(), Failure> {
    let mut config = guest.config(random_uuid().context("a UUID")?);
    config.console = arguments.console;
    config.watched = (presence() != Presence::Nobody).then(|| guest.watched());
    if !arguments.no_pool
        && let Some(made) = from_pool(arguments, guest, &config)?
    {
        tell(arguments, &config, made.domid, true, &made.timeline);
        if arguments.timeline && !arguments.json {
            println!("taken out of the pool in {} us", made.total_ns / 1000);
        }
        return Ok(());
    }
    let Workshop {
        builder,
        image,
        ramdisk,
    } = match workshop {
        Some(workshop) => workshop,
        None => workshop.insert(Workshop::open(first)?),
    };
    let (image, ramdisk) = (&*image, ramdisk.as_ref());
    let then = if arguments.paused {
        Then::Paused
    } else {
        Then::Running
    };
    let created = builder.create(&config, image, ramdisk, then);
    let created = created.map_err(|error| {
        let failure = Failure::from(error);
        Failure::new(failure.exit, format!("{}: {}", guest.name, failure.message))
    })?;
    tell(
        arguments,
        &config,
        created.domid,
        created.preconnected,
        &json!(created.timeline),
    );
    if arguments.timeline && !arguments.json {
        println!("{}", created.timeline);
    }
    Ok(())
}

/// A guest of the pool's; none where there is no pool, or none that has one, unless it has to be out of a pool.
fn from_pool(
    arguments: &Arguments,
    guest: &Guest,
    config: &Config,
) -> Result<Option<Made>, Failure> {
    let wanted = Wanted {
        config: config.clone(),
        kernel: guest.kernel.clone(),
        ramdisk: guest.ramdisk.clone(),
        has_uuid: guest.uuid.is_some(),
        unpause: !arguments.paused,
    };
    let reply = pool::order(&arguments.socket, &Order::Create(Box::new(wanted)), BOUND)
        .with_context(|| arguments.socket.display().to_string())?;
    let why_not = match reply {
        Some(Reply::Made(made)) => return Ok(Some(made)),
        Some(Reply::Failed { taken, message }) => {
            let exit = if taken { Exit::Taken } else { Exit::Failed };
            return Err(Failure::new(exit, format!("{}: {message}", guest.name)));
        }
        None => "there is none".to_owned(),
        Some(Reply::Empty) => "it is empty at this moment".to_owned(),
        Some(Reply::Other(why)) => why,
        Some(Reply::Status(_)) => "it does not answer what it was asked".to_owned(),
    };
    if arguments.pool {
        let socket = arguments.socket.display();
        return Err(Failure::new(
            Exit::Failed,
            format!("the pool at {socket}: {why_not}"),
        ));
    }
    Ok(None)
}

fn tell(
    arguments: &Arguments,
    config: &Config,
    domid: u16,
    preconnected: bool,
    timeline: &serde_json::Value,
) {
    if !arguments.json {
        println!("{} is domain {domid}", config.name);
        return;
    }
    let mac = config.vif.as_ref().map(|vif| mac_text(&vif.mac));
    let line = json!({
        "name": config.name,
        "domid": domid,
        "uuid": mayfly_toolstack::builder::uuid(&config.uuid),
        "mac": mac,
        "paused": arguments.paused,
        "preconnected": preconnected,
        "timeline": timeline,
    });
    println!("{line}");
}

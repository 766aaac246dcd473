//! `hatch create`.

use std::mem::ManuallyDrop;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::builder::{
    CreateAs, GuestConfig, Image, Network, Ramdisk, Toolstack, ToolstackError, Watched,
    random_uuid, reason,
};
use mayfly_toolstack::config::{self, GuestFile, Overrides};
use mayfly_toolstack::host::Xen;
use mayfly_toolstack::paths::{self, mac_text, uuid};
use mayfly_toolstack::pool::{self, GivenGuest, PoolOrder, PoolReply, WantedGuest};
use mayfly_toolstack::privileges;
use mayfly_toolstack::watch::{Presence, presence};
use mayfly_toolstack::words;
use mayfly_xen::DomainInfo;
use mayfly_xenstore::Store;
use serde::Serialize;
use serde_json::json;

use super::back_ends::{NetworkName, ThreadsName};
use super::domains::Ways;
use super::exit::Failure;
use super::{BOUND, builder, guest};
use mayfly_commands::Exit;

/// Creates a guest from an xl configuration file. The guest is on the network before its first instruction.
///
/// `create` lists unsupported settings and creates nothing if there is one. With `--template` the file is a template for
/// `-n` guests, named NAME-1, NAME-2, ...; an n in braces in the name marks where the number goes. Each guest gets
/// the next MAC address, and the next address of each `ip=` word within its network.
#[derive(Args, Debug, Default)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(value_name = "GUEST.cfg", required = !cfg!(feature = "faults"))]
    file: Option<PathBuf>,

    /// Leaves the guest paused.
    #[arg(short, long)]
    pub(super) paused: bool,

    /// Waits until the guest serves, for at most this many seconds. If the guest ends instead, prints its last words and fails.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, require_equals = true, default_missing_value = "60", conflicts_with_all = ["paused", "dry_run"], value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,

    /// The number of guests to create.
    #[arg(short = 'n', long, value_name = "N", requires = "template", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,

    /// Uses the file as a template for several guests.
    #[arg(long)]
    template: bool,

    /// The number of the first guest.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "template", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    first: u32,

    /// Gives the guest a console for `xl console`.
    #[arg(long)]
    pub(super) console: bool,

    /// Takes the guest from the pool of `hatch pool`; fails if no pool runs.
    #[arg(long, conflicts_with = "no_pool")]
    pub(super) pool: bool,

    /// Does not use the pool, even if one runs.
    #[arg(long)]
    pub(super) no_pool: bool,

    /// The socket of the pool.
    #[arg(long, value_name = "PATH", default_value = pool::SOCKET)]
    socket: PathBuf,

    /// The guest's network back end. By default the pool's; otherwise the switch, if one runs that serves the bridge, for
    /// an image that takes a connected network; otherwise netback.
    #[arg(long, value_name = "WHO", value_enum)]
    network: Option<NetworkName>,

    /// The scheduling of netback's threads of the guest: `batch` gives more answers under load.
    #[arg(long, value_name = "HOW", value_enum, default_value_t)]
    netback_threads: ThreadsName,

    /// Overrides `name`.
    #[arg(long)]
    name: Option<String>,

    /// Overrides `memory`, in MiB.
    #[arg(long, value_name = "MIB")]
    memory: Option<u64>,

    /// Overrides `kernel`, the image.
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,

    /// Overrides `ramdisk`, the pack.
    #[arg(long, value_name = "FILE")]
    ramdisk: Option<PathBuf>,

    /// Overrides `cmdline`, `root` and `extra`, the command line.
    #[arg(long, value_name = "WORDS")]
    extra: Option<String>,

    /// Overrides the MAC address of the vif.
    #[arg(long)]
    mac: Option<String>,

    /// Overrides the bridge of the vif.
    #[arg(long)]
    bridge: Option<String>,

    /// Replaces all `ip=` words of the command line, or {ip} in it. May be given more than once.
    #[arg(long, value_name = "ADDRESS/PREFIX")]
    ip: Vec<String>,

    /// Creates nothing; prints what would be created as JSON, one object a line.
    #[arg(short = 'N', long)]
    dry_run: bool,

    /// Prints the time that each step took.
    #[arg(long)]
    pub(super) timeline: bool,

    /// Prints JSON, one object a line for each guest, with its timeline.
    #[arg(long)]
    pub(crate) json: bool,

    /// Lists the steps. HATCH_FAIL_AT makes the named one fail at its end; HATCH_KILL_AT kills hatch there.
    #[cfg(feature = "faults")]
    #[arg(long)]
    list_steps: bool,
}

impl Arguments {
    /// The arguments of a command line with the file alone.
    pub(super) fn of(file: &str) -> Self {
        Self {
            file: Some(PathBuf::from(file)),
            first: 1,
            socket: PathBuf::from(pool::SOCKET),
            ..Self::default()
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    #[cfg(feature = "faults")]
    if arguments.list_steps {
        for step in mayfly_toolstack::builder::CreateStep::ALL {
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
    // All are derived before the first is created, so that an error creates nothing.
    let guests = if arguments.template {
        let last = arguments.first + arguments.count.unwrap_or(1);
        (arguments.first..last)
            .map(|number| config::derived(&guest, number))
            .collect::<Result<_, _>>()?
    } else {
        vec![guest]
    };
    if arguments.dry_run {
        return plans(&guests);
    }
    make(arguments, &guests)
}

/// Prints what would be created. It has a UUID only if the configuration has one.
fn plans(guests: &[GuestFile]) -> Result<(), Failure> {
    for guest in guests {
        let config = guest.config([0; 16]);
        config.check().map_err(ToolstackError::from)?;
        let vif = config.vif.as_ref().map(|vif| {
            json!({
                "mac": mac_text(&vif.mac),
                "bridge": vif.bridge,
                "rate": vif.rate,
                "mtu": vif.mtu,
            })
        });
        let line = json!({
            "name": config.name,
            "uuid": guest.uuid.as_ref().map(uuid),
            "memory": config.memory,
            "kernel": guest.kernel,
            "ramdisk": guest.ramdisk,
            "cmdline": config.cmdline,
            "vif": vif,
            "tsc_mode": config.tsc,
            "actions": guest.actions,
        });
        println!("{line}");
    }
    Ok(())
}

fn make(arguments: &Arguments, guests: &[GuestFile]) -> Result<(), Failure> {
    let Some(first) = guests.first() else {
        return Ok(());
    };
    let mut workshop = None;
    let mut all = Vec::new();
    for (made, guest) in guests.iter().enumerate() {
        let domid = one(arguments, &mut workshop, first, guest).map_err(|failure| match made {
            0 => failure,
            _ => Failure::new(
                failure.exit,
                format!("{}; the {made} before it were created", failure.message),
            ),
        })?;
        all.push((domid, guest.name.as_str()));
    }
    // Never dropped: when the program ends, the kernel closes and unmaps all of it at once.
    let mut workshop = ManuallyDrop::new(workshop);
    let Some(seconds) = arguments.wait else {
        return Ok(());
    };
    let bound = Duration::from_secs(seconds);
    match &mut *workshop {
        Some(Workshop { builder, .. }) => {
            let (store, xen) = builder.ways();
            until_they_serve(store, xen, &all, bound)
        }
        None => {
            let Ways { store, xen } = &mut Ways::open()?;
            until_they_serve(store, xen, &all, bound)
        }
    }
}

/// Waits until all guests serve, or one has ended.
fn until_they_serve(
    store: &mut dyn Store,
    xen: &mut dyn Xen,
    guests: &[(u16, &str)],
    bound: Duration,
) -> Result<(), Failure> {
    let end = Instant::now() + bound;
    // Set before the guests are looked at, so that nothing is missed.
    store.watch("@releaseDomain", "wait")?;
    for (domid, _) in guests {
        store.watch(&paths::ready(*domid), "wait")?;
        store.watch(&paths::error(*domid), "wait")?;
    }
    let mut waiting = guests.to_vec();
    loop {
        let mut still = Vec::new();
        for (domid, name) in waiting {
            if store.find(&paths::ready(domid))?.as_deref() == Some("1") {
                continue;
            }
            let words = words::last(store, domid)?;
            let info = xen.info(domid)?;
            let has_ended = |info: &DomainInfo| info.is_dying() || info.shutdown().is_some();
            if info.as_ref().is_none_or(has_ended) {
                let reason = info.and_then(|info| info.shutdown()).map_or("gone", reason);
                let words = words.map_or_else(String::new, |words| format!(": {words}"));
                let message = format!("{name} (domain {domid}) has ended ({reason}){words}");
                return Err(Failure::new(Exit::Failed, message));
            }
            still.push((domid, name));
        }
        waiting = still;
        let left = end.saturating_duration_since(Instant::now());
        let Some((domid, name)) = waiting.first() else {
            return Ok(());
        };
        if store.event(left)?.is_none() {
            let message = format!(
                "{name} (domain {domid}) does not serve after {} s",
                bound.as_secs()
            );
            return Err(Failure::new(Exit::Failed, message));
        }
        while store.take_event().is_some() {}
    }
}

/// The toolstack and the files that guests are made with. Files are read once, for all of them.
struct Workshop {
    builder: Toolstack,
    image: Image,
    ramdisk: Option<Ramdisk>,
}

impl Workshop {
    fn open(guest: &GuestFile, arguments: &Arguments) -> Result<Self, Failure> {
        let image =
            Image::open(&guest.kernel).with_context(|| guest.kernel.display().to_string())?;
        let open = |file: &PathBuf| Ramdisk::open(file).with_context(|| file.display().to_string());
        let ramdisk = guest.ramdisk.as_ref().map(open).transpose()?;
        Ok(Self {
            // The files are open by now, so the process gives up its right to open any.
            builder: builder(privileges::PORTS)?.with_netback(arguments.netback_threads.into()),
            image,
            ramdisk,
        })
    }
}

fn one(
    arguments: &Arguments,
    workshop: &mut Option<Workshop>,
    first: &GuestFile,
    guest: &GuestFile,
) -> Result<u16, Failure> {
    let mut config = guest.config(random_uuid().context("a UUID")?);
    config.console = arguments.console;
    config.watched = (presence() != Presence::Nobody).then(|| guest.watched());
    if !arguments.no_pool
        && arguments.network != Some(NetworkName::Switch)
        && let Some(made) = from_pool(arguments, guest, &config)?
    {
        config.uuid = made.uuid;
        tell(arguments, &config, made.domid, true, &made.timeline)?;
        if arguments.timeline && !arguments.json {
            println!("taken out of the pool in {} us", made.total_ns / 1000);
        }
        return Ok(made.domid);
    }
    let Workshop {
        builder,
        image,
        ramdisk,
    } = match workshop {
        Some(workshop) => workshop,
        None => workshop.insert(Workshop::open(first, arguments)?),
    };
    let (image, ramdisk) = (&*image, ramdisk.as_ref());
    let then = if arguments.paused {
        CreateAs::Paused
    } else {
        CreateAs::Running
    };
    config.network = match arguments.network {
        Some(name) => name.into(),
        None if image.takes_preconnected() && config.vif.is_some() && builder.has_switch() => {
            Network::Switch
        }
        None => Network::Netback,
    };
    let mut created = builder.create(&config, image, ramdisk, then);
    if let Err(error) = &created
        && let ToolstackError::Switch(why) = &error.failure.cause
        && arguments.network.is_none()
        && error.left.is_empty()
    {
        eprintln!(
            "hatch: {}: the switch: {why}; netback serves it",
            guest.name
        );
        config.network = Network::Netback;
        created = builder.create(&config, image, ramdisk, then);
    }
    let created = created.map_err(|error| {
        let failure = Failure::from(error);
        Failure::new(failure.exit, format!("{}: {}", guest.name, failure.message))
    })?;
    tell(
        arguments,
        &config,
        created.domid,
        created.preconnected,
        &created.timeline,
    )?;
    if arguments.timeline && !arguments.json {
        println!("{}", created.timeline);
    }
    Ok(created.domid)
}

/// Takes a guest from the pool. Returns `None` if there is no pool or it has no guest to give, unless `--pool` makes
/// that an error.
fn from_pool(
    arguments: &Arguments,
    guest: &GuestFile,
    config: &GuestConfig,
) -> Result<Option<GivenGuest>, Failure> {
    let Watched {
        kernel, ramdisk, ..
    } = guest.watched();
    let wanted = WantedGuest {
        config: config.clone(),
        kernel,
        ramdisk,
        has_uuid: guest.uuid.is_some(),
        unpause: !arguments.paused,
    };
    let reply = pool::order(
        &arguments.socket,
        &PoolOrder::Create(Box::new(wanted)),
        BOUND,
    )
    .map_err(|error| {
        let exit = match error.kind() {
            std::io::ErrorKind::PermissionDenied => Exit::Permission,
            _ => Exit::Failed,
        };
        Failure::new(exit, format!("{}: {error}", arguments.socket.display()))
    })?;
    let why_not = match reply {
        Some(PoolReply::Made(made)) => return Ok(Some(made)),
        Some(PoolReply::Failed { taken, message }) => {
            let exit = if taken { Exit::Taken } else { Exit::Failed };
            return Err(Failure::new(exit, format!("{}: {message}", guest.name)));
        }
        None => "there is none".to_owned(),
        Some(PoolReply::Empty) => "it is empty at this moment".to_owned(),
        Some(PoolReply::Other(why)) => why,
        Some(PoolReply::Status(_)) => "its answer is to another question".to_owned(),
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

/// The line of JSON about a guest. It is serialised directly: a tree of values in between would take a tenth of the program's start and end.
#[derive(Serialize)]
struct MadeLine<'a, T> {
    domid: u16,
    mac: Option<String>,
    name: &'a str,
    network: Network,
    paused: bool,
    preconnected: bool,
    timeline: &'a T,
    uuid: String,
}

fn tell<T: Serialize>(
    arguments: &Arguments,
    config: &GuestConfig,
    domid: u16,
    preconnected: bool,
    timeline: &T,
) -> Result<(), Failure> {
    if !arguments.json {
        println!("{} is domain {domid}", config.name);
        return Ok(());
    }
    let line = MadeLine {
        domid,
        mac: config.vif.as_ref().map(|vif| mac_text(&vif.mac)),
        name: &config.name,
        network: config.network,
        paused: arguments.paused,
        preconnected,
        timeline,
        uuid: uuid(&config.uuid),
    };
    let mut line = serde_json::to_string(&line).context("JSON")?;
    // With its line feed, so that it is written at once.
    line.push('\n');
    print!("{line}");
    Ok(())
}

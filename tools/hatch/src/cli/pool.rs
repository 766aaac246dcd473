//! `hatch pool`.

use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::builder::{Image, random_uuid};
use mayfly_toolstack::config::Overrides;
use mayfly_toolstack::pool::{self, PoolOrder, PoolReply, PoolServer, ShellLimits};
use mayfly_toolstack::privileges;
use serde_json::json;

use super::exit::Failure;
use super::{BOUND, builder, guest, stop};
use mayfly_commands::Exit;

/// Keeps a pool of guests that are created ahead of time, for `hatch create` to take.
///
/// The guests are as the configuration says. `hatch create` gives each its name, MAC address, bridge, command line and
/// site. The pool runs until SIGTERM or SIGINT and then removes the guests that nobody took.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The configuration file.
    #[arg(value_name = "GUEST.cfg", required_unless_present = "status")]
    file: Option<PathBuf>,

    /// The number of guests to keep ready.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    size: u16,

    /// Leaves this much memory of the host free, in MiB.
    #[arg(long, value_name = "MIB", default_value_t = 64)]
    spare: u64,

    /// Gives the guests a console for `xl console`.
    #[arg(long)]
    console: bool,

    /// Shows the state of a running pool.
    #[arg(long, conflicts_with = "file")]
    status: bool,

    /// The socket of the pool.
    #[arg(long, value_name = "PATH", default_value = pool::SOCKET)]
    socket: PathBuf,

    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Some(file) = &arguments.file else {
        return status(arguments);
    };
    // Actions at a guest's end are for `hatch create` to warn about, so they count as watched here.
    let guest = guest(file, &Overrides::default(), true)?;
    let image =
        Image::open_and_keep(&guest.kernel).with_context(|| guest.kernel.display().to_string())?;
    let mut template = guest.config(random_uuid().context("a UUID")?);
    template.console = arguments.console;
    let limits = ShellLimits {
        size: arguments.size.into(),
        memory: u64::MAX,
        spare: Some(arguments.spare),
    };
    // An absolute path: the pool opens it again later, and compares it with the paths in others' requests.
    let kernel = guest.watched().kernel;
    let pool = PoolServer::new(
        builder(privileges::PORTS | privileges::FILES)?,
        template,
        &kernel,
        image,
        limits,
    );
    let mut pool = pool.map_err(|error| Failure::new(Exit::NotUnderstood, error.to_string()))?;
    let stop = stop()?;
    eprintln!(
        "hatch: a pool of {} at {}",
        arguments.size,
        arguments.socket.display()
    );
    let mut report = |text: &str| eprintln!("hatch: {text}");
    pool.serve(&arguments.socket, stop.as_fd(), &mut report)
        .map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

fn status(arguments: &Arguments) -> Result<(), Failure> {
    let reply = pool::order(&arguments.socket, &PoolOrder::Status, BOUND)
        .with_context(|| arguments.socket.display().to_string())?;
    let Some(PoolReply::Status(status)) = reply else {
        let message = format!("{}: there is no pool", arguments.socket.display());
        return Err(Failure::new(Exit::Failed, message));
    };
    if arguments.json {
        println!("{}", json!(status));
    } else {
        println!(
            "{} of {} wait, {} were taken",
            status.ready, status.size, status.taken
        );
        if let Some(trouble) = status.trouble {
            println!("it cannot be filled: {trouble}");
        }
    }
    Ok(())
}

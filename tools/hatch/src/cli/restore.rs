//! `hatch restore`.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::config::Overrides;
use mayfly_toolstack::lifecycle::{GuestDescription, SavedGuest};
use mayfly_toolstack::privileges;
use mayfly_toolstack::watch::{Presence, presence};

use super::copies::{Copies, Source};
use super::exit::Failure;
use super::save::is_stream;
use super::{builder, guest};
use mayfly_commands::Exit;

/// Restores a guest from a file of `hatch save` or `xl save`. The guest goes on where it was, and its connections live.
///
/// If the guest is still there, as after `hatch save -c`, the restored one needs another name, another MAC address and,
/// unless it uses DHCP, another IP address; it gets another UUID.
///
/// With `-n`, several guests are restored from the file, named NAME-1, NAME-2, ...; an n in braces in the name marks
/// where the number goes. Each gets the next MAC address, and the next address of each `ip=` word of its command line
/// within the network.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The file; - is standard input. Before it, a configuration file may stand, which replaces the one in the file.
    #[arg(value_name = "[GUEST.cfg] FILE", num_args = 1..=2, required = true)]
    files: Vec<PathBuf>,

    /// The number of guests to restore.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: Option<u32>,

    /// The number of the first guest.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "count", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    first: u32,

    #[command(flatten)]
    pub(crate) copies: Copies,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (configuration, path) = match arguments.files.as_slice() {
        [configuration, file] => (Some(configuration), file),
        [file] => (None, file),
        _ => return Err(Failure::new(Exit::NotUnderstood, "no file")),
    };
    let name = path.display().to_string();
    let mut source: Box<dyn Source> = match is_stream(path) {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(File::open(path).with_context(|| name.clone())?),
    };
    let named = |failure: Failure| {
        let message = format!("{name}: {}", failure.message);
        Failure::new(failure.exit, message)
    };
    let saved = SavedGuest::open(BufReader::new(&mut source));
    let mut saved = saved.map_err(|error| named(error.into()))?;
    if let Some(configuration) = configuration {
        replaced(configuration, &mut saved.description)?;
    }
    let copies = &arguments.copies;
    copies.overridden(&mut saved.description)?;
    let Some(count) = arguments.count else {
        let mut builder = builder(privileges::PORTS)?;
        return copies.restored(&mut builder, saved).map_err(named);
    };
    // All are derived before the first is restored, so that an error restores nothing.
    let description = saved.description;
    let numbers = arguments.first..arguments.first + count;
    let all = numbers
        .map(|number| description.copy(number, number))
        .collect::<Result<Vec<_>, _>>()?;
    copies
        .made(&mut builder(privileges::PORTS)?, &mut *source, all)
        .map_err(named)
}

/// Reads a configuration file in place of the saved configuration.
fn replaced(file: &Path, description: &mut GuestDescription) -> Result<(), Failure> {
    let guest = guest(file, &Overrides::default(), presence() == Presence::Here)?;
    description.config = guest.config(description.config.uuid);
    description.config.watched = Some(guest.watched());
    description.is_readdressed = true;
    Ok(())
}

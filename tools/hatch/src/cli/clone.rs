//! `hatch clone`.

use std::fs::File;

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::lifecycle::{AfterSave, SaveTarget, SavedGuest};
use mayfly_toolstack::privileges;
use rustix::fs::{MemfdFlags, memfd_create};

use super::copies::{Copies, Source as _};
use super::exit::Failure;
use super::{builder, domains};

/// Makes copies of a running guest, which goes on.
///
/// The copies are named NAME-1, NAME-2, ...; an n in braces in `--name` marks where the number goes. Copy N has MAC and IP
/// addresses that are N higher than the guest's. It goes on where the guest was, without the guest's connections and with
/// secrets of its own.
///
/// The guest suspends itself for that, so it has to support it (mayfly and Linux do). Its memory is kept until all copies
/// are made.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The name or the number of the guest.
    #[arg(value_name = "DOMAIN")]
    domain: String,

    /// The number of copies.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    count: u32,

    /// The number of the first copy.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    first: u32,

    /// Also copies a guest that another toolstack created.
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    pub(crate) copies: Copies,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let memory = memfd_create("saved", MemfdFlags::CLOEXEC).context("memory for the guest")?;
    let mut memory = File::from(memory);
    let target = SaveTarget::stream(memory.try_clone().context("memory for the guest")?);
    let mut builder = builder(privileges::PORTS)?;
    let (store, xen) = builder.ways();
    let domid = domains::found(store, xen, &arguments.domain, arguments.force)?;
    let saved = builder.save(domid, target, AfterSave::Runs);
    saved.map_err(|error| {
        let failure = Failure::from(error);
        let message = format!("{}: {}", arguments.domain, failure.message);
        Failure::new(failure.exit, message)
    })?;
    memory.again()?;
    let mut description = SavedGuest::open(&mut memory)?.description;
    arguments.copies.overridden(&mut description)?;
    let numbers = arguments.first..arguments.first + arguments.count;
    let all = numbers
        .map(|number| description.copy(number, number + 1))
        .collect::<Result<Vec<_>, _>>()?;
    arguments.copies.made(&mut builder, &mut memory, all)
}

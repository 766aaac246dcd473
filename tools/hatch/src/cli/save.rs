//! `hatch save`.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use mayfly_toolstack::lifecycle::{AfterSave, SaveTarget};
use rustix::thread::CapabilitySet;
use serde_json::json;

use super::builder;
use super::domains;
use super::exit::Failure;

/// Saves a guest to a file and removes it. `hatch restore` and `xl restore` make it again from the file.
///
/// The guest suspends itself, so it has to support that (mayfly and Linux do). If anything fails, the guest goes on
/// where it was and there is no file. The file has all of the guest's memory, its secrets included; only its owner can
/// read it.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The name or the number of the guest.
    #[arg(value_name = "DOMAIN")]
    domain: String,

    /// The file; - is standard output. A pipe is written to as it is.
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Lets the guest go on afterwards.
    #[arg(short = 'c', long = "continue", conflicts_with = "paused")]
    goes_on: bool,

    /// Leaves the guest paused afterwards.
    #[arg(short, long)]
    paused: bool,

    /// Also saves a guest that another toolstack created.
    #[arg(long)]
    force: bool,

    /// Prints the time that each step took.
    #[arg(long)]
    timeline: bool,

    /// Prints JSON, one object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Whether this path stands for a standard stream.
pub(super) fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let path = &arguments.file;
    let target = match is_stream(path) {
        true => {
            let stream = std::io::stdout().as_fd().try_clone_to_owned();
            SaveTarget::stream(File::from(stream.context("standard output")?))
        }
        false => SaveTarget::create(path).with_context(|| path.display().to_string())?,
    };
    // The file gets its name at the end, wherever it is.
    let mut builder = builder(CapabilitySet::DAC_OVERRIDE)?;
    let (store, xen) = builder.ways();
    let domid = domains::found(store, xen, &arguments.domain, arguments.force)?;
    let after = match (arguments.goes_on, arguments.paused) {
        (true, _) => AfterSave::Runs,
        (_, true) => AfterSave::Paused,
        _ => AfterSave::Removed,
    };
    let saved = builder.save(domid, target, after).map_err(|error| {
        let failure = Failure::from(error);
        let message = format!("{}: {}", arguments.domain, failure.message);
        Failure::new(failure.exit, message)
    })?;
    // The kernel unmaps all of it at once when the program ends.
    let saved = ManuallyDrop::new(saved);
    let timeline = &saved.timeline;
    if is_stream(path) {
        return Ok(());
    }
    if arguments.json {
        let line = json!({
            "domain": arguments.domain,
            "domid": domid,
            "file": path.display().to_string(),
            "timeline": timeline,
        });
        println!("{line}");
    } else if arguments.timeline {
        println!("{timeline}");
    }
    Ok(())
}

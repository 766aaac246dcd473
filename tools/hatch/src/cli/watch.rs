//! `hatch watch`.

use std::os::fd::AsFd as _;

use clap::Args;
use mayfly_toolstack::privileges;
use mayfly_toolstack::watch::{Error, Watch};
use serde_json::json;

use super::exit::Failure;
use super::{builder, stop};
use mayfly_commands::Exit;

/// Stays, and does at a guest's end what its configuration says: on_poweroff, on_reboot, on_crash, on_watchdog.
///
/// Guests that are made while it runs, or is expected back after it was killed, are noted down for it; those from before are
/// left alone. A guest is made again at once, and then no sooner than 5 seconds after it was made last, and ever later if
/// it ends again and again. `hatch destroy` ends that as well. The watch runs until it gets SIGTERM or SIGINT.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Prints JSON: one object a line for each thing that happens.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let builder = builder(privileges::PORTS | privileges::FILES)?;
    let watch = Watch::new(builder)?;
    let stop = stop()?;
    eprintln!("hatch: process {} watches", std::process::id());
    watch.run(stop.as_fd(), &mut |event| match arguments.json {
        true => println!("{}", json!(event)),
        false => println!("{event}"),
    })?;
    Ok(())
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Cause(cause) => cause.into(),
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

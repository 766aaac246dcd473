//! `hatch watch`.

use std::os::fd::AsFd as _;

use clap::Args;
use mayfly_toolstack::privileges;
use mayfly_toolstack::watch::{Watch, WatchError};
use serde_json::json;

use super::exit::Failure;
use super::{builder, stop};
use mayfly_commands::Exit;

/// Watches guests and acts when one ends, as its configuration says: on_poweroff, on_reboot, on_crash, on_watchdog.
///
/// It watches the guests that were created while it ran, or between a kill of the watch and its next start. Older guests
/// are left alone. The first restart of a guest is immediate. Later ones wait at least 5 seconds, and longer if the guest
/// ends again and again. `hatch destroy` stops the restarts. The watch runs until SIGTERM or SIGINT.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Prints JSON, one object a line for each event.
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

impl From<WatchError> for Failure {
    fn from(error: WatchError) -> Self {
        match error {
            WatchError::Cause(cause) => cause.into(),
            error => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

//! `hatch gc`.

use clap::Args;
use mayfly_toolstack::gc::{self, GcAction, Snapshot, SnapshotError};
use rustix::thread::CapabilitySet;
use serde_json::json;

use super::builder;
use super::exit::Failure;
use mayfly_commands::Exit;

/// Finds and removes what a killed hatch has left behind. Removes nothing else.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Removes nothing; prints what would be removed.
    #[arg(long)]
    dry_run: bool,

    /// Prints JSON, one object.
    #[arg(long)]
    pub(crate) json: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut builder = builder(CapabilitySet::empty())?;
    let seen = Snapshot::read(&mut builder)?;
    let actions = gc::decide(&seen);
    let failures = match arguments.dry_run {
        true => Vec::new(),
        false => gc::carry_out(&mut builder, &actions),
    };
    if arguments.json {
        println!(
            "{}",
            json!({ "actions": actions, "done": !arguments.dry_run, "failures": failures })
        );
    } else {
        for action in &actions {
            println!("{action}");
        }
        if !actions
            .iter()
            .any(|action| !matches!(action, GcAction::Look { .. }))
        {
            println!("nothing is left to be removed");
        }
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(Exit::Failed, failures.join("; ")))
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Xen(error) => error.into(),
            SnapshotError::Store(error) => error.into(),
            SnapshotError::Io(error) => Self::new(Exit::Failed, error.to_string()),
        }
    }
}

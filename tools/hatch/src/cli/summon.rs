//! `hatch summon`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use hatch::summon::config::Config;

use super::exit::Failure;

/// Makes guests when somebody asks for them, and removes them when nobody does.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Names all that is wrong in a file, with its lines.
    Check {
        /// The services.
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match &arguments.verb {
        Verb::Check { file } => check(file),
    }
}

fn check(file: &std::path::Path) -> Result<(), Failure> {
    let (config, warnings) = Config::check(file)?;
    for warning in warnings.to_string().lines() {
        eprintln!("hatch: {warning}");
    }
    println!("{}: {} services", file.display(), config.services.len());
    Ok(())
}

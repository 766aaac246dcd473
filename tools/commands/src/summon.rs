//! `hatch summon`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// Where the daemon tells how it is, unless its file says otherwise.
pub const SOCKET: &str = "/run/hatch/summon";

/// Makes guests when somebody asks for them, and removes them when nobody does.
///
/// It runs until it gets SIGTERM or SIGINT, and reads its file again at SIGHUP. Guests outlive it, and the next one takes them over.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Summon {
    /// The services.
    #[arg(value_name = "FILE.toml", required = true)]
    pub file: Option<PathBuf>,

    /// Removes all guests of the file at the end.
    #[arg(long)]
    pub destroy: bool,

    /// In place of serving.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What else there is to do than to serve.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Names all that is wrong in a file, with its lines.
    Check {
        /// The services.
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
    /// Tells how the daemon and its services are.
    Status(Status),
    /// Makes a service's guest as if somebody had asked for it, even if it has failed lately.
    Wake(Services),
    /// Sends a service to sleep, whoever is connected.
    Sleep(Services),
    /// Gives a service a new guest.
    Restart(Services),
}

/// Services of the daemon that runs.
#[derive(Args, Debug)]
pub struct Services {
    /// Their names.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,

    /// Where the daemon listens.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Tells how the daemon and its services are.
#[derive(Args, Debug)]
pub struct Status {
    /// Tells it again each second, until it is interrupted.
    #[arg(long)]
    pub watch: bool,

    /// Prints JSON, a line each time.
    #[arg(long)]
    pub json: bool,

    /// Where the daemon listens.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

impl Summon {
    /// Whether an error is wanted as JSON as well.
    #[must_use]
    pub fn json(&self) -> bool {
        matches!(&self.verb, Some(Verb::Status(Status { json: true, .. })))
    }
}

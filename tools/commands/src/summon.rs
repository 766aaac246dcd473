//! `hatch summon`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The default path of the status socket.
pub const SOCKET: &str = "/run/hatch/summon";

/// Starts guests on demand: a query or a SYN creates the guest that answers it. An idle guest is removed.
///
/// The daemon runs until SIGTERM or SIGINT and reads its file again on SIGHUP. Guests outlive the daemon; the next one
/// takes them over.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Summon {
    /// The file that describes the services.
    #[arg(value_name = "FILE.toml", required = true)]
    pub file: Option<PathBuf>,

    /// Removes all guests of the file when the daemon ends.
    #[arg(long)]
    pub destroy: bool,

    /// A command to run instead of the daemon.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// The commands of `hatch summon` besides running the daemon.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Checks a file and lists all its errors with their lines.
    Check {
        /// The file that describes the services.
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
    /// Shows the state of the daemon and of its services.
    Status(Status),
    /// Starts the guest of a service as a query would, even if it failed recently.
    Wake(Services),
    /// Puts a service to sleep, even if clients are connected.
    Sleep(Services),
    /// Replaces the guest of a service by a new one.
    Restart(Services),
    /// The front, which the daemon starts as a process of its own, with a socket as standard input.
    #[command(hide = true)]
    Front,
}

/// Services of the running daemon.
#[derive(Args, Debug)]
pub struct Services {
    /// The names of the services.
    #[arg(value_name = "NAME", required = true)]
    pub names: Vec<String>,

    /// The status socket of the daemon.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

/// Shows the state of the daemon and of its services.
#[derive(Args, Debug)]
pub struct Status {
    /// Repeats every second until interrupted.
    #[arg(long)]
    pub watch: bool,

    /// Prints JSON, one object a line.
    #[arg(long)]
    pub json: bool,

    /// The status socket of the daemon.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    pub socket: PathBuf,
}

impl Summon {
    /// Whether errors are printed as JSON too.
    #[must_use]
    pub fn json(&self) -> bool {
        matches!(&self.verb, Some(Verb::Status(Status { json: true, .. })))
    }
}

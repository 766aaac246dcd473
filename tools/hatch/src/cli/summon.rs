//! `hatch summon`.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use hatch::summon::config::{Config, SOCKET};
use hatch::summon::{Daemon, status};

use super::BOUND;
use super::exit::{Exit, Failure};

/// Between two tables of `--watch`.
const WATCH: Duration = Duration::from_secs(1);

/// Makes guests when somebody asks for them, and removes them when nobody does.
///
/// It runs until it gets SIGTERM or SIGINT, and reads its file again at SIGHUP. Guests outlive it, and the next one takes them over.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    /// The services.
    #[arg(value_name = "FILE.toml", required = true)]
    file: Option<PathBuf>,

    /// Removes all guests of the file at the end.
    #[arg(long)]
    destroy: bool,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Subcommand)]
enum Verb {
    /// Names all that is wrong in a file, with its lines.
    Check {
        /// The services.
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
    Status(Status),
}

/// Tells how the daemon and its services are.
#[derive(Args)]
struct Status {
    /// Tells it again each second, until it is interrupted.
    #[arg(long)]
    watch: bool,

    /// Prints JSON, a line each time.
    #[arg(long)]
    json: bool,

    /// Where the daemon listens.
    #[arg(long, value_name = "PATH", default_value = SOCKET)]
    socket: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    match (&arguments.verb, &arguments.file) {
        (Some(Verb::Check { file }), _) => check(file),
        (Some(Verb::Status(arguments)), _) => tell(arguments),
        (None, Some(file)) => serve(file, arguments.destroy),
        (None, None) => Err(Failure::new(Exit::NotUnderstood, "a file is needed")),
    }
}

fn serve(file: &Path, destroy: bool) -> Result<(), Failure> {
    let daemon = Daemon::open(file);
    let mut daemon = daemon.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    daemon.serve(destroy);
    Ok(())
}

impl Arguments {
    pub(crate) fn json(&self) -> bool {
        matches!(&self.verb, Some(Verb::Status(Status { json: true, .. })))
    }
}

fn check(file: &Path) -> Result<(), Failure> {
    let (config, warnings) = Config::check(file)?;
    for warning in warnings.to_string().lines() {
        eprintln!("hatch: {warning}");
    }
    println!("{}: {} services", file.display(), config.services.len());
    Ok(())
}

fn tell(arguments: &Status) -> Result<(), Failure> {
    let socket = &arguments.socket;
    let mut out = std::io::stdout();
    let is_terminal = out.is_terminal();
    loop {
        let status = status::ask(socket, BOUND).with_context(|| socket.display().to_string())?;
        let status = status.ok_or_else(|| {
            let message = format!("{}: there is no `hatch summon`", socket.display());
            Failure::new(Exit::Failed, message)
        })?;
        let text = match arguments.json {
            true => serde_json::to_string(&status).context("JSON")?,
            false => status::table(&status, is_terminal.then(width).flatten()),
        };
        // From the top left on, in place of what was there.
        let before = match arguments.watch && is_terminal && !arguments.json {
            true => "\x1b[H\x1b[J",
            false => "",
        };
        writeln!(out, "{before}{text}").context("standard output")?;
        if !arguments.watch {
            return Ok(());
        }
        std::thread::sleep(WATCH);
    }
}

/// Columns of the terminal.
fn width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

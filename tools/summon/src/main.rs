//! `hatch-summon`, the program behind `hatch summon`.
#![forbid(unsafe_code)]

use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use mayfly_commands::{Exit, Services, Status, Summon, Verb, message};
use mayfly_summon::config::SummonConfig;
use mayfly_summon::fleet::Command;
use mayfly_summon::status::ServiceCommand;
use mayfly_summon::{Daemon, status};
use mayfly_toolstack::privileges::{self, FILES, PORTS};
use rustix::thread::CapabilitySet;
use serde_json::json;

/// The time between two tables of `--watch`.
const WATCH: Duration = Duration::from_secs(1);

/// The time limit for the daemon's answer.
const BOUND: Duration = Duration::from_secs(10);

#[derive(Parser)]
#[command(name = "hatch summon", bin_name = "hatch summon")]
struct Arguments {
    #[command(flatten)]
    summon: Summon,
}

/// An error of the command.
struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    fn new(exit: Exit, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { exit, message }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(Exit::Failed, message(&*error))
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse().summon;
    let Err(failure) = run(&arguments) else {
        return ExitCode::SUCCESS;
    };
    eprintln!("hatch: {}", failure.message);
    if arguments.json() {
        println!(
            "{}",
            json!({ "error": failure.message, "exit": failure.exit as u8 })
        );
    }
    ExitCode::from(failure.exit as u8)
}

fn run(arguments: &Summon) -> Result<(), Failure> {
    match (&arguments.verb, &arguments.file) {
        (Some(Verb::Check { file }), _) => check(file),
        (Some(Verb::Status(arguments)), _) => tell(arguments),
        (Some(Verb::Wake(service)), _) => request(service, Command::Wake),
        (Some(Verb::Sleep(service)), _) => request(service, Command::Sleep),
        (Some(Verb::Restart(service)), _) => request(service, Command::Restart),
        (Some(Verb::Front), _) => front(),
        (None, Some(file)) => serve(file, arguments.destroy),
        (None, None) => Err(Failure::new(Exit::NotUnderstood, "a file is needed")),
    }
}

fn serve(file: &Path, destroy: bool) -> Result<(), Failure> {
    // Later threads inherit these. systemd may have removed the others already.
    let kept = PORTS | FILES | CapabilitySet::NET_RAW | CapabilitySet::NET_BIND_SERVICE;
    privileges::keep(kept).context("capabilities")?;
    let daemon = Daemon::open(file);
    let mut daemon = daemon.map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
    let served = daemon.serve(destroy);
    served.map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// The front, which `serve` starts as a process of its own.
fn front() -> Result<(), Failure> {
    let socket = std::io::stdin().as_fd().try_clone_to_owned();
    let socket = socket.context("standard input")?;
    mayfly_summon::front::run(socket).context("the front")?;
    Ok(())
}

fn check(file: &Path) -> Result<(), Failure> {
    let (config, warnings) = SummonConfig::check(file)
        .map_err(|problems| Failure::new(Exit::NotUnderstood, problems.to_string()))?;
    for warning in warnings.to_string().lines() {
        eprintln!("hatch: {warning}");
    }
    println!("{}: {} services", file.display(), config.services.len());
    Ok(())
}

/// Sends a command for each service to the daemon. Stops at the first that fails.
fn request(services: &Services, command: Command) -> Result<(), Failure> {
    let socket = &services.socket;
    for service in &services.names {
        let request = ServiceCommand {
            service: service.clone(),
            command,
        };
        let done = status::request(socket, request, BOUND)
            .with_context(|| socket.display().to_string())?
            .ok_or_else(|| nobody(socket))?;
        done.map_err(|why| Failure::new(Exit::Failed, why))?;
    }
    Ok(())
}

fn nobody(socket: &Path) -> Failure {
    let message = format!("{}: there is no `hatch summon`", socket.display());
    Failure::new(Exit::Failed, message)
}

fn tell(arguments: &Status) -> Result<(), Failure> {
    let socket = &arguments.socket;
    let mut out = std::io::stdout();
    let is_terminal = out.is_terminal();
    loop {
        let status = status::ask(socket, BOUND).with_context(|| socket.display().to_string())?;
        let status = status.ok_or_else(|| nobody(socket))?;
        let text = match arguments.json {
            true => serde_json::to_string(&status).context("JSON")?,
            false => status::table(&status, is_terminal.then(width).flatten()),
        };
        // Moves the cursor to the top left, so that the table replaces the last one.
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

/// The width of the terminal in columns.
fn width() -> Option<u16> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(size.ws_col).filter(|columns| *columns > 0)
}

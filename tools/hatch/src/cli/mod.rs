//! The command line: one file for a verb, or for a few that are alike.

mod back_ends;
mod clone;
mod control;
mod copies;
mod create;
mod destroy;
mod domains;
mod exit;
mod gc;
mod list;
mod manual;
mod network;
mod plain;
mod pool;
mod programs;
mod restore;
mod save;
mod watch;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mayfly_commands::{Pack, Summon, Switch, Xenstored};
use mayfly_toolstack::builder::Toolstack;
use mayfly_toolstack::config::{self, ConfigProblem, GuestFile, Overrides};
use mayfly_toolstack::privileges;
use rustix::thread::CapabilitySet;
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use exit::Failure;

/// The longest wait for Xen, xenstored or the kernel.
const BOUND: Duration = Duration::from_secs(10);

/// Creates and manages guests of mayfly, a unikernel for Xen that serves DNS and HTTP.
#[derive(Debug, Parser)]
#[command(name = "hatch", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 success; 1 failure; 2 invalid command line or configuration; 3 no such domain; \
4 the name or the MAC address is taken; 5 permission denied";

#[derive(Debug, Subcommand)]
enum Command {
    Pack(Pack),
    Create(create::Arguments),
    Destroy(destroy::Arguments),
    Shutdown(control::Shutdown),
    Pause(control::Pause),
    Unpause(control::Unpause),
    List(list::List),
    Show(list::Show),
    Save(save::Arguments),
    Restore(restore::Arguments),
    Clone(clone::Arguments),
    Network(network::Arguments),
    Gc(gc::Arguments),
    Pool(pool::Arguments),
    Summon(Summon),
    Switch(Switch),
    Xenstored(Xenstored),
    Watch(watch::Arguments),
    Completions(manual::Completions),
    Man(manual::Man),
}

/// Does what the command line says; returns the exit code.
#[cfg_attr(test, expect(dead_code, reason = "a test has an entry of its own"))]
pub(crate) fn main() -> u8 {
    let words: Vec<OsString> = std::env::args_os().collect();
    let command = plain::read(&words).unwrap_or_else(|| Arguments::parse_from(words).command);
    let json = command.json();
    match command.run() {
        Ok(()) => 0,
        Err(failure) => {
            // Always on standard error for a person; with --json also on standard output for a script.
            eprintln!("hatch: {}", failure.message);
            if json {
                println!(
                    "{}",
                    json!({ "error": failure.message, "exit": failure.exit as u8 })
                );
            }
            failure.code()
        }
    }
}

/// Reads a configuration. Prints the settings that have no effect, and those that need a running `hatch watch`.
fn guest(file: &Path, overrides: &Overrides, is_watched: bool) -> Result<GuestFile, Failure> {
    let guest = config::load(file, overrides)?;
    let mut warnings = String::new();
    for ConfigProblem { line, what } in guest.warnings(is_watched) {
        // Writing to a string cannot fail.
        let _ = writeln!(warnings, "hatch: {}:{line}: {what}", file.display());
    }
    // Standard error has no buffer: each part of a format would be a system call.
    eprint!("{warnings}");
    Ok(guest)
}

impl Command {
    fn run(&self) -> Result<(), Failure> {
        match self {
            Self::Pack(_) => Err(programs::become_program("pack")),
            Self::Create(arguments) => create::run(arguments),
            Self::Destroy(arguments) => destroy::run(arguments),
            Self::Shutdown(arguments) => control::shutdown(arguments),
            Self::Pause(arguments) => control::pause(&arguments.domains),
            Self::Unpause(arguments) => control::unpause(&arguments.domains),
            Self::List(arguments) => list::list(arguments),
            Self::Show(arguments) => list::show(arguments),
            Self::Save(arguments) => save::run(arguments),
            Self::Restore(arguments) => restore::run(arguments),
            Self::Clone(arguments) => clone::run(arguments),
            Self::Network(arguments) => network::run(arguments),
            Self::Gc(arguments) => gc::run(arguments),
            Self::Pool(arguments) => pool::run(arguments),
            Self::Summon(_) => Err(programs::become_program("summon")),
            Self::Switch(_) => Err(programs::become_program("switch")),
            Self::Xenstored(_) => Err(programs::become_program("xenstored")),
            Self::Watch(arguments) => watch::run(arguments),
            Self::Completions(arguments) => manual::completions(arguments),
            Self::Man(arguments) => manual::man(arguments),
        }
    }

    /// Whether errors are printed as JSON too.
    fn json(&self) -> bool {
        match self {
            Self::Create(arguments) => arguments.json,
            Self::Destroy(arguments) => arguments.domains.json,
            Self::Shutdown(arguments) => arguments.domains.json,
            Self::Pause(arguments) => arguments.domains.json,
            Self::Unpause(arguments) => arguments.domains.json,
            Self::List(arguments) => arguments.json,
            Self::Show(arguments) => arguments.json,
            Self::Save(arguments) => arguments.json,
            Self::Restore(arguments) => arguments.copies.json,
            Self::Clone(arguments) => arguments.copies.json,
            Self::Network(arguments) => arguments.json,
            Self::Gc(arguments) => arguments.json,
            Self::Pool(arguments) => arguments.json,
            Self::Summon(arguments) => arguments.json(),
            Self::Switch(arguments) => arguments.json(),
            Self::Watch(arguments) => arguments.json,
            Self::Pack(arguments) => arguments.json,
            Self::Completions(_) | Self::Man(_) | Self::Xenstored(_) => false,
        }
    }
}

/// Opens the devices and sockets that creating and removing guests needs, then drops all capabilities but these.
fn builder(kept: CapabilitySet) -> Result<Toolstack, Failure> {
    let builder = Toolstack::open(BOUND)?;
    privileges::keep(kept).context("capabilities")?;
    Ok(builder)
}

/// A socket that can be read from as soon as SIGTERM, SIGINT or SIGHUP has arrived.
fn stop() -> Result<UnixStream, Failure> {
    let (stop, stopped) = UnixStream::pair().context("a pair of sockets")?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let stopped = stopped.try_clone().context("a socket")?;
        signal_hook::low_level::pipe::register(signal, stopped).context("a handler for signals")?;
    }
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}

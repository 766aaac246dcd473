//! The command line: one file for a verb, or for a few that are alike.

mod control;
mod create;
mod destroy;
mod domains;
mod exit;
mod gc;
mod list;
mod manual;
mod pool;
mod programs;
mod watch;

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use mayfly_commands::{Pack, Summon, Switch};
use mayfly_toolstack::builder::Toolstack;
use mayfly_toolstack::config::{self, Guest, Overrides};
use mayfly_toolstack::privileges;
use rustix::thread::CapabilitySet;
use serde_json::json;

use exit::Failure;

/// How long Xen, xenstored or the kernel may let us wait.
const BOUND: Duration = Duration::from_secs(10);

/// The tool for the host of mayfly, a unikernel for Xen that serves DNS and HTTP: packs sites, makes guests and removes them.
#[derive(Parser)]
#[command(name = "hatch", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it did not work; 2 the command line or a configuration was not understood; 3 no such domain; \
4 the name or MAC address is taken; 5 permission denied";

#[derive(Subcommand)]
enum Command {
    Pack(Pack),
    Create(create::Arguments),
    Destroy(destroy::Arguments),
    Shutdown(control::Shutdown),
    Pause(control::Pause),
    Unpause(control::Unpause),
    List(list::List),
    Show(list::Show),
    Gc(gc::Arguments),
    Pool(pool::Arguments),
    Summon(Summon),
    Switch(Switch),
    Watch(watch::Arguments),
    Completions(manual::Completions),
    Man(manual::Man),
}

pub(crate) fn main() -> ExitCode {
    let command = Arguments::parse().command;
    let json = command.json();
    match command.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // For a person in any case: a script may read both.
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

/// Reads a configuration, and tells what in it has no effect, or has none while nobody watches.
fn guest(file: &Path, overrides: &Overrides, is_watched: bool) -> Result<Guest, Failure> {
    let guest = config::load(file, overrides)?;
    for warning in guest.warnings(is_watched) {
        eprintln!(
            "hatch: {}:{}: {}",
            file.display(),
            warning.line,
            warning.what
        );
    }
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
            Self::Gc(arguments) => gc::run(arguments),
            Self::Pool(arguments) => pool::run(arguments),
            Self::Summon(_) => Err(programs::become_program("summon")),
            Self::Switch(_) => Err(programs::become_program("switch")),
            Self::Watch(arguments) => watch::run(arguments),
            Self::Completions(arguments) => manual::completions(arguments),
            Self::Man(arguments) => manual::man(arguments),
        }
    }

    /// Whether an error is wanted as JSON as well.
    fn json(&self) -> bool {
        match self {
            Self::Create(arguments) => arguments.json,
            Self::Destroy(arguments) => arguments.domains.json,
            Self::Shutdown(arguments) => arguments.domains.json,
            Self::Pause(arguments) => arguments.domains.json,
            Self::Unpause(arguments) => arguments.domains.json,
            Self::List(arguments) => arguments.json,
            Self::Show(arguments) => arguments.json,
            Self::Gc(arguments) => arguments.json,
            Self::Pool(arguments) => arguments.json,
            Self::Summon(arguments) => arguments.json(),
            Self::Switch(arguments) => arguments.json(),
            Self::Watch(arguments) => arguments.json,
            Self::Pack(arguments) => arguments.json,
            Self::Completions(_) | Self::Man(_) => false,
        }
    }
}

/// Opens what making and removing guests takes, and then gives up what this process may do beyond it but these.
fn builder(kept: CapabilitySet) -> Result<Toolstack, Failure> {
    let builder = Toolstack::open(BOUND)?;
    privileges::keep(kept).context("capabilities")?;
    Ok(builder)
}

/// What can be read from as soon as SIGTERM or SIGINT has come.
fn stop() -> Result<UnixStream, Failure> {
    let (stop, mut stopped) = UnixStream::pair().context("a pair of sockets")?;
    ctrlc::set_handler(move || {
        // The other end polls.
        let _ = stopped.write_all(b"!");
    })
    .context("a handler for SIGTERM")?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        super::Arguments::command().debug_assert();
    }

    /// clap takes `{n}` for a line break (`StyledStr`), wherever it stands.
    #[test]
    fn no_help_has_what_clap_swallows() {
        fn looks(command: &clap::Command) {
            let mut texts = vec![
                command.get_about(),
                command.get_long_about(),
                command.get_after_help(),
            ];
            for argument in command.get_arguments() {
                texts.extend([argument.get_help(), argument.get_long_help()]);
            }
            for text in texts.into_iter().flatten() {
                assert!(
                    !text.to_string().contains("{n}"),
                    "{}: {text}",
                    command.get_name()
                );
            }
            command.get_subcommands().for_each(looks);
        }
        looks(&super::Arguments::command());
    }
}

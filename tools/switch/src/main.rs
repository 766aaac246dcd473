//! `hatch switch`: the network back end of guests, in user space.

mod schedule;

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use mayfly_switch::control::{self, Connection, Order, Reply};
use mayfly_switch::journal;
use mayfly_switch::program::{Options, Program, give_up};
use mayfly_switch::switch::{DumpBounds, GuestStatus, Status};

/// How long a running switch may take to answer.
const BOUND: Duration = Duration::from_secs(10);

/// Serves the network of guests, in netback's place: one process for all, with a port of its own on each bridge.
///
/// It runs until it gets SIGTERM or SIGINT. The guests that it serves go on when it starts again.
#[derive(Parser)]
#[command(
    name = "hatch switch",
    bin_name = "hatch switch",
    version,
    args_conflicts_with_subcommands = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,

    /// The bridges that it has ports on.
    #[arg(long = "bridge", value_name = "BRIDGE", default_value = "xenbr0")]
    bridges: Vec<String>,

    /// Where it listens.
    #[arg(long, value_name = "PATH", default_value = control::SOCKET, global = true)]
    socket: PathBuf,

    /// Where it writes down whom it serves, for the next one.
    #[arg(long, value_name = "PATH", default_value = journal::PATH)]
    journal: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Tells what comes of the guests' frames.
    Status {
        /// Prints JSON.
        #[arg(long)]
        json: bool,
    },
    /// Records a guest's traffic as a pcap file, on standard output.
    Dump {
        /// The guest.
        name: String,
        /// Frames at most.
        #[arg(long, value_name = "N", default_value_t = DumpBounds::default().frames)]
        frames: usize,
        /// Bytes of each frame.
        #[arg(long, value_name = "N", default_value_t = DumpBounds::default().snap)]
        snap: usize,
        /// Bytes of the file at most.
        #[arg(long, value_name = "N", default_value_t = DumpBounds::MAX.bytes)]
        bytes: usize,
        /// Seconds at most.
        #[arg(long, value_name = "N", default_value_t = 10)]
        seconds: u64,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hatch switch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let ask = |order, bound| -> Result<(Connection, Reply)> {
        let path = arguments.socket.display();
        let connection = Connection::open(&arguments.socket, bound);
        let mut connection = connection.with_context(|| format!("{path}: no switch runs there"))?;
        let reply = connection.ask(&order).context("the switch")?;
        Ok((connection, reply))
    };
    match &arguments.command {
        None => serve(arguments),
        Some(Command::Status { json }) => match ask(Order::Status, BOUND)?.1 {
            Reply::Status(status) if *json => {
                println!("{}", serde_json::to_string(&status)?);
                Ok(())
            }
            Reply::Status(status) => {
                print(&status);
                Ok(())
            }
            other => bail!("{other:?}"),
        },
        Some(Command::Dump {
            name,
            frames,
            snap,
            bytes,
            seconds,
        }) => {
            let order = Order::Dump {
                name: name.clone(),
                bounds: DumpBounds {
                    frames: *frames,
                    snap: *snap,
                    bytes: *bytes,
                },
                milliseconds: seconds.saturating_mul(1000),
            };
            match ask(order, BOUND + Duration::from_secs(*seconds))? {
                (mut connection, Reply::Dump(length)) => {
                    let file = connection.bytes(length).context("the switch")?;
                    Ok(std::io::stdout().write_all(&file)?)
                }
                (_, Reply::Error(error)) => bail!("{name}: {error}"),
                (_, other) => bail!("{other:?}"),
            }
        }
    }
}

fn serve(arguments: &Arguments) -> Result<()> {
    let (stop, mut stopped) = UnixStream::pair().context("a pair of sockets")?;
    ctrlc::set_handler(move || {
        // The other end polls.
        let _ = stopped.write_all(b"!");
    })
    .context("a handler for SIGTERM")?;
    let options = Options {
        bridges: arguments.bridges.clone(),
        socket: arguments.socket.clone(),
        journal: arguments.journal.clone(),
    };
    let mut report = |text: &str| eprintln!("hatch switch: {text}");
    let mut program = Program::start(&options, &mut report)?;
    // So it has a CPU for longer at a time, and moves more frames before guests and clients have theirs.
    schedule::batch().context("SCHED_BATCH")?;
    give_up().context("capabilities")?;
    report(&format!(
        "serves {} at {}",
        options.bridges.join(", "),
        options.socket.display()
    ));
    program.run(stop.as_fd(), &mut report).context("the loop")
}

fn print(status: &Status) {
    println!(
        "{:<24} {:>6} {:>12} {:>14} {:>12} {:>14} {:>9}",
        "name", "domain", "frames out", "bytes out", "frames in", "bytes in", "dropped"
    );
    for guest in &status.guests {
        let GuestStatus { counters, .. } = guest;
        println!(
            "{:<24} {:>6} {:>12} {:>14} {:>12} {:>14} {:>9}{}",
            guest.name,
            guest.domain,
            counters.from_guest.frames,
            counters.from_guest.bytes,
            counters.to_guest.frames,
            counters.to_guest.bytes,
            counters.dropped() + counters.dropped_full + counters.dropped_long,
            guest
                .shut
                .as_ref()
                .map_or(String::new(), |why| format!("  shut: {why}")),
        );
    }
    for sleeper in &status.sleepers {
        println!("{:<24} sleeps, {} held", sleeper.name, sleeper.held);
    }
}

//! `hatch switch`: the network back end of guests, in user space.

mod notify;
mod sandbox;

use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use mayfly_commands::{Switch, SwitchVerb};
use mayfly_switch::control::{SwitchConnection, SwitchOrder, SwitchReply};
use mayfly_switch::program::{Program, StartOptions};
use mayfly_switch::switch::{DumpBounds, GuestStatus, SwitchStatus};
use mayfly_switch::xenbus;
use mayfly_xen::{privileges, schedule};
use rustix::thread::CapabilitySet;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// The longest wait for a running switch's reply.
const BOUND: Duration = Duration::from_secs(10);

/// The command line.
#[derive(Parser)]
#[command(name = "hatch switch", bin_name = "hatch switch", version)]
struct Arguments {
    #[command(flatten)]
    switch: Switch,
}

fn main() -> ExitCode {
    match run(&Arguments::parse().switch) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hatch switch: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Switch) -> Result<()> {
    let ask = |socket: &Path, order, bound| -> Result<(SwitchConnection, SwitchReply)> {
        let path = socket.display();
        let connection = SwitchConnection::open(socket, bound);
        let mut connection = connection.with_context(|| format!("{path}: no switch runs there"))?;
        let reply = connection.ask(&order).context("the switch")?;
        Ok((connection, reply))
    };
    match &arguments.verb {
        None => serve(arguments),
        Some(SwitchVerb::Xenbus { socket, once }) => {
            privileges::keep(CapabilitySet::empty()).context("capabilities")?;
            let done = match once {
                true => xenbus::run(socket, sandbox::enter_all, &mut report),
                false => xenbus::mind(socket),
            };
            done.context("the process for xenstore")
        }
        Some(SwitchVerb::Status { json, socket }) => {
            match ask(socket, SwitchOrder::Status, BOUND)?.1 {
                SwitchReply::Status(status) if *json => {
                    println!("{}", serde_json::to_string(&status)?);
                    Ok(())
                }
                SwitchReply::Status(status) => {
                    print(&status);
                    Ok(())
                }
                other => bail!("{other:?}"),
            }
        }
        Some(SwitchVerb::Dump {
            name,
            frames,
            snap,
            bytes,
            seconds,
            socket,
        }) => {
            let order = SwitchOrder::Dump {
                name: name.clone(),
                bounds: DumpBounds {
                    frames: *frames,
                    snap: *snap,
                    bytes: *bytes,
                },
                milliseconds: seconds.saturating_mul(1000),
            };
            match ask(socket, order, BOUND + Duration::from_secs(*seconds))? {
                (mut connection, SwitchReply::Dump(length)) => {
                    let file = connection.bytes(length).context("the switch")?;
                    Ok(std::io::stdout().write_all(&file)?)
                }
                (_, SwitchReply::Error(error)) => bail!("{name}: {error}"),
                (_, other) => bail!("{other:?}"),
            }
        }
    }
}

/// Tells the person who has started the switch, or the system's log.
fn report(text: &str) {
    eprintln!("hatch switch: {text}");
}

fn serve(arguments: &Switch) -> Result<()> {
    let (stopped, stop) = UnixStream::pair().context("a pair of sockets")?;
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        let stop = stop.try_clone().context("a socket")?;
        signal_hook::low_level::pipe::register(signal, stop).context("a handler for signals")?;
    }
    // The process for xenstore, which no filter of system calls allows to start again. The next switch does.
    let is_alone = Arc::new(AtomicBool::new(false));
    let child = Arc::clone(&is_alone);
    signal_hook::flag::register(SIGCHLD, child).context("a handler for signals")?;
    signal_hook::low_level::pipe::register(SIGCHLD, stop).context("a handler for signals")?;
    let options = StartOptions {
        bridges: arguments.bridges.clone(),
        socket: arguments.socket.clone(),
        journal: arguments.journal.clone(),
        threads: arguments.threads.map(usize::from),
    };
    let mut program = Program::start(&options, &mut report)?;
    // With this scheduling policy the switch does not run as soon as there is one frame, but when those who send have sent
    // all they have; so it moves more frames at a time.
    schedule::batch(None).context("SCHED_BATCH")?;
    privileges::keep(CapabilitySet::empty()).context("capabilities")?;
    let _beside = xenbus::spawn(&options.socket).context("the process for xenstore")?;
    program
        .take_over(sandbox::enter, &mut report)
        .context("a thread")?;
    // Who is started after the switch, as `hatch summon` is, finds that it runs.
    notify::ready().context("NOTIFY_SOCKET")?;
    report(&format!(
        "serves {} at {}",
        options.bridges.join(", "),
        options.socket.display()
    ));
    sandbox::enter().context("seccomp")?;
    let over = program.run(stopped.as_fd(), &mut report);
    over.context("the loop")?;
    if is_alone.load(Ordering::Relaxed) {
        bail!("the process for xenstore has ended");
    }
    Ok(())
}

fn print(status: &SwitchStatus) {
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

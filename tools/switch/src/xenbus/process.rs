//! The processes beside the switch's: one serves the handshakes, and one starts it again whenever it ends.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use mayfly_xenstore::Client;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::server::{Xenbus, XenbusError};
use crate::control::SwitchConnection;

/// The longest wait for a reply.
const BOUND: Duration = Duration::from_secs(10);
/// The pause before another try.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the process that minds the one for the switch at this socket. Both end with this process.
///
/// # Errors
/// The process cannot be started.
pub fn spawn(socket: &Path) -> io::Result<Child> {
    start(socket, &[])
}

/// By the end of its standard input, the child notices that of this process.
fn start(socket: &Path, words: &[&str]) -> io::Result<Child> {
    let mut command = Command::new("/proc/self/exe");
    let command = command.arg("xenbus").arg("--socket").arg(socket);
    command.args(words).stdin(Stdio::piped()).spawn()
}

/// Starts the process that serves, and starts it again whenever it ends, until standard input ends.
///
/// # Errors
/// The kernel has no room for a thread.
pub fn mind(socket: &Path) -> io::Result<()> {
    end_with_parent(c"switch-minder")?;
    loop {
        let ended = start(socket, &["--once"]).and_then(|mut child| {
            // It would be closed before the wait.
            let stdin = child.stdin.take();
            let status = child.wait();
            drop(stdin);
            status
        });
        match ended {
            Ok(status) if status.code().is_some() => {}
            Ok(status) => eprintln!("hatch switch: the process for xenstore: {status}"),
            Err(error) => eprintln!("hatch switch: the process for xenstore: {error}"),
        }
        std::thread::sleep(PAUSE);
    }
}

/// Names the process for `ps`, and lets it end with the process that has started it, and not by a signal that a terminal
/// or systemd sends to all.
fn end_with_parent(name: &std::ffi::CStr) -> io::Result<()> {
    rustix::thread::set_name(name)?;
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::default())?;
    }
    let thread = std::thread::Builder::new().name("end".to_owned());
    thread.spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    })?;
    Ok(())
}

/// Serves the handshakes of the switch at this socket, until it or xenstored is gone. Before it reads anything that
/// guests have written, it calls `enter`, which gives up what it does not need.
///
/// # Errors
/// The kernel has no room for a thread; or `enter`'s.
pub fn run(
    socket: &Path,
    enter: impl FnOnce() -> io::Result<()>,
    report: &mut dyn FnMut(&str),
) -> io::Result<()> {
    end_with_parent(c"switch-xenbus")?;
    let mut said = String::new();
    let (mut store, mut switch) = loop {
        match connect(socket) {
            Ok(both) => break both,
            Err(error) => {
                // xenstored may be away for some time.
                let error = error.to_string();
                if error != said {
                    report(&error);
                    said = error;
                }
                std::thread::sleep(PAUSE);
            }
        }
    };
    enter()?;
    let mut ask = |order: &_| switch.ask(order);
    let begun = Xenbus::begin(&mut store, &mut ask, report);
    let Err(error) = begun.and_then(|mut xenbus| xenbus.serve());
    report(&error.to_string());
    Ok(())
}

fn connect(socket: &Path) -> Result<(Client, SwitchConnection), XenbusError> {
    let store = Client::connect(BOUND)?;
    Ok((store, SwitchConnection::open(socket, BOUND)?))
}

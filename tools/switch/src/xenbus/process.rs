//! The process beside the switch's.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mayfly_xenstore::Client;

use super::server::{Xenbus, XenbusError};
use crate::control::SwitchConnection;

/// The longest wait for a reply.
const BOUND: Duration = Duration::from_secs(10);
/// The pause before another try.
const PAUSE: Duration = Duration::from_secs(1);

/// Starts the process, and starts it again whenever it ends.
///
/// # Errors
/// The kernel has no room for a thread.
pub fn spawn(socket: PathBuf) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("xenbus".to_owned());
    thread.spawn(move || {
        loop {
            if let Err(error) = once(&socket) {
                eprintln!("hatch switch: the process for xenstore: {error}");
            }
            std::thread::sleep(PAUSE);
        }
    })?;
    Ok(())
}

fn once(socket: &Path) -> io::Result<()> {
    let mut child = Command::new("/proc/self/exe")
        .arg("xenbus")
        .arg("--socket")
        .arg(socket)
        .stdin(Stdio::piped())
        .spawn()?;
    // By its end, the child notices that of this process.
    let stdin = child.stdin.take();
    child.wait()?;
    drop(stdin);
    Ok(())
}

/// Serves the handshakes of the switch at this socket, until standard input ends.
///
/// # Errors
/// The kernel has no room for a thread.
pub fn run(socket: &Path, report: &mut dyn FnMut(&str)) -> io::Result<()> {
    // The name in `ps`.
    rustix::thread::set_name(c"switch-xenbus")?;
    let thread = std::thread::Builder::new().name("end".to_owned());
    thread.spawn(|| {
        let _ = io::stdin().read(&mut [0]);
        std::process::exit(0);
    })?;
    let mut said = String::new();
    loop {
        let Err(error) = serve(socket, report);
        // xenstored may be away for some time.
        let error = error.to_string();
        if error != said {
            report(&error);
            said = error;
        }
        std::thread::sleep(PAUSE);
    }
}

fn serve(
    socket: &Path,
    report: &mut dyn FnMut(&str),
) -> Result<std::convert::Infallible, XenbusError> {
    let mut store = Client::connect(BOUND)?;
    let mut switch = SwitchConnection::open(socket, BOUND)?;
    let mut ask = |order: &_| switch.ask(order);
    Xenbus::begin(&mut store, &mut ask, report)?.serve()
}

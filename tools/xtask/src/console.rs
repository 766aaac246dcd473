//! The serial console of a lab, in this terminal.

use std::io::{IsTerminal, Read, Write, stdin, stdout};
use std::os::unix::net::UnixStream;
use std::thread;

use anyhow::{Context, Result, ensure};
use mayfly_lab::Lab;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// Ctrl-], which leaves the console, as in telnet.
const LEAVE: u8 = 0x1d;

/// The terminal in raw mode. Dropping this restores it.
struct Raw(Termios);

impl Raw {
    fn new() -> Result<Self> {
        let before = tcgetattr(stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(stdin(), OptionalActions::Now, &self.0);
    }
}

/// Connects the terminal to the serial port, until Ctrl-] or the machine's end.
pub(crate) fn attach(lab: &Lab) -> Result<()> {
    ensure!(
        stdin().is_terminal(),
        "the console needs a terminal; `cargo xtask lab exec` does not"
    );
    // The path of a socket has at most 108 bytes, and the folder's path may be longer.
    std::env::set_current_dir(lab.folder())?;
    let mut serial = UnixStream::connect("serial.sock")
        .context("cannot reach the serial port: is another console attached?")?;
    eprintln!(
        "Enter starts a shell in dom0; Ctrl-] leaves; Ctrl-A three times switches between dom0 and Xen."
    );
    let raw = Raw::new()?;
    let mut output = serial.try_clone()?;
    let reader = thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n @ 1..) = output.read(&mut buffer) {
            let mut screen = stdout().lock();
            if screen
                .write_all(buffer.get(..n).unwrap_or_default())
                .and_then(|()| screen.flush())
                .is_err()
            {
                break;
            }
        }
    });
    let mut buffer = [0; 256];
    while let Ok(n @ 1..) = stdin().read(&mut buffer) {
        let typed = buffer.get(..n).unwrap_or_default();
        if typed.contains(&LEAVE) || serial.write_all(typed).is_err() || reader.is_finished() {
            break;
        }
    }
    drop(raw);
    eprintln!();
    Ok(())
}

//! Live update: the state is written to a file, and the process becomes its successor's program, which goes on with the
//! same connections, rings and watches. The successor may be another xenstored that knows the format, and the
//! predecessor may have been one.

use std::collections::HashMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::iter;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::execv;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::core::{Descriptors, Restored};
use crate::keep::{Kind, command_line};

use super::clients::Client;
use super::{Daemon, Machine};

/// The name of the file with the state.
pub const STATE_FILE: &str = "state_dump";
/// The name of this program. Another one is taken for the C xenstored.
const OWN: &str = "hatch-xenstored";
/// The option that tells the successor to read the state.
const OPTION: &str = "-U";

/// What a live update needs to know of this process.
#[derive(Clone, Debug)]
pub struct Succession {
    /// The file for the state.
    pub file: PathBuf,
    /// The arguments of this process, for a successor to which the client gives none.
    pub arguments: Vec<OsString>,
}

impl<M: Machine> Daemon<M> {
    /// Goes on where a predecessor in this process stopped. `sockets` are the clients' by their numbers.
    ///
    /// # Errors
    /// An error of epoll or of a socket.
    pub fn restored(
        restored: Restored,
        machine: M,
        listener: UnixListener,
        mut sockets: HashMap<i32, OwnedFd>,
    ) -> io::Result<Self> {
        let mut this = Self::with(restored.server, machine, listener)?;
        for (id, socket) in restored.sockets {
            let client = sockets.remove(&socket).map(UnixStream::from);
            match client.map(|stream| Client::new(stream, id, &this.epoll)) {
                Some(Ok(client)) => {
                    this.clients.insert(id, client);
                    // Requests that the predecessor has read and not processed.
                    if this.take(id, &[]).is_err() {
                        this.end(id);
                    }
                }
                _ => this.server.disconnect(id),
            }
        }
        // Events may have come while nobody looked.
        this.next
            .extend(this.server.rings().iter().map(|(_, id)| id));
        this.check_domains();
        this.attend_all();
        Ok(this)
    }

    /// Lets clients ask for a live update. Otherwise they are refused.
    pub fn allow_update(&mut self, succession: Succession) {
        self.succession = Some(succession);
    }

    /// Returns since when, and how long, a live update waits for transactions to end.
    pub(super) fn update_end(&self) -> Option<(Instant, Duration)> {
        let update = self.server.started_update()?;
        Some((self.update_since?, update.patience()))
    }

    /// Carries out the live update that a client has started, when no transaction is open or when it has waited long
    /// enough. Returns only if there is none.
    pub(super) fn update(&mut self) {
        let Some(update) = self.server.started_update() else {
            self.update_since = None;
            return;
        };
        let since = *self.update_since.get_or_insert_with(Instant::now);
        let is_forced = update.is_forced();
        let is_own = Path::new(&update.program).file_name() == Some(OsStr::new(OWN));
        let refusal = match self.server.awaited(!is_own) {
            Some(_) if since.elapsed() < update.patience() => return,
            Some(open) if !is_forced => open,
            _ => self.hand_over(),
        };
        self.journal.append(Kind::Refused, 0, 0, refusal.as_bytes());
        self.server.refuse_update(&refusal);
        self.update_since = None;
        self.attend_all();
    }

    /// Becomes the successor's program. Returns the reason if that fails.
    fn hand_over(&mut self) -> String {
        let (Some(succession), Some(update)) = (&self.succession, self.server.started_update())
        else {
            return "There is no live update here.".to_owned();
        };
        let (file, program) = (succession.file.clone(), update.program.clone());
        let arguments = match &update.arguments {
            Some(arguments) => arguments.iter().map(OsString::from).collect(),
            None => succession.arguments.clone(),
        };
        // The C xenstored's words.
        match fs::metadata(&program) {
            Err(_) => return "File not accessible.".to_owned(),
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {}
            Ok(_) => return "File not executable.".to_owned(),
        }
        let words = words(Path::new(&program), arguments);
        let left = self.leave_state(&file);
        let error = match words.and_then(|words| left.map(|()| words)) {
            Ok(words) => self.become_program(&words),
            Err(error) => error,
        };
        // Without a successor nobody reads it.
        let _ = fs::remove_file(&file);
        format!("{program}: {error}")
    }

    /// Writes the state for the successor, with the numbers that the file descriptors have where it will run.
    fn leave_state(&self, file: &Path) -> io::Result<()> {
        let mut descriptors = self.descriptors();
        if let Some(copies) = &self.copies {
            descriptors.renumber(|numbers| copies.give(numbers))?;
        }
        let state = self.server.save(&descriptors).map_err(io::Error::other)?;
        write(file, &state)
    }

    fn become_program(&mut self, words: &[CString]) -> io::Error {
        if let Err(error) = self.leave_descriptors(true) {
            return error;
        }
        self.machine.receive_exceptions(false);
        let error = match &self.copies {
            Some(copies) => copies.execute(words),
            None => execute(words),
        };
        self.machine.receive_exceptions(true);
        // This fails for none of them, as they are open.
        let _ = self.leave_descriptors(false);
        // The copy does not know the port at which the exceptions are received now.
        if let Err(error) = self.renew() {
            return error;
        }
        // Domains may have gone meanwhile.
        self.check_domains();
        error
    }

    /// Leaves the successor's file descriptors to it: they stay open when a program is executed, and reading blocks, as
    /// the C xenstored needs it. (It takes a request whose payload comes later for the end of the connection otherwise.)
    /// Without `leave`, takes them back.
    fn leave_descriptors(&self, leave: bool) -> io::Result<()> {
        let own = [Some(self.listener.as_fd()), self.machine.fd()];
        let clients = self.clients.values().map(|client| client.as_fd());
        for descriptor in own.into_iter().flatten().chain(clients) {
            fcntl_setfd(
                descriptor,
                if leave {
                    FdFlags::empty()
                } else {
                    FdFlags::CLOEXEC
                },
            )?;
            let mut flags = fcntl_getfl(descriptor)?;
            flags.set(OFlags::NONBLOCK, !leave);
            fcntl_setfl(descriptor, flags)?;
        }
        Ok(())
    }

    fn descriptors(&self) -> Descriptors {
        let number = |descriptor: BorrowedFd<'_>| descriptor.as_raw_fd();
        let clients = self.clients.iter();
        Descriptors {
            listener: number(self.listener.as_fd()),
            events: self.machine.fd().map_or(-1, number),
            sockets: clients
                .map(|(id, client)| (*id, number(client.as_fd())))
                .collect(),
            ports: self.machine.ports(),
        }
    }
}

/// Returns the successor's command line.
fn words(program: &Path, arguments: Vec<OsString>) -> io::Result<Vec<CString>> {
    let option = OsStr::new(OPTION);
    let others = arguments.into_iter().filter(|argument| argument != option);
    let words = iter::once(program.into())
        .chain(others)
        .chain([option.to_owned()]);
    command_line(words)
}

/// Becomes a program. In contrast to `Command::exec`, no shell takes the file if it is not a program.
fn execute(words: &[CString]) -> io::Error {
    match words.first().map(|program| execv(program, words)) {
        Some(Err(error)) => error.into(),
        _ => io::ErrorKind::InvalidInput.into(),
    }
}

/// Writes a file that only its owner can read.
fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A new file: one that is there may have other permissions.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = File::options();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

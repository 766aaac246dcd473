//! The socket, the pid file, and the message to systemd that the daemon is ready.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use rustix::fs::{FlockOperation, Mode, fcntl_lock};

/// Listens on a socket to which only its owner may connect. Replaces a socket that an earlier daemon has left.
///
/// # Errors
/// The folder or the socket cannot be made, or a daemon listens there.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let shown = path.display();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    if UnixStream::connect(path).is_ok() {
        bail!("{shown}: another xenstored runs");
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| shown.to_string());
        }
        _ => {}
    }
    let before = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let listener = UnixListener::bind(path);
    rustix::process::umask(before);
    listener.with_context(|| shown.to_string())
}

/// A locked file with the number of this process. It is removed when it is dropped.
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Makes and locks the file.
    ///
    /// # Errors
    /// The file cannot be written, or another process has locked it.
    pub fn new(path: &Path) -> Result<Self> {
        let shown = path.display();
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        let mut file = file.with_context(|| shown.to_string())?;
        fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive)
            .with_context(|| format!("{shown}: another xenstored runs"))?;
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Emptied first: if it cannot be removed, it names no process at least.
        let _ = self.file.set_len(0);
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells systemd that requests are answered from now on, if systemd has started this process (sd_notify(3)).
pub fn tell_ready() {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Ok(socket) = UnixDatagram::unbound() {
        let _ = socket.send_to(b"READY=1", Path::new(&address));
    }
}

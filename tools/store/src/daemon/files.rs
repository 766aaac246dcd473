//! What others find a xenstored by: its socket, its pid file, and systemd's word that it is ready.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use rustix::fs::{FlockOperation, Mode, fcntl_lock};

/// Listens on a socket that only its owner may connect to. One that was left behind is replaced.
///
/// # Errors
/// The folder can't be made, or the socket can't.
pub fn listen(path: &Path) -> Result<UnixListener> {
    let shown = path.display();
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
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

/// A file with this process' number, which is locked as long as it lives.
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Makes and locks the file.
    ///
    /// # Errors
    /// Another process has locked it.
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
        // Nobody may take it for a running one's; if it can't be removed, at least it is empty.
        let _ = self.file.set_len(0);
        let _ = fs::remove_file(&self.path);
    }
}

/// Tells systemd, if it has started this, that requests are answered from now on.
pub fn tell_ready() {
    let Some(address) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Ok(socket) = UnixDatagram::unbound() {
        let _ = socket.send_to(b"READY=1", Path::new(&address));
    }
}

//! A lock on the netback of a guest: whoever moves the guest has it, and whoever removes it.
//!
//! While the kernel unbinds netback from a device, the device's directory in xenstore must not be removed: the kernel's
//! thread for xenstore would wait for the device, and the unbinding process for that thread (see `unbind_live`). So the
//! directory is removed with this lock only, and a guest is moved with it.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::super::ToolstackError;
use super::super::toolstack::Toolstack;

/// The pause before the lock is tried again.
const PAUSE: Duration = Duration::from_millis(2);

/// The lock. It ends with this value, or with the process.
pub(in super::super) struct NetbackLock {
    _file: File,
    path: PathBuf,
}

impl NetbackLock {
    /// Removes the lock's file: the guest is gone.
    pub(in super::super) fn remove(self) {
        // A domain with the same number makes another one.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Toolstack {
    /// Takes the lock of this domain, and waits for it if somebody has it.
    ///
    /// # Errors
    /// Somebody has it for too long, or the file cannot be made.
    pub(in super::super) fn lock_netback(&self, domid: u16) -> Result<NetbackLock, ToolstackError> {
        let folder = self.run.join("netback");
        let path = folder.join(domid.to_string());
        let mut options = File::options();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&folder)?;
                options.open(&path)?
            }
            file => file?,
        };
        let end = Instant::now() + self.bound;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(NetbackLock { _file: file, path }),
                Err(TryLockError::Error(error)) => return Err(error.into()),
                Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    let what = "another command moves or removes it".to_owned();
                    return Err(ToolstackError::Refused(what));
                }
            }
        }
    }
}

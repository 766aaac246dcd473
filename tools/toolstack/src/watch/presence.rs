//! Tells whether a watch is running.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// The file that a watch keeps locked as long as it runs. A watch that is killed leaves it, as it is expected to be
/// restarted.
const FILE: &str = "/run/hatch/watch";
/// The number of attempts to take the lock, and the pause between them: a process that only looks holds it for a
/// moment.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// The presence of a watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There is no watch.
    Nobody,
    /// A watch was killed and has not been started again. Guests are recorded for it.
    Away,
    /// A watch runs.
    Here,
}

/// Whether a watch runs. It costs one system call where none does.
#[must_use]
pub fn presence() -> Presence {
    of(Path::new(FILE))
}

fn of(path: &Path) -> Presence {
    let Ok(file) = File::open(path) else {
        return Presence::Nobody;
    };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Presence::Here,
        Ok(()) | Err(TryLockError::Error(_)) => Presence::Away,
    }
}

/// The lock of the watch.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock; `None` if another process has it.
    pub(super) fn take() -> io::Result<Option<Self>> {
        Self::at(Path::new(FILE))
    }

    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        if let Some(folder) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)?;
        }
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        for _ in 0..TRIES {
            match file.try_lock() {
                Ok(()) => return Ok(Some(Self { _file: file })),
                Err(TryLockError::WouldBlock) => std::thread::sleep(PAUSE),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }

    /// Ends the watch: removes the file and unlocks it.
    pub(super) fn end(self) {
        // Removed before it is unlocked: afterwards it could be another watch's file.
        let _ = std::fs::remove_file(FILE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_seen_and_missed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hatch/watch");
        assert_eq!(of(&path), Presence::Nobody);
        let lock = Lock::at(&path).unwrap().unwrap();
        assert_eq!(of(&path), Presence::Here);
        assert!(Lock::at(&path).unwrap().is_none(), "two of them");
        drop(lock);
        assert_eq!(of(&path), Presence::Away);
        assert!(Lock::at(&path).unwrap().is_some());
    }
}

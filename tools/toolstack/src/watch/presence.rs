//! Tells whether a watch is running.

use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

/// The file that a watch has locked as long as it runs. One that is killed leaves it, as it is expected back.
const FILE: &str = "/run/hatch/watch";
/// Who only looks has the lock for a moment: how often it is tried again, and after how long.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Who watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Nobody.
    Nobody,
    /// A watch that was killed and has not been started again: guests are noted down for it.
    Away,
    /// A watch.
    Here,
}

/// Looks whether anybody watches. It is one system call where nobody does.
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

/// The lock of the one that watches.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it; `None` when another has it.
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

    /// Nobody watches any more.
    pub(super) fn end(self) {
        // Before it is unlocked, so that it is not another's.
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

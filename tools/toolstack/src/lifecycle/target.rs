//! The file that a guest is saved to. It has its name only when it is complete.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// A file that is being written.
#[derive(Debug)]
pub struct SaveTarget {
    file: File,
    /// The temporary name and the name that it gets, unless it is a pipe or a device.
    names: Option<(PathBuf, PathBuf)>,
}

impl SaveTarget {
    /// Opens a temporary file beside `path`, which only its owner can read. A pipe or a device is opened as it is.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let is_special = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        if is_special {
            return Ok(Self::stream(File::options().write(true).open(path)?));
        }
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().ok_or(io::ErrorKind::InvalidInput)?);
        name.push(format!(".{}", std::process::id()));
        let temporary = path.with_file_name(name);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        Ok(Self {
            file,
            names: Some((temporary, path.to_owned())),
        })
    }

    /// Writes to a stream that is open, such as standard output.
    #[must_use]
    pub fn stream(file: File) -> Self {
        Self { file, names: None }
    }

    /// Gives the complete file its name, when its content is safe on the disk.
    pub(super) fn commit(mut self) -> io::Result<()> {
        if let Some((temporary, name)) = &self.names {
            self.file.sync_all()?;
            fs::rename(temporary, name)?;
            self.names = None;
        }
        Ok(())
    }
}

impl Write for SaveTarget {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for SaveTarget {
    fn drop(&mut self) {
        if let Some((temporary, _)) = &self.names {
            // What is left of it is of no use to anybody.
            let _ = fs::remove_file(temporary);
        }
    }
}

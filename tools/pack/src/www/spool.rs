//! Content made from files, until it is written. It is kept in a file without a name, so that memory does not grow with
//! the site.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Mutex, PoisonError};

/// A temporary file of pieces, one after another.
pub(crate) struct Spool {
    file: File,
    /// The size of the file in bytes.
    end: Mutex<u64>,
}

/// A piece of the spool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    at: u64,
    pub(crate) bytes: u64,
}

impl Spool {
    /// # Errors
    ///
    /// There is no place for temporary files.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            file: tempfile::tempfile()?,
            end: Mutex::new(0),
        })
    }

    /// Appends a piece.
    pub(super) fn keep(&self, piece: &[u8]) -> io::Result<Kept> {
        let bytes = piece.len() as u64;
        let at = {
            let mut end = self.end.lock().unwrap_or_else(PoisonError::into_inner);
            let at = *end;
            *end += bytes;
            at
        };
        self.file.write_all_at(piece, at)?;
        Ok(Kept { at, bytes })
    }

    /// Copies a piece to `out`.
    pub(crate) fn copy(&self, kept: Kept, out: &mut impl io::Write) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        let (mut at, mut left) = (kept.at, kept.bytes);
        while left > 0 {
            let length = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let part = &mut buffer[..length];
            self.file.read_exact_at(part, at)?;
            out.write_all(part)?;
            at += length as u64;
            left -= length as u64;
        }
        Ok(())
    }
}

//! Errors of reading.

use std::io;

/// Why a file was not read to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("it cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The file ends before its content does.
    #[error("it is cut: it ends at byte {at}, in {what}")]
    Cut {
        /// The number of bytes that it has.
        at: u64,
        /// What the file ends in.
        what: &'static str,
    },
    /// The file is of another kind.
    #[error("it is no file of `xl save` or `hatch save`")]
    NoSavedGuest,
    /// The file is valid, and needs something that is not supported.
    #[error("at byte {at}: {what}, which hatch does not restore")]
    Unsupported {
        /// The position of the header or the record.
        at: u64,
        /// What it has.
        what: String,
    },
    /// The file contradicts itself or the specification.
    #[error("at byte {at}: {what}")]
    Invalid {
        /// The position of the header or the record.
        at: u64,
        /// What is wrong.
        what: String,
    },
}

impl Error {
    /// An error of a record at this position.
    pub(crate) fn invalid(at: u64, what: impl Into<String>) -> Self {
        Self::Invalid {
            at,
            what: what.into(),
        }
    }

    /// A valid record at this position that is not supported.
    pub(crate) fn unsupported(at: u64, what: impl Into<String>) -> Self {
        Self::Unsupported {
            at,
            what: what.into(),
        }
    }
}

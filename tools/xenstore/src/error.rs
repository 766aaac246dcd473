//! Errors of xenstored and of the connection to it.

use std::fmt;
use std::io;
use std::time::Duration;

use super::path::PathError;

/// An error as xenstored names it (`xsd_errors` of `public/io/xs_wire.h`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "named as in errno.h")]
pub enum Code {
    EINVAL,
    EACCES,
    EEXIST,
    EISDIR,
    ENOENT,
    ENOMEM,
    ENOSPC,
    EIO,
    ENOTEMPTY,
    ENOSYS,
    EROFS,
    EBUSY,
    EAGAIN,
    EISCONN,
    E2BIG,
    EPERM,
    /// What no header names; cut to a readable length.
    Other(String),
}

const NAMES: [(&str, Code); 16] = [
    ("EINVAL", Code::EINVAL),
    ("EACCES", Code::EACCES),
    ("EEXIST", Code::EEXIST),
    ("EISDIR", Code::EISDIR),
    ("ENOENT", Code::ENOENT),
    ("ENOMEM", Code::ENOMEM),
    ("ENOSPC", Code::ENOSPC),
    ("EIO", Code::EIO),
    ("ENOTEMPTY", Code::ENOTEMPTY),
    ("ENOSYS", Code::ENOSYS),
    ("EROFS", Code::EROFS),
    ("EBUSY", Code::EBUSY),
    ("EAGAIN", Code::EAGAIN),
    ("EISCONN", Code::EISCONN),
    ("E2BIG", Code::E2BIG),
    ("EPERM", Code::EPERM),
];
/// As much of an unknown error as is repeated.
const OTHER_MAX: usize = 32;

impl Code {
    pub(super) fn parse(payload: &[u8]) -> Self {
        let name = payload.split(|byte| *byte == 0).next().unwrap_or_default();
        match NAMES.iter().find(|(known, _)| known.as_bytes() == name) {
            Some((_, code)) => code.clone(),
            None => {
                let shown = name.get(..OTHER_MAX).unwrap_or(name);
                Self::Other(shown.escape_ascii().to_string())
            }
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.iter().find(|(_, code)| code == self) {
            Some((name, _)) => f.write_str(name),
            None => match self {
                Self::Other(name) => write!(f, "an unknown error, {name:?}"),
                _ => f.write_str("an error"),
            },
        }
    }
}

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no xenstored to speak to.
    #[error("cannot reach xenstored ({tried}): {source}")]
    Unreachable {
        /// The socket and the device that were tried.
        tried: String,
        /// The more telling of the two reasons.
        source: io::Error,
    },
    /// xenstored said no.
    #[error("xenstored refuses {what}: {code}")]
    Refused {
        /// Request and path.
        what: String,
        /// xenstored's reason.
        code: Code,
    },
    /// Nothing came within the bound.
    #[error("xenstored has not answered {what} within {} ms", bound.as_millis())]
    Timeout {
        /// Request and path.
        what: String,
        /// How long was waited.
        bound: Duration,
    },
    /// A transaction met other people's changes until its bound was over.
    #[error("the transaction met changes by others for {} ms, {tries} times", bound.as_millis())]
    Contended {
        /// How often it was tried.
        tries: u32,
        /// For how long.
        bound: Duration,
    },
    /// What may not be a path.
    #[error("{path:?} cannot be a path of xenstore: {why}")]
    Path {
        /// Its beginning.
        path: String,
        /// What is wrong with it.
        why: PathError,
    },
    /// More than a message holds, or a NUL where none may be.
    #[error("{what} cannot be sent to xenstored: {why}")]
    Request {
        /// Request and path.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// An answer that the protocol allows and that makes no sense.
    #[error("xenstored's answer to {what} makes no sense: {why}")]
    Answer {
        /// Request and path.
        what: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// xenstored has broken the protocol; the connection is of no more use.
    #[error("xenstored has broken its protocol: {0}")]
    Protocol(&'static str),
    /// xenstored has gone.
    #[error("xenstored has closed the connection")]
    Closed,
    /// The socket or device failed.
    #[error("the connection to xenstored: {0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether xenstored knows no such path, watch or domain.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        self.is(&Code::ENOENT)
    }

    /// Whether xenstored gave this code.
    #[must_use]
    pub fn is(&self, wanted: &Code) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }

    /// Whether it is for want of permission.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Io(error) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => self.is(&Code::EACCES) || self.is(&Code::EPERM),
        }
    }
}

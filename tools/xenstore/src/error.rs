//! Errors of xenstored and of the connection to it.

use std::fmt;
use std::io;
use std::time::Duration;

use super::path::PathError;

/// An error name of xenstored (`xsd_errors` of `public/io/xs_wire.h`).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "named as in errno.h")]
pub enum ErrorCode {
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
    /// An unknown name, cut to a readable length.
    Other(String),
}

const NAMES: [(&str, ErrorCode); 16] = [
    ("EINVAL", ErrorCode::EINVAL),
    ("EACCES", ErrorCode::EACCES),
    ("EEXIST", ErrorCode::EEXIST),
    ("EISDIR", ErrorCode::EISDIR),
    ("ENOENT", ErrorCode::ENOENT),
    ("ENOMEM", ErrorCode::ENOMEM),
    ("ENOSPC", ErrorCode::ENOSPC),
    ("EIO", ErrorCode::EIO),
    ("ENOTEMPTY", ErrorCode::ENOTEMPTY),
    ("ENOSYS", ErrorCode::ENOSYS),
    ("EROFS", ErrorCode::EROFS),
    ("EBUSY", ErrorCode::EBUSY),
    ("EAGAIN", ErrorCode::EAGAIN),
    ("EISCONN", ErrorCode::EISCONN),
    ("E2BIG", ErrorCode::E2BIG),
    ("EPERM", ErrorCode::EPERM),
];
/// The greatest length of an unknown error name in a message.
const OTHER_MAX: usize = 32;

impl ErrorCode {
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

impl fmt::Display for ErrorCode {
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

/// The error of a request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// xenstored cannot be reached.
    #[error("cannot reach xenstored ({tried}): {source}")]
    Unreachable {
        /// The socket and the device that were tried.
        tried: String,
        /// The more informative of the two reasons.
        source: io::Error,
    },
    /// xenstored refused the request.
    #[error("xenstored refuses {what}: {code}")]
    Refused {
        /// Request and path.
        what: String,
        /// xenstored's reason.
        code: ErrorCode,
    },
    /// There was no answer within the time limit.
    #[error("xenstored has not answered {what} within {} ms", bound.as_millis())]
    Timeout {
        /// Request and path.
        what: String,
        /// The waiting time.
        bound: Duration,
    },
    /// A transaction conflicted with changes by others until its time limit.
    #[error("the transaction met changes by others for {} ms, {tries} times", bound.as_millis())]
    Contended {
        /// The number of attempts.
        tries: u32,
        /// The time limit.
        bound: Duration,
    },
    /// An invalid path.
    #[error("{path:?} cannot be a path of xenstore: {why}")]
    Path {
        /// The beginning of the path.
        path: String,
        /// The reason.
        why: PathError,
    },
    /// The request is longer than a message, or has a NUL in a wrong place.
    #[error("{what} cannot be sent to xenstored: {why}")]
    Request {
        /// Request and path.
        what: String,
        /// The reason.
        why: &'static str,
    },
    /// An answer that the protocol allows but that is invalid.
    #[error("xenstored's answer to {what} is invalid: {why}")]
    Answer {
        /// Request and path.
        what: String,
        /// The reason.
        why: &'static str,
    },
    /// xenstored has broken the protocol; the connection is unusable.
    #[error("xenstored has broken its protocol: {0}")]
    Protocol(&'static str),
    /// xenstored has closed the connection.
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
        self.is(&ErrorCode::ENOENT)
    }

    /// Whether xenstored gave this code.
    #[must_use]
    pub fn is(&self, wanted: &ErrorCode) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }

    /// Whether a permission is missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => source.kind() == io::ErrorKind::PermissionDenied,
            Self::Io(error) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => self.is(&ErrorCode::EACCES) || self.is(&ErrorCode::EPERM),
        }
    }
}

//! Errors of operations on links.

use std::io;
use std::time::Duration;

/// An error of an operation on a link.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel knows no such link.
    #[error("there is no network link {0}; `ip link` lists them")]
    NoSuchLink(String),
    /// The link is not a bridge.
    #[error("{name} is {kind} and not a bridge")]
    NotABridge {
        /// The link.
        name: String,
        /// The kind of the link.
        kind: String,
    },
    /// The text is not a valid name of a link.
    #[error(
        "{0:?} cannot be the name of a network link: 1 to 15 characters without '/', ':' and spaces"
    )]
    Name(String),
    /// The link did not appear.
    #[error("no link {name} has appeared within {} ms; is the kernel's xen-netback there?", bound.as_millis())]
    NotAppeared {
        /// The link.
        name: String,
        /// The waiting time.
        bound: Duration,
    },
    /// Nothing is connected to the link.
    #[error("nothing has connected to {name} within {} ms", bound.as_millis())]
    NotRunning {
        /// The link.
        name: String,
        /// The waiting time.
        bound: Duration,
    },
    /// The link did not disappear.
    #[error("the link {name} is still there after {} ms", bound.as_millis())]
    NotGone {
        /// The link.
        name: String,
        /// The waiting time.
        bound: Duration,
    },
    /// The caller may not change links.
    #[error("{0}: permission denied; CAP_NET_ADMIN is needed")]
    Permission(String),
    /// The kernel refused a request.
    #[error("{what}: {source}")]
    Refused {
        /// The request.
        what: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The kernel was built without a module, or cannot find it.
    #[error("the kernel has no {0}: is the module of this name there (`modprobe {0}`)?")]
    NoModule(&'static str),
    /// The kernel does not answer.
    #[error("{0}: the kernel does not answer")]
    Silent(&'static str),
    /// The kernel's message is malformed.
    #[error("the kernel's netlink message is malformed: {0}")]
    Malformed(String),
    /// The list of links keeps changing while it is read.
    #[error("the list of links changes faster than it can be read")]
    Unsteady,
    /// The socket failed.
    #[error("the netlink socket: {0}")]
    Io(#[from] io::Error),
}

impl Error {
    /// Whether a permission is missing.
    #[must_use]
    pub fn is_permission(&self) -> bool {
        match self {
            Self::Permission(_) => true,
            Self::Io(error) => error.kind() == io::ErrorKind::PermissionDenied,
            _ => false,
        }
    }
}

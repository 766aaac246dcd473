//! The error that ends the daemon.

use std::io;

/// The reason why the daemon cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// An error in the file.
    #[error("{0}")]
    Config(String),
    /// An error of a link.
    #[error(transparent)]
    Net(#[from] mayfly_links::Error),
    /// An error in the zones.
    #[error(transparent)]
    Names(#[from] super::super::names::NamesError),
    /// An error of Xen.
    #[error(transparent)]
    Xen(#[from] mayfly_xen::Error),
    /// A socket that cannot be listened on.
    #[error("{0}")]
    Listen(String),
    /// An error of the front.
    #[error("the front: {0}")]
    Front(super::super::channel::ChannelError),
    /// Another error of the system.
    #[error(transparent)]
    Io(#[from] io::Error),
}

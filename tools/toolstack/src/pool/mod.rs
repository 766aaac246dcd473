//! A pool of shells: paused guests without an identity, created ahead of time with memory, image, rings and a connected
//! interface.
//!
//! `hatch pool` keeps the pool: one process that has the image open and replaces the shells that are taken. A client
//! sends one line of JSON, a [`PoolOrder`], to its socket, and gets one back, a [`PoolReply`]. Only root can open the socket.
//!
//! `hatch summon` has a pool as well, for services with `asleep = "pool"`. Both keep their shells in a [`ShellPool`].
//!
//! A shell's interface is a port of its bridge that is not flooded, so that frames for others do not fill its ring.

mod serve;
mod shells;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::builder::GuestConfig;
use crate::line;
pub use serve::{PoolError, PoolServer};
pub use shells::{BackOff, FillError, ShellKind, ShellLimits, ShellPool};

/// The default path of the pool's socket.
pub const SOCKET: &str = "/run/hatch/pool";

/// A request to the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolOrder {
    /// Take a guest.
    Create(Box<WantedGuest>),
    /// Report the pool's status.
    Status,
}

/// The guest that a client wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedGuest {
    /// Its configuration. Everything except its identity has to be as in the pool's template.
    pub config: GuestConfig,
    /// The image, which has to be the pool's: an absolute path, as the pool runs in another folder.
    pub kernel: PathBuf,
    /// The file of its PVH module: an absolute path.
    pub ramdisk: Option<PathBuf>,
    /// Whether it has to have the UUID of its configuration. Shells have UUIDs of their own.
    pub has_uuid: bool,
    /// Whether it is unpaused at once.
    pub unpause: bool,
}

/// The pool's reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolReply {
    /// The guest was made.
    Made(GivenGuest),
    /// The pool has no shell at this moment.
    Empty,
    /// The pool's guests are of another kind. The text says in what.
    Other(String),
    /// A step failed.
    Failed {
        /// Whether another guest has the name or the MAC address.
        taken: bool,
        /// The step, its error, and advice.
        message: String,
    },
    /// The pool's status.
    Status(PoolStatus),
}

/// A guest that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GivenGuest {
    /// The domid.
    pub domid: u16,
    /// The UUID, which is the shell's.
    pub uuid: [u8; 16],
    /// The duration, in nanoseconds.
    pub total_ns: u64,
    /// The timeline, in the JSON form of [`crate::builder::report::Timeline`].
    pub timeline: serde_json::Value,
}

/// The status of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolStatus {
    /// The number of shells that are ready.
    pub ready: usize,
    /// The number of shells that the pool keeps.
    pub size: usize,
    /// The number of guests that were taken.
    pub taken: u64,
    /// The reason why the pool is not filled up, if it is not.
    pub trouble: Option<String>,
}

/// Sends a request to a pool; `None` if there is no pool.
///
/// # Errors
/// The pool does not answer in time, or its reply cannot be parsed.
pub fn order(socket: &Path, order: &PoolOrder, bound: Duration) -> io::Result<Option<PoolReply>> {
    line::ask(socket, order, bound)
}

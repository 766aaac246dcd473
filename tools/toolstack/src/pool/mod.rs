//! A pool of guests made ahead: shells, with memory, image, rings and a connected interface, that wait, paused, to be told
//! who they are.
//!
//! `hatch pool` keeps it: one process that has the image open and fills the pool up behind what is taken. Whoever wants a guest sends
//! one line of JSON, an [`Order`], to its socket and gets one back, a [`Reply`]. Only root can open the socket.
//!
//! A shell's interface is a port of its bridge that gets nothing for everybody, so that nothing that is meant for others fills its ring.

mod serve;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::builder::Config;
use crate::line;
pub use serve::{Limits, Pool, ServeError};

/// Where the pool listens, if nothing else is said.
pub const SOCKET: &str = "/run/hatch/pool";

/// What somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// A guest.
    Create(Box<Wanted>),
    /// To know how the pool is.
    Status,
}

/// A guest that somebody wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// What it is made from. What is not its identity has to be as the pool's guests are made.
    pub config: Config,
    /// The image, which has to be the pool's: an absolute path, as the pool runs in another folder.
    pub kernel: PathBuf,
    /// What goes to it as its PVH module: an absolute path.
    pub ramdisk: Option<PathBuf>,
    /// Whether it is to have the UUID of its configuration. Shells have one of their own.
    pub has_uuid: bool,
    /// Whether it is to run at once.
    pub unpause: bool,
}

/// What the pool says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The guest.
    Made(Made),
    /// There is no shell at this moment.
    Empty,
    /// The pool's guests are of another make; why.
    Other(String),
    /// A step failed. The message says which, and what to do.
    Failed {
        /// Somebody has the name, or the MAC address.
        taken: bool,
        /// What went wrong.
        message: String,
    },
    /// How the pool is.
    Status(Status),
}

/// A guest that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Its number.
    pub domid: u16,
    /// Its UUID, which the shell had.
    pub uuid: [u8; 16],
    /// Nanoseconds that it took.
    pub total_ns: u64,
    /// Its timeline, as [`crate::builder::report::Timeline`] is written.
    pub timeline: serde_json::Value,
}

/// How a pool is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Shells that wait.
    pub ready: usize,
    /// How many there are to be.
    pub size: usize,
    /// Guests that were taken out of it.
    pub taken: u64,
    /// Why it is not being filled up, if it is not.
    pub trouble: Option<String>,
}

/// Sends an order to a pool. `None` when there is no pool.
///
/// # Errors
/// It does not answer in time, or not as a pool does.
pub fn order(socket: &Path, order: &Order, bound: Duration) -> io::Result<Option<Reply>> {
    line::ask(socket, order, bound)
}

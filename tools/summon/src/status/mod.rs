//! What the daemon tells of itself: one [`Status`], as a line of JSON for `hatch summon status`, as Prometheus' text, and as a page for
//! a browser; and what `hatch summon wake`, `sleep` and `restart` want of it, over the local socket alone.

mod http;
mod metrics;
mod page;
mod picture;
mod server;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::fleet::Command;

pub use server::{serve, serve_at, tell};
pub use table::table;

/// The highest count: JSON has no higher one that is exact.
const COUNT_MAX: u64 = 1 << 53;

/// How the daemon and its services are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Milliseconds since the daemon began.
    pub uptime_ms: u64,
    /// In the order of the file.
    pub services: Vec<Service>,
    /// What is of no one service.
    pub totals: Totals,
}

/// How a service is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its guest's name.
    pub name: String,
    /// Host names that lead to it.
    pub hosts: Vec<String>,
    /// What it does.
    pub state: State,
    /// Its guest's number.
    pub domid: Option<u16>,
    /// Milliseconds since its guest was born.
    pub uptime_ms: Option<u64>,
    /// Guests that were made.
    pub births: u64,
    /// Guests that were removed, or ended.
    pub deaths: u64,
    /// Guests that went on after they had been suspended.
    pub resumes: u64,
    /// Births that failed.
    pub failures: u64,
    /// What went wrong last.
    pub last_trouble: Option<String>,
    /// How the last guest was born, in the order of the beginnings.
    pub last_boot: Vec<Step>,
    /// MiB of its guest.
    pub memory: u64,
    /// DNS queries for its names.
    pub queries: u64,
    /// Requests that its guest has answered, as the guest counts them.
    pub requests: Option<u64>,
    /// Frames that came before its guest could take them.
    pub frames: Frames,
    /// Frames of its guest's that were dropped, as they were not its own: see [`super::guard`].
    pub guarded: u64,
}

/// What a service does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nobody asks.
    #[default]
    Asleep,
    /// It is asked for, and waits for room.
    Queued,
    /// Its guest is being made.
    BeingBorn,
    /// Its guest runs.
    Running,
    /// Nobody asks; its guest stands still.
    Suspended,
    /// Its guest is being removed.
    Dying,
    /// It has failed, and is not tried again yet.
    BackedOff,
}

/// A part of a birth, relative to the packet that was its cause.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What happens.
    pub what: String,
    /// When it begins, in microseconds.
    pub from_us: u64,
    /// When it is over; the same for what takes no time.
    pub to_us: u64,
}

/// Frames that came before a guest could take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frames {
    /// That were held.
    pub held: u64,
    /// That were given to the guest.
    pub replayed: u64,
    /// For which there was no room, or that could not be given to it.
    pub dropped: u64,
}

/// How many, of each kind.
pub type Counts = BTreeMap<String, u64>;

/// What is of no one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// DNS queries by what was answered: `noerror`, `nxdomain`, `refused`, `forwarded`, ...
    pub queries: Counts,
    /// What has woken services: `dns`, `arp`, `nd`, `syn`, `udp`.
    pub wakes: Counts,
    /// Wakes that were refused, by the limit.
    pub refused: Counts,
    /// Guests that run.
    pub running: usize,
    /// MiB of them.
    pub memory: u64,
    /// Services that wait for room.
    pub queued: usize,
    /// Guests that wait in the pool.
    pub pool: usize,
}

/// The sum of a count and what the front adds to it, whatever that is: no count is so high that a few of them overflow.
#[must_use]
pub fn sum(count: u64, more: u64) -> u64 {
    count.saturating_add(more).min(COUNT_MAX)
}

impl Frames {
    /// With more, as the front tells them.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        Self {
            held: sum(self.held, more.held),
            replayed: sum(self.replayed, more.replayed),
            dropped: sum(self.dropped, more.dropped),
        }
    }
}

impl State {
    /// As it is written everywhere.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Asleep => "asleep",
            Self::Queued => "queued",
            Self::BeingBorn => "being-born",
            Self::Running => "running",
            Self::Suspended => "suspended",
            Self::Dying => "dying",
            Self::BackedOff => "backed-off",
        }
    }

    const ALL: [Self; 7] = [
        Self::Asleep,
        Self::Queued,
        Self::BeingBorn,
        Self::Running,
        Self::Suspended,
        Self::Dying,
        Self::BackedOff,
    ];
}

impl Service {
    /// Microseconds from the packet that was its cause to the end of the last birth; none where there was nothing but that packet.
    #[must_use]
    pub fn last_boot_us(&self) -> Option<u64> {
        let ends = self.last_boot.iter().map(|step| step.to_us);
        ends.max().filter(|us| *us > 0)
    }
}

/// Where a status comes from, at any time and from any thread.
pub trait Source: Fn() -> Arc<Status> + Send + Sync + 'static {}

impl<T: Fn() -> Arc<Status> + Send + Sync + 'static> Source for T {}

/// What is asked at the local socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Question {
    Status,
    Do(Request),
}

/// What the administrator wants of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its name.
    pub service: String,
    /// What.
    pub command: Command,
}

/// Whether that is done: else why not.
pub type Done = Result<(), String>;

/// Who does what the administrator wants, at any time and from any thread.
pub trait Doer: Fn(Request) -> Done + Send + Sync + 'static {}

impl<T: Fn(Request) -> Done + Send + Sync + 'static> Doer for T {}

/// Asks a daemon how it is. `None` when there is none.
///
/// # Errors
/// It does not answer in time, or not as one does.
pub fn ask(socket: &Path, bound: Duration) -> io::Result<Option<Status>> {
    mayfly_toolstack::line::ask(socket, &Question::Status, bound)
}

/// Has a daemon do something. `None` when there is none.
///
/// # Errors
/// It does not answer in time, or not as one does.
pub fn request(socket: &Path, request: Request, bound: Duration) -> io::Result<Option<Done>> {
    mayfly_toolstack::line::ask(socket, &Question::Do(request), bound)
}

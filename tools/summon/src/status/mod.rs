//! The daemon's status: one [`SummonStatus`], as a line of JSON for `hatch summon status`, as Prometheus' text, and as a page
//! for a browser. The local socket also takes the commands of `hatch summon wake`, `sleep` and `restart`.

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

use mayfly_toolstack::builder::Network;
use mayfly_toolstack::traffic::NetworkTraffic;
use serde::{Deserialize, Serialize};

use super::fleet::Command;

pub use server::{serve, serve_at, tell};
pub use table::table;

/// The highest count, because JSON has no exact number above it.
const COUNT_MAX: u64 = 1 << 53;

/// The status of the daemon and its services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummonStatus {
    /// Milliseconds since the daemon began.
    pub uptime_ms: u64,
    /// The services, in the order of the file.
    pub services: Vec<ServiceStatus>,
    /// The figures of the whole daemon.
    pub totals: Totals,
}

/// The status of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// The guest's name.
    pub name: String,
    /// Host names that lead to it.
    pub hosts: Vec<String>,
    /// Its state.
    pub state: ShownState,
    /// The number of its guest's domain.
    pub domid: Option<u16>,
    /// Milliseconds since its guest was born.
    pub uptime_ms: Option<u64>,
    /// Guests that were made.
    pub births: u64,
    /// Guests that were removed, or ended.
    pub deaths: u64,
    /// Guests that were unpaused after they had been suspended.
    pub resumes: u64,
    /// Births that failed.
    pub failures: u64,
    /// The last failure.
    pub last_trouble: Option<String>,
    /// The steps of the last birth, in the order of their beginnings.
    pub last_boot: Vec<BirthStep>,
    /// The memory of its guest, in MiB.
    pub memory: u64,
    /// DNS queries for its names.
    pub queries: u64,
    /// Requests that its guest has answered, as the guest counts them.
    pub requests: Option<u64>,
    /// Frames that arrived before its guest could take them.
    pub frames: FrameCounts,
    /// Frames of its guest that the guard has dropped: see [`super::guard`].
    pub guarded: u64,
    /// The back end of its next guest's network.
    #[serde(default)]
    pub network: Network,
    /// What its guest's back end has counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<NetworkTraffic>,
}

/// The state of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ShownState {
    /// It has no guest.
    #[default]
    Asleep,
    /// It waits for room.
    Queued,
    /// Its guest is being made.
    BeingBorn,
    /// Its guest runs.
    Running,
    /// Its guest is paused.
    Suspended,
    /// Its guest is being removed.
    Dying,
    /// It has failed and waits for the next attempt.
    BackedOff,
}

/// A step of a birth. Its times are relative to the packet that caused the birth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BirthStep {
    /// The name of the step.
    pub what: String,
    /// Its beginning, in microseconds.
    pub from_us: u64,
    /// Its end, in microseconds; the same for a moment.
    pub to_us: u64,
}

/// Counters of frames that arrived before a guest could take them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// Frames that were held.
    pub held: u64,
    /// Held frames that were given to the guest.
    pub replayed: u64,
    /// Frames that could not be held or could not be given to the guest.
    pub dropped: u64,
}

/// Counters by kind.
pub type CountsByKind = BTreeMap<String, u64>;

/// The figures of the whole daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// DNS queries by answer: `noerror`, `nxdomain`, `refused`, `forwarded`, ...
    pub queries: CountsByKind,
    /// Wakes by cause: `dns`, `arp`, `nd`, `syn`, `udp`.
    pub wakes: CountsByKind,
    /// Refused wakes, by limit.
    pub refused: CountsByKind,
    /// Running guests.
    pub running: usize,
    /// The memory of these guests, in MiB.
    pub memory: u64,
    /// Services that wait for room.
    pub queued: usize,
    /// Guests in the pool.
    pub pool: usize,
}

/// Adds a number of the front, which may be anything, to a count. The result is at most `COUNT_MAX`, so that sums of
/// counts do not overflow.
#[must_use]
pub fn sum(count: u64, more: u64) -> u64 {
    count.saturating_add(more).min(COUNT_MAX)
}

impl FrameCounts {
    /// The sum with counters of the front.
    #[must_use]
    pub fn and(&self, more: &Self) -> Self {
        Self {
            held: sum(self.held, more.held),
            replayed: sum(self.replayed, more.replayed),
            dropped: sum(self.dropped, more.dropped),
        }
    }
}

impl ShownState {
    /// The name of the state.
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

impl ServiceStatus {
    /// The back end of its guest's network, or of its next guest's.
    #[must_use]
    pub fn back_end(&self) -> Network {
        let now = self.traffic.as_ref().map(|traffic| traffic.network);
        now.unwrap_or(self.network)
    }

    /// The time from the causing packet to the end of the last birth, in microseconds; `None` if there are no other
    /// steps than the packet.
    #[must_use]
    pub fn last_boot_us(&self) -> Option<u64> {
        let ends = self.last_boot.iter().map(|step| step.to_us);
        ends.max().filter(|us| *us > 0)
    }
}

/// Gives the status, at any time and to any thread.
pub trait StatusReader: Fn() -> Arc<SummonStatus> + Send + Sync + 'static {}

impl<T: Fn() -> Arc<SummonStatus> + Send + Sync + 'static> StatusReader for T {}

/// A request at the local socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Question {
    Status,
    Do(ServiceCommand),
}

/// A command of the administrator for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceCommand {
    /// The service's name.
    pub service: String,
    /// The command.
    pub command: Command,
}

/// The result of a command: an error is the reason why it was not carried out.
pub type CommandResult = Result<(), String>;

/// Carries out commands, at any time and from any thread.
pub trait CommandDoer: Fn(ServiceCommand) -> CommandResult + Send + Sync + 'static {}

impl<T: Fn(ServiceCommand) -> CommandResult + Send + Sync + 'static> CommandDoer for T {}

/// Asks a daemon for its status. Returns `None` if there is no daemon.
///
/// # Errors
/// The daemon does not answer in time, or its answer is malformed.
pub fn ask(socket: &Path, bound: Duration) -> io::Result<Option<SummonStatus>> {
    mayfly_toolstack::line::ask(socket, &Question::Status, bound)
}

/// Sends a command to a daemon. Returns `None` if there is no daemon.
///
/// # Errors
/// The daemon does not answer in time, or its answer is malformed.
pub fn request(
    socket: &Path,
    request: ServiceCommand,
    bound: Duration,
) -> io::Result<Option<CommandResult>> {
    mayfly_toolstack::line::ask(socket, &Question::Do(request), bound)
}

//! The events of services, and the actions that follow.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::config::Asleep;
use super::limits::Prefix;

/// The number of a service. It stays the same as long as the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceId(pub u32);

/// The settings of a service that the fleet needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The memory of its guest, in MiB.
    pub memory: u64,
    /// The quiet time after which it sleeps if it has no connections.
    pub idle: Duration,
    /// The quiet time after which it sleeps in any case, if there is such a limit.
    pub idle_hard: Option<Duration>,
    /// The time in which a new guest must send something.
    pub start_timeout: Duration,
    /// The longest life of a guest, if there is such a limit.
    pub lifetime: Option<Duration>,
    /// The state of its guest while it sleeps.
    pub asleep: Asleep,
    /// Whether it sleeps. Otherwise its guest always runs.
    pub on_demand: bool,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetEvent {
    /// A client of this network wants the service; `None` if the daemon itself does.
    Wanted(ServiceId, Option<Prefix>),
    /// Its guest was made, and runs as this domain.
    Made(ServiceId, u16),
    /// Its guest could not be made, for this reason. Nothing of it is left.
    NotMade(ServiceId, String),
    /// Its guest has sent something.
    Heard(ServiceId),
    /// The number of its guest's connections; `None` if the guest did not answer.
    Connections(ServiceId, Option<u32>),
    /// Its guest has ended by itself: whether that is a failure, and the reason.
    Ended(ServiceId, bool, String),
    /// Its guest was removed. The text describes leftovers, if there are any.
    Removed(ServiceId, Option<String>),
    /// A running guest of an earlier daemon was found, as this domain.
    Found(ServiceId, u16),
    /// Time has passed.
    Time,
}

/// An action for the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FleetAction {
    /// Make a guest.
    Make(ServiceId),
    /// Take the service's packets, and remove its guest.
    Remove(ServiceId, u16),
    /// Take the service's packets, and pause its guest.
    Suspend(ServiceId, u16),
    /// Unpause its guest.
    Resume(ServiceId, u16),
    /// Take the service's packets while its guest runs.
    Shut(ServiceId),
    /// Give the held packets and all later ones to its guest.
    Open(ServiceId),
    /// Ask its guest for its connections.
    Ask(ServiceId),
    /// Drop the held packets.
    Drop(ServiceId),
    /// Log something.
    Tell(ServiceId, LogNews),
    /// The service was removed, and nothing of it is left.
    Gone(ServiceId),
}

/// A command of the administrator for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Make a guest, even if the service has failed lately.
    Wake,
    /// Sleep, even if connections are open.
    Sleep,
    /// Replace the guest by a new one, or make one.
    Restart,
}

impl Command {
    /// The name of the command.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Sleep => "sleep",
            Self::Restart => "restart",
        }
    }
}

/// Something to log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogNews {
    /// The service waits for room.
    Queued,
    /// Its guest runs and has sent something.
    Up,
    /// Its guest is removed, for this reason.
    Down(&'static str),
    /// It is asleep.
    Asleep,
    /// It is asleep, and its guest is paused.
    Suspended,
    /// Its guest was unpaused.
    Resumed,
    /// It has failed, for this reason, and is not tried again for this time.
    Failed(String, Duration),
}

/// Counters of refused wakes, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// The client's network has caused too many births.
    pub prefix: u64,
    /// Too many services wait for room.
    pub queue: u64,
    /// The service has failed lately.
    pub backed_off: u64,
}

//! What happens to services, and what is to be done about it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::config::Asleep;
use super::limits::Prefix;

/// A service. It means the same one as long as the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Id(pub u32);

/// What is to be known of a service here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// MiB of memory.
    pub memory: u64,
    /// It goes to sleep when it has been quiet for so long, and has no connections.
    pub idle: Duration,
    /// And after so long in any case, if there is such a limit.
    pub idle_hard: Option<Duration>,
    /// A guest that runs has to be heard of in this time.
    pub start_timeout: Duration,
    /// No guest lives for longer, if there is such a limit.
    pub lifetime: Option<Duration>,
    /// What becomes of it then.
    pub asleep: Asleep,
    /// Whether it sleeps at all.
    pub on_demand: bool,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants the service. Nobody in particular when it is the daemon itself.
    Wanted(Id, Option<Prefix>),
    /// Its guest was made, and runs.
    Made(Id, u16),
    /// It could not be made, and nothing of it is there.
    NotMade(Id, String),
    /// Its guest has sent something.
    Heard(Id),
    /// How many connections its guest has; nothing when it does not say.
    Connections(Id, Option<u32>),
    /// Its guest has ended by itself; whether that is a failure, and what happened.
    Ended(Id, bool, String),
    /// Its guest was removed; what is left of it, if anything.
    Removed(Id, Option<String>),
    /// A guest of it was found, and runs.
    Found(Id, u16),
    /// Time has passed.
    Time,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a guest.
    Make(Id),
    /// Take what is sent to it, and remove its guest.
    Remove(Id, u16),
    /// Take what is sent to it, and have its guest stand still.
    Suspend(Id, u16),
    /// Let its guest go on.
    Resume(Id, u16),
    /// Take what is sent to it, though its guest runs.
    Shut(Id),
    /// Give to its guest what was taken, and what comes.
    Open(Id),
    /// Ask its guest for its connections.
    Ask(Id),
    /// Nobody will be there for what is held of it.
    Drop(Id),
    /// Somebody should know.
    Tell(Id, Tell),
    /// It is not a service any more, and nothing of it is left.
    Gone(Id),
}

/// What the administrator wants of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// A guest, even if it has failed lately.
    Wake,
    /// Sleep, whoever is connected.
    Sleep,
    /// A new guest in place of the one there is, or a first one.
    Restart,
}

impl Command {
    /// As it is written everywhere.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Wake => "wake",
            Self::Sleep => "sleep",
            Self::Restart => "restart",
        }
    }
}

/// What somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tell {
    /// It waits for others.
    Queued,
    /// Its guest is there, and was heard.
    Up,
    /// Its guest goes, and why.
    Down(&'static str),
    /// It is asleep.
    Asleep,
    /// It is asleep, and its guest stands still.
    Suspended,
    /// Its guest goes on.
    Resumed,
    /// It does not come up: why, and how long nobody tries.
    Failed(String, Duration),
}

/// Why somebody does not get a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Their network has had too many.
    pub prefix: u64,
    /// Too many wait.
    pub queue: u64,
    /// The service has failed.
    pub backed_off: u64,
}

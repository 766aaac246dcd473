//! The time from a client's SYN to its SYN-ACK, which includes making the guest if need be: the job and its results.

use std::net::Ipv4Addr;

use mayfly_summon::status::{BirthStep, ShownState};
use serde::{Deserialize, Serialize};

/// The connections to measure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Path of the services' file in dom0.
    pub services: String,
    /// The bridge that `hatch switch` has a port on, if it is to run.
    pub switch: Option<String>,
    /// The number of pooled guests that exist before each connection.
    pub pool: usize,
    /// The subjects, each connected to once in a round.
    pub subjects: Vec<Subject>,
    /// The number of rounds.
    pub rounds: u32,
    /// Bound of every single wait, in seconds.
    pub bound_s: u64,
}

/// A subject: an address to connect to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// Its name in the results, and the name of its service.
    pub name: String,
    /// Its address; the port is 80.
    pub address: Ipv4Addr,
    /// The way in which its guest is started.
    pub by: By,
}

/// The way in which a guest is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// By the daemon; the state is that of the service when it is not in use.
    Summon(ShownState),
    /// By a program that is started with the client's first packet; the second program removes what the first has made.
    Programs(Vec<String>, Vec<String>),
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// [`Subject::name`].
    pub subject: String,
    /// Ticks from the client's call (and the start of the program, if there is one) until the connection is
    /// established.
    pub ticks: u64,
    /// The steps of the last birth of the service's guest, as the daemon reports them: for this connection, if there
    /// was no guest before.
    pub steps: Vec<BirthStep>,
}

/// All measurements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Ticks in a second.
    pub tsc_hz: u64,
    /// The connections, in order.
    pub connections: Vec<Connection>,
}

impl Report {
    /// Collects the connections from a console's output.
    ///
    /// # Errors
    /// Those of [`super::seen`].
    pub fn from_console(text: &str) -> Result<Self, String> {
        let (connections, tsc_hz) = super::seen(text)?;
        Ok(Self {
            tsc_hz,
            connections,
        })
    }
}

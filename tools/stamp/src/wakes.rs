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
    /// What guests on the switch cost by programs and a resident process. That is measured first, while no service has
    /// a guest.
    #[serde(default)]
    pub lives: Option<Lives>,
    /// The subjects, each connected to once in a round.
    pub subjects: Vec<Subject>,
    /// The number of rounds.
    pub rounds: u32,
    /// Bound of every single wait, in seconds.
    pub bound_s: u64,
}

/// The guests on the switch whose making, listing and end are measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lives {
    /// Path of their configuration in dom0, for a guest of the name `mayfly`.
    pub config: String,
    /// The address in it.
    pub address: Ipv4Addr,
    /// Path of the template of other guests, for the name `other`.
    pub template: String,
    /// The number of these, beside which the programs are measured again.
    pub others: u32,
    /// The address of the first of these.
    pub first: Ipv4Addr,
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
    /// Ticks until the first byte of the answer to a request that is sent then.
    pub first_byte: u64,
    /// The steps of the last birth of the service's guest, as the daemon reports them: for this connection, if there
    /// was no guest before.
    pub steps: Vec<BirthStep>,
}

/// What something about a guest on the switch took once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// What it was.
    pub what: String,
    /// Ticks.
    pub ticks: u64,
}

/// One measurement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// Of a connection.
    Connection(Connection),
    /// Of [`Job::lives`].
    Cost(Cost),
}

/// All measurements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Ticks in a second.
    pub tsc_hz: u64,
    /// The costs of guests on the switch, in order.
    pub costs: Vec<Cost>,
    /// The connections, in order.
    pub connections: Vec<Connection>,
}

impl Report {
    /// Collects the connections from a console's output.
    ///
    /// # Errors
    /// Those of [`super::seen`].
    pub fn from_console(text: &str) -> Result<Self, String> {
        let (all, tsc_hz) = super::seen(text)?;
        let (mut connections, mut costs) = (Vec::new(), Vec::new());
        for seen in all {
            match seen {
                Seen::Connection(connection) => connections.push(connection),
                Seen::Cost(cost) => costs.push(cost),
            }
        }
        Ok(Self {
            tsc_hz,
            costs,
            connections,
        })
    }
}

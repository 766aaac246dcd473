//! From a client's SYN to its SYN-ACK, whoever has to be made for that first: the job, and what was seen.

use std::net::Ipv4Addr;

use mayfly_summon::status::{State, Step};
use serde::{Deserialize, Serialize};

/// Who is asked for connections.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// Path of the services' file in dom0.
    pub services: String,
    /// Guests made ahead that there are before each connection.
    pub pool: usize,
    /// Who is asked, each once in a round.
    pub subjects: Vec<Subject>,
    /// How often.
    pub rounds: u32,
    /// Bound of every single wait, in seconds.
    pub bound_s: u64,
}

/// Who is asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Subject {
    /// What it is called in the results, and its service.
    pub name: String,
    /// Where it is asked, at port 80.
    pub address: Ipv4Addr,
    /// Who has it answer.
    pub by: By,
}

/// Who has a guest answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The daemon, whose service this is when nobody asks.
    Summon(State),
    /// A program that is started with the client's first packet, and one that removes what that has made.
    Programs(Vec<String>, Vec<String>),
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// [`Subject::name`].
    pub subject: String,
    /// From the client's call, and the start of the program, if there is one, until it is connected.
    pub ticks: u64,
    /// How the last guest of the service was born, as the daemon says: for this connection, if there was none.
    pub steps: Vec<Step>,
}

/// Everything that was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Ticks in a second.
    pub tsc_hz: u64,
    /// In their order.
    pub connections: Vec<Connection>,
}

impl Report {
    /// Collects the connections out of everything that was on a console.
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

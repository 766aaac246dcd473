//! What a running switch is asked, and what it answers: a line of JSON each, over a socket of this machine. Many questions may follow each other
//! on one connection, and are answered in their order; notices come between when they were asked for.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::switch::{Cause, DumpBounds, Guest, GuestStatus, Notice, Sleeper, Status};

pub use mayfly_commands::SWITCH_SOCKET as SOCKET;
/// Bytes of the longest question.
pub const QUESTION_MAX: usize = 16 * 1024;
/// Bytes of the longest answer.
const ANSWER_MAX: u64 = 64 << 20;

/// A question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Serve this guest.
    Attach(Box<Guest>),
    /// Let go of the guest of this domain.
    Detach(u16),
    /// Hold what comes for this guest, which is not there.
    Sleep(Box<Sleeper>),
    /// Forget the sleeper of this name.
    Forget(String),
    /// Tell what comes of the guests.
    Status,
    /// Tell how many frames each guest has sent.
    Frames,
    /// Tell whether the guest of this domain still has memory.
    There(u16),
    /// Record this guest's traffic, for so many milliseconds at most. The answer comes when the record is full or the time is over.
    Dump {
        /// Its name.
        name: String,
        /// How much.
        #[serde(default)]
        bounds: DumpBounds,
        /// For how long.
        milliseconds: u64,
    },
    /// Tell notices on this connection from now on.
    Notices,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// The guest is served: dom0's link, to which its bridge has to send what is for the guest.
    Attached {
        /// The link's name.
        link: String,
    },
    /// The guest is let go of.
    Detached(Box<GuestStatus>),
    /// It was done.
    Done,
    /// What comes of the guests.
    Status(Box<Status>),
    /// Whether it has.
    There(bool),
    /// Domains, and the frames that each has sent.
    Frames(Vec<(u16, u64)>),
    /// A pcap file of so many bytes, which follow the line.
    Dump(usize),
    /// It was not done.
    Error(String),
    /// What there is to tell.
    Notice(Told),
}

/// A notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Told {
    /// Somebody looks for a sleeper.
    Wanted {
        /// Its name.
        name: String,
        /// Why.
        cause: Cause,
        /// Who.
        from: IpAddr,
    },
    /// A guest's port was shut.
    Shut {
        /// Its name.
        name: String,
        /// Its domain.
        domain: u16,
        /// Why.
        why: String,
    },
    /// A bridge's port is lost.
    Lost {
        /// The bridge.
        bridge: String,
        /// Why.
        why: String,
    },
}

impl Told {
    /// A notice, as it is told; nothing when it is told otherwise.
    #[must_use]
    pub fn of(notice: &Notice) -> Option<Self> {
        Some(match notice.clone() {
            Notice::Wanted { name, cause, from } => Self::Wanted { name, cause, from },
            Notice::Shut {
                name,
                domain,
                reason,
            } => Self::Shut {
                name,
                domain,
                why: reason.to_string(),
            },
            Notice::Lost { bridge, error } => Self::Lost { bridge, why: error },
            Notice::Dumped { .. } => return None,
        })
    }
}

/// A connection to a running switch.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<UnixStream>,
    /// Questions whose answers were not waited for.
    unanswered: usize,
}

impl Connection {
    /// Connects. `bound` is how long each answer may take.
    ///
    /// # Errors
    /// Nobody listens, or not to us.
    pub fn open(socket: &Path, bound: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(bound))?;
        stream.set_write_timeout(Some(bound))?;
        Ok(Self {
            stream: BufReader::new(stream),
            unanswered: 0,
        })
    }

    /// Asks, and gives the answer.
    ///
    /// # Errors
    /// The switch is gone, or says what is no answer.
    pub fn ask(&mut self, order: &Order) -> io::Result<Reply> {
        self.settle()?;
        self.send(order)?;
        self.receive()
    }

    /// Waits for the answers to all that was asked so far, and drops them.
    ///
    /// # Errors
    /// As [`Self::receive`]'s.
    pub fn settle(&mut self) -> io::Result<()> {
        while self.unanswered > 0 {
            self.receive()?;
        }
        Ok(())
    }

    /// Asks.
    ///
    /// # Errors
    /// The switch is gone.
    pub fn send(&mut self, order: &Order) -> io::Result<()> {
        self.stream.get_mut().write_all(&line(order)?)?;
        self.unanswered += 1;
        Ok(())
    }

    /// Waits for an answer.
    ///
    /// # Errors
    /// The switch is gone, or says what is no answer.
    pub fn receive(&mut self) -> io::Result<Reply> {
        let mut line = String::new();
        (&mut self.stream).take(ANSWER_MAX).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        Ok(serde_json::from_str(&line)?)
    }

    /// Reads the bytes that follow [`Reply::Dump`].
    ///
    /// # Errors
    /// The switch is gone.
    pub fn bytes(&mut self, count: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let limit = u64::try_from(count).unwrap_or(ANSWER_MAX).min(ANSWER_MAX);
        (&mut self.stream).take(limit).read_to_end(&mut bytes)?;
        if bytes.len() < count {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(bytes)
    }
}

/// A message as a line.
///
/// # Errors
/// None that these messages have.
pub fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

//! The control protocol of a running switch: requests and replies, a line of JSON each, over a local socket. Requests
//! on one connection are answered in order. Notices, if they were asked for, come between the replies.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use serde::{Deserialize, Serialize};

use crate::port::{Features, Rings};
use crate::switch::{
    Awake, DumpBounds, Guest, GuestStatus, Life, Notice, Sleeper, SwitchStatus, WakeFrame,
};

pub use mayfly_commands::SWITCH_SOCKET as SOCKET;
/// The longest request, in bytes.
pub const QUESTION_MAX: usize = 16 * 1024;
/// The longest reply, in bytes.
const ANSWER_MAX: u64 = 64 << 20;

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchOrder {
    /// Serves this guest.
    Attach(Box<Guest>),
    /// Serves this guest, whose name and addresses the switch knows already.
    Awake(Box<Awake>),
    /// Maps the rings of a guest that will be attached. This ends with the connection.
    Prepare {
        /// The rings.
        rings: Rings,
        /// The features of its front end.
        features: Features,
    },
    /// Releases the guest of this domain.
    Detach(u16),
    /// Holds the frames for this guest whenever it is not attached, and says in a notice when somebody wants it. This
    /// ends with the connection.
    Sleep(Box<Sleeper>),
    /// Holds the frames for the guest of this name, which may sleep, though it is attached.
    Hold(String),
    /// The same for a guest that is paused, and is unpaused when it is wanted: frames for it alone are delivered at once.
    Suspend(String),
    /// Delivers the frames held for it, and holds no more.
    Open(String),
    /// Drops the frames held for it.
    Drop(String),
    /// Sends the frames that are held for a guest that moves to the bridge, and those that still come.
    Relay(String),
    /// Ends what [`SwitchOrder::Sleep`] began.
    Forget(String),
    /// Returns the status.
    Status,
    /// Returns the number of frames that each guest has sent.
    Frames,
    /// Returns which guests of these domains have no memory any more. Between two orders frames are moved, so a client
    /// with many guests asks for some at a time.
    Ended(Vec<u16>),
    /// Records this guest's traffic for a limited time. The reply comes when the record is full or the time is over.
    Dump {
        /// Its name.
        name: String,
        /// The limits of the record.
        #[serde(default)]
        bounds: DumpBounds,
        /// The duration, in milliseconds.
        milliseconds: u64,
    },
    /// Sends notices on this connection from now on.
    Notices,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SwitchReply {
    /// The guest is served.
    Attached {
        /// The name of the link in dom0 to which the guest's bridge has to send the frames for the guest.
        link: String,
    },
    /// The guest is released.
    Detached(Box<GuestStatus>),
    /// The request was carried out.
    Done,
    /// The status.
    Status(Box<SwitchStatus>),
    /// The domids of guests without memory.
    Ended(Vec<u16>),
    /// The domids, with the number of frames that each has sent.
    Frames(Vec<(u16, u64)>),
    /// A pcap file of this many bytes, which follow the line.
    Dump(usize),
    /// The request failed.
    Error(String),
    /// A notice.
    Notice(SentNotice),
}

/// A notice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SentNotice {
    /// A sender wants to reach a guest that sleeps, or is held.
    Wanted {
        /// Its name.
        name: String,
        /// Why.
        cause: WakeFrame,
        /// The sender's address.
        from: IpAddr,
    },
    /// A new guest has sent its first frames.
    Lives {
        /// Its name.
        name: String,
        /// Its domain.
        domain: u16,
        /// What it has sent.
        life: Life,
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

impl SentNotice {
    /// The protocol's form of a notice; `None` for those that are sent in another way.
    #[must_use]
    pub fn of(notice: &Notice) -> Option<Self> {
        Some(match notice.clone() {
            Notice::Wanted { name, cause, from } => Self::Wanted { name, cause, from },
            Notice::Lives { name, domain, life } => Self::Lives { name, domain, life },
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
pub struct SwitchConnection {
    stream: BufReader<UnixStream>,
    /// The number of requests whose replies were not waited for.
    unanswered: usize,
}

impl SwitchConnection {
    /// Connects. `bound` is the longest wait for each reply.
    ///
    /// # Errors
    /// No switch listens, or access is denied.
    pub fn open(socket: &Path, bound: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(bound))?;
        stream.set_write_timeout(Some(bound))?;
        Ok(Self::over(stream))
    }

    /// The connection over a stream.
    #[must_use]
    pub fn over(stream: UnixStream) -> Self {
        Self {
            stream: BufReader::new(stream),
            unanswered: 0,
        }
    }

    /// Sends a request and returns the reply.
    ///
    /// # Errors
    /// The switch is gone, or its reply cannot be parsed.
    pub fn ask(&mut self, order: &SwitchOrder) -> io::Result<SwitchReply> {
        self.settle()?;
        self.send(order)?;
        self.receive()
    }

    /// Waits for the replies to all requests so far, and drops them.
    ///
    /// # Errors
    /// As [`Self::receive`]'s.
    pub fn settle(&mut self) -> io::Result<()> {
        while self.unanswered > 0 {
            self.receive()?;
        }
        Ok(())
    }

    /// Sends a request.
    ///
    /// # Errors
    /// The switch is gone.
    pub fn send(&mut self, order: &SwitchOrder) -> io::Result<()> {
        self.stream.get_mut().write_all(&line(order)?)?;
        self.unanswered += 1;
        Ok(())
    }

    /// Waits for a reply.
    ///
    /// # Errors
    /// The switch is gone, or its reply cannot be parsed.
    pub fn receive(&mut self) -> io::Result<SwitchReply> {
        let mut line = String::new();
        (&mut self.stream).take(ANSWER_MAX).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.unanswered = self.unanswered.saturating_sub(1);
        Ok(serde_json::from_str(&line)?)
    }

    /// Reads the bytes that follow [`SwitchReply::Dump`].
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

/// A connection on which the switch sends notices, for a client that polls. Nothing here waits for the switch, but for
/// room in the kernel, and that not for longer than the bound.
#[derive(Debug)]
pub struct Notices {
    stream: UnixStream,
    read: Vec<u8>,
}

impl Notices {
    /// Connects, and asks for the notices. `bound` is the longest wait to send a request.
    ///
    /// # Errors
    /// No switch listens, or access is denied.
    pub fn open(socket: &Path, bound: Duration) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        stream.set_write_timeout(Some(bound))?;
        let mut this = Self {
            stream,
            read: Vec::new(),
        };
        this.send(&SwitchOrder::Notices)?;
        Ok(this)
    }

    /// Sends a request, whose reply comes among the notices.
    ///
    /// # Errors
    /// The switch is gone, or reads nothing.
    pub fn send(&mut self, order: &SwitchOrder) -> io::Result<()> {
        self.stream.write_all(&line(order)?)
    }

    /// Returns what has come, replies and notices.
    ///
    /// # Errors
    /// The switch is gone, or has sent something else.
    pub fn take(&mut self) -> io::Result<Vec<SwitchReply>> {
        let mut some = [0; 4096];
        loop {
            match rustix::net::recv(&self.stream, &mut some, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok((_, length)) => {
                    self.read.extend(some.iter().take(length));
                    if length < some.len() {
                        // This was all. A poll shows what comes later, the end as well.
                        break;
                    }
                }
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(error.into()),
            }
            if self.read.len() > QUESTION_MAX && !self.read.contains(&b'\n') {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let whole = self.read.iter().rposition(|byte| *byte == b'\n');
        let Some(end) = whole else {
            return Ok(Vec::new());
        };
        let lines: Vec<u8> = self.read.drain(..=end).collect();
        // To check all of them at once is quicker than each of their strings.
        let lines = std::str::from_utf8(&lines).map_err(io::Error::other)?;
        let lines = lines.split('\n').filter(|line| !line.is_empty());
        let replies = lines.map(|line| Ok(serde_json::from_str(line)?));
        replies.collect()
    }
}

impl AsFd for Notices {
    /// It can be read from when something has come, or the switch is gone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// A message as a line.
///
/// # Errors
/// None for the messages of this module.
pub fn line(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    Ok(line)
}

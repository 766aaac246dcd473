//! A client of the control socket: bytes read from it and bytes still to be sent.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::control::{QUESTION_MAX, SwitchOrder, SwitchReply, line};

/// Bytes that wait for one who does not read his answers; then he is one too many.
const WAITING_MAX: usize = 64 << 20;

pub(super) struct Client {
    pub(super) id: u64,
    pub(super) wants_notices: bool,
    stream: UnixStream,
    read: Vec<u8>,
    unsent: Vec<u8>,
    /// Whether the last read has taken all that there was.
    is_drained: bool,
    is_at_end: bool,
    is_gone: bool,
}

impl Client {
    pub(super) fn new(stream: UnixStream, id: u64) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            id,
            wants_notices: false,
            stream,
            read: Vec::new(),
            unsent: Vec::new(),
            is_drained: false,
            is_at_end: false,
            is_gone: false,
        })
    }

    /// Whether it can be forgotten.
    pub(super) fn is_gone(&self) -> bool {
        self.is_gone || self.is_at_end && self.unsent.is_empty()
    }

    pub(super) fn poll(&self) -> PollFd<'_> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, !self.unsent.is_empty());
        PollFd::from_borrowed_fd(self.stream.as_fd(), flags)
    }

    /// The next question, or what is wrong with it; nothing when no more of them are there.
    pub(super) fn order(&mut self) -> Option<Result<SwitchOrder, serde_json::Error>> {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                // To check all of it at once is quicker than each string.
                return Some(match std::str::from_utf8(&line) {
                    Ok(text) => serde_json::from_str(text),
                    Err(_) => serde_json::from_slice(&line),
                });
            }
            if self.is_at_end || self.is_gone || std::mem::take(&mut self.is_drained) {
                return None;
            }
            if self.read.len() > QUESTION_MAX {
                // A line without an end.
                self.is_gone = true;
                return None;
            }
            let mut some = [0; 4096];
            match rustix::io::read(&self.stream, &mut some) {
                Ok(0) => self.is_at_end = true,
                Ok(length) => {
                    self.is_drained = length < some.len();
                    self.read.extend(some.iter().take(length));
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return None,
                Err(_) => self.is_gone = true,
            }
        }
    }

    pub(super) fn reply(&mut self, reply: &SwitchReply) {
        self.reply_with(reply, &[]);
    }

    /// Answers, with bytes behind the line.
    pub(super) fn reply_with(&mut self, reply: &SwitchReply, bytes: &[u8]) {
        let Ok(line) = line(reply) else {
            return;
        };
        self.unsent.extend(line);
        self.unsent.extend_from_slice(bytes);
        self.is_gone |= self.unsent.len() > WAITING_MAX;
        self.flush();
    }

    /// Sends what can be sent.
    pub(super) fn flush(&mut self) {
        while !self.unsent.is_empty() {
            match rustix::io::write(&self.stream, &self.unsent) {
                Ok(sent) => {
                    self.unsent.drain(..sent);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.is_gone = true;
                    return;
                }
            }
        }
    }
}

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
            // To check all of it at once is quicker than each string, and a text is searched more quickly.
            let line = match std::str::from_utf8(&self.read) {
                Ok(text) => text
                    .split_once('\n')
                    .map(|(line, _)| (line.len(), serde_json::from_str(line))),
                Err(_) => {
                    let mut lines = self.read.splitn(2, |byte| *byte == b'\n');
                    let line = lines.next().filter(|_| lines.next().is_some());
                    line.map(|line| (line.len(), serde_json::from_slice(line)))
                }
            };
            if let Some((length, order)) = line {
                self.read.drain(..=length);
                return Some(order);
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn lines_are_orders_whatever_their_bytes() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ours, 1).unwrap();
        assert!(client.order().is_none());
        theirs.write_all(b"\"status\"\n\"fra").unwrap();
        assert_eq!(client.order().unwrap().unwrap(), SwitchOrder::Status);
        assert!(client.order().is_none());
        theirs
            .write_all(b"mes\"\n{\"hold\":\"\xff\"}\n\n\"status\"\n{\"hold\":\"\xc3")
            .unwrap();
        assert_eq!(client.order().unwrap().unwrap(), SwitchOrder::Frames);
        assert!(client.order().unwrap().is_err());
        assert!(client.order().unwrap().is_err());
        assert_eq!(client.order().unwrap().unwrap(), SwitchOrder::Status);
        assert!(client.order().is_none());
        theirs.write_all(b"\xa4\"}\n").unwrap();
        let held = SwitchOrder::Hold("\u{e4}".to_owned());
        assert_eq!(client.order().unwrap().unwrap(), held);
        // What fills the buffer, and a line without an end.
        theirs.write_all(&[b' '; 4096]).unwrap();
        assert!(client.order().is_none() && !client.is_gone());
        theirs.write_all(&vec![b' '; QUESTION_MAX]).unwrap();
        assert!(client.order().is_none() && client.is_gone());
    }
}

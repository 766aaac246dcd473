//! The connection: pending requests, received replies, and watch events.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::device::{self, Framing};
use super::error::{Error, ErrorCode};
use super::request::{Request, RequestId};
use super::store::Store;
use super::wire::{self, MessageKind, ServerMessage, WatchEvent};

/// The greatest number of events that have not been taken. A caller that watches but never takes events gets an error
/// rather than a growing process.
const EVENTS_MAX: usize = 16 * 1024;
/// The room that there is at least for one read, in bytes.
const CHUNK: usize = 16 * 1024;

/// A connection to xenstored.
pub struct Client {
    fd: OwnedFd,
    framing: Framing,
    bound: Duration,
    next: u32,
    out: Vec<u8>,
    input: Vec<u8>,
    waiting: HashMap<u32, Waiting>,
    events: VecDeque<WatchEvent>,
    broken: Option<&'static str>,
    closed: bool,
}

struct Waiting {
    kind: MessageKind,
    what: String,
    state: State,
}

enum State {
    Asked,
    Answered(Result<Vec<u8>, ErrorCode>),
    /// The answer is dropped when it comes.
    Forgotten,
}

impl Client {
    /// Connects; `bound` is the time limit of each answer.
    ///
    /// # Errors
    /// There is no xenstored, or no permission to connect.
    pub fn connect(bound: Duration) -> Result<Self, Error> {
        let (fd, framing) = device::open()?;
        Ok(Self::over(fd, framing, bound))
    }

    pub(super) fn over(fd: OwnedFd, framing: Framing, bound: Duration) -> Self {
        Self {
            fd,
            framing,
            bound,
            next: 1,
            out: Vec::new(),
            input: Vec::new(),
            waiting: HashMap::new(),
            events: VecDeque::new(),
            broken: None,
            closed: false,
        }
    }

    /// After the number of requests in `HATCH_CUT_AFTER`, closes the connection, as if xenstored had gone; after the
    /// number in `HATCH_KILL_AFTER`, ends the process as by `kill -9`.
    #[cfg(feature = "faults")]
    fn cut(&mut self) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static SENT: AtomicU32 = AtomicU32::new(0);
        let sent = SENT.fetch_add(1, Ordering::Relaxed) + 1;
        let is_after = |variable| {
            let after = std::env::var(variable).ok();
            after.and_then(|after| after.parse().ok()) == Some(sent)
        };
        if is_after("HATCH_CUT_AFTER") {
            // Requests sent so far are delivered.
            let _ = self.flush();
            let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
        }
        if is_after("HATCH_KILL_AFTER") {
            let _ = self.flush();
            let _ = rustix::process::kill_process(
                rustix::process::getpid(),
                rustix::process::Signal::KILL,
            );
        }
    }

    /// Writes `length` bytes of the queue.
    fn put_out(&mut self, length: usize) -> Result<(), Error> {
        let end = Instant::now() + self.bound;
        let mut at = 0;
        let result = loop {
            let left = self.out.get(at..length).unwrap_or_default();
            if left.is_empty() {
                break Ok(());
            }
            match rustix::io::write(&self.fd, left) {
                Ok(written) => at += written,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    // xenstored may wait for us to read before it reads more.
                    let ready = match self.wait(PollFlags::IN | PollFlags::OUT, end) {
                        Ok(ready) => ready,
                        Err(error) => break Err(error),
                    };
                    if ready.is_empty() {
                        let what = "the queued requests".to_owned();
                        break Err(Error::Timeout {
                            what,
                            bound: self.bound,
                        });
                    }
                    if ready.contains(PollFlags::IN)
                        && let Err(error) = self.receive()
                    {
                        break Err(error);
                    }
                }
                Err(Errno::PIPE | Errno::CONNRESET) => {
                    self.closed = true;
                    break Err(Error::Closed);
                }
                Err(error) => break Err(Error::Io(error.into())),
            }
        };
        self.out.drain(..at);
        result
    }

    /// Waits until a request has been answered.
    fn settle(&mut self, id: u32) -> Result<(), Error> {
        let end = Instant::now() + self.bound;
        loop {
            match self.waiting.get(&id) {
                None
                | Some(Waiting {
                    state: State::Answered(_),
                    ..
                }) => return Ok(()),
                Some(_) => self.usable()?,
            }
            if self.wait(PollFlags::IN, end)?.is_empty() {
                let what = self.waiting.get(&id).map(|waiting| waiting.what.clone());
                return Err(Error::Timeout {
                    what: what.unwrap_or_default(),
                    bound: self.bound,
                });
            }
            self.receive()?;
        }
    }

    /// As [`Self::answer`](Store::answer), with another time limit.
    ///
    /// # Errors
    /// As [`Self::answer`](Store::answer).
    pub fn answer_within(&mut self, id: RequestId, bound: Duration) -> Result<Vec<u8>, Error> {
        if !self.out.is_empty() {
            self.flush()?;
        }
        let end = Instant::now() + bound;
        loop {
            if let Some(answer) = self.answered(&id) {
                return answer;
            }
            // Received messages are handled before the end of the connection.
            self.usable()?;
            if self.wait(PollFlags::IN, end)?.is_empty() {
                let what = match self.waiting.get_mut(&id.0) {
                    Some(waiting) => {
                        waiting.state = State::Forgotten;
                        waiting.what.clone()
                    }
                    None => "an unknown request".to_owned(),
                };
                return Err(Error::Timeout { what, bound });
            }
            self.receive()?;
        }
    }

    /// Assigns each received message to its request or to the events.
    fn sort(&mut self) -> Result<(), Error> {
        let input = std::mem::take(&mut self.input);
        let mut at = 0;
        let result = loop {
            match wire::take(input.get(at..).unwrap_or_default()) {
                Ok(None) => break Ok(()),
                Ok(Some((message, length))) => {
                    at += length;
                    if let Err(why) = self.deliver(message) {
                        break Err(why);
                    }
                }
                Err(why) => break Err(why),
            }
        };
        self.input = input;
        self.input.drain(..at);
        result.map_err(|why| {
            self.broken = Some(why);
            self.events.clear();
            Error::Protocol(why)
        })
    }

    fn deliver(&mut self, message: ServerMessage<'_>) -> Result<(), &'static str> {
        let (request, answer) = match message {
            ServerMessage::Event(event) => {
                // The same event twice in a row carries no more information than once.
                if self.events.back() != Some(&event) {
                    self.events.push_back(event);
                }
                return match self.events.len() {
                    0..=EVENTS_MAX => Ok(()),
                    _ => Err("too many watch events wait to be taken"),
                };
            }
            ServerMessage::Error { request, payload } => (request, Err(ErrorCode::parse(payload))),
            ServerMessage::Answer {
                request,
                kind,
                payload,
            } => (request, Ok((kind, payload.to_vec()))),
        };
        let Some(waiting) = self.waiting.get_mut(&request) else {
            return Err("an answer to no request");
        };
        let answer = match answer {
            Ok((kind, _)) if kind != waiting.kind as u32 => {
                return Err("an answer of another type than the request");
            }
            Ok((_, payload)) => Ok(payload),
            Err(code) => Err(code),
        };
        match waiting.state {
            State::Asked => waiting.state = State::Answered(answer),
            State::Forgotten => drop(self.waiting.remove(&request)),
            State::Answered(_) => return Err("a second answer to the same request"),
        }
        Ok(())
    }

    fn usable(&self) -> Result<(), Error> {
        match self.broken {
            Some(why) => Err(Error::Protocol(why)),
            None if self.closed => Err(Error::Closed),
            None => Ok(()),
        }
    }

    /// Waits for the descriptor. Returns the events that it is ready for; none at `end`.
    fn wait(&self, flags: PollFlags, end: Instant) -> Result<PollFlags, Error> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.fd, flags)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(PollFlags::empty()),
                // A hang-up shows as an end of file in the next read.
                Ok(_) => {
                    let [fd] = fds;
                    let ready = fd.revents();
                    let other = ready.difference(PollFlags::IN | PollFlags::OUT);
                    return Ok(if other.is_empty() {
                        ready
                    } else {
                        ready | PollFlags::IN
                    });
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
    }

    /// Removes a watch, and drops its events that have not been taken.
    ///
    /// # Errors
    /// As [`Self::ask`](Store::ask).
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.ask(Request::unwatch(path, token))?;
        self.events.retain(|event| event.token != token);
        Ok(())
    }
}

impl Store for Client {
    fn send(&mut self, request: Request<'_>) -> Result<RequestId, Error> {
        self.usable()?;
        let payload = request.payload()?;
        let mut id = self.next;
        while self.waiting.contains_key(&id) {
            id = id.wrapping_add(1);
        }
        self.next = id.wrapping_add(1);
        wire::put(
            &mut self.out,
            request.kind,
            id,
            request.transaction,
            &payload,
        );
        let waiting = Waiting {
            kind: request.kind,
            what: request.what(),
            state: State::Asked,
        };
        self.waiting.insert(id, waiting);
        #[cfg(feature = "faults")]
        self.cut();
        Ok(RequestId(id))
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.usable()?;
        if self.framing == Framing::Stream {
            return self.put_out(self.out.len());
        }
        while let (Some(length), Some(id)) = (wire::length(&self.out), wire::request(&self.out)) {
            self.put_out(length)?;
            self.settle(id)?;
        }
        Ok(())
    }

    fn answer(&mut self, id: RequestId) -> Result<Vec<u8>, Error> {
        self.answer_within(id, self.bound)
    }

    fn answered(&mut self, id: &RequestId) -> Option<Result<Vec<u8>, Error>> {
        match self.waiting.get(&id.0)?.state {
            State::Answered(_) => {}
            State::Asked | State::Forgotten => return None,
        }
        let waiting = self.waiting.remove(&id.0)?;
        match waiting.state {
            State::Answered(Ok(payload)) => Some(Ok(payload)),
            State::Answered(Err(code)) => Some(Err(Error::Refused {
                what: waiting.what,
                code,
            })),
            State::Asked | State::Forgotten => None,
        }
    }

    fn forget(&mut self, id: RequestId) {
        match self.waiting.get_mut(&id.0) {
            Some(Waiting {
                state: state @ State::Asked,
                ..
            }) => *state = State::Forgotten,
            Some(_) => drop(self.waiting.remove(&id.0)),
            None => {}
        }
    }

    fn event(&mut self, timeout: Duration) -> Result<Option<WatchEvent>, Error> {
        if !self.out.is_empty() {
            self.flush()?;
        }
        let end = Instant::now() + timeout;
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            self.usable()?;
            if self.wait(PollFlags::IN, end)?.is_empty() {
                return Ok(None);
            }
            self.receive()?;
        }
    }

    fn take_event(&mut self) -> Option<WatchEvent> {
        self.events.pop_front()
    }

    fn receive(&mut self) -> Result<(), Error> {
        self.usable()?;
        loop {
            // The memory is not written before the kernel does: most reads touch one page of it.
            self.input.reserve(CHUNK);
            let space = self.input.capacity() - self.input.len();
            match rustix::io::read(&self.fd, spare_capacity(&mut self.input)) {
                Ok(0) | Err(Errno::CONNRESET) => {
                    self.closed = true;
                    break;
                }
                Ok(got) => {
                    self.sort()?;
                    // A short read most likely emptied the socket; the rest can wait for the next poll.
                    if got < space {
                        break;
                    }
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(error) => return Err(Error::Io(error.into())),
            }
        }
        Ok(())
    }

    fn is_lost(&self) -> bool {
        self.closed || self.broken.is_some()
    }

    fn has_ended(&mut self) -> bool {
        self.receive().is_err() || self.is_lost()
    }

    fn reconnect(&mut self) -> Result<(), Error> {
        *self = Self::connect(self.bound)?;
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

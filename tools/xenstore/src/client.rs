//! The connection: what is to go out, what has come, and who waits for it.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::device::{self, Framing};
use super::error::{Code, Error};
use super::request::{Perm, Request, TransactionId};
use super::wire::{self, Event, Kind, Message};

/// Events that nobody has taken. A caller that watches and never looks gets an error rather than a growing process.
const EVENTS_MAX: usize = 16 * 1024;
const CHUNK: usize = 16 * 1024;

/// A request that is under way; [`Client::answer`] takes it.
#[derive(Debug)]
#[must_use = "its answer is kept until it is taken or forgotten"]
pub struct Id(u32);

/// A connection to xenstored.
pub struct Client {
    fd: OwnedFd,
    framing: Framing,
    bound: Duration,
    next: u32,
    out: Vec<u8>,
    input: Vec<u8>,
    /// What one read gets.
    chunk: Box<[u8]>,
    waiting: HashMap<u32, Waiting>,
    events: VecDeque<Event>,
    broken: Option<&'static str>,
    closed: bool,
}

struct Waiting {
    kind: Kind,
    what: String,
    state: State,
}

enum State {
    Asked,
    Answered(Result<Vec<u8>, Code>),
    /// Its answer is dropped when it comes.
    Forgotten,
}

impl Client {
    /// Connects; `bound` is how long any answer may take.
    ///
    /// # Errors
    /// No xenstored, or no permission to speak to it.
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
            chunk: vec![0; CHUNK].into(),
            waiting: HashMap::new(),
            events: VecDeque::new(),
            broken: None,
            closed: false,
        }
    }

    /// Queues a request.
    ///
    /// # Errors
    /// A path or a length that can't be sent. Nothing was queued then.
    pub fn send(&mut self, request: Request<'_>) -> Result<Id, Error> {
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
        Ok(Id(id))
    }

    /// Ends the connection after so many requests of this process as `HATCH_CUT_AFTER` says, as if xenstored had gone.
    #[cfg(feature = "faults")]
    fn cut(&mut self) {
        use std::sync::atomic::{AtomicU32, Ordering};
        static SENT: AtomicU32 = AtomicU32::new(0);
        let sent = SENT.fetch_add(1, Ordering::Relaxed) + 1;
        let after = std::env::var("HATCH_CUT_AFTER").ok();
        if after.and_then(|after| after.parse().ok()) == Some(sent) {
            // What was sent so far is under way.
            let _ = self.flush();
            let _ = rustix::net::shutdown(&self.fd, rustix::net::Shutdown::Both);
        }
    }

    /// Whether the connection is of no more use.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.closed || self.broken.is_some()
    }

    /// The same, with a look at the connection first: who has nothing to ask is not told of its end.
    pub fn has_ended(&mut self) -> bool {
        self.receive().is_err() || self.is_lost()
    }

    /// Writes all that is queued, in one system call when the socket takes it. Answers that come meanwhile are kept.
    /// Through the kernel's device each request waits for the answer to the one before.
    ///
    /// # Errors
    /// xenstored takes nothing within the bound, or the connection is broken.
    pub fn flush(&mut self) -> Result<(), Error> {
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

    /// Writes so much of what is queued.
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
                    // xenstored may wait for us to read before it reads on.
                    let ready = match self.wait(PollFlags::IN | PollFlags::OUT, end) {
                        Ok(ready) => ready,
                        Err(error) => break Err(error),
                    };
                    if ready.is_empty() {
                        let what = "what was sent".to_owned();
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

    /// Takes a request's answer, and waits for it if need be.
    ///
    /// # Errors
    /// xenstored refuses, or says nothing within the bound; the answer is forgotten then.
    pub fn answer(&mut self, id: Id) -> Result<Vec<u8>, Error> {
        self.answer_within(id, self.bound)
    }

    /// The same with a bound of its own.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn answer_within(&mut self, id: Id, bound: Duration) -> Result<Vec<u8>, Error> {
        if !self.out.is_empty() {
            self.flush()?;
        }
        let end = Instant::now() + bound;
        loop {
            if let Some(answer) = self.answered(&id) {
                return answer;
            }
            // Whatever has come is looked at before the connection's end is.
            self.usable()?;
            if self.wait(PollFlags::IN, end)?.is_empty() {
                let what = match self.waiting.get_mut(&id.0) {
                    Some(waiting) => {
                        waiting.state = State::Forgotten;
                        waiting.what.clone()
                    }
                    None => "what was not asked".to_owned(),
                };
                return Err(Error::Timeout { what, bound });
            }
            self.receive()?;
        }
    }

    /// Takes many answers, all of them, and gives the first error. Of a xenstored that is silent, no more are waited for.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn answers(&mut self, ids: impl IntoIterator<Item = Id>) -> Result<(), Error> {
        let mut first = Ok(());
        for id in ids {
            if let Err(Error::Timeout { .. }) = first {
                self.forget(id);
                continue;
            }
            let answer = self.answer(id).map(drop);
            if first.is_ok() {
                first = answer;
            }
        }
        first
    }

    /// The answer if it has come, without a wait; `None` leaves the request as it is.
    pub fn answered(&mut self, id: &Id) -> Option<Result<Vec<u8>, Error>> {
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

    /// Lets an answer go by.
    pub fn forget(&mut self, id: Id) {
        match self.waiting.get_mut(&id.0) {
            Some(Waiting {
                state: state @ State::Asked,
                ..
            }) => *state = State::Forgotten,
            Some(_) => drop(self.waiting.remove(&id.0)),
            None => {}
        }
    }

    /// Takes the opened transaction from the answer to [`Request::transaction_start`].
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub fn transaction(&mut self, id: Id) -> Result<TransactionId, Error> {
        let answer = self.answer(id)?;
        let what = || "a transaction".to_owned();
        match text(&answer, what)?.parse() {
            // 0 would be no transaction at all.
            Ok(0) | Err(_) => Err(Error::Answer {
                what: what(),
                why: "not a transaction's number",
            }),
            Ok(id) => Ok(TransactionId(id)),
        }
    }

    /// The next watch event, or `None` when there is none within `timeout`.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn event(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
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

    /// A watch event that has come already. Who polls the descriptor for several things has to empty this first,
    /// because what was read with an answer makes it readable no more.
    pub fn take_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Reads what has come, without a wait.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn receive(&mut self) -> Result<(), Error> {
        self.usable()?;
        loop {
            let got = rustix::io::read(&self.fd, &mut self.chunk[..]);
            let new = got.ok().and_then(|got| self.chunk.get(..got));
            self.input.extend_from_slice(new.unwrap_or_default());
            match got {
                Ok(0) | Err(Errno::CONNRESET) => {
                    self.closed = true;
                    break;
                }
                Ok(got) => {
                    self.sort()?;
                    // The rest can wait for the next poll; this one was most likely all.
                    if got < CHUNK {
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

    /// Gives each message to who waits for it.
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

    fn deliver(&mut self, message: Message<'_>) -> Result<(), &'static str> {
        let (request, answer) = match message {
            Message::Event(event) => {
                // The same twice in a row tells no more than once.
                if self.events.back() != Some(&event) {
                    self.events.push_back(event);
                }
                return match self.events.len() {
                    0..=EVENTS_MAX => Ok(()),
                    _ => Err("there are more watch events than anybody takes"),
                };
            }
            Message::Error { request, payload } => (request, Err(Code::parse(payload))),
            Message::Answer {
                request,
                kind,
                payload,
            } => (request, Ok((kind, payload.to_vec()))),
        };
        let Some(waiting) = self.waiting.get_mut(&request) else {
            return Err("an answer to what was not asked");
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

    /// What the descriptor is ready for, or nothing when it is `end`.
    fn wait(&self, flags: PollFlags, end: Instant) -> Result<PollFlags, Error> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).ok();
            let mut fds = [PollFd::new(&self.fd, flags)];
            match poll(&mut fds, left.as_ref()) {
                Ok(0) => return Ok(PollFlags::empty()),
                // A hang-up is read as an end of file.
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

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// As [`Self::send`] and [`Self::answer`].
    pub fn ask(&mut self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        let id = self.send(request)?;
        self.answer(id)
    }

    /// A node's value as text.
    ///
    /// # Errors
    /// As [`Self::ask`]; a value that is not UTF-8.
    pub fn read(&mut self, path: &str) -> Result<String, Error> {
        let value = self.ask(Request::read(path))?;
        String::from_utf8(value).map_err(|_| Error::Answer {
            what: Request::read(path).what(),
            why: "it is not UTF-8",
        })
    }

    /// The same, or `None` when there is no such node.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn find(&mut self, path: &str) -> Result<Option<String>, Error> {
        absent(self.read(path))
    }

    /// Sets a node's value.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn write(&mut self, path: &str, value: &(impl AsRef<[u8]> + ?Sized)) -> Result<(), Error> {
        self.ask(Request::write(path, value)).map(drop)
    }

    /// Makes a node.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn mkdir(&mut self, path: &str) -> Result<(), Error> {
        self.ask(Request::mkdir(path)).map(drop)
    }

    /// Removes a node with all below it. That it is not there is no error.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn rm(&mut self, path: &str) -> Result<(), Error> {
        // xenstored refuses only where the parent is missing as well.
        absent(self.ask(Request::rm(path))).map(drop)
    }

    /// A node's permissions.
    ///
    /// # Errors
    /// As [`Self::ask`]; an answer that is no list of permissions.
    pub fn get_perms(&mut self, path: &str) -> Result<Vec<Perm>, Error> {
        let answer = self.ask(Request::get_perms(path))?;
        let what = || Request::get_perms(path).what();
        let perms: Option<Vec<_>> = text(&answer, what)?.split('\0').map(Perm::parse).collect();
        perms.ok_or_else(|| Error::Answer {
            what: what(),
            why: "it is no list of permissions",
        })
    }

    /// Sets a node's permissions.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn set_perms(&mut self, path: &str, perms: &[Perm]) -> Result<(), Error> {
        self.ask(Request::set_perms(path, perms)).map(drop)
    }

    /// Watches a path. Its first event comes at once.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn watch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.ask(Request::watch(path, token)).map(drop)
    }

    /// Takes a watch back; its events that nobody has taken go with it.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn unwatch(&mut self, path: &str, token: &str) -> Result<(), Error> {
        self.ask(Request::unwatch(path, token))?;
        self.events.retain(|event| event.token != token);
        Ok(())
    }

    /// Tells xenstored of a domain.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn introduce(&mut self, domid: u16, gfn: u64, port: u32) -> Result<(), Error> {
        self.ask(Request::introduce(domid, gfn, port)).map(drop)
    }

    /// Tells xenstored to let go of a domain.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn release(&mut self, domid: u16) -> Result<(), Error> {
        self.ask(Request::release(domid)).map(drop)
    }

    /// A command of the daemon's own, which has to say OK.
    ///
    /// # Errors
    /// As [`Self::ask`]; another answer than OK.
    pub fn control(&mut self, words: &[&str]) -> Result<(), Error> {
        let answer = self.ask(Request::control(words))?;
        let what = || Request::control(words).what();
        match text(&answer, what)? {
            "OK" => Ok(()),
            _ => Err(Error::Answer {
                what: what(),
                why: "it is not OK",
            }),
        }
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Makes nothing of what is not there.
fn absent<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer that has to be text, without its last NUL.
pub(super) fn text(answer: &[u8], what: impl Fn() -> String) -> Result<&str, Error> {
    let text = std::str::from_utf8(answer).map_err(|_| Error::Answer {
        what: what(),
        why: "it is not UTF-8",
    })?;
    Ok(text.strip_suffix('\0').unwrap_or(text))
}

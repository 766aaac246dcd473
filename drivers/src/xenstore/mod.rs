//! A xenstore client over the shared ring page.
//!
//! Source: Xen 4.17 public/io/xs_wire.h and docs/misc/xenstore.txt. Requests are
//! written into the ring at once and published together ([`Xenstore::flush`]: one
//! notification for a burst); answers are matched by request id as they come.
//! There are no transactions. Paths are relative to the domain's home.
//!
//! xenstored is not trusted. An error answer is a value. Anything that the protocol forbids marks the connection as
//! [`Broken`], because a byte stream without framing cannot be read any further. [`Xenstore::supervise`] then makes a
//! new connection.

mod error;
mod recovery;

use alloc::vec::Vec;
use core::mem::size_of;
use zerocopy::{FromBytes, IntoBytes};

use crate::abi::xenstore_domain_interface as ring;
use crate::abi::{XENSTORE_PAYLOAD_MAX, XENSTORE_RECONNECT, xs, xsd_sockmsg};
use crate::{EventPort, Hypervisor, SharedPage, SystemTime};
pub use error::{Broken, StoreErrno, StoreError};
pub use recovery::Change;
use recovery::Recovery;

const HEADER: usize = size_of::<xsd_sockmsg>();
const RING_SIZE: u32 = ring::RING_SIZE;
/// The greatest number of requests without an answer.
const MAX_OUTSTANDING: usize = 32;
/// The greatest number of request bytes that wait for space in the ring.
const MAX_BACKLOG: usize = 8192;
/// The number of wake-ups without a message before the clock is read on each one. xenstored also notifies for every
/// piece of a request that it has read, and reading the TSC may be a VM exit.
const FREE_WAKEUPS: u32 = 16;

/// The id of a request, valid until its answer has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReqId(u32);

/// A message from xenstored.
#[derive(Debug, PartialEq, Eq)]
pub enum StoreEvent<'a> {
    /// The answer to a request: its payload (for a read, the value) or the error.
    Answer(ReqId, Result<&'a [u8], StoreErrno>),
    /// Something changed at `path`, which is the watched path or one below it.
    Watch {
        /// The path that changed.
        path: &'a [u8],
        /// The token that the watch was made with.
        token: &'a [u8],
    },
}

/// Counters of the connection since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests made.
    pub requests: u32,
    /// Bursts of requests for whose answer the guest had to sleep.
    pub round_trips: u32,
    /// Notifications sent.
    pub notifications: u32,
    /// Error answers.
    pub errors: u32,
    /// Watch events.
    pub watch_events: u32,
    /// Losses of the connection.
    pub lost: u32,
    /// Reconnections.
    pub reconnections: u32,
}

/// The progress of the message in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Bytes are missing.
    Partial,
    /// The message is complete and waits for `pump`.
    Complete,
    /// `pump` has returned the message; the next look at the ring clears the buffer.
    HandedOut,
}

/// The connection to xenstored.
#[derive(Debug)]
pub struct Xenstore<'h, H: Hypervisor> {
    xen: &'h H,
    page: SharedPage,
    port: EventPort,
    req_prod: u32,
    /// The value of `req_prod` that was published last.
    published: u32,
    rsp_cons: u32,
    backlog: Vec<u8>,
    /// Id and type of each request without an answer.
    outstanding: Vec<(u32, u32)>,
    next_id: u32,
    /// The first id of this connection. Requests with earlier ids belong to a lost connection: their answers are
    /// dropped.
    first_id: u32,
    /// The message that is being received or was returned last.
    message: Vec<u8>,
    progress: Progress,
    /// Requests were published since the last counted round trip.
    burst: bool,
    broken: Option<Broken>,
    recovery: Recovery,
    counters: Counters,
}

impl<'h, H: Hypervisor> Xenstore<'h, H> {
    /// Takes the ring page and port that the HVM parameters name.
    ///
    /// A toolstack that lets the domain run before it introduces it to xenstored leaves `XENSTORE_RECONNECT` in the
    /// page's connection word. Then nothing is sent until xenstored has answered that.
    pub fn new(xen: &'h H, page: SharedPage, port: EventPort) -> Self {
        // The ring may have been used before (by a boot loader, or before a resume), so go on where it is.
        let req_prod = page.load_acquire(ring::REQ_PROD);
        let rsp_cons = page.load_acquire(ring::RSP_CONS);
        let unintroduced = page.load_acquire(ring::CONNECTION) == XENSTORE_RECONNECT;
        Self {
            xen,
            page,
            port,
            req_prod,
            published: req_prod,
            rsp_cons,
            backlog: Vec::new(),
            outstanding: Vec::with_capacity(MAX_OUTSTANDING),
            next_id: 1,
            first_id: 1,
            message: Vec::with_capacity(128),
            progress: Progress::Partial,
            burst: false,
            broken: unintroduced.then_some(Broken::Unintroduced),
            recovery: Recovery::default(),
            counters: Counters::default(),
        }
    }

    /// The port that xenstored notifies.
    #[must_use]
    pub fn port(&self) -> EventPort {
        self.port
    }

    /// The reason for which the connection is lost, if it is.
    #[must_use]
    pub fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// The counters of the connection since boot.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether no request waits for its answer.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.outstanding.is_empty()
    }

    /// Whether there are bytes in the ring or a complete message. If so, call [`Xenstore::pump`] before the next sleep.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.broken.is_none()
            && (self.progress == Progress::Complete
                || self.page.load_acquire(ring::RSP_PROD) != self.rsp_cons)
    }

    /// Asks for the value at a path, which is given in parts.
    ///
    /// # Errors
    /// [`StoreError`] but for `Timeout`; nothing is sent then.
    pub fn read(&mut self, path: &[&[u8]]) -> Result<ReqId, StoreError> {
        self.request(xs::READ, path, b"\0", b"")
    }

    /// Writes a value.
    ///
    /// # Errors
    /// As for [`Xenstore::read`].
    pub fn write(&mut self, path: &[&[u8]], value: &[u8]) -> Result<ReqId, StoreError> {
        self.request(xs::WRITE, path, b"\0", value)
    }

    /// Watches `path`: an event comes whenever it or a path below it changes. The first one comes at once.
    ///
    /// # Errors
    /// As for [`Xenstore::read`].
    pub fn watch(&mut self, path: &[&[u8]], token: &[u8]) -> Result<ReqId, StoreError> {
        self.terminated(xs::WATCH, path, token)
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// As for [`Xenstore::read`].
    pub fn unwatch(&mut self, path: &[&[u8]], token: &[u8]) -> Result<ReqId, StoreError> {
        self.terminated(xs::UNWATCH, path, token)
    }

    /// Publishes all requests made so far, with one notification.
    pub fn flush(&mut self) {
        self.push_backlog();
        if self.published != self.req_prod && self.is_ours() {
            self.page.store_release(ring::REQ_PROD, self.req_prod);
            self.published = self.req_prod;
            self.burst = true;
            self.notify();
        }
    }

    /// The next message, if one is complete. Never sleeps.
    ///
    /// # Errors
    /// [`Broken`], now and until the connection is made again.
    pub fn pump(&mut self) -> Result<Option<StoreEvent<'_>>, Broken> {
        let header = loop {
            if !self.receive()? {
                return Ok(None);
            }
            self.progress = Progress::HandedOut;
            let Ok((header, _)) = xsd_sockmsg::read_from_prefix(&self.message) else {
                return Ok(None);
            };
            let is_stale = header.req_id != 0 && header.req_id < self.first_id;
            if header.type_ == xs::WATCH_EVENT || !is_stale {
                break header;
            }
        };
        self.recovery.heard = true;
        let payload = self.message.get(HEADER..).unwrap_or(&[]);
        let fault = if header.type_ == xs::WATCH_EVENT {
            self.counters.watch_events += 1;
            let mut parts = payload.split(|&byte| byte == 0);
            if let (Some(path), Some(token), Some(_)) = (parts.next(), parts.next(), parts.next()) {
                return Ok(Some(StoreEvent::Watch { path, token }));
            }
            Broken::Watch
        } else {
            let mut outstanding = self.outstanding.iter();
            match outstanding.position(|&(id, _)| id == header.req_id) {
                None => Broken::UnknownId,
                Some(at) => {
                    let (id, type_) = self.outstanding.swap_remove(at);
                    if header.type_ == type_ {
                        return Ok(Some(StoreEvent::Answer(ReqId(id), Ok(payload))));
                    }
                    if header.type_ == xs::ERROR {
                        self.counters.errors += 1;
                        let error = StoreErrno::parse(payload);
                        return Ok(Some(StoreEvent::Answer(ReqId(id), Err(error))));
                    }
                    Broken::Type
                }
            }
        };
        self.broken = Some(fault);
        Err(fault)
    }

    /// Sleeps until [`Xenstore::pump`] has a message.
    ///
    /// # Errors
    /// `Timeout` at the deadline, or `Broken`.
    pub fn wait(&mut self, deadline: SystemTime) -> Result<(), StoreError> {
        self.flush();
        let (mut slept, mut without_event, mut wakeups) = (false, false, 0);
        loop {
            if self.receive().map_err(StoreError::Broken)? {
                if slept && self.burst {
                    self.burst = false;
                    self.counters.round_trips += 1;
                }
                return Ok(());
            }
            if self.xen.evtchn_take(self.port) {
                wakeups += 1;
                without_event = false;
                if wakeups <= FREE_WAKEUPS {
                    continue;
                }
            }
            if (without_event || wakeups > FREE_WAKEUPS) && self.xen.now() >= deadline {
                return Err(StoreError::Timeout);
            }
            self.xen.poll(&[self.port], Some(deadline));
            (slept, without_event) = (true, true);
        }
    }

    fn terminated(
        &mut self,
        type_: u32,
        path: &[&[u8]],
        token: &[u8],
    ) -> Result<ReqId, StoreError> {
        let mut value = Vec::with_capacity(token.len() + 1);
        value.extend_from_slice(token);
        value.push(0);
        self.request(type_, path, b"\0", &value)
    }

    fn request(
        &mut self,
        type_: u32,
        path: &[&[u8]],
        separator: &[u8],
        value: &[u8],
    ) -> Result<ReqId, StoreError> {
        if let Some(broken) = self.broken {
            return Err(StoreError::Broken(broken));
        }
        let payload =
            path.iter().map(|part| part.len()).sum::<usize>() + separator.len() + value.len();
        if payload > XENSTORE_PAYLOAD_MAX {
            return Err(StoreError::TooLong);
        }
        let length = HEADER + payload;
        let in_ring = self.is_ours() && self.backlog.is_empty() && length <= self.space() as usize;
        if let Some(broken) = self.broken {
            return Err(StoreError::Broken(broken));
        }
        if self.outstanding.len() >= MAX_OUTSTANDING
            || (!in_ring && self.backlog.len() + length > MAX_BACKLOG)
        {
            return Err(StoreError::Full);
        }
        let id = self.take_id();
        #[allow(clippy::cast_possible_truncation, reason = "at most 4096")]
        let header = xsd_sockmsg {
            type_,
            req_id: id,
            tx_id: 0,
            len: payload as u32,
        };
        let mut put = |bytes: &[u8]| {
            if in_ring {
                self.req_prod = copy_to_ring(&self.page, self.req_prod, bytes);
            } else {
                self.backlog.extend_from_slice(bytes);
            }
        };
        put(header.as_bytes());
        for part in path {
            put(part);
        }
        put(separator);
        put(value);
        self.outstanding.push((id, type_));
        self.counters.requests += 1;
        Ok(ReqId(id))
    }

    /// The id of the next request.
    fn take_id(&mut self) -> u32 {
        let id = self.next_id;
        // Watch events carry the id 0.
        self.next_id = id.checked_add(1).unwrap_or(1);
        id
    }

    /// Free bytes in the request ring; 0 when xenstored's index is invalid.
    fn space(&mut self) -> u32 {
        let used = self
            .req_prod
            .wrapping_sub(self.page.load_acquire(ring::REQ_CONS));
        RING_SIZE.checked_sub(used).unwrap_or_else(|| {
            self.broken = Some(Broken::Index);
            0
        })
    }

    fn push_backlog(&mut self) {
        if self.backlog.is_empty() {
            return;
        }
        let count = self.backlog.len().min(self.space() as usize);
        self.req_prod = copy_to_ring(&self.page, self.req_prod, &self.backlog[..count]);
        self.backlog.drain(..count);
    }

    /// Whether the connection works and the ring is still ours. A restarted xenstored empties the ring, and would never
    /// look at it again if it found an index of the old connection.
    fn is_ours(&mut self) -> bool {
        if self.broken.is_none() && self.is_emptied() {
            self.broken = Some(Broken::Reset);
        }
        self.broken.is_none()
    }

    /// Moves bytes out of the ring until a message is complete or the ring is empty.
    fn receive(&mut self) -> Result<bool, Broken> {
        self.is_ours();
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        match self.progress {
            Progress::Complete => return Ok(true),
            Progress::HandedOut => {
                self.message.clear();
                self.progress = Progress::Partial;
            }
            Progress::Partial => {}
        }
        if !self.backlog.is_empty() {
            self.flush();
        }
        let start = self.rsp_cons;
        let moved = self.take_bytes();
        if self.rsp_cons != start {
            self.page.store_fence(ring::RSP_CONS, self.rsp_cons);
            // xenstored waits for our notification only if it found the ring full against our old index.
            if self.page.load_acquire(ring::RSP_PROD).wrapping_sub(start) >= RING_SIZE {
                self.notify();
            }
        }
        if let Err(broken) = moved {
            self.broken = Some(broken);
            return Err(broken);
        }
        Ok(self.progress == Progress::Complete)
    }

    fn take_bytes(&mut self) -> Result<(), Broken> {
        loop {
            let wanted = self.wanted()?;
            if wanted == 0 {
                self.progress = Progress::Complete;
                return Ok(());
            }
            let available = self
                .page
                .load_acquire(ring::RSP_PROD)
                .wrapping_sub(self.rsp_cons);
            if available > RING_SIZE {
                return Err(Broken::Index);
            }
            if available == 0 {
                return Ok(());
            }
            let at = self.message.len();
            let count = wanted.min(available as usize);
            self.message.resize(at + count, 0);
            self.rsp_cons = copy_from_ring(&self.page, self.rsp_cons, &mut self.message[at..]);
        }
    }

    /// The number of missing bytes of the current message; 0 when it is complete.
    fn wanted(&self) -> Result<usize, Broken> {
        let Ok((header, payload)) = xsd_sockmsg::read_from_prefix(&self.message) else {
            return Ok(HEADER - self.message.len());
        };
        let length = header.len as usize;
        if length > XENSTORE_PAYLOAD_MAX {
            return Err(Broken::Length);
        }
        Ok(length - payload.len())
    }

    fn notify(&mut self) {
        self.counters.notifications += 1;
        // This fails only if the toolstack closed the channel; then the wait ends at its deadline.
        let _ = self.xen.evtchn_send(self.port);
    }
}

/// Writes bytes at an index of the request ring and returns the index after them.
fn copy_to_ring(page: &SharedPage, index: u32, bytes: &[u8]) -> u32 {
    let at = (index % RING_SIZE) as usize;
    let (head, tail) = bytes.split_at(bytes.len().min(RING_SIZE as usize - at));
    page.copy_in(ring::REQ + at, head);
    page.copy_in(ring::REQ, tail);
    advance(index, bytes.len())
}

/// Reads bytes at an index of the answer ring and returns the index after them.
fn copy_from_ring(page: &SharedPage, index: u32, bytes: &mut [u8]) -> u32 {
    let at = (index % RING_SIZE) as usize;
    let length = bytes.len();
    let (head, tail) = bytes.split_at_mut(length.min(RING_SIZE as usize - at));
    page.copy_out(ring::RSP + at, head);
    page.copy_out(ring::RSP, tail);
    advance(index, length)
}

/// Ring indices run freely and wrap at 2^32.
#[allow(
    clippy::cast_possible_truncation,
    reason = "both callers copy at most one ring"
)]
fn advance(index: u32, count: usize) -> u32 {
    index.wrapping_add(count as u32)
}

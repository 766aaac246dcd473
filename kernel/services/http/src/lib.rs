//! An HTTP/1.1 server over bytes (RFC 9110, RFC 9112): GET, HEAD and OPTIONS of what a site has.
//!
//! The scanner looks at each byte of a header section once, however slowly the bytes arrive. `httparse` then parses the
//! fields in the receive buffer. Request content is skipped, up to a limit; then the response is sent, with content and
//! header lines copied straight from the site. Requests are answered in order, one at a time: the next request is read
//! when the last byte of the answer before it has been written.
//!
//! Ambiguous requests are answered with 400, and the connection is closed; `request` has the list.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod answer;
mod body;
mod bytes;
mod conditions;
mod loan;
mod negotiate;
mod range;
mod request;
mod response;
mod status;
mod target;
#[cfg(test)]
mod tests;

use answer::Answer;
pub use body::BODY_MAX;
use body::Body;
pub use loan::LOANS;
use loan::{Loan, Loans};
use mayfly_site::date::{IMF_FIXDATE_LEN, imf_fixdate};
use mayfly_site::{Pages, RENDERED_MAX};
use mayfly_stream::{Input, Millis, Moment, Next, Progress};
use request::{Expect, Extent, FIELDS_FEW, FIELDS_MAX, Refusal, Request, Scan, Scanner};
use response::Response;
pub use status::RequestCounts;
use status::{MethodClass, Status};

/// The longest header section, request line included, in bytes: enough for a target of 8,000 bytes (RFC 9112 section 3)
/// with the usual fields.
pub const HEAD_MAX: usize = 8 * 1024 + 512;
/// The time in ms that a connection may be without a request.
pub const IDLE_TIMEOUT: Millis = 15_000;
/// The time limit in ms from the first byte of a request to the end of its header section, and then again to the end of
/// its content.
pub const REQUEST_TIMEOUT: Millis = 10_000;
/// The time in ms in which a client must take [`WRITE_QUOTA`] bytes of an answer, or the rest of it.
pub const WRITE_TIMEOUT: Millis = 10_000;
/// The number of bytes that a client must take in each [`WRITE_TIMEOUT`].
pub const WRITE_QUOTA: usize = 1024;

/// State that all connections of a server share.
#[derive(Debug)]
pub struct Shared {
    /// Counters.
    pub stats: RequestCounts,
    /// The lines of `Server` and, if the time is known, `Date`, for the current second.
    stamp: [u8; STAMP_LEN],
    stamp_second: Option<u64>,
    /// The number of boundaries used for multipart responses.
    boundaries: u64,
    loans: Loans,
}

const SERVER_LINE: &[u8] = b"Server: mayfly\r\n";
const STAMP_BEFORE: &[u8] = b"Server: mayfly\r\nDate: ";
const STAMP_LEN: usize = STAMP_BEFORE.len() + IMF_FIXDATE_LEN + 2;

impl Default for Shared {
    fn default() -> Self {
        Self {
            stats: RequestCounts::default(),
            stamp: [0; STAMP_LEN],
            stamp_second: None,
            boundaries: 0,
            loans: Loans::default(),
        }
    }
}

impl Shared {
    /// The lines that each response has. Without a clock there is no `Date` (RFC 9110 section 6.6.1).
    fn stamp(&mut self, unix_seconds: Option<u64>) -> &[u8] {
        let Some(unix_seconds) = unix_seconds else {
            return SERVER_LINE;
        };
        if self.stamp_second != Some(unix_seconds) {
            let (before, rest) = self.stamp.split_at_mut(STAMP_BEFORE.len());
            let (date, end) = rest.split_at_mut(IMF_FIXDATE_LEN);
            before.copy_from_slice(STAMP_BEFORE);
            date.copy_from_slice(&imf_fixdate(unix_seconds));
            end.copy_from_slice(b"\r\n");
            self.stamp_second = Some(unix_seconds);
        }
        &self.stamp
    }

    /// A seed for a multipart boundary that no earlier response had.
    fn boundary(&mut self, unix_seconds: Option<u64>) -> u64 {
        self.boundaries = self.boundaries.wrapping_add(1);
        (unix_seconds.unwrap_or(0) << 32).wrapping_add(self.boundaries)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection<'a> {
    /// The size of the receive buffer in bytes.
    input_max: usize,
    phase: Phase,
    /// The time at which the phase began, or at which the peer last took a quota of the response.
    since: Millis,
    scanner: Scanner,
    /// The beginning of a header section that is longer than the receive buffer.
    long_head: Option<Loan>,
    /// The unwritten part of an interim response.
    interim: &'static [u8],
    /// The unread part of the request's content.
    body: Body,
    response: Response<'a>,
    /// The number of bytes that the peer has taken since `since`.
    taken: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No byte of a request has arrived.
    Idle,
    /// A part of a header section has arrived.
    Head,
    /// The content of a request is being skipped.
    Body,
    /// A response is being written.
    Respond,
    /// All has been written.
    Closed,
}

/// The context in which a connection is served.
struct Cx<'x, 'a, S: ?Sized> {
    moment: Moment,
    site: &'a S,
    shared: &'x mut Shared,
}

/// The result of one step in a phase.
#[derive(Clone, Copy, Debug, Default)]
struct Step {
    consumed: usize,
    written: usize,
    /// `None` to go on with the connection's current phase.
    next: Option<Next>,
}

impl Step {
    fn end(next: Next) -> Self {
        Self {
            next: Some(next),
            ..Self::default()
        }
    }
}

impl<'a> Connection<'a> {
    /// A new connection, accepted at `now`, whose receive buffer has `input_max` bytes.
    #[must_use]
    pub fn new(now: Millis, input_max: usize) -> Self {
        Self {
            input_max,
            phase: Phase::Idle,
            since: now,
            scanner: Scanner::default(),
            long_head: None,
            interim: b"",
            body: Body::None,
            response: Response::new(),
            taken: 0,
        }
    }

    /// The time by which `process` must be called again, even if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        let timeout = match self.phase {
            Phase::Idle => IDLE_TIMEOUT,
            Phase::Head | Phase::Body => REQUEST_TIMEOUT,
            Phase::Respond => WRITE_TIMEOUT,
            Phase::Closed => 0,
        };
        self.since.saturating_add(timeout)
    }

    /// Whether no request has begun: such a connection may be dropped for another.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// The time since which the server has waited for the peer: for a request, for the rest of one, or for the peer to
    /// take the next [`WRITE_QUOTA`] bytes. Of two connections, the one with the earlier time is the slower.
    #[must_use]
    pub fn waiting_since(&self) -> Millis {
        self.since
    }

    /// Answers the requests in `input`, as far as there is room in `out`.
    pub fn process<S: Pages + ?Sized>(
        &mut self,
        moment: Moment,
        input: Input<'_>,
        out: &mut [u8],
        site: &'a S,
        shared: &mut Shared,
    ) -> Progress {
        let (mut consumed, mut written) = (0, 0);
        let mut cx = Cx {
            moment,
            site,
            shared,
        };
        let next = loop {
            let rest = Input {
                bytes: input.bytes.get(consumed..).unwrap_or_default(),
                ..input
            };
            let room = out.get_mut(written..).unwrap_or_default();
            let step = match self.phase {
                Phase::Idle | Phase::Head => self.read_head(rest, &mut cx),
                Phase::Body => self.skip_body(rest, room, &mut cx),
                Phase::Respond => self.respond(room, &mut cx),
                Phase::Closed => Step::end(Next::Close),
            };
            consumed += step.consumed;
            written += step.written;
            if let Some(next) = step.next {
                break next;
            }
        };
        if self.phase == Phase::Closed {
            consumed = input.bytes.len();
        }
        Progress {
            consumed,
            written,
            next,
        }
    }

    /// Looks for a header section, and prepares the response to the request.
    fn read_head<S: Pages + ?Sized>(&mut self, input: Input<'_>, cx: &mut Cx<'_, 'a, S>) -> Step {
        let now = cx.moment.now;
        let mut consumed = 0;
        if self.long_head.is_none() {
            consumed += leading_blank_lines(input.bytes);
        }
        let rest = input.bytes.get(consumed..).unwrap_or_default();
        let (taken, scan) = self.scan(rest, now, cx.shared);
        consumed += taken;
        let next = match scan {
            Scan::Head(extent) => {
                consumed += self.receive_head(rest, extent, cx);
                self.enter(Phase::Body, now);
                None
            }
            Scan::Refused(status) => {
                cx.shared.stats.method(MethodClass::Invalid);
                self.refuse(status, cx);
                self.enter(Phase::Body, now);
                None
            }
            Scan::Partial if input.ended => {
                cx.shared.stats.incomplete += u64::from(self.phase == Phase::Head);
                Some(self.close())
            }
            Scan::Partial if now < self.deadline() => Some(Next::Keep),
            Scan::Partial => {
                cx.shared.stats.expired += 1;
                if self.phase == Phase::Idle {
                    Some(self.close())
                } else {
                    self.refuse(Status::RequestTimeout, cx);
                    self.enter(Phase::Body, now);
                    None
                }
            }
        };
        Step {
            consumed,
            written: 0,
            next,
        }
    }

    /// Skips the content of a request.
    fn skip_body<S: Pages + ?Sized>(
        &mut self,
        input: Input<'_>,
        room: &mut [u8],
        cx: &mut Cx<'_, 'a, S>,
    ) -> Step {
        let now = cx.moment.now;
        let mut step = Step {
            written: self.write_interim(room),
            ..Step::default()
        };
        match self.body.skip(input.bytes) {
            Ok(length) => step.consumed = length,
            Err(status) => self.refuse(status, cx),
        }
        if self.body == Body::None {
            cx.shared.stats.status(self.response.status);
            self.enter(Phase::Respond, now);
        } else if input.ended {
            cx.shared.stats.incomplete += 1;
            step.next = Some(self.close());
        } else if now < self.deadline() {
            step.next = Some(Next::Keep);
        } else {
            cx.shared.stats.expired += 1;
            self.refuse(Status::RequestTimeout, cx);
        }
        step
    }

    /// Writes as much of the response as fits.
    fn respond<S: Pages + ?Sized>(&mut self, room: &mut [u8], cx: &mut Cx<'_, 'a, S>) -> Step {
        let (now, stats) = (cx.moment.now, &mut cx.shared.stats);
        let interim = self.write_interim(room);
        let copied = self
            .response
            .copy_to(room.get_mut(interim..).unwrap_or_default());
        let written = interim + copied.bytes;
        stats.content += copied.content as u64;
        self.taken = self.taken.saturating_add(written);
        let is_late =
            !self.response.is_complete() && self.taken < WRITE_QUOTA && now >= self.deadline();
        let next = if is_late || self.response.is_lost() {
            stats.expired += u64::from(is_late);
            stats.aborted += 1;
            self.close();
            Some(Next::Abort)
        } else if self.response.is_complete() {
            self.response.clear();
            if self.response.framing.close {
                Some(self.close())
            } else {
                self.enter(Phase::Idle, now);
                None
            }
        } else {
            if self.taken >= WRITE_QUOTA {
                self.enter(Phase::Respond, now);
            }
            Some(Next::Keep)
        };
        Step {
            consumed: 0,
            written,
            next,
        }
    }

    fn enter(&mut self, phase: Phase, now: Millis) {
        self.phase = phase;
        self.since = now;
        self.taken = 0;
        self.scanner = Scanner::default();
        if phase != Phase::Head {
            self.long_head = None;
        }
    }

    fn close(&mut self) -> Next {
        self.phase = Phase::Closed;
        self.long_head = None;
        self.response.clear();
        Next::Close
    }

    /// Looks for the end of a header section in the set-aside bytes and `input`, which follows them. Returns also the
    /// number of bytes of `input` that were set aside now, because the receive buffer has no room for the rest.
    fn scan(&mut self, input: &[u8], now: Millis, shared: &mut Shared) -> (usize, Scan) {
        const NO_MEMORY: Scan = Scan::Refused(Status::ServiceUnavailable);
        // An incomplete blank line does not begin a request.
        if self.long_head.is_none() && matches!(input, b"" | b"\r") {
            return (0, Scan::Partial);
        }
        if self.phase == Phase::Idle {
            self.enter(Phase::Head, now);
        }
        if self.long_head.is_none() {
            let scan = self.scanner.scan(input, HEAD_MAX);
            if scan != Scan::Partial || input.len() < self.input_max {
                return (0, scan);
            }
            self.long_head = shared.loans.lend(HEAD_MAX);
        }
        let Some(head) = &self.long_head else {
            return (0, NO_MEMORY);
        };
        let Some(length) = head.push(input) else {
            return (0, NO_MEMORY);
        };
        let scan = head.bytes().map(|head| self.scanner.scan(&head, HEAD_MAX));
        match (scan, head.bytes()) {
            // The bytes after the head are still to be read.
            (Some(Scan::Head(extent)), Some(head)) => {
                let behind = head.len().saturating_sub(extent.length);
                (length.saturating_sub(behind), Scan::Head(extent))
            }
            (scan, _) => (length, scan.unwrap_or(NO_MEMORY)),
        }
    }

    /// Prepares the response to a request whose header section is complete: in the set-aside bytes, or else at the
    /// start of `input`. Returns the number of consumed bytes of `input`.
    fn receive_head<S: Pages + ?Sized>(
        &mut self,
        input: &[u8],
        extent: Extent,
        cx: &mut Cx<'_, 'a, S>,
    ) -> usize {
        let long_head = self.long_head.take();
        let long_head = long_head.as_ref().and_then(Loan::bytes);
        let length = if long_head.is_some() {
            0
        } else {
            extent.length
        };
        let head = (long_head.as_deref().unwrap_or(input))
            .get(..extent.length)
            .unwrap_or_default();
        let (mut few, mut many);
        let fields = if extent.fields <= FIELDS_FEW {
            few = [httparse::EMPTY_HEADER; FIELDS_FEW];
            &mut few[..]
        } else {
            many = [httparse::EMPTY_HEADER; FIELDS_MAX];
            &mut many[..]
        };
        let request = Request::parse(head, extent.line, fields);
        self.receive(request, cx);
        length
    }

    /// Prepares the response to a request.
    fn receive<S: Pages + ?Sized>(
        &mut self,
        request: Result<Request<'_, '_>, Refusal>,
        cx: &mut Cx<'_, 'a, S>,
    ) {
        cx.shared.stats.method(match &request {
            Ok(request) => request.method.class(),
            Err(_) => MethodClass::Invalid,
        });
        let unix_seconds = cx.moment.unix_seconds;
        let answer = Answer::new(&mut self.response, cx.site, cx.shared, unix_seconds);
        match request {
            Ok(request) => {
                self.body = answer.request(&request);
                if self.body != Body::None && request.expect == Expect::Continue {
                    cx.shared.stats.status(Status::Continue);
                    self.interim = CONTINUE;
                }
            }
            Err(refusal) => answer.refuse(refusal),
        }
    }

    /// Replaces the prepared response by an error, and closes the connection after it.
    fn refuse<S: Pages + ?Sized>(&mut self, status: Status, cx: &mut Cx<'_, 'a, S>) {
        let head_only = self.phase == Phase::Body && self.response.framing.head_only;
        self.body = Body::None;
        let unix_seconds = cx.moment.unix_seconds;
        Answer::new(&mut self.response, cx.site, cx.shared, unix_seconds)
            .refuse(Refusal { status, head_only });
    }

    /// Writes the rest of an interim response. Returns the number of bytes written.
    fn write_interim(&mut self, mut room: &mut [u8]) -> usize {
        response::advance(&mut self.interim, &mut room)
    }
}

/// The interim response to `Expect: 100-continue` (RFC 9110 section 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The number of bytes at the start of `input` that are blank lines, which may precede a request line (RFC 9112 section
/// 2.2).
fn leading_blank_lines(input: &[u8]) -> usize {
    let mut rest = input;
    while let Some(after) = rest.strip_prefix(b"\r\n") {
        rest = after;
    }
    input.len() - rest.len()
}

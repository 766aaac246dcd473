//! An HTTP/1.1 server over bytes (RFC 9110, RFC 9112): GET and HEAD of pages that exist.
//!
//! Request heads are parsed by `httparse` in the receive buffer; bodies are sent from where the
//! site has them. Requests are answered in order, one at a time; the next one is looked at when the
//! last octet of the answer before it has found room.
//!
//! What a proxy in front could understand in another way is refused and the connection closed: a
//! length and a transfer coding together, repeated lengths, folded lines, white space before a
//! colon, a bare CR (RFC 9112 sections 2.2, 5.1, 5.2, 6.3).

mod request;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::fmt::{self, Write};

use super::site::{Body, Pages};
use super::{Input, Millis, Next, Progress};
use crate::date::imf_fixdate;
use request::{Framing, Parsed};

/// Octets in the longest page that is made for a request.
pub const RENDERED_MAX: usize = 4 * 1024;
/// Time that a connection may be without a request.
pub const IDLE_TIMEOUT: Millis = 15_000;
/// Time from the first octet of a request to the end of its header section, and then of its body.
pub const REQUEST_TIMEOUT: Millis = 10_000;
/// Time in which a client must take [`WRITE_QUOTA`] octets of an answer, or the rest of it.
pub const WRITE_TIMEOUT: Millis = 10_000;
/// Octets that a client must take in each [`WRITE_TIMEOUT`].
pub const WRITE_QUOTA: usize = 1024;
/// Room for the head of a response: fixed fields, lengths, and a content type of 128 octets.
const HEAD_MAX: usize = 384;

/// Counters, which wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Responses with a status of 2xx.
    pub success: u32,
    /// Responses with a status of 4xx.
    pub client_error: u32,
    /// Responses with a status of 5xx.
    pub server_error: u32,
    /// Connections that were closed or reset at a deadline, 408 included.
    pub expired: u32,
}

fn count(counter: &mut u32) {
    *counter = counter.wrapping_add(1);
}

/// A response status: a line of text, code and reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status(&'static str);

impl Status {
    const OK: Self = Self("200 OK\n");
    const BAD_REQUEST: Self = Self("400 Bad Request\n");
    const NOT_FOUND: Self = Self("404 Not Found\n");
    const METHOD_NOT_ALLOWED: Self = Self("405 Method Not Allowed\n");
    const REQUEST_TIMEOUT: Self = Self("408 Request Timeout\n");
    const LENGTH_REQUIRED: Self = Self("411 Length Required\n");
    const CONTENT_TOO_LARGE: Self = Self("413 Content Too Large\n");
    const URI_TOO_LONG: Self = Self("414 URI Too Long\n");
    const EXPECTATION_FAILED: Self = Self("417 Expectation Failed\n");
    const HEADER_FIELDS_TOO_LARGE: Self = Self("431 Request Header Fields Too Large\n");
    const NOT_IMPLEMENTED: Self = Self("501 Not Implemented\n");
    const SERVICE_UNAVAILABLE: Self = Self("503 Service Unavailable\n");
    const VERSION_NOT_SUPPORTED: Self = Self("505 HTTP Version Not Supported\n");
}

/// One connection.
#[derive(Debug)]
pub struct Connection<'a> {
    /// The longest header section that is taken, request line included.
    head_max: usize,
    phase: Phase,
    /// When the peer must have done what the phase waits for.
    deadline: Millis,
    /// Length of the input when it was last found to be part of a request.
    seen: usize,
    response: Response<'a>,
    /// Octets taken by the peer since the deadline was set.
    taken: usize,
    /// Octets of a request body that are still to be passed over.
    discard: usize,
    /// Whether the response is the last.
    last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No octet of a request has come.
    Idle,
    /// A part of a header section has come.
    Head,
    /// A response is being written.
    Respond,
    /// A request body is being passed over.
    Discard,
    /// Everything was written.
    Closed,
}

impl<'a> Connection<'a> {
    /// A connection that was accepted now, which takes header sections of up to `head_max` octets:
    /// at most the size of the receive buffer.
    #[must_use]
    pub fn new(now: Millis, head_max: usize) -> Self {
        Self {
            head_max,
            phase: Phase::Idle,
            deadline: now.saturating_add(IDLE_TIMEOUT),
            seen: 0,
            response: Response::new(),
            taken: 0,
            discard: 0,
            last: false,
        }
    }

    /// When `process` must be called again, whatever happens until then.
    #[must_use]
    pub fn deadline(&self) -> Millis {
        self.deadline
    }

    /// Whether no request has begun: such a connection may be dropped for another.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }

    /// Answers the requests in `input` as far as there is room in `out`.
    ///
    /// `unix_seconds` is the time of day for `Date`.
    pub fn process<S: Pages + ?Sized>(
        &mut self,
        now: Millis,
        unix_seconds: u64,
        input: Input<'_>,
        out: &mut [u8],
        site: &'a S,
        stats: &mut Stats,
    ) -> Progress {
        let (mut consumed, mut written) = (0, 0);
        let next = loop {
            let rest = input.octets.get(consumed..).unwrap_or_default();
            match self.phase {
                Phase::Idle | Phase::Head => {
                    let blank = leading_blank_lines(rest);
                    if blank > 0 {
                        consumed += blank;
                        self.seen = 0;
                    }
                    let rest = rest.get(blank..).unwrap_or_default();
                    match self.receive(rest, now) {
                        Some(request) => {
                            consumed += request.length;
                            self.respond(&request, unix_seconds, site, stats);
                            self.enter(Phase::Respond, now, WRITE_TIMEOUT);
                        }
                        None if input.ended => break self.close(),
                        None if now < self.deadline => break Next::Keep,
                        None => {
                            count(&mut stats.expired);
                            if self.phase == Phase::Idle {
                                break self.close();
                            }
                            let timeout = Parsed::refused(Status::REQUEST_TIMEOUT);
                            self.respond(&timeout, unix_seconds, site, stats);
                            self.enter(Phase::Respond, now, WRITE_TIMEOUT);
                        }
                    }
                }
                Phase::Respond => {
                    let length = self
                        .response
                        .copy_to(out.get_mut(written..).unwrap_or_default());
                    written += length;
                    self.taken = self.taken.saturating_add(length);
                    if self.response.is_complete() {
                        self.response.clear();
                        if self.last {
                            break self.close();
                        }
                        self.enter(Phase::Discard, now, REQUEST_TIMEOUT);
                    } else if self.taken >= WRITE_QUOTA {
                        self.enter(Phase::Respond, now, WRITE_TIMEOUT);
                        break Next::Keep;
                    } else if now < self.deadline {
                        break Next::Keep;
                    } else {
                        count(&mut stats.expired);
                        self.close();
                        break Next::Abort;
                    }
                }
                Phase::Discard => {
                    let length = self.discard.min(rest.len());
                    consumed += length;
                    self.discard -= length;
                    if self.discard == 0 {
                        self.enter(Phase::Idle, now, IDLE_TIMEOUT);
                    } else if input.ended {
                        break self.close();
                    } else if now < self.deadline {
                        break Next::Keep;
                    } else {
                        count(&mut stats.expired);
                        break self.close();
                    }
                }
                Phase::Closed => break Next::Close,
            }
        };
        if self.phase == Phase::Closed {
            consumed = input.octets.len();
        }
        Progress {
            consumed,
            written,
            next,
        }
    }

    fn enter(&mut self, phase: Phase, now: Millis, timeout: Millis) {
        self.phase = phase;
        self.deadline = now.saturating_add(timeout);
        self.taken = 0;
        self.seen = 0;
    }

    fn close(&mut self) -> Next {
        self.phase = Phase::Closed;
        self.response.clear();
        Next::Close
    }

    /// Looks for a request at the start of `input`; `None` when more must come.
    fn receive<'i>(&mut self, input: &'i [u8], now: Millis) -> Option<Parsed<'i>> {
        // Nothing is there that was not looked at before.
        if input.len() <= self.seen {
            return None;
        }
        let head = input.get(..self.head_max).unwrap_or(input);
        if let Some(parsed) = request::parse(head) {
            return Some(parsed);
        }
        if head.len() < self.head_max {
            if self.phase == Phase::Idle {
                self.enter(Phase::Head, now, REQUEST_TIMEOUT);
            }
            self.seen = input.len();
            return None;
        }
        Some(Parsed::refused(if head.contains(&b'\n') {
            Status::HEADER_FIELDS_TOO_LARGE
        } else {
            Status::URI_TOO_LONG
        }))
    }

    /// Makes the response to a request.
    fn respond<S: Pages + ?Sized>(
        &mut self,
        request: &Parsed<'_>,
        unix_seconds: u64,
        site: &'a S,
        stats: &mut Stats,
    ) {
        let page = request.target.and_then(|target| {
            let mut buffer = [0; request::ESCAPED_MAX];
            let path = request::decode(target, &mut buffer)?;
            let page = site.page(path).ok_or(Status::NOT_FOUND)?;
            let content = Content::new(page.body).ok_or(Status::SERVICE_UNAVAILABLE)?;
            Ok((page.content_type, content))
        });
        let (status, content_type, content) = match page {
            Ok((content_type, content)) => (Status::OK, content_type, content),
            Err(status) => (status, "text/plain", Content::Octets(status.0.as_bytes())),
        };
        count(match status.0.as_bytes().first() {
            Some(b'2') => &mut stats.success,
            Some(b'4') => &mut stats.client_error,
            _ => &mut stats.server_error,
        });
        self.last = request.framing.close;
        self.discard = request.framing.body;
        self.response.begin(
            status,
            &request.framing,
            content_type,
            content,
            unix_seconds,
        );
    }
}

/// Octets at the start of `input` that are blank lines, which a request line may follow
/// (RFC 9112 section 2.2).
fn leading_blank_lines(input: &[u8]) -> usize {
    let mut rest = input;
    while let Some(after) = rest.strip_prefix(b"\r\n").or(rest.strip_prefix(b"\n")) {
        rest = after;
    }
    input.len() - rest.len()
}

/// What follows the head of a response.
#[derive(Debug)]
enum Content<'a> {
    Octets(&'a [u8]),
    Rendered(Vec<u8>),
}

impl<'a> Content<'a> {
    /// `None` when a page could not be made: it is too long, or there is no memory for it.
    fn new(body: Body<'a>) -> Option<Self> {
        match body {
            Body::Octets(octets) => Some(Self::Octets(octets)),
            Body::Rendered(text) => {
                let mut rendered = Rendered(Vec::new());
                write!(rendered, "{text}").ok()?;
                Some(Self::Rendered(rendered.0))
            }
        }
    }

    fn octets(&self) -> &[u8] {
        match self {
            Self::Octets(octets) => octets,
            Self::Rendered(octets) => octets,
        }
    }
}

/// A page in the making.
struct Rendered(Vec<u8>);

impl Write for Rendered {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if RENDERED_MAX - self.0.len() < text.len() {
            return Err(fmt::Error);
        }
        self.0.try_reserve(text.len()).map_err(|_| fmt::Error)?;
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// A response that is being written.
#[derive(Debug)]
struct Response<'a> {
    head: [u8; HEAD_MAX],
    head_len: usize,
    content: Content<'a>,
    /// Octets of head and content that were written.
    sent: usize,
}

impl<'a> Response<'a> {
    const fn new() -> Self {
        Self {
            head: [0; HEAD_MAX],
            head_len: 0,
            content: Content::Octets(b""),
            sent: 0,
        }
    }

    fn begin(
        &mut self,
        status: Status,
        framing: &Framing,
        content_type: &str,
        content: Content<'a>,
        unix_seconds: u64,
    ) {
        self.clear();
        self.push(b"HTTP/1.1 ");
        self.push(status.0.trim_ascii_end().as_bytes());
        self.push(b"\r\nServer: mayfly\r\nDate: ");
        self.push(&imf_fixdate(unix_seconds));
        self.push(b"\r\nContent-Type: ");
        self.push(content_type.as_bytes());
        self.push(b"\r\nContent-Length: ");
        self.push_decimal(content.octets().len());
        if status == Status::METHOD_NOT_ALLOWED {
            self.push(b"\r\nAllow: GET, HEAD");
        }
        if framing.close {
            self.push(b"\r\nConnection: close");
        } else if framing.http10 {
            self.push(b"\r\nConnection: keep-alive");
        }
        self.push(b"\r\n\r\n");
        if !framing.head_only {
            self.content = content;
        }
    }

    fn clear(&mut self) {
        (self.head_len, self.sent) = (0, 0);
        self.content = Content::Octets(b"");
    }

    fn push(&mut self, octets: &[u8]) {
        let end = self.head_len + octets.len();
        if let Some(room) = self.head.get_mut(self.head_len..end) {
            room.copy_from_slice(octets);
            self.head_len = end;
        }
    }

    fn push_decimal(&mut self, mut value: usize) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789"[value % 10];
            value /= 10;
            first -= 1;
            if value == 0 {
                break;
            }
        }
        self.push(digits.get(first..).unwrap_or_default());
    }

    fn is_complete(&self) -> bool {
        self.sent == self.head_len + self.content.octets().len()
    }

    /// Copies as much as there is room for; the number of octets.
    fn copy_to(&mut self, out: &mut [u8]) -> usize {
        let mut written = 0;
        if self.sent < self.head_len {
            let head = self.head.get(self.sent..self.head_len).unwrap_or_default();
            written = copy(head, out);
            self.sent += written;
        }
        if self.sent >= self.head_len {
            let content = self.content.octets().get(self.sent - self.head_len..);
            let length = copy(
                content.unwrap_or_default(),
                out.get_mut(written..).unwrap_or_default(),
            );
            self.sent += length;
            written += length;
        }
        written
    }
}

/// Copies what fits; the number of octets.
fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let length = from.len().min(to.len());
    if let (Some(from), Some(to)) = (from.get(..length), to.get_mut(..length)) {
        to.copy_from_slice(from);
    }
    length
}

//! A response that is being written: the part that it owns, and the parts that it borrows from the site.

use super::loan::Loan;
use super::range::{Parts, Span};
use super::request::Framing;
use super::status::Status;

/// Room in bytes for the header lines that are made for each response: status line, `Server`, `Date`, `Connection`, and
/// the longest of `Content-Length` with `Content-Range`, with `Content-Type` of 128 bytes, or with `Allow`.
const OWN_MAX: usize = 384;
/// The length of the boundary of a multipart response, in bytes (RFC 2046 section 5.1.1).
const BOUNDARY: usize = 16;

/// A short text that is being written. Bytes that do not fit are left out.
#[derive(Debug)]
pub(super) struct Text<const N: usize> {
    bytes: [u8; N],
    length: usize,
}

impl<const N: usize> Text<N> {
    pub(super) const fn new() -> Self {
        Self {
            bytes: [0; N],
            length: 0,
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let end = self.length + bytes.len();
        if let Some(room) = self.bytes.get_mut(self.length..end) {
            room.copy_from_slice(bytes);
            self.length = end;
        }
    }

    pub(super) fn push_decimal(&mut self, mut value: u64) {
        let mut digits = [0; 20];
        let mut first = digits.len();
        for digit in digits.iter_mut().rev() {
            *digit = b"0123456789"[usize::try_from(value % 10).unwrap_or(0)];
            value /= 10;
            first -= 1;
            if value == 0 {
                break;
            }
        }
        self.push(digits.get(first..).unwrap_or_default());
    }

    /// A line of `Content-Length`.
    pub(super) fn push_length(&mut self, length: u64) {
        self.push(b"Content-Length: ");
        self.push_decimal(length);
        self.push(b"\r\n");
    }

    /// A line of `Content-Range` for a part of a representation of `length` bytes.
    fn push_range(&mut self, span: Span, length: usize) {
        self.push(b"Content-Range: bytes ");
        self.push_decimal(span.first as u64);
        self.push(b"-");
        self.push_decimal(span.end.saturating_sub(1) as u64);
        self.push(b"/");
        self.push_decimal(length as u64);
        self.push(b"\r\n");
    }
}

/// The content of a response, after its head.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// Bytes of the site.
    Site(&'a [u8]),
    /// Bytes that were made for this response.
    Made(Made),
    /// The number of meaningless bytes, for load tests.
    Payload(u64),
}

/// Bytes that were made for one response.
#[derive(Debug)]
pub(super) struct Made {
    bytes: Loan,
    sent: usize,
}

impl Made {
    pub(super) fn new(bytes: Loan) -> Self {
        Self { bytes, sent: 0 }
    }

    /// Copies as many bytes as fit. Returns their number.
    fn copy_to(&mut self, room: &mut &mut [u8]) -> usize {
        let Some(bytes) = self.bytes.bytes() else {
            return 0;
        };
        let length = copy(bytes.get(self.sent..).unwrap_or_default(), room);
        self.sent += length;
        length
    }

    fn is_sent(&self) -> bool {
        (self.bytes.bytes()).is_some_and(|bytes| self.sent >= bytes.len())
    }
}

/// The parts of a file that are still to be sent.
#[derive(Debug)]
struct Multipart<'a> {
    body: &'a [u8],
    /// The line of `Content-Type`.
    content_type: &'a [u8],
    parts: Parts,
    /// The number of parts begun, plus one when the last boundary was begun.
    begun: usize,
    boundary: [u8; BOUNDARY],
}

/// A response that is being written: `own`, `extra`, `name`, `lines`, `blank` and `content`, and then the next part.
#[derive(Debug)]
pub(super) struct Response<'a> {
    pub(super) status: Status,
    pub(super) framing: Framing,
    pub(super) own: Text<OWN_MAX>,
    own_sent: usize,
    /// The site's own header lines for the path.
    pub(super) extra: &'a [u8],
    /// The name of the field whose value `lines` begins with.
    pub(super) name: &'static [u8],
    /// Header lines of the site, each with its line end.
    pub(super) lines: &'a [u8],
    /// The bytes between the header lines and the content.
    pub(super) blank: &'static [u8],
    content: Content<'a>,
    multipart: Option<Multipart<'a>>,
}

/// The result of [`Response::copy_to`].
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copied {
    /// The number of bytes written.
    pub(super) bytes: usize,
    /// The number of those bytes that are content.
    pub(super) content: usize,
}

impl<'a> Response<'a> {
    pub(super) const fn new() -> Self {
        Self {
            status: Status::Continue,
            framing: Framing {
                head_only: false,
                close: false,
                http10: false,
            },
            own: Text::new(),
            own_sent: 0,
            extra: b"",
            name: b"",
            lines: b"",
            blank: b"",
            content: Content::Site(b""),
            multipart: None,
        }
    }

    /// Begins another response; `stamp` has the lines of `Server` and `Date`.
    pub(super) fn begin(&mut self, status: Status, framing: Framing, stamp: &[u8]) {
        self.clear();
        (self.status, self.framing) = (status, framing);
        self.own.push(status.line());
        self.own.push(stamp);
        if framing.close {
            self.own.push(b"Connection: close\r\n");
        } else if framing.http10 {
            self.own.push(b"Connection: keep-alive\r\n");
        }
        self.blank = b"\r\n";
    }

    pub(super) fn clear(&mut self) {
        (self.own.length, self.own_sent) = (0, 0);
        (self.extra, self.name) = (b"", b"");
        (self.lines, self.blank) = (b"", b"");
        self.content = Content::Site(b"");
        self.multipart = None;
    }

    /// Sets the content, which is not sent if the response is a head only.
    pub(super) fn set_content(&mut self, content: Content<'a>) {
        if !self.framing.head_only {
            self.content = content;
        }
    }

    /// Sets the address of a `Location` line. `made` has the rest of that line, with all that follows it.
    pub(super) fn set_end(&mut self, address: &'a [u8], made: Content<'a>) {
        (self.lines, self.blank) = (address, b"");
        self.content = made;
    }

    /// Sets a part of a file as the content.
    pub(super) fn set_part(&mut self, body: &'a [u8], span: Span) {
        let part = body.get(span.first..span.end).unwrap_or_default();
        self.own.push_range(span, body.len());
        self.own.push_length(part.len() as u64);
        self.set_content(Content::Site(part));
    }

    /// Sets several parts of a file as the content (RFC 9110 section 14.6). `lines` go before the parts, and
    /// `content_type` goes into each of them.
    pub(super) fn set_parts(
        &mut self,
        lines: &'a [u8],
        content_type: &'a [u8],
        body: &'a [u8],
        parts: Parts,
        seed: u64,
    ) {
        let mut multipart = Multipart {
            body,
            content_type,
            parts,
            begun: 0,
            boundary: boundary(seed),
        };
        let mut length = 0;
        let mut part = Text::<OWN_MAX>::new();
        while let Some(bytes) = multipart.next(&mut part) {
            length += part.length + bytes.len();
            if multipart.begun <= parts.spans().len() {
                length += content_type.len() + 2;
            }
            part.length = 0;
        }
        multipart.begun = 0;
        self.own
            .push(b"Content-Type: multipart/byteranges; boundary=");
        self.own.push(&multipart.boundary);
        self.own.push(b"\r\n");
        self.own.push_length(length as u64);
        self.lines = lines;
        self.multipart = (!self.framing.head_only).then_some(multipart);
    }

    /// Copies as much of the response as fits.
    pub(super) fn copy_to(&mut self, out: &mut [u8]) -> Copied {
        let mut copied = Copied::default();
        let mut room = out;
        loop {
            let own = self.own.bytes().get(self.own_sent..).unwrap_or_default();
            let mut bytes = copy(own, &mut room);
            self.own_sent += bytes;
            bytes += advance(&mut self.extra, &mut room);
            bytes += advance(&mut self.name, &mut room);
            bytes += advance(&mut self.lines, &mut room);
            bytes += advance(&mut self.blank, &mut room);
            let content = match &mut self.content {
                Content::Site(content) => advance(content, &mut room),
                Content::Made(made) => made.copy_to(&mut room),
                Content::Payload(left) => {
                    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(room.len());
                    *left -= length as u64;
                    let (filled, rest) = core::mem::take(&mut room)
                        .split_at_mut_checked(length)
                        .unwrap_or_default();
                    filled.fill(b'.');
                    room = rest;
                    length
                }
            };
            copied.bytes += bytes + content;
            copied.content += content;
            if !self.segment_is_sent() || !self.next_part() {
                return copied;
            }
        }
    }

    fn segment_is_sent(&self) -> bool {
        self.own_sent == self.own.length
            && self.lines.is_empty()
            && self.blank.is_empty()
            && match &self.content {
                Content::Site(content) => content.is_empty(),
                Content::Made(made) => made.is_sent(),
                Content::Payload(left) => *left == 0,
            }
    }

    /// Whether the memory of its content was taken back before all was sent.
    pub(super) fn is_lost(&self) -> bool {
        matches!(&self.content, Content::Made(made) if made.bytes.is_lost())
    }

    pub(super) fn is_complete(&self) -> bool {
        self.multipart.is_none() && self.segment_is_sent()
    }

    /// Goes on to the next part, or to the boundary after the last.
    fn next_part(&mut self) -> bool {
        let Some(multipart) = &mut self.multipart else {
            return false;
        };
        (self.own.length, self.own_sent) = (0, 0);
        let Some(bytes) = multipart.next(&mut self.own) else {
            self.multipart = None;
            return false;
        };
        if multipart.begun <= multipart.parts.spans().len() {
            (self.lines, self.blank) = (multipart.content_type, b"\r\n");
        }
        self.content = Content::Site(bytes);
        true
    }
}

impl<'a> Multipart<'a> {
    /// Begins the next part: writes the bytes before its `Content-Type`, and returns its content. The boundary after
    /// the last part counts as a part.
    fn next(&mut self, own: &mut Text<OWN_MAX>) -> Option<&'a [u8]> {
        let spans = self.parts.spans();
        if self.begun > spans.len() {
            return None;
        }
        own.push(b"\r\n--");
        own.push(&self.boundary);
        let span = spans.get(self.begun);
        self.begun += 1;
        match span {
            Some(span) => {
                own.push(b"\r\n");
                own.push_range(*span, self.body.len());
                self.body.get(span.first..span.end)
            }
            None => {
                own.push(b"--\r\n");
                Some(b"")
            }
        }
    }
}

/// A boundary that does not repeat while `seed` does not (SplitMix64).
fn boundary(seed: u64) -> [u8; BOUNDARY] {
    let mut bits = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^= bits >> 31;
    core::array::from_fn(|digit| {
        b"0123456789abcdef"[usize::try_from(bits >> (4 * digit) & 15).unwrap_or(0)]
    })
}

/// Copies as many bytes as fit to the start of the room, which shrinks. Returns their number.
fn copy(from: &[u8], room: &mut &mut [u8]) -> usize {
    let length = from.len().min(room.len());
    if let (Some(from), Some((to, rest))) = (
        from.get(..length),
        core::mem::take(room).split_at_mut_checked(length),
    ) {
        to.copy_from_slice(from);
        *room = rest;
    }
    length
}

/// Copies as many bytes as fit and removes them from `from`.
pub(super) fn advance(from: &mut &[u8], room: &mut &mut [u8]) -> usize {
    let length = copy(from, room);
    *from = from.get(length..).unwrap_or_default();
    length
}

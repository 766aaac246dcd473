//! Parses a request: the end of its head, its target, and its framing.
//!
//! A request that a proxy could understand differently is refused, and the connection is closed (RFC 9112 sections 2.2,
//! 5.1, 5.2, 6.1, 6.3 and 11.2): a bare LF or CR, white space before a colon, folded lines, a length and a transfer
//! coding together, repeated lengths, codings or hosts.

use httparse::Header;

use super::body::Body;
use super::bytes::{TOKEN, is, line_feed};
use super::status::{MethodClass, Status};
use super::target::{self, Target};

/// The greatest number of header fields in one request.
pub(super) const FIELDS_MAX: usize = 64;
/// The number of header fields that most requests do not exceed.
pub(super) const FIELDS_FEW: usize = 16;

/// Finds the end of a header section. It looks at each byte once, in whatever pieces the bytes arrive.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scanner {
    /// The number of scanned bytes.
    seen: usize,
    /// The offset of the incomplete line.
    line: usize,
    /// The extent of the complete lines.
    extent: Extent,
}

/// The extent of a header section and of its parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// The length of the request line with its end, in bytes.
    pub(super) line: usize,
    /// The number of lines between the request line and the blank line.
    pub(super) fields: usize,
    /// The length of the whole section with the blank line, in bytes.
    pub(super) length: usize,
}

/// The result of a [`Scanner`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// The header section is incomplete.
    Partial,
    /// A complete header section.
    Head(Extent),
    /// The header section is too long or ambiguous.
    Refused(Status),
}

impl Scanner {
    /// Continues the scan of `input`, which begins with a request line.
    pub(super) fn scan(&mut self, input: &[u8], max: usize) -> Scan {
        if input.first().is_some_and(|&byte| !is(byte, TOKEN)) {
            return Scan::Refused(Status::BadRequest);
        }
        let window = input.get(..max).unwrap_or(input);
        while let Some(length) = window.get(self.seen..).and_then(line_feed) {
            let end = self.seen + length;
            match window.get(self.line..end) {
                Some([b'\r']) => {
                    self.extent.length = end + 1;
                    return Scan::Head(self.extent);
                }
                Some([.., b'\r']) => {}
                _ => return Scan::Refused(Status::BadRequest),
            }
            if self.line == 0 {
                self.extent.line = end + 1;
            } else {
                self.extent.fields += 1;
            }
            self.line = end + 1;
            self.seen = self.line;
        }
        self.seen = window.len();
        if window.len() < max {
            Scan::Partial
        } else if self.line == 0 {
            Scan::Refused(Status::UriTooLong)
        } else {
            Scan::Refused(Status::HeaderFieldsTooLarge)
        }
    }
}

/// The methods that the server distinguishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Options,
    Connect,
    /// A known method that is not allowed.
    Refused,
    /// An unknown method.
    Unknown,
}

impl Method {
    fn new(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"OPTIONS" => Self::Options,
            b"CONNECT" => Self::Connect,
            b"POST" | b"PUT" | b"DELETE" | b"TRACE" | b"PATCH" => Self::Refused,
            _ => Self::Unknown,
        }
    }

    pub(super) fn class(self) -> MethodClass {
        match self {
            Self::Get => MethodClass::Get,
            Self::Head => MethodClass::Head,
            Self::Options => MethodClass::Options,
            Self::Connect | Self::Refused | Self::Unknown => MethodClass::Other,
        }
    }
}

/// The framing of the response to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    /// Whether the response has no content (HEAD).
    pub(super) head_only: bool,
    /// Whether the connection closes after the response.
    pub(super) close: bool,
    /// Whether the request is HTTP/1.0, where a connection that stays open must be announced.
    pub(super) http10: bool,
}

/// The expectation of the `Expect` field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    Nothing,
    Continue,
    Unknown,
}

/// A request with a complete header section.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'h, 'i> {
    pub(super) method: Method,
    pub(super) framing: Framing,
    /// The content, which has no meaning for any method that is served here.
    pub(super) body: Body,
    pub(super) expect: Expect,
    /// The host from the target, or else from `Host`.
    pub(super) host: &'i [u8],
    pub(super) target: Target<'i>,
    fields: &'h [Header<'i>],
    /// Whether there is a precondition other than `If-Range` among the fields.
    pub(super) conditional: bool,
    /// Whether the request has a `Range` field.
    pub(super) ranged: bool,
    /// Whether the request has an `Accept-Encoding` field.
    pub(super) negotiated: bool,
}

/// A request that cannot be served. The bytes that follow it on the connection cannot be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) head_only: bool,
}

impl<'h, 'i> Request<'h, 'i> {
    /// Parses a whole header section, whose request line has `line` bytes, into `fields`.
    pub(super) fn parse(
        head: &'i [u8],
        line: usize,
        fields: &'h mut [Header<'i>],
    ) -> Result<Self, Refusal> {
        let refusal = |status| Refusal {
            status,
            head_only: head.starts_with(b"HEAD "),
        };
        Self::try_parse(head, line, fields).map_err(refusal)
    }

    fn try_parse(
        head: &'i [u8],
        line: usize,
        fields: &'h mut [Header<'i>],
    ) -> Result<Self, Status> {
        let (line, rest) = head.split_at_checked(line).ok_or(Status::BadRequest)?;
        let line = line.strip_suffix(b"\r\n").ok_or(Status::BadRequest)?;
        let (method, target, http10) = request_line(line)?;
        let fields = match httparse::parse_headers(rest, fields) {
            Ok(httparse::Status::Complete((length, fields))) if length == rest.len() => fields,
            Err(httparse::Error::TooManyHeaders) => return Err(Status::HeaderFieldsTooLarge),
            _ => return Err(Status::BadRequest),
        };
        let mut request = Self {
            method,
            framing: Framing {
                head_only: method == Method::Head,
                close: false,
                http10,
            },
            body: Body::None,
            expect: Expect::Nothing,
            host: b"",
            target: match method {
                Method::Connect => Target::Asterisk,
                _ => target::parse(target)?,
            },
            fields,
            conditional: false,
            ranged: false,
            negotiated: false,
        };
        request.read_fields()?;
        match request.target {
            Target::Asterisk if !matches!(method, Method::Options | Method::Connect) => {
                Err(Status::BadRequest)
            }
            Target::Resource {
                host: Some(host), ..
            } => {
                // RFC 9112 section 3.2.2: with absolute-form, `Host` is ignored.
                request.host = host;
                Ok(request)
            }
            _ => Ok(request),
        }
    }

    fn read_fields(&mut self) -> Result<(), Status> {
        let (mut host, mut length, mut coding) = (None, None, None);
        let (mut close, mut keep_alive) = (false, false);
        for field in self.fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            match field.name.len() {
                4 if is("host") => once(&mut host, field.value)?,
                5 if is("range") => self.ranged = true,
                6 if is("expect") => {
                    let known = field.value.eq_ignore_ascii_case(b"100-continue");
                    self.expect = match self.expect {
                        Expect::Nothing if known => Expect::Continue,
                        _ => Expect::Unknown,
                    };
                }
                10 if is("connection") => {
                    for option in members(field.value) {
                        close |= option.eq_ignore_ascii_case(b"close");
                        keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                8 if is("if-match") => self.conditional = true,
                13 if is("if-none-match") => self.conditional = true,
                17 if is("if-modified-since") => self.conditional = true,
                19 if is("if-unmodified-since") => self.conditional = true,
                14 if is("content-length") => once(&mut length, field.value)?,
                15 if is("accept-encoding") => self.negotiated = true,
                17 if is("transfer-encoding") => once(&mut coding, field.value)?,
                _ => {}
            }
        }
        let http10 = self.framing.http10;
        // RFC 9112 section 3.2.
        self.host = match host {
            Some(host) => target::authority(host).ok_or(Status::BadRequest)?,
            None if http10 => b"",
            None => return Err(Status::BadRequest),
        };
        // RFC 9112 sections 6.1 and 6.3: the end of the body must be unambiguous.
        self.body = match (coding, length) {
            (None, None) => Body::None,
            (None, Some(length)) => Body::with_length(decimal(length)?),
            (Some(coding), None) if !http10 => {
                chunked(coding)?;
                Body::chunked()
            }
            (Some(_), _) => return Err(Status::BadRequest),
        };
        // RFC 9110 section 10.1.1: `Expect` is ignored in HTTP/1.0.
        if http10 {
            self.expect = Expect::Nothing;
        }
        self.framing.close = close || (http10 && !keep_alive);
        Ok(())
    }

    /// The values of all fields with this name. The comparison ignores case.
    pub(super) fn values(&self, name: &'static str) -> impl Iterator<Item = &'i [u8]> {
        let named = move |field: &&Header<'i>| field.name.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|field| field.value)
    }

    /// The value of a field that must occur once only; `None` if it is repeated.
    pub(super) fn value(&self, name: &'static str) -> Option<&'i [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }
}

/// Stores the value of a field that must not be repeated, not even with the same value.
fn once<'i>(place: &mut Option<&'i [u8]>, value: &'i [u8]) -> Result<(), Status> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Status::BadRequest),
    }
}

/// Method, target, and whether the version is 1.0 (RFC 9112 section 3).
fn request_line(line: &[u8]) -> Result<(Method, &[u8], bool), Status> {
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Status::BadRequest);
    };
    let name = method;
    let method = Method::new(name);
    let is_token = || name.iter().all(|&byte| is(byte, TOKEN));
    if method == Method::Unknown && (name.is_empty() || !is_token()) {
        return Err(Status::BadRequest);
    }
    // A higher minor version is understood as 1.1 (RFC 9110 section 2.5).
    match version {
        b"HTTP/1.1" => Ok((method, target, false)),
        b"HTTP/1.0" => Ok((method, target, true)),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            match major {
                b'1' => Ok((method, target, false)),
                _ => Err(Status::VersionNotSupported),
            }
        }
        _ => Err(Status::BadRequest),
    }
}

/// The members of a comma-separated list (RFC 9110 section 5.6.1.2), which has no quoted strings.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&byte| byte == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// A decimal number, digits only. A number larger than any limit is capped.
pub(super) fn decimal(value: &[u8]) -> Result<u64, Status> {
    if value.is_empty() {
        return Err(Status::BadRequest);
    }
    value.iter().try_fold(0_u64, |total, byte| match byte {
        b'0'..=b'9' => Ok(total
            .saturating_mul(10)
            .saturating_add(u64::from(byte - b'0'))),
        _ => Err(Status::BadRequest),
    })
}

/// Checks that `Transfer-Encoding` is `chunked` and nothing else. Other codings are not supported (RFC 9112 section
/// 6.1); without `chunked` at the end the body has no end (section 6.3).
fn chunked(value: &[u8]) -> Result<(), Status> {
    let is_chunked = |member: &[u8]| member.eq_ignore_ascii_case(b"chunked");
    if is_chunked(value) {
        return Ok(());
    }
    let mut below = members(value);
    let last = members(value).last().is_some_and(is_chunked);
    let times = below.by_ref().filter(|member| is_chunked(member)).count();
    let several = members(value).nth(1).is_some();
    Err(if last && times == 1 && several {
        Status::NotImplemented
    } else {
        Status::BadRequest
    })
}

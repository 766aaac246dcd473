//! From bytes to a request: where its head ends, what it asks for, how it is framed.
//!
//! What a proxy in front could understand in another way is refused and the connection closed
//! (RFC 9112 sections 2.2, 5.1, 5.2, 6.1, 6.3 and 11.2): a bare LF or CR, white space before a
//! colon, folded lines, a length and a transfer coding together, repeated lengths, codings or hosts.

use httparse::Header;

use super::body::Body;
use super::octets::{TOKEN, is, line_feed};
use super::status::{MethodClass, Status};
use super::target::{self, Target};

/// Header fields in one request.
pub(super) const FIELDS_MAX: usize = 64;
/// Header fields that few requests have more of.
pub(super) const FIELDS_FEW: usize = 16;

/// Finds the end of a header section, looking at each byte once however the bytes come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Scanner {
    /// Bytes that were looked at.
    seen: usize,
    /// Where the line begins that is not complete.
    line: usize,
    /// Lines before it.
    extent: Extent,
}

/// Where a header section and its parts end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extent {
    /// Bytes of the request line, its end included.
    pub(super) line: usize,
    /// Lines between the request line and the blank line.
    pub(super) fields: usize,
    /// Bytes of all, the blank line included.
    pub(super) length: usize,
}

/// What a [`Scanner`] has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// More must come.
    Partial,
    /// A header section.
    Head(Extent),
    /// No header section: it is too long, or it can be read in more than one way.
    Refused(Status),
}

impl Scanner {
    /// Goes on in `input`, which begins with a request line.
    pub(super) fn scan(&mut self, input: &[u8], max: usize) -> Scan {
        if input.first().is_some_and(|&octet| !is(octet, TOKEN)) {
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

/// The methods that make a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Options,
    Connect,
    /// One that is known and not allowed here.
    Refused,
    /// One that is not known.
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

/// How the response to a request is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    /// Whether it has no content (HEAD).
    pub(super) head_only: bool,
    /// Whether the connection ends with it.
    pub(super) close: bool,
    /// Whether the request is HTTP/1.0, where a connection that stays open is news.
    pub(super) http10: bool,
}

/// What `Expect` asks for.
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
    /// Its content, which has no meaning for any method that is served here.
    pub(super) body: Body,
    pub(super) expect: Expect,
    /// The host of the target, or else of `Host`.
    pub(super) host: &'i [u8],
    pub(super) target: Target<'i>,
    fields: &'h [Header<'i>],
    /// Whether there is a precondition other than `If-Range` among the fields.
    pub(super) conditional: bool,
    /// Whether there is `Range`.
    pub(super) ranged: bool,
    /// Whether there is `Accept-Encoding`.
    pub(super) negotiated: bool,
}

/// A request that can't be served; nothing that follows on the connection can be trusted.
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
                // RFC 9112 section 3.2.2: `Host` is ignored then.
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
        // RFC 9112 sections 6.1 and 6.3: where a body ends must be beyond doubt.
        self.body = match (coding, length) {
            (None, None) => Body::None,
            (None, Some(length)) => Body::with_length(decimal(length)?),
            (Some(coding), None) if !http10 => {
                chunked(coding)?;
                Body::chunked()
            }
            (Some(_), _) => return Err(Status::BadRequest),
        };
        // RFC 9110 section 10.1.1: not with HTTP/1.0.
        if http10 {
            self.expect = Expect::Nothing;
        }
        self.framing.close = close || (http10 && !keep_alive);
        Ok(())
    }

    /// The values of all fields with a name, in lower case.
    pub(super) fn values(&self, name: &'static str) -> impl Iterator<Item = &'i [u8]> {
        let named = move |field: &&Header<'i>| field.name.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|field| field.value)
    }

    /// The value of a field that must not come more than once, and is ignored when it does.
    pub(super) fn value(&self, name: &'static str) -> Option<&'i [u8]> {
        let mut values = self.values(name);
        values.next().filter(|_| values.next().is_none())
    }
}

/// Takes note of a field that must not be repeated, not even with the same value.
fn once<'i>(place: &mut Option<&'i [u8]>, value: &'i [u8]) -> Result<(), Status> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(Status::BadRequest),
    }
}

/// Method, target, and whether the version is 1.0 (RFC 9112 section 3).
fn request_line(line: &[u8]) -> Result<(Method, &[u8], bool), Status> {
    let mut parts = line.split(|&octet| octet == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Status::BadRequest);
    };
    let name = method;
    let method = Method::new(name);
    let is_token = || name.iter().all(|&octet| is(octet, TOKEN));
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
        .split(|&octet| octet == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// Digits and nothing else; larger than any limit is as good as exact.
pub(super) fn decimal(value: &[u8]) -> Result<u64, Status> {
    if value.is_empty() {
        return Err(Status::BadRequest);
    }
    value.iter().try_fold(0_u64, |total, octet| match octet {
        b'0'..=b'9' => Ok(total
            .saturating_mul(10)
            .saturating_add(u64::from(octet - b'0'))),
        _ => Err(Status::BadRequest),
    })
}

/// Whether `Transfer-Encoding` is `chunked` and nothing else. Codings below it are not known here
/// (RFC 9112 section 6.1); without it at the end the body has no end (section 6.3).
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

//! One request: from octets to what is asked for.

use core::mem::MaybeUninit;

use super::Status;

/// Header fields in one request.
const FIELDS_MAX: usize = 64;
/// The longest request body that is passed over; a longer one is refused.
pub(super) const BODY_MAX: usize = 16 * 1024;
/// The longest path that may have escapes in it.
pub(super) const ESCAPED_MAX: usize = 512;

/// How the request and its response are framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Framing {
    /// Whether the response has no content (HEAD).
    pub(super) head_only: bool,
    /// Whether the connection ends with the response.
    pub(super) close: bool,
    /// Whether the request is HTTP/1.0, where a connection that stays open is news.
    pub(super) http10: bool,
    /// Octets of the request body, which has no meaning for GET and HEAD (RFC 9110 section 9.3.1).
    pub(super) body: usize,
}

/// A request whose header section is complete, or one that was refused before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parsed<'i> {
    /// Octets of the header section.
    pub(super) length: usize,
    /// How to go on.
    pub(super) framing: Framing,
    /// The path that is asked for, without query, still escaped; or the status of a refusal.
    pub(super) target: Result<&'i [u8], Status>,
}

impl Parsed<'_> {
    /// A request after which nothing on the connection can be trusted.
    pub(super) fn refused(status: Status) -> Self {
        let framing = Framing {
            head_only: false,
            close: true,
            http10: false,
            body: 0,
        };
        Self {
            length: 0,
            framing,
            target: Err(status),
        }
    }
}

/// Parses the request at the start of `input`; `None` when its header section is not complete.
pub(super) fn parse(input: &[u8]) -> Option<Parsed<'_>> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut request = httparse::Request::new(&mut []);
    let parsed = match request.parse_with_uninit_headers(input, &mut fields) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(length)) => interpret(length, &request),
        Err(httparse::Error::TooManyHeaders) => Err(Status::HEADER_FIELDS_TOO_LARGE),
        Err(httparse::Error::Version) if is_other_version(input) => {
            Err(Status::VERSION_NOT_SUPPORTED)
        }
        Err(_) => Err(Status::BAD_REQUEST),
    };
    Some(parsed.unwrap_or_else(Parsed::refused))
}

/// Whether the request line names a version of HTTP, rather than something else.
fn is_other_version(input: &[u8]) -> bool {
    let version = input.split(|&octet| octet == b' ').nth(2);
    version
        .and_then(|version| version.strip_prefix(b"HTTP/"))
        .is_some_and(|version| version.first().is_some_and(u8::is_ascii_digit))
}

/// What the header section asks for; an error is a refusal that ends the connection.
fn interpret<'i>(length: usize, request: &httparse::Request<'_, 'i>) -> Result<Parsed<'i>, Status> {
    let http10 = request.version == Some(0);
    let (mut host, mut content_length) = (None, None);
    let (mut coded, mut close, mut keep_alive) = (false, false, false);
    let (mut continues, mut expects_other) = (false, false);
    for field in request.headers.iter() {
        let name = field.name;
        if name.eq_ignore_ascii_case("host") {
            if host.replace(field.value).is_some() {
                return Err(Status::BAD_REQUEST);
            }
        } else if name.eq_ignore_ascii_case("content-length") {
            if content_length.replace(decimal(field.value)?).is_some() {
                return Err(Status::BAD_REQUEST);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            coded = true;
        } else if name.eq_ignore_ascii_case("connection") {
            for option in members(field.value) {
                close |= option.eq_ignore_ascii_case(b"close");
                keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if name.eq_ignore_ascii_case("expect") {
            for expectation in members(field.value) {
                let known = expectation.eq_ignore_ascii_case(b"100-continue");
                continues |= known;
                expects_other |= !known;
            }
        }
    }

    // RFC 9112 section 3.2.
    match host {
        Some(host) if is_host(host) => {}
        None if http10 => {}
        _ => return Err(Status::BAD_REQUEST),
    }
    // RFC 9112 section 6.1 and 6.3: where a body ends must be beyond doubt.
    if coded && (http10 || content_length.is_some()) {
        return Err(Status::BAD_REQUEST);
    }
    let mut body = content_length.unwrap_or(0);

    let method = request.method.unwrap_or_default();
    let mut target = match method {
        "GET" | "HEAD" => path(request.path.unwrap_or_default()).ok_or(Status::BAD_REQUEST),
        "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS" | "TRACE" | "PATCH" => {
            Err(Status::METHOD_NOT_ALLOWED)
        }
        _ => Err(Status::NOT_IMPLEMENTED),
    };
    let refusal = if coded {
        Some(Status::LENGTH_REQUIRED)
    } else if body > BODY_MAX {
        Some(Status::CONTENT_TOO_LARGE)
    } else if expects_other {
        Some(Status::EXPECTATION_FAILED)
    } else {
        None
    };
    if let Some(status) = refusal {
        // What follows is not looked at.
        (body, close) = (0, true);
        target = target.and(Err(status));
    }
    // A client that waits for 100 gets the final response instead, and may then send the body or
    // not (RFC 9110 section 10.1.1): there is no telling what comes next.
    close |= (continues && body > 0) || (http10 && !keep_alive);
    let framing = Framing {
        head_only: method == "HEAD",
        close,
        http10,
        body,
    };
    Ok(Parsed {
        length,
        framing,
        target,
    })
}

/// The members of a comma-separated list.
fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&octet| octet == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|member| !member.is_empty())
}

/// `Content-Length`: digits and nothing else.
fn decimal(value: &[u8]) -> Result<usize, Status> {
    if value.is_empty() {
        return Err(Status::BAD_REQUEST);
    }
    // Larger than any limit is as good as exact.
    value.iter().try_fold(0_usize, |total, octet| match octet {
        b'0'..=b'9' => Ok(total
            .saturating_mul(10)
            .saturating_add(usize::from(octet - b'0'))),
        _ => Err(Status::BAD_REQUEST),
    })
}

/// Whether a value can be `uri-host [ ":" port ]` of RFC 9110 section 7.2; empty is allowed.
fn is_host(value: &[u8]) -> bool {
    value
        .iter()
        .all(|octet| octet.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%:[]".contains(octet))
}

/// The path of a request target in origin form or in absolute form (RFC 9112 section 3.2).
fn path(target: &str) -> Option<&[u8]> {
    let target = target.as_bytes();
    let target = match target.first()? {
        b'/' => target,
        _ => {
            let (scheme, rest) = target.split_at_checked(7)?;
            if !scheme.eq_ignore_ascii_case(b"http://") {
                return None;
            }
            let end = rest
                .iter()
                .position(|octet| b"/?".contains(octet))
                .unwrap_or(rest.len());
            let (authority, rest) = rest.split_at_checked(end)?;
            if authority.is_empty() || !is_host(authority) {
                return None;
            }
            rest
        }
    };
    // A fragment is never sent.
    if target.contains(&b'#') {
        return None;
    }
    match target.split(|&octet| octet == b'?').next()? {
        b"" => Some(b"/"),
        path => Some(path),
    }
}

/// Undoes percent-encoding, but not of `/`, which would make another path of it.
///
/// `buffer` takes the result where it differs from the path.
pub(super) fn decode<'p>(
    path: &'p [u8],
    buffer: &'p mut [u8; ESCAPED_MAX],
) -> Result<&'p [u8], Status> {
    if !path.contains(&b'%') {
        return Ok(path);
    }
    let (mut rest, mut length) = (path, 0);
    while let Some((&octet, tail)) = rest.split_first() {
        rest = tail;
        let mut decoded = octet;
        if octet == b'%' {
            let ([high, low], tail) = tail.split_first_chunk().ok_or(Status::BAD_REQUEST)?;
            let value = hex(*high)? << 4 | hex(*low)?;
            match value {
                0 => return Err(Status::BAD_REQUEST),
                b'/' => {}
                _ => (decoded, rest) = (value, tail),
            }
        }
        *buffer.get_mut(length).ok_or(Status::URI_TOO_LONG)? = decoded;
        length += 1;
    }
    Ok(buffer.get(..length).unwrap_or_default())
}

fn hex(digit: u8) -> Result<u8, Status> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(Status::BAD_REQUEST),
    }
}

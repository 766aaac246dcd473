//! A table of raw HTTP requests with the answers that RFC 9110 and RFC 9112 ask for: `requests.txt`.
//!
//! The requests are for the site in `site/`, packed. The caller provides the transport: a connection in memory
//! ([`feed`]), or TCP to a guest. [`Case::run`] takes it as a function that sends bytes and the end of the stream, and
//! returns all bytes that come back until the server closes.
//!
//! ```text
//! ## RFC 9110 section 14: ranges                         a heading
//! 206        GET /alphabet.txt HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n
//!     Content-Range: bytes 0-1/26                        the last answer has this field
//!     !Content-Encoding                                  and has not this one
//!     = ab                                               and this is its content
//! 400 close  GET / HTTP/1.1\r\n\r\n                       after it the connection is closed
//! 200-       HEAD / HTTP/1.1\r\nHost: a\r\n\r\n           its content is not sent
//! 100 200    ...                                         two answers
//! cut        GET / HTTP/1.1\r\n                          none, and nothing more is sent
//! ```
//!
//! | text | meaning |
//! |---|---|
//! | `\r` `\n` `\t` `\0` `\\` `\x7f` | one byte |
//! | `{a*300}` | 300 times `a` |
//! | `{etag PATH}`, `{etag PATH br}` | the `ETag` of a path, in a content coding |
//! | `{modified PATH}` | its `Last-Modified` |
//! | `= @a.txt`, `~ text` | the content is the file `site/www/a.txt`; there is this text in it |
//! | `Name: *` | a field with any value |
//!
//! Unless `close` or `cut` is expected, [`PROBE`] is sent after the request. Its answer shows that the server and the
//! client agree on the end of the request.

mod feed;

use std::path::{Path, PathBuf};

pub use feed::feed;

/// Sends bytes and the end of the stream. Returns all bytes that come back until the server closes.
pub type Exchange<'x> = dyn FnMut(&[u8]) -> Result<Vec<u8>, String> + 'x;

/// A request with a known answer (204 with `Allow`) that no case sends.
pub const PROBE: &[u8] = b"OPTIONS * HTTP/1.1\r\nHost: probe\r\n\r\n";

const TABLE: &str = include_str!("../requests.txt");

/// The folder of the site, the input of `hatch pack`.
#[must_use]
pub fn site() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("site")
}

/// A row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its line in the table.
    pub line: usize,
    /// The heading above it.
    pub section: &'static str,
    /// The expected answers, as written in the table.
    pub expected: &'static str,
    /// The bytes of the request, as written in the table.
    pub request: &'static str,
    answers: Vec<Answer>,
    end: End,
    checks: Vec<Check>,
}

#[derive(Clone, Copy, Debug)]
struct Answer {
    status: u16,
    /// Whether the answer has no content.
    bare: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Probe,
    Close,
    Cut,
}

#[derive(Clone, Debug)]
enum Check {
    Field(&'static str, &'static str),
    NoField(&'static str),
    Content(Vec<u8>),
    Contains(Vec<u8>),
}

/// The cases of the table.
///
/// # Panics
/// If the table is malformed.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut section = "";
    for (number, line) in TABLE.lines().enumerate() {
        let bad = |what: &str| -> ! { panic!("requests.txt:{}: {what}", number + 1) };
        if let Some(heading) = line.strip_prefix('#') {
            section = heading.trim_start_matches('#').trim();
        } else if let Some(check) = line.strip_prefix("    ") {
            let Some(case) = cases.last_mut() else {
                bad("there is no request above this line");
            };
            case.checks
                .push(parse_check(check).unwrap_or_else(|error| bad(&error)));
        } else if !line.is_empty() {
            let Some((answers, request)) = line.split_once("  ") else {
                bad("two spaces stand between answers and request");
            };
            let mut case = Case {
                line: number + 1,
                section,
                expected: answers,
                request: request.trim_start(),
                answers: Vec::new(),
                end: End::Probe,
                checks: Vec::new(),
            };
            for word in answers.split(' ') {
                let (status, bare) = word.strip_suffix('-').map_or((word, false), |w| (w, true));
                match (word, status.parse()) {
                    ("close", _) => case.end = End::Close,
                    ("cut", _) => case.end = End::Cut,
                    (_, Ok(status)) => case.answers.push(Answer { status, bare }),
                    _ => bad("a status, `close` or `cut` stands here"),
                }
            }
            cases.push(case);
        }
    }
    cases
}

fn parse_check(line: &'static str) -> Result<Check, String> {
    if let Some(file) = line.strip_prefix("= @") {
        let content = std::fs::read(site().join("www").join(file));
        return content
            .map(Check::Content)
            .map_err(|error| format!("{file}: {error}"));
    }
    let mut nobody = |_: &[u8]| Err("no request goes into an answer".into());
    if let Some(content) = line.strip_prefix("=") {
        let content = content.strip_prefix(' ').unwrap_or(content);
        return expand(content, &mut nobody).map(Check::Content);
    }
    if let Some(content) = line.strip_prefix("~ ") {
        return expand(content, &mut nobody).map(Check::Contains);
    }
    if let Some(name) = line.strip_prefix('!') {
        return Ok(Check::NoField(name));
    }
    let (name, value) = line.split_once(": ").ok_or("no check")?;
    Ok(Check::Field(name, value))
}

/// Expands a text of the table to bytes.
fn expand(text: &str, exchange: &mut Exchange<'_>) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                let escape = rest.chars().next().ok_or("a lone backslash")?;
                rest = &rest[escape.len_utf8()..];
                bytes.push(match escape {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '0' => 0,
                    '\\' => b'\\',
                    'x' => {
                        let (digits, tail) = rest.split_at_checked(2).ok_or("half an escape")?;
                        rest = tail;
                        u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?
                    }
                    _ => return Err(format!("\\{escape} stands for nothing")),
                });
            }
            '{' => {
                let (inner, tail) = rest.split_once('}').ok_or("a brace without its other")?;
                rest = tail;
                bytes.extend(expand_braces(inner, exchange)?);
            }
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

fn expand_braces(inner: &str, exchange: &mut Exchange<'_>) -> Result<Vec<u8>, String> {
    if let Some((text, count)) = inner.rsplit_once('*') {
        let count = count
            .parse()
            .map_err(|_| format!("{{{inner}}} has no count"))?;
        return Ok(text.replace("\\r\\n", "\r\n").repeat(count).into_bytes());
    }
    let mut words = inner.split(' ');
    let (field, path) = match (words.next(), words.next()) {
        (Some("etag"), Some(path)) => ("ETag", path),
        (Some("modified"), Some(path)) => ("Last-Modified", path),
        _ => return Err(format!("{{{inner}}} stands for nothing")),
    };
    let coding = words.next().unwrap_or("identity");
    let request = format!(
        "HEAD {path} HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {coding}\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange(request.as_bytes())?;
    let (response, _) = Response::parse(&answer, true)?;
    let value = response
        .field(field)?
        .ok_or(format!("{path} has no {field}"))?;
    Ok(value.as_bytes().to_vec())
}

impl Case {
    /// The bytes that are sent, followed by [`PROBE`] if its answer is expected.
    ///
    /// # Errors
    /// A value that the bytes contain cannot be fetched.
    pub fn stream(&self, exchange: &mut Exchange<'_>) -> Result<Vec<u8>, String> {
        let mut stream = expand(self.request, exchange)?;
        if self.end != End::Cut {
            stream.extend_from_slice(PROBE);
        }
        Ok(stream)
    }

    /// Sends the request and checks the answers.
    ///
    /// # Errors
    /// The error in the answers.
    pub fn run(&self, exchange: &mut Exchange<'_>) -> Result<(), String> {
        let stream = self.stream(exchange)?;
        let bytes = exchange(&stream)?;
        self.judge(&bytes).map_err(|error| {
            let shown = bytes.get(..1000).unwrap_or(&bytes);
            format!(
                "requests.txt:{} ({}): {error}\nrequest: {}\nanswer: {}",
                self.line,
                self.section,
                self.request,
                shown.escape_ascii()
            )
        })
    }

    /// Checks the answers.
    ///
    /// # Errors
    /// The error in the answers.
    pub fn judge(&self, bytes: &[u8]) -> Result<(), String> {
        let probe = (self.end == End::Probe).then_some(Answer {
            status: 204,
            bare: false,
        });
        let mut rest = bytes;
        let mut last = None;
        for (number, answer) in self.answers.iter().chain(&probe).enumerate() {
            let (response, tail) = Response::parse(rest, answer.bare)?;
            if response.status != answer.status {
                return Err(format!("{} instead of {}", response.status, answer.status));
            }
            response.follows_the_rules()?;
            let closes = response.field("Connection")? == Some("close");
            let is_last = number + 1 == self.answers.len() && self.end == End::Close;
            if closes != is_last {
                return Err(format!("answer {number}: `Connection: close` is {closes}"));
            }
            if number < self.answers.len() {
                last = Some(response);
            }
            rest = tail;
        }
        if !rest.is_empty() {
            return Err("another answer follows".into());
        }
        for check in &self.checks {
            let response = last.as_ref().ok_or("there is no answer to look at")?;
            response.passes(check)?;
        }
        Ok(())
    }
}

/// A response, parsed as far as a client must understand it.
struct Response<'r> {
    status: u16,
    fields: Vec<(&'r str, &'r str)>,
    content: &'r [u8],
}

impl<'r> Response<'r> {
    /// Parses the first response. Returns also the bytes after it.
    fn parse(bytes: &'r [u8], bare: bool) -> Result<(Self, &'r [u8]), String> {
        let end = bytes
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .ok_or("no whole answer")?;
        let head = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
        let rest = &bytes[end + 4..];
        let mut lines = head.split("\r\n");
        let line = lines.next().unwrap_or_default();
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|line| line.get(..4))
            .and_then(|code| code.strip_suffix(' '))
            .and_then(|code| code.parse().ok())
            .ok_or("no status line")?;
        let fields: Option<Vec<_>> = lines.map(|line| line.split_once(": ")).collect();
        let mut response = Self {
            status,
            fields: fields.ok_or("a header line without a colon")?,
            content: b"",
        };
        if bare || status < 200 || status == 204 || status == 304 {
            return Ok((response, rest));
        }
        let length = response
            .field("Content-Length")?
            .ok_or("no Content-Length")?;
        let length = length.parse().map_err(|_| "a bad Content-Length")?;
        let (content, rest) = rest
            .split_at_checked(length)
            .ok_or("less content than it says")?;
        response.content = content;
        Ok((response, rest))
    }

    /// The value of a field that must occur at most once.
    fn field(&self, name: &str) -> Result<Option<&'r str>, String> {
        let mut values = self
            .fields
            .iter()
            .filter(|field| field.0.eq_ignore_ascii_case(name));
        match (values.next(), values.next()) {
            (value, None) => Ok(value.map(|field| field.1)),
            _ => Err(format!("{name} comes twice")),
        }
    }

    fn has(&self, name: &str) -> Result<bool, String> {
        self.field(name).map(|value| value.is_some())
    }

    /// Checks the rules for every response.
    fn follows_the_rules(&self) -> Result<(), String> {
        if self.status < 200 {
            return Ok(());
        }
        let date = self.field("Date")?.ok_or("no Date")?;
        if date.len() != 29 || !date.ends_with(" GMT") {
            return Err(format!("{date} is no date"));
        }
        let without_length = self.status == 204 || self.status == 304;
        let multipart = self
            .field("Content-Type")?
            .is_some_and(|value| value.starts_with("multipart/byteranges; boundary="));
        let redirect = matches!(self.status, 301 | 302 | 307 | 308);
        for (what, is, should) in [
            ("Server", self.has("Server")?, true),
            (
                "Content-Length",
                self.has("Content-Length")?,
                !without_length,
            ),
            ("Location", self.has("Location")?, redirect),
            ("multipart", multipart, multipart && self.status == 206),
            (
                "Content-Range",
                self.has("Content-Range")?,
                self.status == 416 || (self.status == 206 && !multipart),
            ),
            (
                "Allow",
                self.has("Allow")?,
                self.status == 405 || self.status == 204,
            ),
            ("Content-Type", self.has("Content-Type")?, !without_length),
        ] {
            if is != should {
                return Err(format!("{what}: {is}"));
            }
        }
        Ok(())
    }

    fn passes(&self, check: &Check) -> Result<(), String> {
        let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
        match check {
            Check::Field(name, expected) => match self.field(name)? {
                Some(value) if value == *expected || *expected == "*" => Ok(()),
                value => Err(format!("{name}: {value:?} instead of {expected:?}")),
            },
            Check::NoField(name) if self.has(name)? => Err(format!("there is {name}")),
            Check::NoField(_) => Ok(()),
            Check::Content(expected) if self.content == expected => Ok(()),
            Check::Content(expected) => Err(format!("the content is not {}", text(expected))),
            Check::Contains(part) if self.content.windows(part.len()).any(|w| w == part) => Ok(()),
            Check::Contains(part) => Err(format!("there is no {} in the content", text(part))),
        }
    }
}

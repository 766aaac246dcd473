//! A minimal HTTP server for the status page: one request and one answer on each connection.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::{SummonStatus, metrics, page};

/// The time that a client has for its request, and again for taking the answer.
const BOUND: Duration = Duration::from_secs(5);
/// The longest request in bytes, and its greatest number of header fields.
pub(super) const HEAD_MAX: usize = 8 * 1024;
const FIELDS_MAX: usize = 64;

/// The header fields of the page: it loads only its style, runs nothing, and cannot be embedded in another page.
const HEADERS: &str = "\
Content-Security-Policy: default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
X-Content-Type-Options: nosniff\r\n\
Referrer-Policy: no-referrer\r\n\
Cache-Control: no-store\r\n\
Connection: close\r\n";

/// A request.
enum Request {
    /// A path, and whether the content is wanted (GET, not HEAD).
    Known(String, bool),
    /// A malformed request, with the status line of its answer.
    Wrong(&'static str),
}

struct Answer {
    status: &'static str,
    kind: &'static str,
    more: &'static str,
    body: String,
}

/// Reads a request and answers it.
pub(super) fn answer(stream: &TcpStream, status: &SummonStatus) -> io::Result<()> {
    let (answer, with_body) = match request(stream)? {
        Request::Known(path, with_body) => (of(&path, status), with_body),
        Request::Wrong(what) => (plain(what), true),
    };
    let Answer {
        status,
        kind,
        more,
        body,
    } = answer;
    let length = body.len();
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{HEADERS}{more}\r\n"
    )
    .into_bytes();
    if with_body {
        bytes.extend(body.as_bytes());
    }
    write(stream, &bytes)?;
    stream.shutdown(Shutdown::Write)
}

/// Reads the head of a request. The rest is not read.
fn request(mut stream: &TcpStream) -> io::Result<Request> {
    let end = Instant::now() + BOUND;
    let mut head = Vec::new();
    let mut part = [0; 1024];
    while head.len() < HEAD_MAX {
        stream.set_read_timeout(Some(left(end)?))?;
        let taken = match stream.read(&mut part) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(taken) => taken,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        head.extend_from_slice(part.get(..taken).unwrap_or_default());
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut request = httparse::Request::new(&mut fields);
        match request.parse(&head) {
            Ok(httparse::Status::Partial) => {}
            Ok(httparse::Status::Complete(_)) => {
                let target = request.path.unwrap_or_default();
                let path = target.split('?').next().unwrap_or_default().to_owned();
                return Ok(match request.method {
                    Some("GET") => Request::Known(path, true),
                    Some("HEAD") => Request::Known(path, false),
                    _ => Request::Wrong("405 Method Not Allowed"),
                });
            }
            Err(_) => return Ok(Request::Wrong("400 Bad Request")),
        }
    }
    Ok(Request::Wrong("431 Request Header Fields Too Large"))
}

fn of(path: &str, status: &SummonStatus) -> Answer {
    let found = |kind, body| Answer {
        status: "200 OK",
        kind,
        more: "",
        body,
    };
    match path {
        "/" => found("text/html; charset=utf-8", page::page(status)),
        "/style.css" => found("text/css; charset=utf-8", page::STYLE.to_owned()),
        "/status.json" => {
            let body = serde_json::to_string(status).unwrap_or_default();
            found("application/json", body)
        }
        "/metrics" => found(metrics::TYPE, metrics::text(status)),
        _ => plain("404 Not Found"),
    }
}

fn plain(status: &'static str) -> Answer {
    let more = if status.starts_with("405") {
        "Allow: GET, HEAD\r\n"
    } else {
        ""
    };
    Answer {
        status,
        kind: "text/plain; charset=utf-8",
        more,
        body: format!("{status}\n"),
    }
}

/// Writes all bytes, unless the client's time is over before.
fn write(mut stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    let end = Instant::now() + BOUND;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(left(end)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(taken) => bytes = bytes.get(taken..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn left(end: Instant) -> io::Result<Duration> {
    let left = end.saturating_duration_since(Instant::now());
    match left.is_zero() {
        true => Err(io::ErrorKind::TimedOut.into()),
        false => Ok(left),
    }
}

extern crate std;

use std::format;
use std::string::String;
use std::vec::Vec;

use proptest::prelude::*;

use super::super::site::Page;
use super::*;

/// A site with pages of every kind.
struct Site {
    large: Vec<u8>,
}

/// Renders this many digits.
struct Digits(usize);

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.0).try_for_each(|digit| write!(f, "{}", digit % 10))
    }
}

impl Pages for Site {
    fn page(&self, path: &[u8]) -> Option<Page<'_>> {
        let (content_type, body) = match path {
            b"/" => ("text/html", Body::Octets(b"<p>")),
            b"/empty" => ("text/plain", Body::Octets(b"")),
            b"/a b" => ("text/plain", Body::Octets(b"space")),
            b"/a%2fb" => ("text/plain", Body::Octets(b"slash")),
            b"/large" => ("image/x", Body::Octets(&self.large)),
            b"/rendered" => ("application/json", Body::Rendered(&Digits(12))),
            b"/longest" => ("application/json", Body::Rendered(&Digits(RENDERED_MAX))),
            b"/too-long" => (
                "application/json",
                Body::Rendered(&Digits(RENDERED_MAX + 1)),
            ),
            _ => return None,
        };
        Some(Page { content_type, body })
    }
}

fn site() -> Site {
    Site {
        large: (0..20_000_u32).map(|n| n.to_le_bytes()[0] | 0x80).collect(),
    }
}

const HEAD_LIMIT: usize = 1024;
const NOW: u64 = 784_111_777;
const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT";

/// Feeds a stream in pieces that end at `cuts` to a connection, with room for `size` octets at a
/// time; what it sends.
fn feed(site: &Site, stream: &[u8], mut cuts: impl Iterator<Item = usize>, size: usize) -> Vec<u8> {
    let mut connection = Connection::new(0, HEAD_LIMIT);
    let mut stats = Stats::default();
    let (mut start, mut end) = (0, 0);
    let mut sent = Vec::new();
    let mut out = std::vec![0; size];
    loop {
        let ended = end == stream.len();
        let input = Input {
            octets: &stream[start..end],
            ended,
        };
        let progress = connection.process(0, NOW, input, &mut out, site, &mut stats);
        start += progress.consumed;
        assert!(start <= end, "no more is consumed than there is");
        sent.extend_from_slice(&out[..progress.written]);
        match progress.next {
            Next::Keep if progress.written > 0 => {}
            Next::Keep if ended => panic!("neither done nor getting on"),
            Next::Keep => end = cuts.next().unwrap_or(stream.len()).clamp(end, stream.len()),
            Next::Close => return sent,
            Next::Abort => panic!("abort without a deadline"),
        }
    }
}

fn whole(site: &Site, stream: &[u8]) -> Vec<u8> {
    feed(site, stream, core::iter::empty(), 1 << 20)
}

/// Each response in short: `status content-type content-length[ octets sent] [connection]`.
fn summary(mut sent: &[u8]) -> Vec<String> {
    let mut responses = Vec::new();
    while !sent.is_empty() {
        let end = sent
            .windows(4)
            .position(|octets| octets == b"\r\n\r\n")
            .expect("a whole head");
        let head = core::str::from_utf8(&sent[..end]).unwrap();
        sent = &sent[end + 4..];
        let mut lines = head.split("\r\n");
        let (version, status) = lines.next().unwrap().split_at(9);
        assert_eq!(
            (version, lines.next()),
            ("HTTP/1.1 ", Some("Server: mayfly"))
        );
        assert_eq!(lines.next(), Some(DATE));
        let content_type = lines
            .next()
            .unwrap()
            .strip_prefix("Content-Type: ")
            .unwrap();
        let length = lines
            .next()
            .unwrap()
            .strip_prefix("Content-Length: ")
            .unwrap();
        let length = length.parse::<usize>().unwrap();
        let with_content = !sent.starts_with(b"HTTP/1.1 ") && !sent.is_empty();
        let mut text = format!("{} {content_type} {length}", &status[..3]);
        if with_content {
            sent = &sent[length..];
        } else if length > 0 {
            text += " head";
        }
        let rest: Vec<_> = lines.collect();
        if !rest.is_empty() {
            text = format!("{text} {}", rest.join(" "));
        }
        responses.push(text);
    }
    responses
}

const CLOSE: &str = "Connection: close";

#[test]
fn requests() {
    let site = site();
    let bad = format!("400 text/plain 16 {CLOSE}");
    let ok = String::from("200 text/html 3");
    let ok_close = format!("{ok} {CLOSE}");
    let not_found = String::from("404 text/plain 14");
    let error = |text: &str| format!("{text} {CLOSE}");
    let h = "Host: a\r\n";
    let rows: Vec<(String, String)> = std::vec![
        // The good
        (format!("GET / HTTP/1.1\r\n{h}\r\n"), ok.clone()),
        (format!("GET / HTTP/1.1\n{}\n", "Host: a\n"), ok.clone()),
        (format!("\r\n\r\nGET / HTTP/1.1\r\n{h}\r\n"), ok.clone()),
        (
            format!("HEAD / HTTP/1.1\r\n{h}\r\n"),
            "200 text/html 3 head".into()
        ),
        (
            format!("GET /empty HTTP/1.1\r\n{h}\r\n"),
            "200 text/plain 0".into()
        ),
        (
            format!("GET /large HTTP/1.1\r\n{h}\r\n"),
            "200 image/x 20000".into()
        ),
        (
            format!("GET /rendered HTTP/1.1\r\n{h}\r\n"),
            "200 application/json 12".into()
        ),
        (
            format!("HEAD /rendered HTTP/1.1\r\n{h}\r\n"),
            "200 application/json 12 head".into()
        ),
        (
            format!("GET /longest HTTP/1.1\r\n{h}\r\n"),
            "200 application/json 4096".into()
        ),
        (
            format!("GET /too-long HTTP/1.1\r\n{h}\r\n"),
            "503 text/plain 24".into()
        ),
        (format!("GET /no HTTP/1.1\r\n{h}\r\n"), not_found.clone()),
        (
            format!("HEAD /no HTTP/1.1\r\n{h}\r\n"),
            "404 text/plain 14 head".into()
        ),
        // Hosts
        ("GET / HTTP/1.1\r\n\r\n".into(), bad.clone()),
        (
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n".into(),
            bad.clone()
        ),
        (
            "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n".into(),
            bad.clone()
        ),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n".into(), bad.clone()),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".into(), bad.clone()),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n".into(), bad.clone()),
        ("GET / HTTP/1.1\r\nHost:\r\n\r\n".into(), ok.clone()),
        (
            "GET / HTTP/1.1\r\nhOST: \t[fd00::80]:8080 \t\r\n\r\n".into(),
            ok.clone()
        ),
        // Versions and persistence
        ("GET / HTTP/1.0\r\n\r\n".into(), ok_close.clone()),
        (
            "GET / HTTP/1.0\r\nConnection: x, Keep-Alive\r\n\r\n".into(),
            format!("{ok} Connection: keep-alive"),
        ),
        (
            "GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n".into(),
            ok_close.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Connection: foo ,cLOSE\r\n\r\n"),
            ok_close.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Connection: a\r\nConnection: close\r\n\r\n"),
            ok_close.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Connection: closed\r\n\r\n"),
            ok.clone()
        ),
        (
            format!("GET / HTTP/2.0\r\n{h}\r\n"),
            error("505 text/plain 31")
        ),
        (
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".into(),
            error("505 text/plain 31")
        ),
        (
            format!("GET / HTTP/1.2\r\n{h}\r\n"),
            error("505 text/plain 31")
        ),
        (format!("GET / HTTP/x\r\n{h}\r\n"), bad.clone()),
        (format!("GET / http/1.1\r\n{h}\r\n"), bad.clone()),
        ("GET /\r\n\r\n".into(), bad.clone()),
        // Methods
        (
            format!("POST / HTTP/1.1\r\n{h}Content-Length: 0\r\n\r\n"),
            "405 text/plain 23 Allow: GET, HEAD".into()
        ),
        (
            format!("OPTIONS * HTTP/1.1\r\n{h}\r\n"),
            "405 text/plain 23 Allow: GET, HEAD".into()
        ),
        (
            "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n".into(),
            "405 text/plain 23 Allow: GET, HEAD".into()
        ),
        (
            format!("BREW / HTTP/1.1\r\n{h}\r\n"),
            "501 text/plain 20".into()
        ),
        (
            format!("get / HTTP/1.1\r\n{h}\r\n"),
            "501 text/plain 20".into()
        ),
        (format!("GE(T / HTTP/1.1\r\n{h}\r\n"), bad.clone()),
        // Targets
        (
            format!("GET /?q=/no#? HTTP/1.1\r\n{h}\r\n"),
            "400 text/plain 16".into()
        ),
        (format!("GET /?q=/no? HTTP/1.1\r\n{h}\r\n"), ok.clone()),
        (format!("GET http://a HTTP/1.1\r\n{h}\r\n"), ok.clone()),
        (format!("GET HTTP://b:80?q HTTP/1.1\r\n{h}\r\n"), ok.clone()),
        (
            format!("GET http://a/empty HTTP/1.1\r\n{h}\r\n"),
            "200 text/plain 0".into()
        ),
        (
            format!("GET http:/// HTTP/1.1\r\n{h}\r\n"),
            "400 text/plain 16".into()
        ),
        (
            format!("GET https://a/ HTTP/1.1\r\n{h}\r\n"),
            "400 text/plain 16".into()
        ),
        (
            format!("GET * HTTP/1.1\r\n{h}\r\n"),
            "400 text/plain 16".into()
        ),
        (
            format!("GET a:80 HTTP/1.1\r\n{h}\r\n"),
            "400 text/plain 16".into()
        ),
        (
            format!("GET /a%20b HTTP/1.1\r\n{h}\r\n"),
            "200 text/plain 5".into()
        ),
        (
            format!("GET /%61%20%62 HTTP/1.1\r\n{h}\r\n"),
            "200 text/plain 5".into()
        ),
        (
            format!("GET /a%2fb HTTP/1.1\r\n{h}\r\n"),
            "200 text/plain 5".into()
        ),
        (
            format!("GET /a%00b HTTP/1.1\r\n{h}\r\n"),
            "400 text/plain 16".into()
        ),
        (
            format!("GET /a%2 HTTP/1.1\r\n{h}\r\n"),
            "400 text/plain 16".into()
        ),
        (
            format!("GET /a%xx HTTP/1.1\r\n{h}\r\n"),
            "400 text/plain 16".into()
        ),
        (format!("GET /../ HTTP/1.1\r\n{h}\r\n"), not_found.clone()),
        (
            format!("GET /{}%41 HTTP/1.1\r\n{h}\r\n", "a".repeat(510)),
            not_found.clone()
        ),
        (
            format!("GET /{}%41 HTTP/1.1\r\n{h}\r\n", "a".repeat(511)),
            "414 text/plain 17".into()
        ),
        // Lines that others may read in another way
        (format!("GET / HTTP/1.1\r\n{h}A : b\r\n\r\n"), bad.clone()),
        (
            format!("GET / HTTP/1.1\r\n{h}A: b\r\n c\r\n\r\n"),
            bad.clone()
        ),
        (format!("GET / HTTP/1.1\r\n{h}A: b\rc\r\n\r\n"), bad.clone()),
        (format!("GET / HTTP/1.1\r\n{h}A: b\0c\r\n\r\n"), bad.clone()),
        (format!("GET / HTTP/1.1\r\n{h}A\r\n\r\n"), bad.clone()),
        (format!("GET / HTTP/1.1\r\n{h}: b\r\n\r\n"), bad.clone()),
        (format!("GET / HTTP/1.1\r{h}\r\n"), bad.clone()),
        (format!("GET  / HTTP/1.1\r\n{h}\r\n"), bad.clone()),
        (format!(" GET / HTTP/1.1\r\n{h}\r\n"), bad.clone()),
        ("\x16\x03\x01\x02\x00\x01\x00".into(), bad.clone()),
        // Bodies
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\n12345"),
            ok.clone()
        ),
        (
            format!("POST / HTTP/1.1\r\n{h}Content-Length: 5\r\n\r\n12345"),
            "405 text/plain 23 Allow: GET, HEAD".into()
        ),
        (
            format!(
                "GET / HTTP/1.1\r\n{h}Content-Length: 16384\r\n\r\n{}",
                "x".repeat(16384)
            ),
            ok.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length: 16385\r\n\r\n"),
            error("413 text/plain 22")
        ),
        (
            format!("POST / HTTP/1.1\r\n{h}Content-Length: 16385\r\n\r\n"),
            error("405 text/plain 23 Allow: GET, HEAD"),
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length: 184467440737095516160\r\n\r\n"),
            error("413 text/plain 22"),
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
            bad.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length: 1, 1\r\n\r\nx"),
            bad.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length: +1\r\n\r\nx"),
            bad.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length: -1\r\n\r\nx"),
            bad.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length: 0x1\r\n\r\nx"),
            bad.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Content-Length:\r\n\r\nx"),
            bad.clone()
        ),
        (
            format!(
                "GET / HTTP/1.1\r\n{h}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
            ),
            bad.clone(),
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            error("411 text/plain 20"),
        ),
        (
            format!("POST / HTTP/1.1\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            error("405 text/plain 23 Allow: GET, HEAD"),
        ),
        (
            format!("GET / HTTP/1.0\r\n{h}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            bad.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Expect: 100-Continue\r\n\r\n"),
            ok.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n"),
            ok_close.clone(),
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}Expect: tea\r\n\r\n"),
            error("417 text/plain 23")
        ),
        // Sizes
        (
            format!("GET /{} HTTP/1.1\r\n{h}\r\n", "a".repeat(HEAD_LIMIT)),
            error("414 text/plain 17")
        ),
        ("a".repeat(HEAD_LIMIT), error("414 text/plain 17")),
        (
            format!("GET / HTTP/1.1\r\n{h}A: {}\r\n\r\n", "a".repeat(HEAD_LIMIT)),
            error("431 text/plain 36"),
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}{}\r\n", "A:\r\n".repeat(63)),
            ok.clone()
        ),
        (
            format!("GET / HTTP/1.1\r\n{h}{}\r\n", "A:\r\n".repeat(64)),
            error("431 text/plain 36")
        ),
        (
            // As long as may be, and one more.
            format!(
                "GET / HTTP/1.1\r\n{h}A: {}\r\n\r\n",
                "a".repeat(HEAD_LIMIT - 32)
            ),
            ok.clone(),
        ),
        (
            format!(
                "GET / HTTP/1.1\r\n{h}A: {}\r\n\r\n",
                "a".repeat(HEAD_LIMIT - 31)
            ),
            error("431 text/plain 36"),
        ),
    ];
    for (request, expected) in rows {
        // A request follows, which is answered when the connection lasts, and only then.
        let stream = format!("{request}HEAD /empty HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut expected = std::vec![expected];
        if !expected[0].ends_with(CLOSE) {
            expected.push("200 text/plain 0".into());
        }
        let title = request.get(..200).unwrap_or(&request).escape_debug();
        assert_eq!(
            summary(&whole(&site, stream.as_bytes())),
            expected,
            "{title}"
        );
    }
}

/// A stream with a bit of everything that keeps a connection open, and an error at the end.
const STREAM: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n\
    \r\nHEAD /large HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n\
    GET /rendered HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 12\r\n\r\nhello world\n\
    POST /no HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\n\
    GET /a%20b?c HTTP/1.1\r\nHost: a\r\n\r\n\
    GET /no HTTP/2\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn every_cut() {
    let site = site();
    let expected = whole(&site, STREAM.as_bytes());
    assert_eq!(
        summary(&expected),
        [
            "200 text/html 3",
            "200 image/x 20000 head",
            "200 application/json 12 Connection: keep-alive",
            "405 text/plain 23 Allow: GET, HEAD",
            "200 text/plain 5",
            "505 text/plain 31 Connection: close",
        ]
    );
    for cut in 0..STREAM.len() {
        assert_eq!(
            feed(&site, STREAM.as_bytes(), core::iter::once(cut), 4096),
            expected,
            "{cut}"
        );
    }
    for step in 1..64 {
        let cuts = (0..STREAM.len()).step_by(step);
        assert_eq!(
            feed(&site, STREAM.as_bytes(), cuts, 4096),
            expected,
            "{step}"
        );
    }
}

/// A blank line in two pieces, and a request of one octet that is refused.
#[test]
fn blank_line_in_pieces() {
    let site = site();
    let sent = feed(&site, b"\r\n\x7f", 0..3, 4096);
    assert_eq!(summary(&sent), ["400 text/plain 16 Connection: close"]);
}

#[test]
fn every_room() {
    let site = site();
    let stream = format!("GET /large HTTP/1.1\r\nHost: a\r\n\r\n{STREAM}");
    let expected = whole(&site, stream.as_bytes());
    for size in (1..300).chain([511, 512, 1023, 1460, 4096, 20_000, 30_000]) {
        assert_eq!(
            feed(&site, stream.as_bytes(), core::iter::empty(), size),
            expected,
            "{size}"
        );
        assert_eq!(
            feed(&site, stream.as_bytes(), 0..stream.len(), size),
            expected,
            "{size}"
        );
    }
}

/// A connection whose time is told.
struct Timed<'s> {
    site: &'s Site,
    connection: Connection<'s>,
    stats: Stats,
}

impl<'s> Timed<'s> {
    fn new(site: &'s Site) -> Self {
        Self {
            site,
            connection: Connection::new(0, HEAD_LIMIT),
            stats: Stats::default(),
        }
    }

    /// What is sent, and what becomes of the connection.
    fn at(&mut self, now: Millis, octets: &[u8], ended: bool, room: usize) -> (Vec<u8>, Next) {
        let mut out = std::vec![0; room];
        let input = Input { octets, ended };
        let progress =
            self.connection
                .process(now, NOW, input, &mut out, self.site, &mut self.stats);
        out.truncate(progress.written);
        (out, progress.next)
    }
}

#[test]
fn idle_connections_close_in_silence() {
    let site = site();
    let mut timed = Timed::new(&site);
    assert!(timed.connection.is_idle());
    assert_eq!(timed.connection.deadline(), IDLE_TIMEOUT);
    assert_eq!(
        timed.at(IDLE_TIMEOUT - 1, b"", false, 512),
        (Vec::new(), Next::Keep)
    );
    // Blank lines are not a request.
    assert_eq!(
        timed.at(IDLE_TIMEOUT - 1, b"\r\n\r\n", false, 512),
        (Vec::new(), Next::Keep)
    );
    assert_eq!(
        timed.at(IDLE_TIMEOUT, b"", false, 512),
        (Vec::new(), Next::Close)
    );
    assert_eq!(
        timed.stats,
        Stats {
            expired: 1,
            ..Stats::default()
        }
    );

    let mut timed = Timed::new(&site);
    let (sent, next) = timed.at(1000, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false, 512);
    assert_eq!((summary(&sent).len(), next), (1, Next::Keep));
    assert_eq!(timed.connection.deadline(), 1000 + IDLE_TIMEOUT);
    assert_eq!(
        timed.at(1000 + IDLE_TIMEOUT, b"", false, 512),
        (Vec::new(), Next::Close)
    );

    let mut timed = Timed::new(&site);
    assert_eq!(timed.at(0, b"", true, 512), (Vec::new(), Next::Close));
    assert_eq!(timed.stats, Stats::default());
}

#[test]
fn slow_requests_get_408() {
    let site = site();
    let mut timed = Timed::new(&site);
    let request = b"GET / HTTP/1.1\r\nHost: a\r\n";
    assert_eq!(
        timed.at(9_000, &request[..1], false, 512),
        (Vec::new(), Next::Keep)
    );
    assert!(!timed.connection.is_idle());
    // More octets do not move the deadline.
    for (length, now) in (2..request.len()).zip((9_000..19_000).step_by(500)) {
        assert_eq!(
            timed.at(now, &request[..length], false, 512),
            (Vec::new(), Next::Keep)
        );
        assert_eq!(timed.connection.deadline(), 9_000 + REQUEST_TIMEOUT);
    }
    let (sent, next) = timed.at(19_000, request, false, 512);
    assert_eq!(summary(&sent), ["408 text/plain 20 Connection: close"]);
    assert_eq!(next, Next::Close);
    assert_eq!(
        timed.at(19_001, request, false, 512),
        (Vec::new(), Next::Close)
    );
    assert_eq!(
        timed.stats,
        Stats {
            client_error: 1,
            expired: 1,
            ..Stats::default()
        }
    );

    // The client gives up in the middle.
    let mut timed = Timed::new(&site);
    assert_eq!(timed.at(0, request, true, 512), (Vec::new(), Next::Close));
}

#[test]
fn slow_bodies_close() {
    let site = site();
    let mut timed = Timed::new(&site);
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
    let (sent, next) = timed.at(0, head, false, 512);
    assert_eq!((summary(&sent).len(), next), (1, Next::Keep));
    assert_eq!(
        timed.at(REQUEST_TIMEOUT - 1, b"1234", false, 512),
        (Vec::new(), Next::Keep)
    );
    assert_eq!(
        timed.at(REQUEST_TIMEOUT, b"5678", false, 512),
        (Vec::new(), Next::Close)
    );
    assert_eq!(timed.stats.expired, 1);
}

#[test]
fn slow_readers_are_reset() {
    let site = site();
    let request = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";

    // One that takes nothing after the first octets.
    let mut timed = Timed::new(&site);
    assert_eq!(timed.at(0, request, false, 100).1, Next::Keep);
    assert_eq!(timed.connection.deadline(), WRITE_TIMEOUT);
    assert_eq!(
        timed.at(WRITE_TIMEOUT - 1, b"", false, 0),
        (Vec::new(), Next::Keep)
    );
    assert_eq!(
        timed.at(WRITE_TIMEOUT, b"", false, 0),
        (Vec::new(), Next::Abort)
    );
    assert_eq!(
        timed.at(WRITE_TIMEOUT, b"", false, 512),
        (Vec::new(), Next::Close)
    );
    assert_eq!(
        timed.stats,
        Stats {
            success: 1,
            expired: 1,
            ..Stats::default()
        }
    );

    // One that takes a little less than the quota.
    let mut timed = Timed::new(&site);
    assert_eq!(timed.at(0, request, false, WRITE_QUOTA - 2).1, Next::Keep);
    assert_eq!(timed.at(9_999, b"", false, 1).1, Next::Keep);
    assert_eq!(timed.at(10_000, b"", false, 0).1, Next::Abort);

    // One that takes just the quota, to the end.
    let mut timed = Timed::new(&site);
    let (mut sent, mut next) = timed.at(0, request, true, WRITE_QUOTA);
    let mut now = 0;
    while next == Next::Keep {
        assert_eq!(timed.connection.deadline(), now + WRITE_TIMEOUT);
        now += WRITE_TIMEOUT - 1;
        let (more, then) = timed.at(now, b"", true, WRITE_QUOTA);
        (next, sent) = (then, [sent, more].concat());
    }
    assert_eq!(
        (summary(&sent), next),
        (std::vec!["200 image/x 20000".into()], Next::Close)
    );

    // The answer to a slow request finds no room either.
    let mut timed = Timed::new(&site);
    assert_eq!(timed.at(0, b"G", false, 0), (Vec::new(), Next::Keep));
    assert_eq!(
        timed.at(REQUEST_TIMEOUT, b"G", false, 0),
        (Vec::new(), Next::Keep)
    );
    assert_eq!(
        timed.at(REQUEST_TIMEOUT + WRITE_TIMEOUT, b"G", false, 0).1,
        Next::Abort
    );
}

#[test]
fn content_is_what_the_site_has() {
    let site = site();
    let sent = whole(&site, b"GET /large HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(&site.large));
    let sent = whole(&site, b"GET /rendered HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(b"\r\n\r\n012345678901"));
    let sent = whole(&site, b"GET /no HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(b"\r\n\r\n404 Not Found\n"));
}

#[test]
fn built_in_page() {
    let site = super::super::site::BuiltIn::default();
    let mut out = std::vec![0; 4096];
    let mut connection = Connection::new(0, HEAD_LIMIT);
    let input = Input {
        octets: b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ended: false,
    };
    let progress = connection.process(0, 0, input, &mut out, &site, &mut Stats::default());
    let text = core::str::from_utf8(&out[..progress.written]).unwrap();
    assert!(
        text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("</html>\n"),
        "{text}"
    );
}

#[test]
fn longest_head_fits() {
    let site = site();
    let framing = Framing {
        head_only: false,
        close: true,
        http10: true,
        body: 0,
    };
    let mut response = Response::new();
    let content_type = "x".repeat(128);
    let content = Content::Octets(&site.large);
    response.begin(
        Status::METHOD_NOT_ALLOWED,
        &framing,
        &content_type,
        content,
        NOW,
    );
    response.push_decimal(usize::MAX);
    assert!(response.head[..response.head_len].ends_with(b"18446744073709551615"));
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(std::vec![
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /rendered HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /a%20b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd",
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n",
    ]);
    let value = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\r\n :/%?#,0123456789\0\tHT".to_vec()),
    ];
    let edit = (any::<prop::sample::Index>(), value, 0..4_u8);
    (
        prop::collection::vec(part, 1..4),
        prop::collection::vec(edit, 0..6),
    )
        .prop_map(|(parts, edits)| {
            let mut octets = parts.concat().into_bytes();
            for (index, value, kind) in edits {
                let at = index.index(octets.len() + 1);
                match kind {
                    0 => octets.insert(at, value),
                    1 if at < octets.len() => _ = octets.remove(at),
                    2 => octets.truncate(at.max(octets.len() / 2)),
                    _ if at < octets.len() => octets[at] = value,
                    _ => {}
                }
            }
            octets
        })
}

proptest! {
    /// Whatever comes, what goes out is whole responses, the same in whatever pieces it came.
    #[test]
    fn mutated_streams(
        stream in mutated(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        size in 1..2000_usize,
    ) {
        let site = Site { large: std::vec![0x80; 3000] };
        let expected = whole(&site, &stream);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&feed(&site, &stream, cuts.into_iter(), size), &expected);
        let responses = summary(&expected);
        for response in responses.iter().rev().skip(1) {
            prop_assert!(!response.ends_with(CLOSE), "nothing follows the last response");
        }
    }
}

extern crate std;

mod deadlines;
mod fixture;

use core::fmt;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::*;
use fixture::*;
use mayfly_site::{Broken, Coding, File, Resource, Variant};

const CLOSE: &str = "Connection: close";

/// A stream with a bit of everything that keeps a connection open, and an error at the end.
const STREAM: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n\
    \r\nHEAD /large HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n\
    GET /rendered HTTP/1.0\r\nConnection: keep-alive\r\n\r\n\
    GET / HTTP/1.1\r\nHost: OTHER\r\nContent-Length: 13\r\n\r\nhello world\r\n\
    POST /no HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
    GET /a%20b?c HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab\
    GET /large HTTP/1.1\r\nHost: a\r\nRange: bytes=5-6,100-199,-1\r\n\r\n\
    GET /payload HTTP/1.1\r\nHost: a\r\n\r\n\
    GET /old?q HTTP/1.1\r\nHost: a\r\n\r\n\
    GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: *\r\n\r\n\
    GET /no HTTP/1.1\r\nHost: other\r\n\r\n\
    GET / HTTP/3.0\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn every_cut() {
    let site = site();
    let expected = whole(&site, STREAM.as_bytes());
    assert_eq!(
        summary(&expected),
        [
            "200 3",
            "200 20000 head",
            "200 12 Connection: keep-alive Cache-Control: no-store",
            "200 8",
            "405 24 Allow: GET, HEAD, OPTIONS",
            "100",
            "200 5",
            "206 376",
            "200 3000 Cache-Control: no-store",
            "301 23 Location: /new?q",
            "304",
            "404 10",
            "505 32 Connection: close",
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

/// A blank line in two pieces, and a request of one byte that is refused.
#[test]
fn blank_line_in_pieces() {
    let site = site();
    let sent = feed(&site, b"\r\n\x7f", 0..3, 4096);
    assert_eq!(summary(&sent), ["400 17 Connection: close"]);
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

#[test]
fn content_is_what_the_site_has() {
    let site = site();
    let sent = whole(&site, b"GET /large HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(&site.large.bodies[0]));
    let sent = whole(&site, b"GET /large HTTP/1.0\r\nAccept-Encoding: br\r\n\r\n");
    assert!(sent.ends_with(&site.large.bodies[2]));
    let sent = whole(&site, b"GET /rendered HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(b"\r\n\r\n012345678901"));
    let sent = whole(&site, b"GET /no HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(b"\r\n\r\n404 Not Found\r\n"));
    let sent = whole(&site, b"GET /no HTTP/1.0\r\nHost: other\r\n\r\n");
    assert!(sent.ends_with(b"\r\n\r\n<p>missing"));
    let sent = whole(&site, b"GET /old-fragment?q HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(b"\r\nLocation: /new?q#a\r\n\r\n302 Found\r\n"));
    let sent = whole(&site, b"HEAD /old-query?q HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(b"\r\nLocation: /new?a\r\n\r\n"));
    let sent = whole(&site, b"HEAD /old?q HTTP/1.0\r\n\r\n");
    assert!(sent.ends_with(b"\r\nLocation: /new?q\r\n\r\n"));
}

#[test]
fn multipart_is_framed() {
    let site = site();
    let sent = whole(
        &site,
        b"GET /a%20b HTTP/1.0\r\nRange: bytes=3-,0-1\r\nAccept-Encoding: gzip\r\n\r\n",
    );
    let text = String::from_utf8(sent).unwrap();
    let (head, content) = text.split_once("\r\n\r\n").unwrap();
    let boundary = head
        .split_once("multipart/byteranges; boundary=")
        .and_then(|(_, rest)| rest.get(..16))
        .unwrap();
    assert!(
        head.contains("Content-Encoding: gzip\r\n") || head.ends_with("Content-Encoding: gzip")
    );
    assert!(head.contains(&format!("Content-Length: {}\r\n", content.len())));
    let part = |range, bytes| {
        format!(
            "\r\n--{boundary}\r\nContent-Range: bytes {range}/9\r\nContent-Type: text/plain\r\n\r\n{bytes}"
        )
    };
    let expected = part("3-8", "pspace") + &part("0-1", "gz") + &format!("\r\n--{boundary}--\r\n");
    assert_eq!(content, expected);
}

/// An inconsistency in a site becomes an error and is counted.
#[test]
fn broken_sites() {
    let site = site();
    for (request, status, broken) in [
        ("GET /broken", "500 27", 1),
        ("GET /no-identity", "500 27", 1),
        ("GET /bad-lines", "500 27", 1),
        ("GET /bad-redirect", "500 27", 1),
        ("GET http://broken/no", "404 15", 1),
        ("GET http://broken/broken", "500 27", 2),
        ("GET /too-long", "503 25", 0),
        ("GET /longest", "200 16384", 0),
    ] {
        let mut timed = Timed::new(&site);
        let stream = format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n");
        let (sent, next) = timed.at(0, stream.as_bytes(), false, 1 << 16);
        assert_eq!(next, Next::Keep);
        assert!(
            summary(&sent)[0].starts_with(status),
            "{request} {:?}",
            summary(&sent)
        );
        assert_eq!(timed.shared.stats.broken, broken, "{request}");
    }
}

#[test]
fn counters() {
    let site = site();
    let mut timed = Timed::new(&site);
    let (sent, _) = timed.at(0, STREAM.as_bytes(), false, 1 << 16);
    let stats = timed.shared.stats;
    let some = |counts: Vec<(&'static str, u64)>| -> Vec<_> {
        counts.into_iter().filter(|(_, count)| *count > 0).collect()
    };
    assert_eq!(
        some(stats.methods().collect()),
        [("GET", 9), ("HEAD", 1), ("other", 1), ("invalid", 1)]
    );
    assert_eq!(
        some(stats.statuses().collect()),
        [
            ("100", 1),
            ("200", 6),
            ("206", 1),
            ("301", 1),
            ("304", 1),
            ("404", 1),
            ("405", 1),
            ("505", 1)
        ]
    );
    assert_eq!((stats.class(2), stats.class(4)), (7, 2));
    let content = summary(&sent)
        .iter()
        .filter(|text| !text.contains("head"))
        .fold(0, |sum, text| {
            sum + text
                .split(' ')
                .nth(1)
                .and_then(|length| length.parse().ok())
                .unwrap_or(0_u64)
        });
    // The end of the redirect's `Location` was made together with its content; the framing of the parts of the
    // multipart response is not counted.
    let multipart = 376 - (2 + 100 + 1);
    assert_eq!(
        stats.content,
        content + "?q\r\n\r\n".len() as u64 - multipart
    );
}

#[test]
fn longest_own_part_fits() {
    let framing = request::Framing {
        head_only: false,
        close: true,
        http10: false,
    };
    let mut shared = Shared::default();
    let mut response = Response::new();
    response.begin(
        Status::HeaderFieldsTooLarge,
        framing,
        shared.stamp(Some(NOW)),
    );
    response.own.push("x".repeat(144).as_bytes());
    response.own.push(b"\r\nCache-Control: no-store\r\n");
    response.own.push_length(u64::MAX);
    assert!(response.own.bytes().ends_with(b"18446744073709551615\r\n"));
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let part = prop::sample::select(std::vec![
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "HEAD /large HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /rendered HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        "GET /a%20b?c HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd",
        "POST http://a/ HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: W/\"3\", \"x\"\r\nIf-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
        "GET /a%20b HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1,3-\r\nIf-Range: \"5\"\r\nAccept-Encoding: gzip;q=0.5, br\r\n\r\n",
        "POST /x HTTP/1.1\r\nHost: [::1]:80\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nab\r\n0\r\nT: r\r\n\r\n",
        "GET /old?q HTTP/1.1\r\nHost: OTHER\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\n",
    ]);
    let value = prop_oneof![
        any::<u8>(),
        prop::sample::select(b"\r\n :/%?#,0123456789\0\tHT-;=*\"".to_vec()),
    ];
    let edit = (any::<prop::sample::Index>(), value, 0..4_u8);
    (
        prop::collection::vec(part, 1..4),
        prop::collection::vec(edit, 0..6),
    )
        .prop_map(|(parts, edits)| {
            let mut bytes = parts.concat().into_bytes();
            for (index, value, kind) in edits {
                let at = index.index(bytes.len() + 1);
                match kind {
                    0 => bytes.insert(at, value),
                    1 if at < bytes.len() => _ = bytes.remove(at),
                    2 => bytes.truncate(at.max(bytes.len() / 2)),
                    _ if at < bytes.len() => bytes[at] = value,
                    _ => {}
                }
            }
            bytes
        })
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    /// For any input, the output is whole responses, and the same in whatever pieces the input arrives.
    #[test]
    fn mutated_streams(
        stream in mutated(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        size in 1..2000_usize,
    ) {
        let site = site_with(&[0x80; 3000]);
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

#[test]
fn without_a_clock_there_is_no_date() {
    let site = site();
    let mut shared = Shared::default();
    let mut answer = |unix_seconds| {
        let mut connection = Connection::new(0, 1024);
        let input = Input {
            bytes: b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            ended: true,
        };
        let moment = Moment {
            now: 0,
            unix_seconds,
        };
        let mut out = vec![0; 4096];
        let progress = connection.process(moment, input, &mut out, &site, &mut shared);
        String::from_utf8_lossy(&out[..progress.written]).into_owned()
    };
    let known = answer(Some(NOW));
    assert!(known.contains("\r\nServer: mayfly\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n"));
    let unknown = answer(None);
    assert!(unknown.contains("\r\nServer: mayfly\r\n") && !unknown.contains("Date:"));
    assert_eq!(answer(Some(NOW)), known);
}

/// A head that is longer than the receive buffer, in pieces of any size, with content and another request behind it.
#[test]
fn a_head_longer_than_the_receive_buffer_is_put_aside() {
    let site = site();
    let ask = |stream: &[u8], step: usize| {
        let mut shared = Shared::default();
        let mut connection = Connection::new(0, HEAD_LIMIT);
        let (mut start, mut end, mut sent) = (0, 0, Vec::new());
        loop {
            let window = end.min(start + HEAD_LIMIT);
            let input = Input {
                bytes: &stream[start..window],
                ended: window == stream.len(),
            };
            let mut out = [0; 300];
            let progress = connection.process(at(0), input, &mut out, &site, &mut shared);
            start += progress.consumed;
            sent.extend_from_slice(&out[..progress.written]);
            match progress.next {
                Next::Keep => end = stream.len().min(end + step),
                _ => {
                    return (
                        summary(&sent),
                        shared.stats.methods().map(|(_, n)| n).sum::<u64>(),
                    );
                }
            }
        }
    };
    let query = "q".repeat(8000);
    let cookie = "c".repeat(3000);
    let stream = format!(
        "GET /?{query} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc\
         GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"
    );
    let whole = ask(stream.as_bytes(), stream.len());
    assert_eq!(whole.1, 3);
    assert!(
        whole.0.iter().all(|answer| answer.starts_with("200")),
        "{whole:?}"
    );
    for step in [1, 7, 511, 1024, 1500, 9000] {
        assert_eq!(ask(stream.as_bytes(), step), whole, "{step}");
    }
    for (stream, status) in [
        (
            format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(HEAD_MAX)),
            "414",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
                "x".repeat(HEAD_MAX)
            ),
            "431",
        ),
    ] {
        for step in [100, 5000, 20_000] {
            assert!(
                ask(stream.as_bytes(), step).0[0].starts_with(status),
                "{status} {step}"
            );
        }
    }
}

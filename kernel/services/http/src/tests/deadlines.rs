//! Slow peers, and scarce memory.

use super::*;

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
    assert_eq!(timed.figures(), (0, 1, 0, 0));

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
    assert_eq!(timed.figures(), (0, 0, 0, 0));
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
    // More bytes do not move the deadline.
    for (length, now) in (2..request.len()).zip((9_000..19_000).step_by(500)) {
        assert_eq!(
            timed.at(now, &request[..length], false, 512),
            (Vec::new(), Next::Keep)
        );
        assert_eq!(timed.connection.deadline(), 9_000 + REQUEST_TIMEOUT);
    }
    let (sent, next) = timed.at(19_000, request, false, 512);
    assert_eq!(summary(&sent), ["408 21 Connection: close"]);
    assert_eq!(next, Next::Close);
    assert_eq!(
        timed.at(19_001, request, false, 512),
        (Vec::new(), Next::Close)
    );
    assert_eq!(timed.figures(), (1, 1, 0, 0));

    // The client gives up in the middle.
    let mut timed = Timed::new(&site);
    assert_eq!(timed.at(0, request, true, 512), (Vec::new(), Next::Close));
}

#[test]
fn slow_bodies_get_408() {
    let site = site();
    let mut timed = Timed::new(&site);
    let head = b"HEAD / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n";
    assert_eq!(timed.at(0, head, false, 512), (Vec::new(), Next::Keep));
    assert!(!timed.connection.is_idle());
    assert_eq!(
        timed.at(REQUEST_TIMEOUT - 1, b"1234", false, 512),
        (Vec::new(), Next::Keep)
    );
    assert_eq!(timed.connection.waiting_since(), 0);
    let (sent, next) = timed.at(REQUEST_TIMEOUT, b"5678", false, 512);
    assert_eq!(summary(&sent), ["408 21 head Connection: close"]);
    assert_eq!(next, Next::Close);
    assert_eq!(timed.figures(), (1, 1, 0, 0));

    // The client gives up in the middle.
    let mut timed = Timed::new(&site);
    assert_eq!(timed.at(0, head, true, 512), (Vec::new(), Next::Close));
    assert_eq!(timed.figures(), (0, 0, 0, 1));
}

/// An interim response that finds room late comes before the final one.
#[test]
fn interim_response_in_pieces() {
    let site = site();
    let mut timed = Timed::new(&site);
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    assert_eq!(timed.at(0, head, false, 0), (Vec::new(), Next::Keep));
    let (first, next) = timed.at(1, b"", false, 10);
    assert_eq!((&first[..], next), (&b"HTTP/1.1 1"[..], Next::Keep));
    let (rest, next) = timed.at(REQUEST_TIMEOUT, b"", false, 512);
    assert_eq!(next, Next::Close);
    assert_eq!(
        summary(&[first, rest].concat()),
        ["100", "408 21 Connection: close"]
    );
}

#[test]
fn answers_that_hold_memory_are_few() {
    const REQUEST: &[u8] = b"GET /rendered HTTP/1.1\r\nHost: a\r\n\r\n";
    const WITH_BODY: &[u8] = b"GET /old?q HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n";
    fn ask<'s>(
        site: &'s Site,
        shared: &mut Shared,
        bytes: &[u8],
        room: usize,
    ) -> (Connection<'s>, Vec<u8>) {
        let mut connection = Connection::new(0, HEAD_LIMIT);
        let mut out = std::vec![0; room];
        let input = Input {
            bytes,
            ended: false,
        };
        let progress = connection.process(at(0), input, &mut out, site, shared);
        out.truncate(progress.written);
        (connection, out)
    }
    fn go_on<'s>(site: &'s Site, shared: &mut Shared, slow: &mut Connection<'s>) -> Progress {
        let input = Input {
            bytes: b"",
            ended: false,
        };
        slow.process(at(1), input, &mut [0; 1000], site, shared)
    }
    let (site, mut shared) = (site(), Shared::default());
    let mut slow: Vec<_> = (0..LOANS)
        .map(|_| ask(&site, &mut shared, REQUEST, 100).0)
        .collect();
    // A new client is served, and the slowest loses its loan.
    let (_, sent) = ask(&site, &mut shared, REQUEST, 1000);
    assert!(summary(&sent)[0].starts_with("200 12"));
    assert_eq!(go_on(&site, &mut shared, &mut slow[0]).next, Next::Abort);
    for rest in &mut slow[1..] {
        assert!(go_on(&site, &mut shared, rest).written > 0);
    }
    // Such an answer does not wait for the content of its request.
    let (_, sent) = ask(&site, &mut shared, WITH_BODY, 1000);
    assert_eq!(
        summary(&sent),
        ["301 23 Connection: close Location: /new?q"]
    );
}

#[test]
fn slow_readers_are_reset() {
    let site = site();
    let request = b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n";

    // A client that takes nothing after the first bytes.
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
    assert_eq!(timed.figures(), (1, 1, 1, 0));

    // A client that takes a little less than the quota.
    let mut timed = Timed::new(&site);
    assert_eq!(timed.at(0, request, false, WRITE_QUOTA - 2).1, Next::Keep);
    assert_eq!(timed.at(9_999, b"", false, 1).1, Next::Keep);
    assert_eq!(timed.at(10_000, b"", false, 0).1, Next::Abort);

    // A client that takes exactly the quota, to the end.
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
        (std::vec!["200 20000".into()], Next::Close)
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

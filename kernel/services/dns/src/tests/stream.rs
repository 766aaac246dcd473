//! Connections: framing, pipelining, deadlines, zone transfers.

use super::*;

fn framed(message: &[u8]) -> Vec<u8> {
    let length = u16::try_from(message.len()).unwrap();
    [&length.to_be_bytes(), message].concat()
}

/// Enough for what is asked here, and too little for two answers.
const ROOM: usize = 514;

/// Feeds a stream in pieces of `step` bytes to a connection whose send buffer is emptied after
/// each call.
fn run(
    server: &mut Server,
    stream: &[u8],
    step: usize,
    size: usize,
    room: usize,
) -> (Vec<u8>, Next) {
    let zones = zones();
    let mut connection = Connection::new(0);
    let (mut buffer, mut sent) = (Vec::new(), Vec::new());
    let mut pieces = stream.chunks(step);
    loop {
        let piece = pieces.next();
        buffer.extend_from_slice(piece.unwrap_or_default());
        let mut out = std::vec![0; size];
        let input = Input {
            bytes: &buffer,
            ended: piece.is_none(),
        };
        let progress = connection.process(server, &zones, 0, 0, ADDRESS, input, &mut out, room);
        buffer.drain(..progress.consumed);
        sent.extend_from_slice(&out[..progress.written]);
        if progress.next != Next::Keep {
            return (sent, progress.next);
        }
    }
}

#[test]
fn pipelined_in_pieces() {
    let zones = zones();
    let queries = [
        query("web.example.test", A),
        query("no.example.test", AAAA),
        query_edns("x.wild.example.test", TXT, 512, 0),
        header(0x8000, [0; 4]),
        query("example", NS),
    ];
    let stream: Vec<_> = queries.iter().flat_map(|query| framed(query)).collect();
    let expected: Vec<_> = queries
        .iter()
        .filter_map(|query| ask(&zones, query, Transport::Tcp))
        .flat_map(|answer| framed(&answer))
        .collect();
    for step in 1..=stream.len() {
        for size in [ROOM, ROOM + 1, 2 * ROOM, 4096] {
            let ran = run(&mut server(), &stream, step, size, ROOM);
            assert_eq!(ran, (expected.clone(), Next::Close), "{step}");
        }
    }
}

#[test]
fn framing() {
    let good = framed(&query("web.example.test", A));
    for length in [0, 11, TCP_QUERY_MAX + 1, 65535] {
        let prefix = u16::try_from(length).unwrap().to_be_bytes();
        let mut server = server();
        let (sent, next) = run(&mut server, &[&good[..], &prefix].concat(), 1, 4096, ROOM);
        assert!(sent.len() > 2 && next == Next::Abort);
        assert_eq!(server.stats.aborted, 1);
    }
    // A client that stops in the middle of a query.
    let ran = run(&mut server(), &good[..good.len() - 1], 7, 4096, ROOM);
    assert_eq!(ran, (Vec::new(), Next::Close));
    // A whole query of the longest length.
    let mut longest = query("web.example.test", A);
    longest[11] = 1;
    longest.extend(b"\0\0\x29\x02\0\0\0\0\0");
    let options = TCP_QUERY_MAX - longest.len() - 2;
    longest.extend(u16::try_from(options).unwrap().to_be_bytes());
    longest.extend(b"\xfe\0");
    longest.extend(u16::try_from(options - 4).unwrap().to_be_bytes());
    longest.resize(TCP_QUERY_MAX, 0);
    let (sent, next) = run(&mut server(), &framed(&longest), 100, 4096, ROOM);
    assert!(dump(&sent[2..]).starts_with("0 qr aa rd;"));
    assert_eq!(next, Next::Close);
}

#[test]
fn deadlines() {
    let zones = zones();
    let mut server = server();
    let good = framed(&query("outside.example.test", A));
    let mut step = |connection: &mut Connection<_>, now, bytes: &[u8], out: &mut [u8]| {
        let input = Input {
            bytes,
            ended: false,
        };
        connection.process(&mut server, &zones, now, 0, ADDRESS, input, out, ROOM)
    };
    let keep = |consumed, written| Progress {
        consumed,
        written,
        next: Next::Keep,
    };

    // Bytes that trickle in do not move the deadline; a whole query does.
    let mut connection = Connection::new(100);
    let mut out = [0; 2048];
    assert_eq!(
        step(&mut connection, 5_000, &good[..5], &mut out),
        keep(0, 0)
    );
    assert_eq!(connection.deadline(), 10_100);
    let progress = step(&mut connection, 10_099, &good, &mut out);
    assert!(progress.written > good.len());
    assert_eq!(progress, keep(good.len(), progress.written));
    assert_eq!(connection.deadline(), 20_099);
    assert_eq!(
        step(&mut connection, 20_098, &good[..9], &mut out),
        keep(0, 0)
    );
    let closed = Progress {
        consumed: 9,
        written: 0,
        next: Next::Close,
    };
    assert_eq!(step(&mut connection, 20_099, &good[..9], &mut out), closed);
    assert_eq!(step(&mut connection, 20_100, &good[..9], &mut out), closed);

    // No room for the answer until the deadline.
    let mut connection = Connection::new(0);
    assert_eq!(
        step(&mut connection, 9_999, &good, &mut out[..ROOM - 1]),
        keep(0, 0)
    );
    let progress = step(&mut connection, 10_000, &good, &mut out[..ROOM - 1]);
    assert_eq!(progress.next, Next::Abort);
    assert_eq!(server.stats.aborted, 1);
}

/// The records of a transfer, and how many messages they came in.
fn transferred(stream: &[u8]) -> (Vec<String>, usize) {
    let (mut records, mut messages, mut rest) = (Vec::new(), 0, stream);
    while let Some((length, tail)) = rest.split_first_chunk() {
        let (message, tail) = tail.split_at(u16::from_be_bytes(*length).into());
        assert_parses(message);
        let header = Header::read(message).unwrap();
        assert_eq!(header.flags, flag::QR | flag::AA | flag::RD);
        assert_eq!(header.counts[2..], [0, 0]);
        assert_eq!(header.counts[0], u16::from(messages == 0), "the question");
        let mut dump = Dump { message, at: 12 };
        for _ in 0..header.counts[0] {
            dump.name();
            dump.at += 4;
        }
        records.extend((0..header.counts[1]).map(|_| dump.record().to_ascii_lowercase()));
        messages += 1;
        rest = tail;
    }
    (records, messages)
}

/// A transfer has every record of the zone once, between two SOA records, however it is cut.
#[test]
fn transfers() {
    for (zone, text, size) in [
        ("child.example.test", include_str!("zones/child.zone"), 5),
        ("nsec.test", include_str!("zones/nsec.zone"), 0),
        ("nsec3.test", include_str!("zones/nsec3.zone"), 0),
        ("optout.test", include_str!("zones/optout.zone"), 0),
    ] {
        // Each line of a signed zone is a record.
        let size = if size > 0 { size } else { text.lines().count() };
        let stream = framed(&query(zone, AXFR));
        let mut all = None;
        for (room, count) in [(400, 2), (700, 2), (2048, 1), (65_537, 1)] {
            let mut server = server();
            let (sent, next) = run(&mut server, &stream, 7, room, room);
            assert_eq!(next, Next::Close);
            let (records, messages) = transferred(&sent);
            assert!(messages >= count || size < 10, "{messages}");
            assert_eq!(records.len(), size + 1, "{zone} {room}");
            assert_eq!(records.first(), records.last());
            assert!(records[0].contains(" soa "));
            let mut sorted = records[1..].to_vec();
            sorted.sort();
            sorted.dedup();
            assert_eq!(sorted.len(), size);
            assert_eq!(all.get_or_insert(records.clone()), &records);
            assert_eq!((server.stats.transfers, server.stats.tcp), (1, 1));
        }
    }
    // Queries before and after it are answered in order; IXFR is answered with the whole.
    let queries = [
        query("www.child.example.test", A),
        query("child.example.test", IXFR),
        query("www.child.example.test", A),
    ];
    let stream: Vec<_> = queries.iter().flat_map(|query| framed(query)).collect();
    let (sent, _) = run(&mut server(), &stream, 1000, 4096, 700);
    let mut ids = 0;
    let mut rest = &sent[..];
    while let Some((length, tail)) = rest.split_first_chunk() {
        rest = &tail[usize::from(u16::from_be_bytes(*length))..];
        ids += 1;
    }
    assert_eq!(ids, 3);
}

#[test]
fn transfers_that_are_not() {
    let zones = zones();
    for (name, qtype, transport, expected) in [
        // Not allowed; not a zone; not the name of a zone; not over UDP.
        ("example.test", AXFR, Transport::Tcp, "5 qr rd; ; ; "),
        ("example.test", IXFR, Transport::Tcp, "5 qr rd; ; ; "),
        ("example.test", IXFR, Transport::Udp, "5 qr rd; ; ; "),
        ("elsewhere", AXFR, Transport::Tcp, "9 qr rd; ; ; "),
        (
            "www.child.example.test",
            AXFR,
            Transport::Tcp,
            "9 qr rd; ; ; ",
        ),
        ("child.example.test", AXFR, Transport::Udp, "4 qr rd; ; ; "),
        (
            "child.example.test",
            IXFR,
            Transport::Udp,
            "0 qr aa rd; child.example.test. 600 SOA ns.child.example.test. \
             hostmaster.example.test. 3 3600 900 604800 60; ; ",
        ),
    ] {
        let message = query(name, qtype);
        let response = match transport {
            Transport::Udp => ask(&zones, &message, transport).unwrap(),
            Transport::Tcp => {
                run(&mut server(), &framed(&message), 100, 4096, ROOM).0[2..].to_vec()
            }
        };
        assert_eq!(sections(&response).join("; "), expected, "{name} {qtype}");
    }
}

/// A client that does not read a transfer is reset.
#[test]
fn transfer_to_nobody() {
    let zones = zones();
    let mut server = server();
    let stream = framed(&query("nsec3.test", AXFR));
    let mut connection = Connection::new(0);
    let mut out = [0; 1024];
    let input = Input {
        bytes: &stream,
        ended: false,
    };
    let progress = connection.process(&mut server, &zones, 0, 0, ADDRESS, input, &mut out, 1024);
    assert_eq!(
        (progress.consumed, progress.next),
        (stream.len(), Next::Keep)
    );
    let input = Input {
        bytes: &[],
        ended: false,
    };
    let step = |connection: &mut Connection<_>, server: &mut Server, now| {
        connection.process(server, &zones, now, 0, ADDRESS, input, &mut [], 1024)
    };
    assert_eq!(step(&mut connection, &mut server, 9_999).next, Next::Keep);
    assert_eq!(step(&mut connection, &mut server, 10_000).next, Next::Abort);
    assert_eq!(server.stats.aborted, 1);
}

//! The client against a scripted xenstored.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::device::Framing;
use super::peer::{Asked, event, framed, message, pair, serve, take};
use super::wire::ServerMessage;
use super::*;

const BOUND: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(30);

#[test]
fn a_burst_is_written_at_once_and_answered_by_id() {
    let (mut client, mut server) = pair(BOUND);
    let read = client.send(Request::read("/a")).unwrap();
    let write = client.send(Request::write("/b", b"v")).unwrap();
    client.flush().unwrap();
    let mut bytes = [0; 256];
    let got = server.read(&mut bytes).unwrap();
    assert_eq!(got, 16 + 3 + 16 + 4, "one write has both");
    let id = |at: usize| u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap());
    let (first, second) = (id(4), id(19 + 4));
    // The answers come in reverse order, with an event between.
    server.write_all(&message(11, second, 0, b"OK\0")).unwrap();
    server.write_all(&event("/w", "t")).unwrap();
    server.write_all(&message(2, first, 0, b"value")).unwrap();
    assert_eq!(client.answer(read).unwrap(), b"value");
    assert_eq!(client.answer(write).unwrap(), b"OK\0");
    let event = client.event(Duration::ZERO).unwrap().unwrap();
    assert_eq!((event.path.as_str(), event.token.as_str()), ("/w", "t"));
    assert_eq!(client.event(SHORT).unwrap(), None);
}

#[test]
fn through_the_kernels_device_there_is_one_request_at_a_time() {
    let (mut client, mut server) = framed(BOUND, Framing::Messages);
    let server = std::thread::spawn(move || {
        for _ in 0..3 {
            let asked = take(&mut server).unwrap();
            // The next request must not come before this one is answered.
            server.set_read_timeout(Some(SHORT)).unwrap();
            let early = server.read(&mut [0; 1]);
            assert_eq!(early.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
            server.set_read_timeout(None).unwrap();
            server.write_all(&event("/w", &asked.text())).unwrap();
            server.write_all(&asked.answer(&asked.payload)).unwrap();
        }
    });
    let first = client.send(Request::read("/1")).unwrap();
    let forgotten = client.send(Request::read("/2")).unwrap();
    let third = client.send(Request::read("/3")).unwrap();
    client.forget(forgotten);
    client.flush().unwrap();
    server.join().unwrap();
    assert_eq!(client.answer(third).unwrap(), b"/3\0");
    assert_eq!(client.answer(first).unwrap(), b"/1\0");
    // The peer is gone.
    assert!(matches!(client.read("/4"), Err(Error::Closed)));
}

#[test]
fn a_list_may_be_longer_than_a_message_but_not_than_all() {
    let (mut client, _server) = serve(BOUND, |asked| match asked.kind {
        1 => asked.answer(&b"name\0".repeat(20_000)),
        _ => asked.answer(&[b'x'; 5000]),
    });
    assert_eq!(client.directory("/a").unwrap().len(), 20_000);
    assert!(matches!(client.read("/a"), Err(Error::Protocol(_))));
    let (mut client, _server) = serve(BOUND, |asked| {
        let mut bytes = asked.answer(b"");
        bytes[12..16].copy_from_slice(&(1u32 << 20 | 1).to_ne_bytes());
        bytes
    });
    assert!(matches!(client.directory("/a"), Err(Error::Protocol(_))));
}

#[test]
fn payloads_are_as_documented() {
    let (mut client, server) = serve(BOUND, |asked| match asked.kind {
        3 => asked.answer(b"n0\0r7\0"),
        1 => asked.answer(b"one\0two\0"),
        _ => asked.answer(b"OK\0"),
    });
    client.write("/p", "v").unwrap();
    client.mkdir("/p").unwrap();
    client.rm("/p").unwrap();
    client
        .set_perms("/p", &[Perm::none(0), Perm::read(7)])
        .unwrap();
    assert_eq!(
        client.get_perms("/p").unwrap(),
        [Perm::none(0), Perm::read(7)]
    );
    assert_eq!(client.directory("/p").unwrap(), ["one", "two"]);
    client.watch("@releaseDomain", "t").unwrap();
    client.unwatch("@releaseDomain", "t").unwrap();
    client.introduce(7, 1_044_476, 1).unwrap();
    client.release(7).unwrap();
    client.control(&["log", "on"]).unwrap();
    drop(client);
    let seen: Vec<_> = server
        .join()
        .unwrap()
        .iter()
        .map(|a| (a.kind, a.text()))
        .collect();
    let expected = [
        (11, "/p\0v"),
        (12, "/p\0"),
        (13, "/p\0"),
        (14, "/p\0n0\0r7\0"),
        (3, "/p\0"),
        (1, "/p\0"),
        (4, "@releaseDomain\0t\0"),
        (5, "@releaseDomain\0t\0"),
        (8, "7\x001044476\x001\0"),
        (9, "7\0"),
        (0, "log\0on\0"),
    ];
    assert_eq!(seen, expected.map(|(kind, text)| (kind, text.to_owned())));
}

#[test]
fn what_cannot_be_sent_is_not() {
    let (mut client, _server) = pair(BOUND);
    assert!(matches!(
        client.send(Request::read("/a//b")),
        Err(Error::Path { .. })
    ));
    assert!(matches!(
        client.send(Request::read("/a\0/b")),
        Err(Error::Path { .. })
    ));
    assert!(matches!(
        client.send(Request::watch("/a", "x\0y")),
        Err(Error::Request { .. })
    ));
    let fits = vec![0; 4096 - 3];
    assert!(client.send(Request::write("/a", &fits)).is_ok());
    let long = vec![0; 4096 - 2];
    assert!(matches!(
        client.send(Request::write("/a", &long)),
        Err(Error::Request { .. })
    ));
}

#[test]
fn refusals_name_request_and_reason() {
    let (mut client, _server) = serve(BOUND, |asked| match asked.text().as_str() {
        "/gone\0" => asked.error("ENOENT"),
        _ => asked.error("EACCES"),
    });
    assert_eq!(client.find("/gone").unwrap(), None);
    assert!(client.read("/gone").unwrap_err().is_absent());
    client.rm("/gone").unwrap();
    let error = client.write("/other", "").unwrap_err();
    assert!(error.is_permission());
    assert_eq!(
        error.to_string(),
        "xenstored refuses to write /other: EACCES"
    );
}

#[test]
fn an_answer_that_is_late_is_dropped() {
    let (mut client, mut server) = pair(BOUND);
    let late = client.send(Request::read("/late")).unwrap();
    assert!(matches!(
        client.answer_within(late, SHORT),
        Err(Error::Timeout { .. })
    ));
    let asked = take(&mut server).unwrap();
    server.write_all(&asked.answer(b"late")).unwrap();
    let next = client.send(Request::read("/next")).unwrap();
    client.flush().unwrap();
    let asked = take(&mut server).unwrap();
    server.write_all(&asked.answer(b"next")).unwrap();
    assert_eq!(client.answer(next).unwrap(), b"next");
    assert!(client.event(SHORT).unwrap().is_none());
}

#[test]
fn forgotten_answers_are_not_kept() {
    let (mut client, _server) = serve(BOUND, |asked| asked.answer(b"x"));
    for _ in 0..3 {
        let id = client.send(Request::read("/a")).unwrap();
        client.forget(id);
    }
    assert_eq!(client.read("/b").unwrap(), "x");
}

/// After `bytes` as the answer to a read, the connection is unusable.
fn breaks(bytes: impl Fn(&Asked) -> Vec<u8> + Send + 'static) {
    let (mut client, _server) = serve(BOUND, bytes);
    assert!(matches!(client.read("/a"), Err(Error::Protocol(_))));
    assert!(matches!(client.read("/a"), Err(Error::Protocol(_))));
    assert!(matches!(client.event(SHORT), Err(Error::Protocol(_))));
}

#[test]
fn what_the_protocol_forbids_breaks_the_connection() {
    breaks(|asked| message(asked.kind, asked.id.wrapping_add(1), 0, b""));
    breaks(|asked| message(11, asked.id, 0, b""));
    breaks(|asked| message(999, asked.id, 0, b""));
    breaks(|asked| [asked.answer(b"twice"), asked.answer(b"twice")].concat());
    breaks(|asked| {
        let mut bytes = asked.answer(b"");
        bytes[12..16].copy_from_slice(&4097u32.to_ne_bytes());
        bytes
    });
    breaks(|asked| {
        let mut bytes = asked.answer(b"");
        bytes[12..16].copy_from_slice(&u32::MAX.to_ne_bytes());
        bytes
    });
    breaks(|_| message(15, 0, 0, b"/one-string\0"));
    breaks(|_| message(15, 0, 0, b"/not\xff\0utf8\0"));
    breaks(|asked| {
        let mut bytes = Vec::new();
        for index in 0..20_000 {
            bytes.extend(event(&format!("/{index}"), "t"));
        }
        bytes.extend(asked.answer(b""));
        bytes
    });
}

#[test]
fn a_xenstored_that_is_silent_is_waited_for_once() {
    let bound = Duration::from_millis(200);
    let (mut client, _server) = pair(bound);
    let start = Instant::now();
    let ids: Vec<_> = (0..20)
        .map(|n| client.send(Request::read(&format!("/{n}"))).unwrap())
        .collect();
    assert!(matches!(client.answers(ids), Err(Error::Timeout { .. })));
    assert!((bound..bound * 3).contains(&start.elapsed()));
    assert!(!client.is_lost());
}

#[test]
fn a_closed_connection_is_an_error_after_what_it_said() {
    let (mut client, mut server) = pair(BOUND);
    let read = client.send(Request::read("/a")).unwrap();
    client.flush().unwrap();
    let asked = take(&mut server).unwrap();
    server.write_all(&asked.answer(b"last")).unwrap();
    drop(server);
    assert_eq!(client.answer(read).unwrap(), b"last");
    assert!(!client.is_lost());
    assert!(matches!(client.read("/b"), Err(Error::Closed)));
    assert!(client.is_lost());
}

#[test]
fn a_xenstored_that_does_not_read_is_waited_for_within_the_bound() {
    let (mut client, _server) = pair(SHORT);
    let value = vec![b'x'; 4000];
    for _ in 0..1000 {
        let id = client.send(Request::write("/a", &value)).unwrap();
        client.forget(id);
    }
    let start = Instant::now();
    assert!(matches!(client.flush(), Err(Error::Timeout { .. })));
    assert!(start.elapsed() < BOUND);
}

#[test]
fn a_burst_larger_than_the_sockets_is_written_while_answers_are_read() {
    let (mut client, server) = serve(BOUND, |asked| asked.answer(&asked.payload));
    let value = vec![b'x'; 4000];
    let ids: Vec<_> = (0..500)
        .map(|_| client.send(Request::write("/a", &value)).unwrap())
        .collect();
    client.flush().unwrap();
    client.answers(ids).unwrap();
    drop(client);
    assert_eq!(server.join().unwrap().len(), 500);
}

#[test]
fn long_lists_come_in_parts() {
    let names: Vec<_> = (0..3000).map(|index| format!("name-{index}")).collect();
    let list: Vec<u8> = names
        .iter()
        .flat_map(|name| name.bytes().chain([0]))
        .collect();
    let mut changes = 2;
    let (mut client, _server) = serve(BOUND, move |asked| {
        if asked.kind == 1 {
            return asked.error("E2BIG");
        }
        let text = asked.text();
        let offset: usize = text.split('\0').nth(1).unwrap().parse().unwrap();
        if offset > 0 && changes > 0 {
            changes -= 1;
        }
        let mut part = format!("{changes}\0").into_bytes();
        let mut end = list.len().min(offset + 4000);
        while end > offset && list[end - 1] != 0 {
            end -= 1;
        }
        part.extend_from_slice(&list[offset..end]);
        if end == list.len() {
            part.push(0);
        }
        asked.answer(&part)
    });
    assert_eq!(client.directory("/many").unwrap(), names);
}

#[test]
fn lists_that_never_end_are_errors() {
    for part in [
        &b"1\0"[..],
        b"",
        b"nothing",
        b"1\0again\0",
        b"\xff\0\xff\0\0",
    ] {
        let (mut client, _server) = serve(BOUND, move |asked| match asked.kind {
            1 => asked.error("E2BIG"),
            // A generation that changes each time.
            _ if part.is_empty() => asked.answer(format!("{}\0x\0", asked.id).as_bytes()),
            _ if part == b"1\0again\0" => asked.answer(&[part, &[b'x'; 4000]].concat()),
            _ => asked.answer(part),
        });
        assert!(matches!(
            client.directory("/many"),
            Err(Error::Answer { .. })
        ));
    }
}

#[test]
fn transactions_are_tried_again() {
    let mut conflicts = 2;
    let (mut client, server) = serve(BOUND, move |asked| match asked.kind {
        6 => asked.answer(b"77\0"),
        7 if conflicts > 0 => {
            conflicts -= 1;
            asked.error("EAGAIN")
        }
        _ => asked.answer(b"OK\0"),
    });
    let mut bodies = 0;
    let result: Result<_, Error> = (&mut client as &mut dyn Store).transact(BOUND, |transaction| {
        bodies += 1;
        transaction.ask(Request::write("/a", "1"))?;
        Ok(bodies)
    });
    assert_eq!(result.unwrap(), 3);
    drop(client);
    let all = server.join().unwrap();
    assert!(
        all.iter()
            .filter(|asked| asked.kind != 6)
            .all(|asked| asked.transaction == 77)
    );
    assert_eq!(all.iter().filter(|asked| asked.text() == "T\0").count(), 3);
}

#[test]
fn a_transaction_that_always_conflicts_ends() {
    let (mut client, _server) = serve(BOUND, |asked| match asked.kind {
        6 => asked.answer(b"1\0"),
        _ => asked.error("EAGAIN"),
    });
    let result: Result<(), Error> = (&mut client as &mut dyn Store).transact(SHORT, |_| Ok(()));
    assert!(matches!(result, Err(Error::Contended { .. })));
}

#[test]
fn a_body_that_fails_aborts() {
    let (mut client, server) = serve(BOUND, |asked| match asked.kind {
        6 => asked.answer(b"1\0"),
        2 => asked.error("ENOENT"),
        _ => asked.answer(b"OK\0"),
    });
    let result: Result<(), Error> = (&mut client as &mut dyn Store)
        .transact(BOUND, |transaction| {
            transaction.ask(Request::read("/a")).map(drop)
        });
    assert!(result.unwrap_err().is_absent());
    drop(client);
    assert_eq!(server.join().unwrap().last().unwrap().text(), "F\0");
}

#[test]
fn transactions_need_a_number() {
    for answer in [
        &b"0\0"[..],
        b"",
        b"x\0",
        b"-1\0",
        b"99999999999\0",
        b"\xff\0",
    ] {
        let (mut client, _server) = serve(BOUND, move |asked| asked.answer(answer));
        let result: Result<(), Error> = (&mut client as &mut dyn Store).transact(BOUND, |_| Ok(()));
        assert!(matches!(result, Err(Error::Answer { .. })));
    }
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    /// Any bytes are parsed as messages, an error, or too few; never more than there are, and never a panic.
    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..64), header in any::<[u8; 3]>()) {
        let mut small = vec![header[0] % 24, 0, 0, 0, header[1], 0, 0, 0, 0, 0, 0, 0, header[2] % 64, 0, 0, 0];
        small.extend(&bytes);
        for input in [&bytes, &small] {
            if let Ok(Some((message, length))) = wire::take(input) {
                prop_assert!((16..=input.len()).contains(&length));
                if let ServerMessage::Answer { payload, .. } = message {
                    prop_assert_eq!(payload.len(), length - 16);
                }
            }
        }
    }
}

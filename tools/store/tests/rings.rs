//! A ring whose domain breaks the protocol is shut, and other connections are not affected.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod machine;

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use machine::{ERROR, Fake, RSP_PROD, Requests};
use mayfly_store::core::Quota;
use mayfly_store::daemon::Daemon;
use mayfly_xenstore::wire::{self, MessageKind};

/// For each domain the error word of its ring, and the number of bytes of answers in the ring.
type Seen = Arc<Mutex<HashMap<u16, (u32, u32)>>>;

const LYING: u16 = 1;
const LONG: u16 = 2;
const HONEST: u16 = 3;

/// The requests in a domain's ring when it is introduced.
fn requests(domid: u16) -> Requests {
    match domid {
        LYING => Requests {
            bytes: vec![0],
            produced: 5000,
        },
        LONG => {
            let header = [2_u32, 1, 0, 1 << 20].into_iter();
            Requests::honest(header.flat_map(u32::to_ne_bytes).collect())
        }
        _ => {
            let mut bytes = Vec::new();
            wire::put_message(&mut bytes, [MessageKind::Read as u32, 1, 0], b"x\0");
            Requests::honest(bytes)
        }
    }
}

#[test]
fn a_ring_that_lies_is_shut() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let seen = Seen::default();
    let machine_seen = Arc::clone(&seen);
    let server = std::thread::spawn(move || {
        let machine = Fake::new(requests, |domid, page| {
            let words = (page.load_acquire(ERROR), page.load_acquire(RSP_PROD));
            machine_seen.lock().unwrap().insert(domid, words);
        });
        let mut daemon = Daemon::new(Quota::default(), false, machine, listener).unwrap();
        daemon.run(stopped.as_fd()).unwrap();
    });
    let mut client = UnixStream::connect(&socket).unwrap();
    let mut ask = |kind: MessageKind, payload: &str| {
        let mut bytes = Vec::new();
        wire::put_message(&mut bytes, [kind as u32, 1, 0], payload.as_bytes());
        client.write_all(&bytes).unwrap();
        let mut header = [0; wire::HEADER];
        client.read_exact(&mut header).unwrap();
        let mut answer = vec![0; wire::length(&header).unwrap() - wire::HEADER];
        client.read_exact(&mut answer).unwrap();
        String::from_utf8(answer).unwrap()
    };
    for domid in [LYING, LONG, HONEST] {
        let answer = ask(MessageKind::Introduce, &format!("{domid}\x001\x001\0"));
        assert_eq!(answer, "OK\0");
    }
    // The loop gives every connection with work its turn before it takes the next request.
    ask(MessageKind::Write, "/still\0there");
    assert_eq!(ask(MessageKind::Read, "/still\0"), "there");
    let words = seen.lock().unwrap().clone();
    // XENSTORE_ERROR_RINGIDX, XENSTORE_ERROR_PROTO; the honest domain gets the answer EACCES.
    assert_eq!(words[&LYING].0, 2);
    assert_eq!(words[&LONG].0, 3);
    assert_eq!(words[&HONEST], (0, 16 + 7));
    drop(stop);
    server.join().unwrap();
}

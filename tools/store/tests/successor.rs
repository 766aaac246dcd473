//! The daemon around a live update: what stops one, and a successor that finds its clients.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mayfly_store::core::{Descriptors, Quota, SavedState, Server};
use mayfly_store::daemon::{Daemon, Succession};
use mayfly_xenstore::wire::{self, MessageKind};

mod machine;
use machine::{Fake, Requests};

fn fake() -> Fake<impl Fn(u16) -> Requests, impl Fn(u16, &mayfly_drivers::SharedPage)> {
    Fake::new(|_| Requests::honest(Vec::new()), |_, _| ())
}

fn request(kind: MessageKind, transaction: u32, payload: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let words = [kind as u32, 1, transaction];
    wire::put_message(&mut bytes, words, payload.as_bytes());
    bytes
}

fn answer(client: &mut UnixStream) -> String {
    let mut header = [0; wire::HEADER];
    client.read_exact(&mut header).unwrap();
    let mut payload = vec![0; wire::length(&header).unwrap() - wire::HEADER];
    client.read_exact(&mut payload).unwrap();
    String::from_utf8(payload)
        .unwrap()
        .trim_end_matches('\0')
        .to_owned()
}

fn ask(client: &mut UnixStream, kind: MessageKind, payload: &str) -> String {
    client.write_all(&request(kind, 0, payload)).unwrap();
    answer(client)
}

/// Runs a daemon that allows live updates, while `act` uses its socket and folder.
fn serve(act: impl FnOnce(&Path, &Path)) {
    let folder = tempfile::tempdir().unwrap();
    let socket: PathBuf = folder.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let succession = Succession {
        file: folder.path().join("state"),
        arguments: Vec::new(),
    };
    let server = std::thread::spawn(move || {
        let mut daemon = Daemon::new(Quota::default(), false, fake(), listener).unwrap();
        daemon.allow_update(succession);
        daemon.run(stopped.as_fd()).unwrap();
    });
    act(&socket, folder.path());
    drop(stop);
    server.join().unwrap();
}

#[test]
fn a_live_update_that_fails_is_answered_and_changes_nothing() {
    serve(|socket, folder| {
        let mut client = UnixStream::connect(socket).unwrap();
        let mut update = |program: &Path| {
            let program = program.to_str().unwrap();
            let first = format!("live-update\0-f\0{program}\0");
            assert_eq!(ask(&mut client, MessageKind::Control, &first), "OK");
            ask(
                &mut client,
                MessageKind::Control,
                "live-update\0-s\0-t\x005\0",
            )
        };
        assert_eq!(update(&folder.join("none")), "File not accessible.");
        assert_eq!(update(folder), "File not executable.");
        let file = folder.join("program");
        fs::write(&file, "").unwrap();
        assert_eq!(update(&file), "File not executable.");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o700)).unwrap();
        // An empty file is no program.
        let error = update(&file);
        assert!(error.contains("program: Exec format error"), "{error}");
        assert!(!folder.join("state").exists());
        assert_eq!(ask(&mut client, MessageKind::Write, "/still\0there"), "OK");
        assert_eq!(ask(&mut client, MessageKind::Read, "/still\0"), "there");
    });
}

#[test]
fn a_live_update_waits_for_transactions_with_a_bound() {
    serve(|socket, _| {
        let mut other = UnixStream::connect(socket).unwrap();
        let open = ask(&mut other, MessageKind::TransactionStart, "\0");
        let mut client = UnixStream::connect(socket).unwrap();
        let first = "live-update\0-f\0/none\0";
        assert_eq!(ask(&mut client, MessageKind::Control, first), "OK");
        let start = Instant::now();
        let refusal = ask(
            &mut client,
            MessageKind::Control,
            "live-update\0-s\0-t\x001\0",
        );
        assert_eq!(refusal, "Transactions are open: 1 of domain 0");
        assert!(start.elapsed() >= Duration::from_secs(1));
        // Forced, it goes on without waiting for the end.
        assert_eq!(ask(&mut client, MessageKind::Control, first), "OK");
        let forced = "live-update\0-s\0-F\0";
        assert_eq!(
            ask(&mut client, MessageKind::Control, forced),
            "File not accessible."
        );
        // It goes on as soon as the last transaction ends.
        assert_eq!(ask(&mut client, MessageKind::Control, first), "OK");
        let patient = request(MessageKind::Control, 0, "live-update\0-s\0-t\x00600\0");
        client.write_all(&patient).unwrap();
        let end = request(MessageKind::TransactionEnd, open.parse().unwrap(), "T\0");
        other.write_all(&end).unwrap();
        assert_eq!(answer(&mut other), "OK");
        assert_eq!(answer(&mut client), "File not accessible.");
    });
}

#[test]
fn a_successor_serves_the_clients_that_it_finds() {
    let (theirs, mut client) = UnixStream::pair().unwrap();
    let (stop, stopped) = UnixStream::pair().unwrap();
    let read = request(MessageKind::Read, 0, "/a\0");
    let (head, tail) = read.split_at(5);
    let head = head.to_vec();
    let thread = std::thread::spawn(move || {
        let mut machine = fake();
        let mut server = Server::new(Quota::default(), false);
        let [one, gone] = [server.connect(), server.connect()];
        // Two requests whose answers have not been sent, and a part of another.
        for bytes in [
            request(MessageKind::Watch, 0, "/a\0t\0"),
            request(MessageKind::Write, 0, "/a\0x"),
            head,
        ] {
            server.take(one, &bytes, &mut machine).unwrap();
        }
        let descriptors = Descriptors {
            sockets: HashMap::from([(one, 100), (gone, 101)]),
            ..Descriptors::default()
        };
        let bytes = server.save(&descriptors).unwrap();
        let state = SavedState::parse(&bytes).unwrap();
        let restored = Server::restored(Quota::default(), false, &state, &mut machine).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("socket")).unwrap();
        let sockets = HashMap::from([(100, theirs.into())]);
        let mut daemon = Daemon::restored(restored, machine, listener, sockets).unwrap();
        daemon.run(stopped.as_fd()).unwrap();
    });
    // The answer to WATCH, the first event, the event of WRITE, which is the same and is sent once, its answer.
    let expected = ["OK", "/a\0t", "OK"];
    assert_eq!([(); 3].map(|()| answer(&mut client)), expected);
    client.write_all(tail).unwrap();
    assert_eq!(answer(&mut client), "x");
    drop(stop);
    thread.join().unwrap();
}

//! A server that is saved and restored goes on as if nothing had happened.

use std::collections::HashMap;

use mayfly_xenstore::wire::MessageKind;

use super::super::tests::{Machine, Store};
use super::super::{DomainState, Quota, Server};
use super::format::{Connection, Node, Peer, SavedState, StateFault, Watch};
use super::save::Descriptors;

/// Lets a successor of the server go on. Connections keep their numbers: each connection's is its socket's, too.
fn hand_over(store: &mut Store) {
    let ids = store.server.connections.keys().copied();
    let sockets = ids.map(|id| (id, i32::try_from(id).unwrap()));
    let descriptors = Descriptors {
        listener: 3,
        events: 4,
        sockets: sockets.collect(),
        ports: HashMap::from([(7, 70)]),
    };
    let bytes = store.server.save(&descriptors).unwrap();
    let state = SavedState::parse(&bytes).unwrap();
    assert_eq!(state.bytes().unwrap(), bytes);
    let machine = &mut store.machine;
    let restored = Server::restored(Quota::default(), false, &state, machine).unwrap();
    store.server = restored.server;
    let dom0 = i32::try_from(store.dom0).unwrap();
    let mut sockets = restored.sockets.into_iter();
    store.dom0 = sockets.find(|(_, number)| *number == dom0).unwrap().0;
}

#[test]
fn nodes_permissions_watches_and_accounts_stay() {
    let mut store = Store::new();
    let guest = store.domain(7);
    store
        .ask(guest, MessageKind::Write, 0, "data/x\x00value")
        .unwrap();
    store
        .ask(guest, MessageKind::Watch, 0, "data\0relative\0")
        .unwrap();
    store
        .dom0(MessageKind::Watch, "/local\0absolute\0")
        .unwrap();
    store
        .dom0(MessageKind::Watch, "@releaseDomain\0gone\0")
        .unwrap();
    store.dom0(MessageKind::Write, "/shared\0\x01\x02").unwrap();
    // A domain that is gone: the next one of this number must not get its rights.
    store.domain(9);
    store
        .dom0(MessageKind::SetPerms, "/shared\0n0\0r9\0r7\0")
        .unwrap();
    store.dies(9);
    store.take(store.dom0);
    let usage = store.server.domains.usage(7);

    hand_over(&mut store);
    let guest = store.server.ring(7).unwrap();
    assert_eq!(store.server.domains.usage(7).nodes, usage.nodes);
    assert_eq!(store.server.domains.usage(7).watches, 1);
    assert_eq!(
        store
            .ask(guest, MessageKind::Read, 0, "data/x\0")
            .as_deref(),
        Ok("value")
    );
    assert_eq!(
        store
            .ask(guest, MessageKind::Read, 0, "/shared\0")
            .as_deref(),
        Ok("\x01\x02")
    );
    assert_eq!(
        store.dom0(MessageKind::GetPerms, "/shared\0").as_deref(),
        Ok("n0 r9 r7")
    );
    let again = store.domain(9);
    assert!(store.ask(again, MessageKind::Read, 0, "/shared\0").is_err());

    store.take(store.dom0);
    store.post(guest, MessageKind::Write, 0, "data/x\0new");
    assert_eq!(store.take(guest).1, ["data/x relative"]);
    assert_eq!(
        store.take(store.dom0).1,
        ["/local/domain/7/data/x absolute"]
    );
    store.dies(7);
    let events = store.take(store.dom0).1;
    assert!(
        events.contains(&"@releaseDomain gone".to_owned()),
        "{events:?}"
    );
    assert!(
        store
            .dom0(MessageKind::Read, "/local/domain/7/data/x\0")
            .is_err()
    );
    store.is_right();
}

#[test]
fn requests_and_answers_on_the_way_stay() {
    let mut store = Store::new();
    let guest = store.domain(7);
    store.post(guest, MessageKind::Write, 0, "data/x\0one");
    store.post(guest, MessageKind::Read, 0, "data/x\0");
    // A part of the first answer has been sent, and a part of another request has come.
    assert!(store.server.output(guest, 1).len() > 10);
    store.server.sent(guest, 10);
    let mut request = Vec::new();
    mayfly_xenstore::wire::put(&mut request, MessageKind::Read, 9, 0, b"data/x\0");
    let (head, tail) = request.split_at(20);
    store.server.take(guest, head, &mut store.machine).unwrap();

    hand_over(&mut store);
    // Twice: what a successor has not sent goes to the next one.
    hand_over(&mut store);
    let guest = store.server.ring(7).unwrap();
    store.server.take(guest, tail, &mut store.machine).unwrap();
    let output = store.server.output(guest, 1 << 16).to_vec();
    // 16 + 3 bytes of the answer to WRITE, of which 10 were sent; then two answers to READ.
    assert_eq!(output.len(), 19 - 10 + 2 * (16 + 3));
    assert!(output.ends_with(b"one"));
    store.server.sent(guest, output.len());
    store.is_right();
    assert_eq!(store.server.domains.usage(7).outstanding, 0);
}

#[test]
fn a_pending_event_is_still_sent_once() {
    let mut store = Store::new();
    let guest = store.domain(7);
    store
        .ask(guest, MessageKind::Watch, 0, "data\0t\0")
        .unwrap();
    store
        .dom0(MessageKind::Write, "/local/domain/7/data\x001")
        .unwrap();
    hand_over(&mut store);
    let guest = store.server.ring(7).unwrap();
    store
        .dom0(MessageKind::Write, "/local/domain/7/data\x002")
        .unwrap();
    assert_eq!(store.take(guest).1, ["data t"]);
    store.is_right();
}

#[test]
fn an_update_is_prepared_started_and_answered() {
    let mut store = Store::new();
    let other = store.server.connect();
    let control = |store: &mut Store, words: &str| store.dom0(MessageKind::Control, words);
    let said = |answer: Result<String, String>| answer.unwrap();
    assert_eq!(
        said(control(&mut store, "live-update\0-s\0-t\x0060\0")),
        "Not in live-update session."
    );
    assert_eq!(said(control(&mut store, "live-update\0-f\0/new\0")), "OK");
    let again = store.ask(other, MessageKind::Control, 0, "live-update\0-f\0/x\0");
    assert_eq!(again.unwrap(), "live-update session already active.");
    assert_eq!(
        said(control(&mut store, "live-update\0-c\0-N -F /pid\0")),
        "OK"
    );
    assert!(control(&mut store, "live-update\0-s\0-t\0").is_err());
    assert!(store.server.started_update().is_none());

    store.post(
        store.dom0,
        MessageKind::Control,
        0,
        "live-update\0-s\0-t\x0060\0-F\0",
    );
    let update = store.server.started_update().unwrap();
    assert_eq!(
        (update.program.as_str(), update.patience().as_secs()),
        ("/new", 60)
    );
    assert_eq!(update.arguments.clone().unwrap(), ["-N", "-F", "/pid"]);
    assert!(update.is_forced());
    let transaction = store.start(other);
    let open = store.server.awaited(false).unwrap();
    assert!(open.contains("1 of domain 0"), "{open}");
    store.end(other, transaction).unwrap();
    assert!(store.server.awaited(true).is_none());
    // A domain that is being made: the C xenstored cannot restore its nodes.
    store.machine.0.insert(8, DomainState::default());
    store.post(other, MessageKind::Write, 0, "/new\0");
    store.post(other, MessageKind::SetPerms, 0, "/new\0n8\0");
    assert!(store.server.awaited(true).unwrap().contains("Domain 8"));
    assert!(store.server.awaited(false).is_none());
    store.domain(8);
    assert!(store.server.awaited(true).is_none());
    assert!(store.take(store.dom0).0.is_empty());

    hand_over(&mut store);
    assert_eq!(store.take(store.dom0).0, [Ok("OK".to_owned())]);
    assert!(store.server.started_update().is_none());
    // Without a successor, this server answers.
    said(control(&mut store, "live-update\0-f\0/new\0"));
    store.post(store.dom0, MessageKind::Control, 0, "live-update\0-s\0");
    store.server.refuse_update("no");
    assert_eq!(store.take(store.dom0).0, [Ok("no".to_owned())]);
    // A session ends with its connection.
    said(control(&mut store, "live-update\0-f\0/new\0"));
    store.server.disconnect(store.dom0);
    store.dom0 = store.server.connect();
    said(control(&mut store, "live-update\0-f\0/new\0"));
    assert_eq!(said(control(&mut store, "live-update\0-a\0")), "OK");
    let guest = store.domain(7);
    let refused = store.ask(guest, MessageKind::Control, 0, "live-update\0-f\0/new\0");
    assert_eq!(refused, Err("EACCES".to_owned()));
}

fn example() -> Vec<u8> {
    let mut store = Store::new();
    let guest = store.domain(7);
    store
        .ask(guest, MessageKind::Write, 0, "data/x\0value")
        .unwrap();
    store
        .ask(guest, MessageKind::Watch, 0, "data\0t\0")
        .unwrap();
    store.post(guest, MessageKind::Read, 0, "data/x\0");
    let sockets = HashMap::from([(store.dom0, 9)]);
    let descriptors = Descriptors {
        listener: 3,
        events: 4,
        sockets,
        ports: HashMap::new(),
    };
    store.server.save(&descriptors).unwrap()
}

/// The inputs that the fuzzers begin with.
#[test]
fn seeds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/seeds");
    let state = example();
    // Connection, action, length, payload: a domain comes, watches and writes, and its server hands over.
    let session = [
        &[3, 0, 0][..],
        &[0, 4 + 13, 19],
        b"/local/domain/1\0n1\0",
        &[3, 4 + 4, 7],
        b"data\0t\0",
        &[3, 4 + 11, 6],
        b"data\0x",
        &[0, 2, 0],
        &[3, 3, 20],
        &[3, 0, 5, 2, 0, 0, 0, 1],
        &[1, 4, 6],
        b"check\0",
        &[0, 1, 0],
        &[0, 1, 0],
    ];
    for (name, bytes) in [
        ("store_state/example", state),
        ("store/session", session.concat()),
    ] {
        let path = std::path::Path::new(folder).join(name);
        if std::fs::read(&path).ok().as_ref() != Some(&bytes) {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
        }
    }
}

fn restore(bytes: &[u8]) -> Result<(), StateFault> {
    let state = SavedState::parse(bytes)?;
    let mut machine = Machine::default();
    Server::restored(Quota::default(), false, &state, &mut machine).map(drop)
}

#[test]
fn a_state_that_is_cut_or_changed_is_an_error_or_a_server() {
    let bytes = example();
    restore(&bytes).unwrap();
    for length in 0..bytes.len() {
        assert!(restore(&bytes[..length]).is_err(), "{length} bytes");
    }
    let mut random = fastrand::Rng::with_seed(mayfly_seeds::seed());
    for _ in 0..20_000 {
        let mut changed = bytes.clone();
        for _ in 0..=random.usize(..4) {
            let at = random.usize(..changed.len());
            changed[at] = random.u8(..);
        }
        // It ends, and without a panic.
        let _ = restore(&changed);
    }
}

#[test]
fn contradictions_are_errors() {
    let perms = |domid| vec![(mayfly_xenstore::Perm::none(domid), false)];
    let node = |path: &'static str| Node {
        path: path.as_bytes(),
        value: b"",
        perms: perms(0),
    };
    let ring = |number| Connection {
        number,
        peer: Peer::Ring {
            domid: 7,
            target: None,
            port: 1,
        },
        input: b"",
        begun: 0,
        output: b"",
    };
    let fails = |state: &SavedState<'_>| restore(&state.bytes().unwrap()).unwrap_err();
    let nodes = |paths: &[&'static str]| SavedState {
        nodes: paths.iter().map(|path| node(path)).collect(),
        ..SavedState::default()
    };
    restore(&nodes(&["/", "/a", "/a/b"]).bytes().unwrap()).unwrap();
    for paths in [
        &["/", "/a/b"][..],
        &["/", "/a", "/a"],
        &["/", "a"],
        &["/", "/a//b"],
        &["/", "@other"],
    ] {
        assert!(
            matches!(fails(&nodes(paths)), StateFault::Bad(_)),
            "{paths:?}"
        );
    }
    let twice = |numbers: [u32; 2]| SavedState {
        connections: numbers.map(ring).into(),
        ..SavedState::default()
    };
    assert!(matches!(fails(&twice([1, 2])), StateFault::Bad(_)));
    let watch = SavedState {
        connections: vec![ring(1)],
        watches: vec![Watch {
            connection: 1,
            path: b"/a//b",
            token: b"",
        }],
        ..SavedState::default()
    };
    assert!(matches!(fails(&watch), StateFault::Bad(_)));
    let message = SavedState {
        connections: vec![Connection {
            output: &[1; 17],
            ..ring(1)
        }],
        ..SavedState::default()
    };
    assert!(matches!(fails(&message), StateFault::Bad(_)));
    let long = SavedState {
        connections: vec![Connection {
            input: &[0; 70_000],
            ..ring(1)
        }],
        ..SavedState::default()
    };
    assert!(matches!(long.bytes(), Err(StateFault::TooLong(_))));
}

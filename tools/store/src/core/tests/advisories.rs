//! Xen's security advisories about xenstored: a test for each, named by its number.
//!
//! XSA-414 was a use of a wrong pointer after a node could not be made. `xsa_415_416` takes the same path.

use super::*;

/// A domain that may not read a node gets no events of it. The same holds for the events of other domains.
#[test]
fn xsa_115() {
    let mut store = Store::new();
    let guest = store.domain(3);
    for path in ["/", "/secret", "@introduceDomain", "@releaseDomain"] {
        store
            .ask(guest, MessageKind::Watch, 0, &format!("{path}\0t\0"))
            .unwrap();
    }
    store.take(guest);
    store.dom0(MessageKind::Write, "/secret/a\x001").unwrap();
    let transaction = store.start(store.dom0);
    store
        .ask(
            store.dom0,
            MessageKind::Write,
            transaction,
            "/secret/b\x001",
        )
        .unwrap();
    store.end(store.dom0, transaction).unwrap();
    store.dom0(MessageKind::Rm, "/secret\0").unwrap();
    store.domain(4);
    store.dies(4);
    // It gets the events of nodes that it may read.
    store
        .dom0(MessageKind::Write, "/local/domain/3/x\x001")
        .unwrap();
    assert_eq!(store.take(guest).1, ["/local/domain/3/x t"]);
    store
        .dom0(MessageKind::SetPerms, "@releaseDomain\0n0\0r3\0")
        .unwrap();
    store.domain(4);
    store.dies(4);
    assert_eq!(store.take(guest).1, ["@releaseDomain t"]);
}

/// A new domain does not have the rights of an earlier domain with the same number.
#[test]
fn xsa_322() {
    let mut store = Store::new();
    store.domain(3);
    store.dom0(MessageKind::Write, "/shared\x001").unwrap();
    store
        .dom0(MessageKind::SetPerms, "/shared\0n0\0b3\0")
        .unwrap();
    store.dies(3);
    let guest = store.domain(3);
    assert_eq!(
        store.ask(guest, MessageKind::Read, 0, "/shared\0"),
        refused("EACCES")
    );
    store
        .dom0(MessageKind::SetPerms, "/shared\0n0\0b3\0")
        .unwrap();
    assert_eq!(
        store
            .ask(guest, MessageKind::Read, 0, "/shared\0")
            .as_deref(),
        Ok("1")
    );
    assert_eq!(
        store.dom0(MessageKind::SetPerms, "/shared\0n9\0"),
        refused("ENOENT")
    );
}

/// The longest path with the longest token makes an event longer than any request. A longer request ends the
/// connection.
#[test]
fn xsa_324() {
    let mut store = Store::new();
    let guest = store.domain(3);
    let path = "a".repeat(2000);
    let token = "t".repeat(2000);
    store
        .ask(guest, MessageKind::Watch, 0, &format!("{path}\0{token}\0"))
        .unwrap();
    store
        .dom0(MessageKind::Write, &format!("/local/domain/3/{path}\x001"))
        .unwrap();
    let (_, events) = store.take(guest);
    assert_eq!(events, [format!("{path} {token}")]);
    let header: Vec<u8> = [4_u32, 0, 0, 4097]
        .into_iter()
        .flat_map(u32::to_ne_bytes)
        .collect();
    assert_eq!(
        store.server.take(guest, &header, &mut store.machine),
        Err(Broken)
    );
}

/// The memory that a domain can occupy is bounded: unread answers, and events that others cause.
#[test]
fn xsa_326() {
    let mut store = Store::new();
    let guest = store.domain(3);
    for _ in 0..100 {
        store.post(guest, MessageKind::Read, 0, "domid\0");
    }
    // Beyond its quota, requests wait until it has taken some answers.
    assert!(!store.server.has_room(guest));
    assert_eq!(
        store
            .dom0(MessageKind::Control, "quota\x003\0")
            .unwrap()
            .matches("outstanding     :       20")
            .count(),
        1
    );
    let mut answers = 0;
    loop {
        answers += store.take(guest).0.len();
        store.server.take(guest, &[], &mut store.machine).unwrap();
        if !store.server.has_output(guest) {
            break;
        }
    }
    assert_eq!(answers, 100);
    // The same event waits only once.
    store.ask(guest, MessageKind::Watch, 0, "x\0t\0").unwrap();
    store.take(guest);
    for _ in 0..1000 {
        store
            .dom0(MessageKind::Write, "/local/domain/3/x\x001")
            .unwrap();
    }
    assert_eq!(store.take(guest).1.len(), 1);
    // Different events are bounded by the quota of memory.
    for index in 0..60_000 {
        store
            .dom0(
                MessageKind::Write,
                &format!("/local/domain/3/x/{index}\x001"),
            )
            .unwrap();
    }
    assert!(
        store
            .dom0(MessageKind::Control, "memreport\0")
            .unwrap()
            .contains("lost events")
    );
    assert!(store.server.connections[&guest].queued <= store.server.quota.memory);
    store.is_right();
}

/// A domain waits if it has caused too many events that others do not take, until those are forgiven.
#[test]
fn xsa_326_others_that_do_not_listen() {
    let mut store = Store::new();
    let (guest, deaf) = (store.domain(3), store.domain(4));
    store
        .dom0(MessageKind::SetPerms, "/local/domain/3\0r3\0")
        .unwrap();
    store
        .ask(deaf, MessageKind::Watch, 0, "/local/domain/3\0t\0")
        .unwrap();
    store.take(deaf);
    for index in 0..30 {
        store.post(guest, MessageKind::Write, 0, &format!("{index}\x001"));
        store.take(guest);
    }
    assert!(!store.server.has_room(guest));
    store.server.listed();
    store.server.forgive(deaf);
    assert_eq!(store.server.listed(), [guest]);
    assert!(store.server.has_room(guest));
}

/// RESET_WATCHES takes all watches and transactions off the account.
#[test]
fn xsa_330() {
    let mut store = Store::new();
    let guest = store.domain(3);
    let before = store.server.domains.usage(3);
    for _ in 0..5 {
        for index in 0..128 {
            store
                .ask(guest, MessageKind::Watch, 0, &format!("x\0{index}\0"))
                .unwrap();
        }
        assert_eq!(
            store.ask(guest, MessageKind::Watch, 0, "x\0one more\0"),
            refused("E2BIG")
        );
        let transaction = store.start(guest);
        store
            .ask(guest, MessageKind::Write, transaction, "data/x\x00value")
            .unwrap();
        store
            .ask(guest, MessageKind::ResetWatches, 0, "\0")
            .unwrap();
        assert_eq!(store.end(guest, transaction), refused("ENOENT"));
        assert_eq!(store.server.domains.usage(3), before);
    }
}

/// Only dom0 changes the owner of a node.
#[test]
fn xsa_352() {
    let mut store = Store::new();
    let guest = store.domain(3);
    store.domain(4);
    for perms in ["n4\0", "n0\0b3\0"] {
        let payload = format!("/local/domain/3\0{perms}");
        assert_eq!(
            store.ask(guest, MessageKind::SetPerms, 0, &payload),
            refused("EPERM")
        );
    }
    store.dom0(MessageKind::Write, "/shared\x001").unwrap();
    store.dom0(MessageKind::SetPerms, "/shared\0b0\0").unwrap();
    let payload = "/shared\0b3\0";
    assert_eq!(
        store.ask(guest, MessageKind::SetPerms, 0, payload),
        refused("EACCES")
    );
}

/// The permissions of the root are checked.
#[test]
fn xsa_353() {
    let mut store = Store::new();
    let guest = store.domain(3);
    assert_eq!(
        store.ask(guest, MessageKind::Write, 0, "/\x001"),
        refused("EACCES")
    );
    assert_eq!(
        store.ask(guest, MessageKind::Directory, 0, "/\0"),
        refused("EACCES")
    );
    assert_eq!(
        store.ask(guest, MessageKind::Rm, 0, "/\0"),
        refused("EACCES")
    );
    assert_eq!(
        store.ask(guest, MessageKind::SetPerms, 0, "/\0n3\0"),
        refused("EACCES")
    );
}

/// A transaction that reaches its quota can be given up, and then nothing of it is accounted any more.
#[test]
fn xsa_415_416() {
    let mut store = Store::new();
    let guest = store.domain(3);
    let before = store.server.domains.usage(3);
    let transaction = store.start(guest);
    let mut made = 0;
    while store
        .ask(
            guest,
            MessageKind::Write,
            transaction,
            &format!("{made}/x/y\x001"),
        )
        .is_ok()
    {
        made += 1;
    }
    assert_eq!(made, 333);
    let memory = store.server.domains.usage(3).memory;
    assert!(memory > before.memory);
    store
        .ask(guest, MessageKind::TransactionEnd, transaction, "F\0")
        .unwrap();
    assert_eq!(store.server.domains.usage(3), before);
    store.is_right();
}

/// The nodes of a dead domain are removed, so the next domain with its number does not get them.
#[test]
fn xsa_417() {
    let mut store = Store::new();
    let guest = store.domain(3);
    store.dom0(MessageKind::Mkdir, "/public\0").unwrap();
    store.dom0(MessageKind::SetPerms, "/public\0b0\0").unwrap();
    store
        .ask(guest, MessageKind::Write, 0, "/public/of/three\x001")
        .unwrap();
    store.dies(3);
    let guest = store.domain(3);
    assert_eq!(
        store.ask(guest, MessageKind::Read, 0, "/public/of\0"),
        refused("ENOENT")
    );
    store.is_right();
}

/// A tree as deep as the longest path allows is written, watched, checked and removed.
#[test]
fn xsa_418() {
    let mut store = Store::new();
    let guest = store.domain(3);
    store
        .dom0(MessageKind::Control, "quota\0set\0nodes\09999\0")
        .unwrap();
    let path = "a/".repeat(1023) + "a";
    store
        .ask(guest, MessageKind::Write, 0, &format!("{path}\x001"))
        .unwrap();
    store
        .ask(guest, MessageKind::Watch, 0, &format!("{path}\0t\0"))
        .unwrap();
    store.is_right();
    store.ask(guest, MessageKind::Rm, 0, "a\0").unwrap();
    store.is_right();
    store
        .ask(guest, MessageKind::Write, 0, &format!("{path}\x001"))
        .unwrap();
    store.dies(3);
    store.is_right();
}

/// A node is charged to its owner wherever it is. A transaction cannot exceed the quota.
#[test]
fn xsa_419_421() {
    let mut store = Store::new();
    let (guest, friend) = (store.domain(3), store.domain(4));
    store
        .dom0(MessageKind::SetPerms, "/local/domain/4\0b4\0")
        .unwrap();
    let transaction = store.start(guest);
    let mut made = 1;
    for index in 0.. {
        let path = format!("/local/domain/4/{index}\x001");
        let (one, id) = if index % 2 == 0 {
            (transaction, guest)
        } else {
            (0, guest)
        };
        match store.ask(id, MessageKind::Write, one, &path) {
            Ok(_) => made += 1,
            Err(code) => {
                assert_eq!(code, "ENOSPC");
                break;
            }
        }
    }
    // Each of the two ways is bounded at once, and their sum at the end of the transaction.
    let end = store.end(guest, transaction);
    assert!(made > 1000 && end == refused("ENOSPC"), "{made} {end:?}");
    assert!(store.server.domains.usage(3).nodes <= 1000);
    store.is_right();
    // When the other domain dies, its nodes go with all nodes below them, the guest's among them.
    let _ = friend;
    store.dies(4);
    store.is_right();
    assert_eq!(store.server.domains.usage(3).nodes, 1);
}

/// A number that cannot be a domain's is refused.
#[test]
fn xsa_420() {
    let mut store = Store::new();
    for number in ["-1", "65536", "4294967299", "99999999999999999999999"] {
        let payload = format!("{number}\x001\x001\0");
        assert_eq!(
            store.dom0(MessageKind::Introduce, &payload),
            refused("EINVAL")
        );
        assert_eq!(
            store.dom0(MessageKind::SetPerms, &format!("/tool\0n{number}\0")),
            refused("EINVAL")
        );
    }
    assert_eq!(
        store.dom0(MessageKind::Introduce, "3\x001\x00-1\0"),
        refused("EINVAL")
    );
    assert_eq!(
        store.dom0(MessageKind::Introduce, "3\x001\x000\0"),
        refused("EINVAL")
    );
}

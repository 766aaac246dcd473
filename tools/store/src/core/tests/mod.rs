//! Tests of the core through its interface: bytes of requests in, messages out.

mod advisories;

use std::collections::HashMap;

use mayfly_xenstore::ErrorCode;
use mayfly_xenstore::wire::{self, MessageKind};

use super::{Broken, ConnectionId, DomainState, Host, Quota, Server};

/// A fake machine. The test sets the states of its domains.
#[derive(Default)]
pub(super) struct Machine(pub(super) HashMap<u16, DomainState>);

impl Host for Machine {
    fn state(&mut self, domid: u16) -> Option<DomainState> {
        self.0.get(&domid).copied()
    }
    fn attach(&mut self, domid: u16, _: u64, _: u32) -> Result<(), ErrorCode> {
        self.0.get(&domid).map(drop).ok_or(ErrorCode::EINVAL)
    }
    fn adopt(&mut self, _: u16, _: u32) {}
    fn attach_again(&mut self, _: u16, _: u32) {}
    fn detach(&mut self, _: u16) {}
}

pub(super) struct Store {
    pub(super) server: Server,
    pub(super) machine: Machine,
    pub(super) dom0: ConnectionId,
}

/// An answer's payload, or an error's name.
pub(super) type Answer = Result<String, String>;

impl Store {
    pub(super) fn new() -> Self {
        Self::with(Quota::default())
    }

    fn with(quota: Quota) -> Self {
        let mut server = Server::new(quota, false);
        let dom0 = server.connect();
        let machine = Machine(HashMap::from([(0, DomainState::default())]));
        Self {
            server,
            machine,
            dom0,
        }
    }

    /// A new domain with a home of its own.
    pub(super) fn domain(&mut self, domid: u16) -> ConnectionId {
        self.machine.0.insert(domid, DomainState::default());
        self.dom0(MessageKind::Introduce, &format!("{domid}\x001\x001\0"))
            .unwrap();
        let home = format!("/local/domain/{domid}");
        self.dom0(MessageKind::Mkdir, &format!("{home}\0")).unwrap();
        self.dom0(MessageKind::SetPerms, &format!("{home}\0n{domid}\0"))
            .unwrap();
        self.server.ring(domid).unwrap()
    }

    pub(super) fn dies(&mut self, domid: u16) {
        self.machine.0.remove(&domid);
        self.server.check_domains(&mut self.machine);
    }

    pub(super) fn post(
        &mut self,
        id: ConnectionId,
        kind: MessageKind,
        transaction: u32,
        payload: &str,
    ) {
        let mut bytes = Vec::new();
        wire::put_message(
            &mut bytes,
            [kind as u32, 7, transaction],
            payload.as_bytes(),
        );
        self.server.take(id, &bytes, &mut self.machine).unwrap();
    }

    /// Takes the messages of a connection: answers, and events as `path token`.
    pub(super) fn take(&mut self, id: ConnectionId) -> (Vec<Answer>, Vec<String>) {
        let (mut answers, mut events) = (Vec::new(), Vec::new());
        loop {
            let bytes = self.server.output(id, 4096).to_vec();
            if bytes.is_empty() {
                return (answers, events);
            }
            self.server.sent(id, bytes.len());
            let mut rest = bytes.as_slice();
            while let Some(length) = wire::length(rest) {
                let text = String::from_utf8_lossy(&rest[wire::HEADER..length]);
                let text = text.trim_end_matches('\0').replace('\0', " ");
                match rest[0] {
                    15 => events.push(text),
                    16 => answers.push(Err(text)),
                    _ => answers.push(Ok(text)),
                }
                rest = &rest[length..];
            }
        }
    }

    pub(super) fn ask(
        &mut self,
        id: ConnectionId,
        kind: MessageKind,
        transaction: u32,
        payload: &str,
    ) -> Answer {
        self.post(id, kind, transaction, payload);
        self.take(id).0.pop().unwrap()
    }

    pub(super) fn dom0(&mut self, kind: MessageKind, payload: &str) -> Answer {
        self.ask(self.dom0, kind, 0, payload)
    }

    pub(super) fn start(&mut self, id: ConnectionId) -> u32 {
        let number = self.ask(id, MessageKind::TransactionStart, 0, "\0");
        number.unwrap().parse().unwrap()
    }

    pub(super) fn end(&mut self, id: ConnectionId, transaction: u32) -> Answer {
        self.ask(id, MessageKind::TransactionEnd, transaction, "T\0")
    }

    pub(super) fn is_right(&mut self) {
        assert_eq!(
            self.dom0(MessageKind::Control, "check\0").as_deref(),
            Ok("OK")
        );
    }
}

fn refused<T>(code: &str) -> Result<T, String> {
    Err(code.to_owned())
}

#[test]
fn nodes_come_and_go() {
    let mut store = Store::new();
    store.dom0(MessageKind::Write, "/a/b/c\0one").unwrap();
    assert_eq!(
        store.dom0(MessageKind::Read, "/a/b/c\0").as_deref(),
        Ok("one")
    );
    assert_eq!(store.dom0(MessageKind::Read, "/a/b\0").as_deref(), Ok(""));
    assert_eq!(
        store.dom0(MessageKind::Directory, "/\0").as_deref(),
        Ok("a tool")
    );
    assert_eq!(store.dom0(MessageKind::Rm, "/a/x\0").as_deref(), Ok("OK"));
    assert_eq!(store.dom0(MessageKind::Rm, "/x/y\0"), refused("ENOENT"));
    assert_eq!(store.dom0(MessageKind::Rm, "/\0"), refused("EINVAL"));
    assert_eq!(store.dom0(MessageKind::Rm, "/a\0").as_deref(), Ok("OK"));
    assert_eq!(store.dom0(MessageKind::Read, "/a/b/c\0"), refused("ENOENT"));
    // A path without its NUL; nothing at all.
    assert_eq!(store.dom0(MessageKind::Read, "/a"), refused("EINVAL"));
    assert_eq!(store.dom0(MessageKind::Write, ""), refused("EINVAL"));
}

#[test]
fn a_long_list_comes_in_parts() {
    let mut store = Store::new();
    for index in 0..400 {
        let path = format!("/list/{index:0>30}\0");
        store.dom0(MessageKind::Mkdir, &path).unwrap();
    }
    assert_eq!(
        store.dom0(MessageKind::Directory, "/list\0"),
        refused("E2BIG")
    );
    let (mut names, mut rounds) = (0, 0);
    loop {
        let asked = format!("/list\0{}\0", names * 31);
        store.post(store.dom0, MessageKind::DirectoryPart, 0, &asked);
        let bytes = store.server.output(store.dom0, 9999).to_vec();
        store.server.sent(store.dom0, bytes.len());
        assert!(bytes.len() <= wire::HEADER + wire::PAYLOAD_MAX);
        let mut parts = bytes[wire::HEADER..].split(|byte| *byte == 0);
        assert!(parts.next().unwrap().iter().all(u8::is_ascii_digit));
        let parts: Vec<&[u8]> = parts.collect();
        names += parts.iter().filter(|name| name.len() == 30).count();
        rounds += 1;
        if bytes.ends_with(b"\0\0") {
            break;
        }
    }
    assert_eq!((names, rounds), (400, 4));
}

#[test]
fn a_commit_meets_only_what_it_has_seen() {
    let mut store = Store::new();
    store.dom0(MessageKind::Write, "/a\x001").unwrap();
    store.dom0(MessageKind::Write, "/b\x001").unwrap();
    let other = store.server.connect();
    // A value that it has read has changed.
    let transaction = store.start(other);
    store
        .ask(other, MessageKind::Read, transaction, "/a\0")
        .unwrap();
    store
        .ask(other, MessageKind::Write, transaction, "/mine\x001")
        .unwrap();
    store.dom0(MessageKind::Write, "/a\x002").unwrap();
    assert_eq!(store.end(other, transaction), refused("EAGAIN"));
    assert_eq!(store.dom0(MessageKind::Read, "/mine\0"), refused("ENOENT"));
    // Other nodes may change: beside it, below it, above it.
    let transaction = store.start(other);
    store
        .ask(other, MessageKind::Read, transaction, "/a\0")
        .unwrap();
    store
        .ask(other, MessageKind::Write, transaction, "/mine/deep\x001")
        .unwrap();
    store.dom0(MessageKind::Write, "/b\x002").unwrap();
    store.dom0(MessageKind::Write, "/a/below\x002").unwrap();
    store.dom0(MessageKind::Write, "/mine/other\x002").unwrap();
    assert_eq!(store.end(other, transaction).as_deref(), Ok("OK"));
    assert_eq!(
        store.dom0(MessageKind::Directory, "/mine\0").as_deref(),
        Ok("deep other")
    );
    // A list that was read has changed.
    let transaction = store.start(other);
    store
        .ask(other, MessageKind::Directory, transaction, "/mine\0")
        .unwrap();
    store.dom0(MessageKind::Mkdir, "/mine/more\0").unwrap();
    assert_eq!(store.end(other, transaction), refused("EAGAIN"));
    // A node that was missing exists now.
    let transaction = store.start(other);
    let nothing = store.ask(other, MessageKind::Read, transaction, "/new\0");
    assert_eq!(nothing, refused("ENOENT"));
    store.dom0(MessageKind::Mkdir, "/new\0").unwrap();
    assert_eq!(store.end(other, transaction), refused("EAGAIN"));
    assert_eq!(store.end(other, transaction), refused("ENOENT"));
    // A change without effect in the transaction has none in the commit.
    let transaction = store.start(other);
    store
        .ask(other, MessageKind::Rm, transaction, "/later\0")
        .unwrap();
    store.dom0(MessageKind::Mkdir, "/later\0").unwrap();
    assert_eq!(store.end(other, transaction), refused("EAGAIN"));
    assert_eq!(store.dom0(MessageKind::Read, "/later\0").as_deref(), Ok(""));
}

#[test]
fn a_transaction_sees_what_was_and_tells_nobody_before_its_end() {
    let mut store = Store::new();
    store.dom0(MessageKind::Watch, "/a\0token\0").unwrap();
    let other = store.server.connect();
    let transaction = store.start(other);
    store
        .ask(other, MessageKind::Write, transaction, "/a/b\x001")
        .unwrap();
    store
        .ask(other, MessageKind::Write, transaction, "/a/b\x002")
        .unwrap();
    assert_eq!(store.dom0(MessageKind::Read, "/a/b\0"), refused("ENOENT"));
    assert_eq!(store.take(store.dom0).1, [""; 0]);
    store.end(other, transaction).unwrap();
    assert_eq!(store.take(store.dom0).1, ["/a/b token"]);
}

#[test]
fn a_removal_is_told_where_it_is_watched() {
    let mut store = Store::new();
    store.dom0(MessageKind::Write, "/a/b/c\x001").unwrap();
    let other = store.server.connect();
    for path in ["/a", "/a/b/c", "/a/b/nothing"] {
        store
            .ask(other, MessageKind::Watch, 0, &format!("{path}\0t\0"))
            .unwrap();
    }
    store.take(other);
    store.dom0(MessageKind::Rm, "/a\0").unwrap();
    assert_eq!(store.take(other).1, ["/a/b/c t", "/a t"]);
}

#[test]
fn domains_are_told_of_as_they_come_shut_down_and_go() {
    let mut store = Store::new();
    let other = store.server.connect();
    store
        .ask(other, MessageKind::Watch, 0, "@introduceDomain\0i\0")
        .unwrap();
    store
        .ask(other, MessageKind::Watch, 0, "@releaseDomain\0r\0")
        .unwrap();
    store.take(other);
    store.domain(3);
    assert_eq!(store.take(other).1, ["@introduceDomain i"]);
    let state = DomainState {
        is_shutdown: true,
        is_dying: false,
    };
    store.machine.0.insert(3, state);
    store.server.check_domains(&mut store.machine);
    store.server.check_domains(&mut store.machine);
    assert_eq!(store.take(other).1, ["@releaseDomain r"]);
    store.dom0(MessageKind::Resume, "3\0").unwrap();
    store.server.check_domains(&mut store.machine);
    assert_eq!(store.take(other).1, ["@releaseDomain r"]);
    assert_eq!(
        store
            .dom0(MessageKind::IsDomainIntroduced, "3\0")
            .as_deref(),
        Ok("T")
    );
    store.dies(3);
    assert_eq!(store.take(other).1, ["@releaseDomain r"]);
    assert_eq!(
        store
            .dom0(MessageKind::IsDomainIntroduced, "3\0")
            .as_deref(),
        Ok("F")
    );
    // Its nodes are gone.
    assert_eq!(
        store.dom0(MessageKind::Read, "/local/domain/3\0"),
        refused("ENOENT")
    );
    assert_eq!(store.dom0(MessageKind::Release, "3\0"), refused("ENOENT"));
    assert_eq!(store.dom0(MessageKind::Release, "0\0"), refused("EINVAL"));
}

#[test]
fn a_commit_tells_who_may_read_the_node_after_it() {
    let mut store = Store::new();
    let guest = store.domain(3);
    store.dom0(MessageKind::Write, "/secret\0").unwrap();
    store
        .ask(guest, MessageKind::Watch, 0, "/secret\0t\0")
        .unwrap();
    let transaction = store.start(store.dom0);
    for (kind, payload) in [
        (MessageKind::Write, "/secret\0x"),
        (MessageKind::SetPerms, "/secret\0n0\0r3\0"),
    ] {
        store.ask(store.dom0, kind, transaction, payload).unwrap();
    }
    store.end(store.dom0, transaction).unwrap();
    assert_eq!(store.take(guest).1, ["/secret t"]);
    assert_eq!(
        store
            .ask(guest, MessageKind::Read, 0, "/secret\0")
            .as_deref(),
        Ok("x")
    );
}

#[test]
fn a_domain_may_not_do_what_is_for_dom0() {
    let mut store = Store::new();
    let guest = store.domain(3);
    for kind in [
        MessageKind::Control,
        MessageKind::Introduce,
        MessageKind::Release,
        MessageKind::Resume,
        MessageKind::SetTarget,
        MessageKind::IsDomainIntroduced,
    ] {
        assert_eq!(
            store.ask(guest, kind, 0, "1\x002\x003\0"),
            refused("EACCES")
        );
    }
    assert_eq!(
        store.ask(guest, MessageKind::Write, 0, "/new\0"),
        refused("EACCES")
    );
    assert_eq!(
        store.ask(guest, MessageKind::Read, 0, "/tool\0"),
        refused("EACCES")
    );
    // It does not even learn which nodes exist.
    assert_eq!(
        store.ask(guest, MessageKind::Read, 0, "/none\0"),
        refused("EACCES")
    );
    assert_eq!(
        store
            .ask(guest, MessageKind::Write, 0, "data/x\x001")
            .as_deref(),
        Ok("OK")
    );
    store.is_right();
}

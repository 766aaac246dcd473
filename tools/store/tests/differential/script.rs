//! The random requests of a run, from one seed.

use std::collections::HashMap;

use mayfly_xenstore::wire::MessageKind;

use crate::Message;

/// The number of connections over the socket.
pub(crate) const SOCKETS: usize = 2;
/// The number of domains with rings, whose numbers begin at 1.
pub(crate) const RINGS: usize = 4;

/// A request.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) connection: usize,
    pub(crate) kind: u32,
    /// The index among the connection's open transactions, oldest first.
    transaction: Option<usize>,
    pub(crate) payload: Vec<u8>,
}

#[derive(Clone)]
pub(crate) enum Round {
    Ask(Ask),
    Domain {
        domid: u16,
        state: u8,
    },
    /// Both daemons hand their state over to a successor.
    Succession,
}

impl Ask {
    pub(crate) fn is_commit(&self) -> bool {
        self.kind == MessageKind::TransactionEnd as u32 && self.payload == b"T\0"
    }

    /// Returns the same request, but the transaction is given up instead of committed.
    pub(crate) fn given_up(&self) -> Self {
        Self {
            payload: b"F\0".to_vec(),
            ..self.clone()
        }
    }
}

impl std::fmt::Debug for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ask(Ask {
                connection,
                kind,
                transaction,
                payload,
            }) => {
                let kind = MessageKind::of(*kind);
                let payload = payload.escape_ascii();
                write!(f, "{connection} {kind:?} {transaction:?} {payload}")
            }
            Self::Succession => f.write_str("succession"),
            Self::Domain { domid, state } => write!(f, "domain {domid} gets {state}"),
        }
    }
}

/// An open transaction.
#[derive(Clone, Default)]
struct Open {
    ours: u32,
    theirs: u32,
    differs: bool,
    /// Its changes so far.
    edits: Vec<Ask>,
}

pub(crate) struct Script {
    random: fastrand::Rng,
    /// Whether domains come, send requests and go. With oxenstored only dom0's requests are compared: its treatment of
    /// dead domains and its quotas differ from the C xenstored's in most cases.
    has_domains: bool,
    /// The state of each domain: 0 missing, 1 made, 2 introduced, 3 introduced and shut down.
    domains: [u8; RINGS],
    /// Open transactions of each connection.
    open: HashMap<usize, Vec<Open>>,
    /// Whether there are successions.
    pub(crate) has_successors: bool,
}

impl Script {
    pub(crate) fn new(seed: u64, kind: crate::daemon::Kind) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            has_domains: kind == crate::daemon::Kind::C,
            domains: [0; RINGS],
            open: HashMap::new(),
            has_successors: false,
        }
    }

    fn pick<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[self.random.usize(..all.len())]
    }

    fn path(&mut self) -> String {
        // oxenstored lets dom0 remove the root.
        if self.has_domains && self.random.u8(..100) == 0 {
            return self
                .pick(&["/", "", "//", "/a/", "a b", "/a//b"])
                .to_owned();
        }
        let domid = self.random.usize(1..=RINGS).to_string();
        let home = format!("/local/domain/{domid}");
        let top = match self.random.u8(..6) {
            0 => "/a",
            1 => "/b",
            2 | 3 => &home,
            4 => "/local/domain/0/backend",
            _ => "",
        };
        let mut path = top.to_owned();
        for _ in 0..self.random.u8(..4) {
            let name = self.pick(&["a", "b", "c"]);
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(name);
        }
        if path.is_empty() {
            "x".to_owned()
        } else {
            path
        }
    }

    fn perms(&mut self) -> String {
        let mut text = String::new();
        for index in 0..self.random.usize(1..4) {
            let letter = self.pick(&["n", "r", "w", "b"]);
            // The owner exists most of the time.
            let domid = match (index, self.random.u8(..4)) {
                (0, 0) => 0,
                _ if !self.has_domains => 0,
                _ => self.random.usize(..=RINGS),
            };
            text += &format!("{letter}{domid}\0");
        }
        if self.random.u8(..200) == 0 {
            text += "x1\0";
        }
        text
    }

    fn tree(&mut self) -> (MessageKind, Vec<u8>) {
        let path = self.path();
        let (kind, rest) = match self.random.u8(..20) {
            0..=4 => {
                let value = "v".repeat(self.random.usize(..20)) + self.pick(&["1", "2", "3"]);
                (MessageKind::Write, value)
            }
            5..=7 => (MessageKind::Read, String::new()),
            8..=9 => (MessageKind::Mkdir, String::new()),
            10 => (MessageKind::Rm, String::new()),
            11..=12 => (MessageKind::Directory, String::new()),
            // oxenstored does not know this request.
            13 if self.has_domains => (MessageKind::DirectoryPart, "0\0".to_owned()),
            13 => (MessageKind::Directory, String::new()),
            14..=15 => (MessageKind::GetPerms, String::new()),
            16..=17 => (MessageKind::SetPerms, self.perms()),
            18 => (
                MessageKind::Watch,
                self.pick(&["t\0", "u\0", "v w\0"]).to_owned(),
            ),
            _ => (
                MessageKind::Unwatch,
                self.pick(&["t\0", "u\0", "v w\0"]).to_owned(),
            ),
        };
        // When a domain that owns the root dies, the C xenstored removes the whole tree.
        let kind = match kind {
            MessageKind::SetPerms if path == "/" => {
                return (MessageKind::GetPerms, b"/\0".to_vec());
            }
            kind => kind,
        };
        let watches =
            matches!(kind, MessageKind::Watch | MessageKind::Unwatch) && self.random.u8(..8) == 0;
        let path = match watches {
            true => self
                .pick(&["@introduceDomain", "@releaseDomain"])
                .to_owned(),
            false => path,
        };
        (kind, format!("{path}\0{rest}").into_bytes())
    }

    fn other(&mut self, connection: usize) -> (MessageKind, Vec<u8>) {
        let domid = self.random.usize(..=RINGS + 1);
        let text = format!("{domid}\0");
        let kinds = [
            MessageKind::GetDomainPath,
            MessageKind::IsDomainIntroduced,
            MessageKind::Resume,
            MessageKind::ResetWatches,
            MessageKind::Introduce,
            MessageKind::SetTarget,
        ];
        let kind = kinds[self.random.usize(..kinds.len())];
        let payload = match kind {
            // dom0 introduces only domains that the script has made.
            MessageKind::Introduce => return (MessageKind::Introduce, b"1\0".to_vec()),
            MessageKind::SetTarget if connection < SOCKETS => {
                return (MessageKind::SetTarget, b"9\x001\0".to_vec());
            }
            MessageKind::SetTarget => format!("{domid}\x001\0"),
            MessageKind::ResetWatches => "\0".to_owned(),
            _ => text,
        };
        (kind, payload.into_bytes())
    }

    fn change_domain(&mut self) -> Round {
        let index = self.random.usize(..RINGS);
        let domid = index as u16 + 1;
        let (state, next) = match self.domains[index] {
            0 => (1, 1),
            1 => {
                self.domains[index] = 2;
                self.open.remove(&(SOCKETS + index));
                return Round::Ask(Ask {
                    connection: 0,
                    kind: MessageKind::Introduce as u32,
                    transaction: None,
                    payload: format!("{domid}\x005\x007\0").into_bytes(),
                });
            }
            // No domain dies while transactions are open: the C xenstored then fails a transaction that has touched its
            // nodes with ENOMEM, or mixes nodes of both trees.
            2 | 3 if self.open.values().any(|open| !open.is_empty()) => (2, 3),
            2 if self.random.bool() => (2, 3),
            _ => {
                self.open.remove(&(SOCKETS + index));
                (0, 0)
            }
        };
        self.domains[index] = next;
        Round::Domain { domid, state }
    }

    pub(crate) fn next(&mut self) -> Round {
        let has_open = self.open.values().any(|open| !open.is_empty());
        // The C xenstored cannot restore the nodes of a domain that is not introduced.
        let has_new = self.domains.contains(&1);
        if self.has_successors && !has_open && !has_new && self.random.u16(..50) == 0 {
            return Round::Succession;
        }
        if self.has_domains && self.random.u8(..60) == 0 {
            return self.change_domain();
        }
        let there: Vec<usize> = (0..SOCKETS + RINGS)
            .filter(|connection| *connection < SOCKETS || self.domains[connection - SOCKETS] >= 2)
            .collect();
        let connection = there[self.random.usize(..there.len())];
        let open = self.open.get(&connection).map_or(0, Vec::len);
        let mut transaction = None;
        if open > 0 && self.random.u8(..3) > 0 {
            transaction = Some(self.random.usize(..open));
        }
        let (kind, payload) = match self.random.u8(..40) {
            0 if self.has_domains => self.other(connection),
            1 | 2 if open < 4 => {
                transaction = None;
                (MessageKind::TransactionStart, b"\0".to_vec())
            }
            3..=6 if open > 0 => {
                transaction = Some(self.random.usize(..open));
                let end: &[u8] = if self.random.u8(..5) == 0 {
                    b"F\0"
                } else {
                    b"T\0"
                };
                (MessageKind::TransactionEnd, end.to_vec())
            }
            _ => self.tree(),
        };
        if matches!(kind, MessageKind::Watch | MessageKind::Unwatch) {
            transaction = None;
        }
        let mut kind = kind;
        let may_do_nothing = matches!(kind, MessageKind::Mkdir | MessageKind::Rm);
        if !self.has_domains && transaction.is_some() && may_do_nothing {
            // oxenstored's transaction forgets a change without effect. Ours and the C xenstored's has seen the node.
            kind = MessageKind::Read;
        }
        let ask = Ask {
            connection,
            kind: kind as u32,
            transaction,
            payload,
        };
        let differs = self.open_of(&ask).is_some_and(|open| open.differs);
        Round::Ask(match differs && kind == MessageKind::TransactionEnd {
            true => ask.given_up(),
            false => ask,
        })
    }

    /// The transaction of a request.
    fn open_of(&self, ask: &Ask) -> Option<&Open> {
        self.open.get(&ask.connection)?.get(ask.transaction?)
    }

    /// Returns the numbers of a request's transaction: ours and theirs.
    pub(crate) fn transaction(&self, ask: &Ask) -> (u32, u32) {
        let open = self.open_of(ask);
        open.map_or((0, 0), |open| (open.ours, open.theirs))
    }

    /// Returns the changes of the transaction that a request ends.
    pub(crate) fn edits(&self, ask: &Ask) -> Vec<Ask> {
        let open = self.open_of(ask);
        open.map(|open| open.edits.clone()).unwrap_or_default()
    }

    /// Notes that the peers have seen different trees in a transaction, which is given up later. Returns `false` if the
    /// round is in no transaction.
    pub(crate) fn differs(&mut self, round: &Round) -> bool {
        let Round::Ask(Ask {
            connection,
            transaction: Some(at),
            ..
        }) = round
        else {
            return false;
        };
        let open = self.open.get_mut(connection);
        let open = open.and_then(|open| open.get_mut(*at));
        open.map(|open| open.differs = true).is_some()
    }

    pub(crate) fn answered(&mut self, ask: &Ask, ours: &[Message], theirs: &[Message]) {
        let open = self.open.entry(ask.connection).or_default();
        let is_answer = |(kind, _): &Message| *kind == ask.kind;
        if ask.kind == MessageKind::TransactionStart as u32 {
            let number = |messages: &[Message]| {
                let (_, payload) = messages.iter().find(|message| is_answer(message))?;
                let text = std::str::from_utf8(payload).ok()?;
                text.trim_end_matches('\0').parse().ok()
            };
            open.extend(number(ours).zip(number(theirs)).map(|(ours, theirs)| Open {
                ours,
                theirs,
                ..Open::default()
            }));
        }
        let edits = [
            MessageKind::Write,
            MessageKind::Mkdir,
            MessageKind::Rm,
            MessageKind::SetPerms,
        ];
        if let Some(open) = ask.transaction.and_then(|at| open.get_mut(at))
            && edits.into_iter().any(|edit| ask.kind == edit as u32)
            && ours.iter().any(is_answer)
        {
            open.edits.push(Ask {
                transaction: None,
                ..ask.clone()
            });
        }
        if ask.kind == MessageKind::TransactionEnd as u32 {
            open.remove(ask.transaction.unwrap());
        }
        if ask.kind == MessageKind::ResetWatches as u32 {
            open.clear();
        }
    }
}

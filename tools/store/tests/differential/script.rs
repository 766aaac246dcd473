//! What is asked: random, and from one seed.

use std::collections::HashMap;

use mayfly_xenstore::wire::Kind;

use crate::Message;

/// Connections by the socket.
pub(crate) const SOCKETS: usize = 2;
/// Domains with rings: 1 and up.
pub(crate) const RINGS: usize = 4;

#[derive(Clone)]
pub(crate) enum Round {
    Ask {
        connection: usize,
        kind: u32,
        /// Which of the connection's transactions, counted from its oldest.
        transaction: Option<usize>,
        payload: Vec<u8>,
    },
    Domain {
        domid: u16,
        state: u8,
    },
}

impl Round {
    pub(crate) fn is_commit(&self) -> bool {
        matches!(self, Self::Ask { kind, payload, .. }
            if *kind == Kind::TransactionEnd as u32 && payload == b"T\0")
    }

    /// The same, but a commit's transaction is given up.
    pub(crate) fn given_up(&self) -> Self {
        let mut this = self.clone();
        if let Self::Ask { payload, .. } = &mut this {
            *payload = b"F\0".to_vec();
        }
        this
    }
}

impl std::fmt::Debug for Round {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ask {
                connection,
                kind,
                transaction,
                payload,
            } => {
                let kind = Kind::of(*kind);
                let payload = payload.escape_ascii();
                write!(f, "{connection} {kind:?} {transaction:?} {payload}")
            }
            Self::Domain { domid, state } => write!(f, "domain {domid} gets {state}"),
        }
    }
}

/// A transaction: its numbers, and whether the two have come to differ.
#[derive(Clone, Default)]
struct Open {
    ours: u32,
    theirs: u32,
    differs: bool,
    /// What it changes.
    edits: Vec<Round>,
}

pub(crate) struct Script {
    random: fastrand::Rng,
    /// Whether domains come, ask and go. Of oxenstored only what dom0 asks for is compared: what it does for domains that are gone, and
    /// what it calls a bound, differs from the C xenstored's throughout.
    has_domains: bool,
    /// 0 not there, 1 there, 2 introduced, 3 introduced and shut down.
    domains: [u8; RINGS],
    /// Open transactions of each connection.
    open: HashMap<usize, Vec<Open>>,
}

impl Script {
    pub(crate) fn new(seed: u64, kind: crate::daemon::Kind) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            has_domains: kind == crate::daemon::Kind::C,
            domains: [0; RINGS],
            open: HashMap::new(),
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
            // The owner is most often one that is there.
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

    fn tree(&mut self) -> (Kind, Vec<u8>) {
        let path = self.path();
        let (kind, rest) = match self.random.u8(..20) {
            0..=4 => {
                let value = "v".repeat(self.random.usize(..20)) + self.pick(&["1", "2", "3"]);
                (Kind::Write, value)
            }
            5..=7 => (Kind::Read, String::new()),
            8..=9 => (Kind::Mkdir, String::new()),
            10 => (Kind::Rm, String::new()),
            11..=12 => (Kind::Directory, String::new()),
            // oxenstored has none.
            13 if self.has_domains => (Kind::DirectoryPart, "0\0".to_owned()),
            13 => (Kind::Directory, String::new()),
            14..=15 => (Kind::GetPerms, String::new()),
            16..=17 => (Kind::SetPerms, self.perms()),
            18 => (Kind::Watch, self.pick(&["t\0", "u\0", "v w\0"]).to_owned()),
            _ => (
                Kind::Unwatch,
                self.pick(&["t\0", "u\0", "v w\0"]).to_owned(),
            ),
        };
        // A domain that owns the root takes all of the C xenstored's tree with it when it dies.
        let kind = match kind {
            Kind::SetPerms if path == "/" => return (Kind::GetPerms, b"/\0".to_vec()),
            kind => kind,
        };
        let watches = matches!(kind, Kind::Watch | Kind::Unwatch) && self.random.u8(..8) == 0;
        let path = match watches {
            true => self
                .pick(&["@introduceDomain", "@releaseDomain"])
                .to_owned(),
            false => path,
        };
        (kind, format!("{path}\0{rest}").into_bytes())
    }

    fn other(&mut self, connection: usize) -> (Kind, Vec<u8>) {
        let domid = self.random.usize(..=RINGS + 1);
        let text = format!("{domid}\0");
        let kinds = [
            Kind::GetDomainPath,
            Kind::IsDomainIntroduced,
            Kind::Resume,
            Kind::ResetWatches,
            Kind::Introduce,
            Kind::SetTarget,
        ];
        let kind = kinds[self.random.usize(..kinds.len())];
        let payload = match kind {
            // dom0 introduces only whom the script has made.
            Kind::Introduce => return (Kind::Introduce, b"1\0".to_vec()),
            Kind::SetTarget if connection < SOCKETS => {
                return (Kind::SetTarget, b"9\x001\0".to_vec());
            }
            Kind::SetTarget => format!("{domid}\x001\0"),
            Kind::ResetWatches => "\0".to_owned(),
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
                return Round::Ask {
                    connection: 0,
                    kind: Kind::Introduce as u32,
                    transaction: None,
                    payload: format!("{domid}\x005\x007\0").into_bytes(),
                };
            }
            // What the C xenstored does to a transaction that has touched nodes of a domain that dies is no model: ENOMEM, and nodes
            // of both trees.
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
                (Kind::TransactionStart, b"\0".to_vec())
            }
            3..=6 if open > 0 => {
                transaction = Some(self.random.usize(..open));
                let end: &[u8] = if self.random.u8(..5) == 0 {
                    b"F\0"
                } else {
                    b"T\0"
                };
                (Kind::TransactionEnd, end.to_vec())
            }
            _ => self.tree(),
        };
        if matches!(kind, Kind::Watch | Kind::Unwatch) {
            transaction = None;
        }
        let mut kind = kind;
        let may_do_nothing = matches!(kind, Kind::Mkdir | Kind::Rm);
        if !self.has_domains && transaction.is_some() && may_do_nothing {
            // What does nothing is nothing to oxenstored. To ours and the C xenstored the node was seen.
            kind = Kind::Read;
        }
        self.settled(Round::Ask {
            connection,
            kind: kind as u32,
            transaction,
            payload,
        })
    }

    /// The numbers of a request's transaction, ours and theirs.
    pub(crate) fn transaction(&self, round: &Round) -> (u32, u32) {
        let Round::Ask {
            connection,
            transaction,
            ..
        } = round
        else {
            return (0, 0);
        };
        let open = self.open.get(connection);
        let number = transaction.and_then(|at| open?.get(at));
        number.map_or((0, 0), |open| (open.ours, open.theirs))
    }

    /// What the transaction changes that a round ends.
    pub(crate) fn edits(&self, round: &Round) -> Vec<Round> {
        let Round::Ask {
            connection,
            transaction: Some(at),
            ..
        } = round
        else {
            return Vec::new();
        };
        let open = self.open.get(connection).and_then(|open| open.get(*at));
        open.map(|open| open.edits.clone()).unwrap_or_default()
    }

    /// The two have seen different trees in a transaction: it will be given up.
    pub(crate) fn differs(&mut self, round: &Round) -> bool {
        let Round::Ask {
            connection,
            transaction: Some(at),
            ..
        } = round
        else {
            return false;
        };
        let open = self
            .open
            .get_mut(connection)
            .and_then(|open| open.get_mut(*at));
        open.map(|open| open.differs = true).is_some()
    }

    /// The round, or if it ends a transaction in which the two differ, that it is given up.
    fn settled(&self, round: Round) -> Round {
        let Round::Ask {
            connection,
            kind,
            transaction: Some(at),
            ..
        } = &round
        else {
            return round;
        };
        let differs = self
            .open
            .get(connection)
            .is_some_and(|open| open[*at].differs);
        match differs && *kind == Kind::TransactionEnd as u32 {
            true => round.given_up(),
            false => round,
        }
    }

    pub(crate) fn answered(&mut self, round: &Round, ours: &[Message], theirs: &[Message]) {
        let Round::Ask {
            connection,
            kind,
            transaction,
            ..
        } = round
        else {
            return;
        };
        let open = self.open.entry(*connection).or_default();
        if *kind == Kind::TransactionStart as u32 {
            let number = |messages: &[Message]| {
                let (_, payload) = messages.iter().find(|(answer, _)| answer == kind)?;
                std::str::from_utf8(payload)
                    .ok()?
                    .trim_end_matches('\0')
                    .parse()
                    .ok()
            };
            open.extend(number(ours).zip(number(theirs)).map(|(ours, theirs)| Open {
                ours,
                theirs,
                ..Open::default()
            }));
        }
        let edits = [Kind::Write, Kind::Mkdir, Kind::Rm, Kind::SetPerms];
        if let Some(open) = transaction.and_then(|at| open.get_mut(at))
            && edits.into_iter().any(|edit| *kind == edit as u32)
            && ours.iter().any(|(answer, _)| answer == kind)
        {
            let mut edit = round.clone();
            if let Round::Ask { transaction, .. } = &mut edit {
                *transaction = None;
            }
            open.edits.push(edit);
        }
        if *kind == Kind::TransactionEnd as u32 {
            open.remove(transaction.unwrap());
        }
        if *kind == Kind::ResetWatches as u32 {
            open.clear();
        }
    }
}

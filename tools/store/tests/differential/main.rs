//! Sends the same random requests to our daemon and to Debian's C xenstored and oxenstored, and compares the messages.
//! Debian's daemons run without Xen, over `tests/oracle/standin.c`.
//!
//! ```console
//! $ cargo test -p mayfly-store --test differential -- --ignored
//! ```
//!
//! The test needs a C compiler and Debian's packages, which the lab unpacks. `MAYFLY_SEED` changes the requests,
//! `MAYFLY_SCALE` the number of runs. `allow.rs` has the allowed differences, each with its reason.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that cannot go on fails"
)]
#![allow(clippy::cast_possible_truncation, reason = "small numbers of a test")]

mod allow;
mod daemon;
mod growth;
mod handover;
#[path = "../machine/mod.rs"]
mod machine;
mod ours;
mod script;
mod utilities;

use daemon::{Debian, Kind};
use ours::Ours;
use script::{Ask, Round, Script};

/// A message: its type, and its payload.
pub(crate) type Message = (u32, Vec<u8>);

/// A xenstored under test.
pub(crate) trait Peer {
    /// Sends a request. Returns the messages of each connection, the answer among them.
    fn ask(&mut self, ask: &Ask, transaction: u32) -> Vec<Vec<Message>>;
    /// Hands the state over to a successor. Returns the messages of each connection.
    fn succeed(&mut self) -> Vec<Vec<Message>>;
    /// Changes the state of a domain. Returns the messages of each connection.
    fn domain(&mut self, domid: u16, state: u8) -> Vec<Vec<Message>>;
}

/// The number of requests in a run.
const REQUESTS: u64 = 20_000;

/// The last rounds, printed when a test fails.
#[derive(Default)]
struct Trail(std::collections::VecDeque<String>);

impl Trail {
    fn push(&mut self, line: String) {
        self.0.push_back(line);
        if self.0.len() > 60 {
            self.0.pop_front();
        }
    }
}

impl Drop for Trail {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0.make_contiguous().join("\n"));
        }
    }
}

/// Compares our daemon with one of Debian's, `MAYFLY_SCALE` times, with new daemons each time.
fn compare(kind: Kind, has_successors: bool) {
    for run in 0..mayfly_seeds::scaled(1) {
        let seed = mayfly_seeds::seed().wrapping_add(run);
        compare_once(kind, has_successors, seed);
    }
}

fn compare_once(kind: Kind, has_successors: bool, seed: u64) {
    let mut theirs = Debian::start(kind);
    let mut ours = Ours::new();
    let mut script = Script::new(seed, kind);
    script.has_successors = has_successors;
    let mut seen = allow::Seen::default();
    let mut trail = Trail::default();
    for number in 0..REQUESTS {
        let round = script.next();
        trail.push(format!("{number}: {round:?}"));
        let (mine, other) = match &round {
            Round::Domain { domid, state } => {
                (ours.domain(*domid, *state), theirs.domain(*domid, *state))
            }
            Round::Succession => {
                seen.count("successions");
                (ours.succeed(), theirs.succeed())
            }
            Round::Ask(ask) => {
                let (mine, other) = script.transaction(ask);
                let theirs = theirs.ask(ask, other);
                let is_commit = ask.is_commit();
                let ours = if is_commit && allow::is_refused(&theirs[ask.connection]) {
                    // Ours might succeed. The transaction is given up, so that both go on from the same tree.
                    seen.count("commits that they refuse");
                    ours.ask(&ask.given_up(), mine);
                    theirs.clone()
                } else {
                    let answers = ours.ask(ask, mine);
                    if is_commit && allow::is_refused(&answers[ask.connection]) {
                        seen.count("commits that only ours refuses");
                        for edit in script.edits(ask) {
                            ours.ask(&edit, 0);
                        }
                        theirs.clone()
                    } else {
                        answers
                    }
                };
                script.answered(ask, &ours[ask.connection], &theirs[ask.connection]);
                (ours, theirs)
            }
        };
        let mut allowed = seen.same(kind, &round, &mine, &other);
        if !allowed && script.differs(&round) {
            seen.count("answers within a transaction");
            allowed = true;
        }
        assert!(
            allowed,
            "{number}: {round:?}\nours:   {}\ntheirs: {}\n{}",
            shown(&mine),
            shown(&other),
            mayfly_seeds::repeat(seed),
        );
    }
    eprintln!("{kind:?}, seed {seed}: {seen:?}");
}

fn shown(all: &[Vec<Message>]) -> String {
    let mut text = String::new();
    for (connection, messages) in all.iter().enumerate() {
        for (kind, payload) in messages {
            text += &format!(
                "\n  {connection}: {kind} {:?}",
                String::from_utf8_lossy(payload)
            );
        }
    }
    text
}

#[test]
#[ignore = "needs a C compiler and Debian's packages"]
fn as_the_c_xenstored() {
    compare(Kind::C, false);
}

#[test]
#[ignore = "needs a C compiler and Debian's packages"]
fn as_the_c_xenstored_with_successors() {
    compare(Kind::C, true);
}

#[test]
#[ignore = "needs a C compiler and Debian's packages"]
fn as_oxenstored() {
    compare(Kind::Ocaml, false);
}

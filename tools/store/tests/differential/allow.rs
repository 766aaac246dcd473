//! What ours and Debian's daemons may differ in.

use std::collections::BTreeMap;

use mayfly_xenstore::wire::Kind as Request;

use crate::Message;
use crate::daemon::Kind;
use crate::script::Round;

/// How often each difference was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u32>);

const EVENT: u32 = 15;
const ERROR: u32 = 16;

/// Whether a commit is refused for what others have changed; ENOMEM is what the C xenstored says when a domain is gone whose nodes it has
/// touched.
pub(crate) fn is_refused(messages: &[Message]) -> bool {
    let codes: [&[u8]; 2] = [b"EAGAIN\0", b"ENOMEM\0"];
    let refused = |code: &[u8]| messages.contains(&(ERROR, code.to_vec()));
    codes.into_iter().any(refused)
}

impl Seen {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Whether two peers have said the same, but for what they may differ in.
    pub(crate) fn same(
        &mut self,
        kind: Kind,
        round: &Round,
        ours: &[Vec<Message>],
        theirs: &[Vec<Message>],
    ) -> bool {
        let request = match round {
            Round::Ask { kind, .. } => Request::of(*kind),
            Round::Domain { .. } => None,
        };
        let mut all = ours.iter().zip(theirs);
        let is_commit = round.is_commit();
        all.all(|(ours, theirs)| {
            let (mut ours, mut theirs) = (normal(request, ours), normal(request, theirs));
            // No document gives children an order, nor events of several nodes: ours is that of the names, the C xenstored's that of
            // their making.
            // oxenstored answers first.
            let of_many = matches!(request, None | Some(Request::Rm | Request::TransactionEnd))
                || kind == Kind::Ocaml;
            if ours != theirs && of_many {
                self.count("orders of events of several nodes");
                ours.sort_unstable();
                theirs.sort_unstable();
            }
            if matches!(round, Round::Domain { .. }) {
                // Of a domain that goes and one that has shut down again after RESUME the C xenstored tells once or twice.
                ours.dedup();
                theirs.dedup();
            }
            if kind == Kind::Ocaml {
                // An event that waits waits once, as with the C xenstored (XSA-326).
                theirs.dedup();
            }
            let refuse = |messages: &[Message]| matches!(messages, [(ERROR, _)]);
            if kind == Kind::Ocaml && ours != theirs && refuse(&ours) && refuse(&theirs) {
                self.count("other errors");
                return true;
            }
            if kind == Kind::Ocaml && is_commit && ours != theirs {
                // Of a transaction it tells other nodes, and some twice; what it answers is compared, and the tree afterwards.
                self.count("events of commits");
                ours.retain(|(kind, _)| *kind != EVENT);
                theirs.retain(|(kind, _)| *kind != EVENT);
            }
            // oxenstored tells of watches below a node that is removed whether there were nodes or not.
            let root = |(_, payload): &Message| !payload.starts_with(b"/\0");
            if kind == Kind::Ocaml && ours != theirs {
                // Nor does it tell of changes of the root.
                ours.retain(root);
            }
            let removes = kind == Kind::Ocaml && request == Some(Request::Rm);
            ours == theirs
                || is_commit && self.has_more(&ours, &theirs)
                || removes && self.has_less(&ours, &theirs)
        })
    }

    /// A node that a transaction removes: whoever may read its parent hears of it, as without a transaction. The C xenstored looks at the
    /// node's own permissions alone.
    fn has_more(&mut self, ours: &[Message], theirs: &[Message]) -> bool {
        let has = is_part(theirs, ours);
        if has {
            self.count("events of a commit that only ours sends");
        }
        has
    }

    fn has_less(&mut self, ours: &[Message], theirs: &[Message]) -> bool {
        let has = is_part(ours, theirs);
        if has {
            self.count("events of nodes that were not there");
        }
        has
    }
}

/// Whether all of the first are among the second.
fn is_part(some: &[Message], all: &[Message]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| one == other))
}

fn normal(request: Option<Request>, messages: &[Message]) -> Vec<Message> {
    let mut all = messages.to_vec();
    for (kind, payload) in &mut all {
        if *kind == EVENT || *kind == ERROR {
            continue;
        }
        match request {
            Some(Request::TransactionStart) => payload.clear(),
            Some(Request::Directory | Request::DirectoryPart) => {
                let mut names: Vec<&[u8]> = payload.split(|byte| *byte == 0).collect();
                if request == Some(Request::DirectoryPart) {
                    names.remove(0);
                }
                // oxenstored lists its special nodes.
                names.retain(|name| !name.starts_with(b"@"));
                names.sort_unstable();
                *payload = names.join(&0);
            }
            _ => {}
        }
    }
    all
}

//! The differences that are allowed between our daemon and Debian's.

use std::collections::BTreeMap;

use mayfly_xenstore::wire::MessageKind;

use crate::Message;
use crate::daemon::Kind;
use crate::script::Round;

/// The number of times that each difference was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<&'static str, u32>);

const EVENT: u32 = 15;
const ERROR: u32 = 16;

/// Returns whether a commit was refused because of changes by others. The C xenstored answers ENOMEM when the
/// transaction has touched nodes of a domain that is gone.
pub(crate) fn is_refused(messages: &[Message]) -> bool {
    let codes: [&[u8]; 2] = [b"EAGAIN\0", b"ENOMEM\0"];
    let refused = |code: &[u8]| messages.contains(&(ERROR, code.to_vec()));
    codes.into_iter().any(refused)
}

impl Seen {
    pub(crate) fn count(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// Returns whether two peers have sent the same messages, apart from the allowed differences.
    pub(crate) fn same(
        &mut self,
        kind: Kind,
        round: &Round,
        ours: &[Vec<Message>],
        theirs: &[Vec<Message>],
    ) -> bool {
        let request = match round {
            Round::Ask(ask) => MessageKind::of(ask.kind),
            Round::Domain { .. } | Round::Succession => None,
        };
        let mut all = ours.iter().zip(theirs);
        let is_commit = matches!(round, Round::Ask(ask) if ask.is_commit());
        all.all(|(ours, theirs)| {
            let (mut ours, mut theirs) = (normal(request, ours), normal(request, theirs));
            // No document gives an order for children or for the events of several nodes. Ours is the order of the
            // names; the C xenstored's is the order in which the nodes were made. oxenstored answers before it sends
            // events.
            let of_many = matches!(
                request,
                None | Some(MessageKind::Rm | MessageKind::TransactionEnd)
            ) || kind == Kind::Ocaml;
            if ours != theirs && of_many {
                self.count("orders of events of several nodes");
                ours.sort_unstable();
                theirs.sort_unstable();
            }
            if matches!(round, Round::Domain { .. } | Round::Succession) {
                // When one domain goes and another has shut down again after RESUME, the C xenstored sends one event or
                // two.
                ours.dedup();
                theirs.dedup();
            }
            if kind == Kind::Ocaml {
                // oxenstored queues the same event twice; ours queues it once, as the C xenstored does (XSA-326).
                theirs.dedup();
            }
            let refuse = |messages: &[Message]| matches!(messages, [(ERROR, _)]);
            if kind == Kind::Ocaml && ours != theirs && refuse(&ours) && refuse(&theirs) {
                self.count("other errors");
                return true;
            }
            if kind == Kind::Ocaml && is_commit && ours != theirs {
                // oxenstored's commit sends events of other nodes, and some twice. The answer is compared, and later
                // requests compare the tree.
                self.count("events of commits");
                ours.retain(|(kind, _)| *kind != EVENT);
                theirs.retain(|(kind, _)| *kind != EVENT);
            }
            let root = |(_, payload): &Message| !payload.starts_with(b"/\0");
            if kind == Kind::Ocaml && ours != theirs {
                // oxenstored sends no events of the root.
                ours.retain(root);
            }
            let removes = kind == Kind::Ocaml && request == Some(MessageKind::Rm);
            ours == theirs
                || is_commit && self.has_more(&ours, &theirs)
                || removes && self.has_less(&ours, &theirs)
        })
    }

    /// Our commit tells of a removed node whoever may read its parent, as outside of transactions. The C xenstored
    /// checks the permissions of the node alone.
    fn has_more(&mut self, ours: &[Message], theirs: &[Message]) -> bool {
        let has = is_part(theirs, ours);
        if has {
            self.count("events of a commit that only ours sends");
        }
        has
    }

    /// When a node is removed, oxenstored also fires watches of paths below it at which there was no node.
    fn has_less(&mut self, ours: &[Message], theirs: &[Message]) -> bool {
        let has = is_part(ours, theirs);
        if has {
            self.count("events of nodes that were not there");
        }
        has
    }
}

/// Returns whether `some` are among `all`, in the same order.
fn is_part(some: &[Message], all: &[Message]) -> bool {
    let mut all = all.iter();
    some.iter().all(|one| all.any(|other| one == other))
}

fn normal(request: Option<MessageKind>, messages: &[Message]) -> Vec<Message> {
    let mut all = messages.to_vec();
    for (kind, payload) in &mut all {
        if *kind == EVENT || *kind == ERROR {
            continue;
        }
        match request {
            Some(MessageKind::TransactionStart) => payload.clear(),
            Some(MessageKind::Directory | MessageKind::DirectoryPart) => {
                let mut names: Vec<&[u8]> = payload.split(|byte| *byte == 0).collect();
                if request == Some(MessageKind::DirectoryPart) {
                    names.remove(0);
                }
                // oxenstored's lists have the special nodes.
                names.retain(|name| !name.starts_with(b"@"));
                names.sort_unstable();
                *payload = names.join(&0);
            }
            _ => {}
        }
    }
    all
}

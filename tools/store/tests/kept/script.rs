//! The requests of a birth, with all who take part: a toolstack, dom0's kernel, the guest, and somebody who watches.

use mayfly_xenstore::wire::MessageKind;

use crate::daemon::{Kept, Message, Peer};

/// A step. A transaction's number is that of the last one that its peer has started.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) peer: Peer,
    pub(crate) kind: MessageKind,
    pub(crate) in_transaction: bool,
    pub(crate) payload: Vec<u8>,
}

const TOOL: Peer = Peer::Client(0);
const OTHER: Peer = Peer::Client(1);
const KERNEL: Peer = Peer::Client(2);

fn step(peer: Peer, kind: MessageKind, payload: &str) -> Step {
    Step {
        peer,
        kind,
        in_transaction: false,
        payload: payload.as_bytes().to_vec(),
    }
}

fn within(peer: Peer, kind: MessageKind, payload: &str) -> Step {
    Step {
        in_transaction: true,
        ..step(peer, kind, payload)
    }
}

/// The watches that are there before.
pub(crate) fn before() -> Vec<Step> {
    use MessageKind::Watch;
    vec![
        step(OTHER, Watch, "@introduceDomain\0i\0"),
        step(OTHER, Watch, "@releaseDomain\0r\0"),
        step(OTHER, Watch, "/local/domain\0all\0"),
        step(KERNEL, Watch, "/local/domain/0/backend\0back\0"),
    ]
}

/// The keys of a guest with an interface.
fn keys(domid: u16) -> Vec<(String, String)> {
    let home = format!("/local/domain/{domid}");
    let back = format!("/local/domain/0/backend/vif/{domid}/0");
    let front = format!("{home}/device/vif/0");
    let key = |path: &str, value: &str| (path.to_owned(), value.to_owned());
    vec![
        key(&format!("{home}/name"), "guest"),
        key(&format!("{home}/domid"), &domid.to_string()),
        key(&format!("{home}/memory/target"), "32768"),
        key(&format!("{front}/backend"), &back),
        key(&format!("{front}/state"), "1"),
        key(&format!("{back}/frontend"), &front),
        key(&format!("{back}/mac"), "00:16:3e:00:00:01"),
        key(&format!("{back}/state"), "1"),
    ]
}

/// What kernel and guest do then, and the guest's end but for its domain's.
fn life(domid: u16) -> Vec<Step> {
    use MessageKind::{Directory, Read, Rm, TransactionEnd, TransactionStart, Watch, Write};
    let guest = Peer::Ring(domid);
    let back = format!("/local/domain/0/backend/vif/{domid}/0");
    let front = "device/vif/0";
    vec![
        step(KERNEL, Directory, &format!("{back}\0")),
        step(KERNEL, Read, &format!("{back}/frontend\0")),
        step(KERNEL, TransactionStart, "\0"),
        within(KERNEL, Write, &format!("{back}/feature-sg\x001")),
        within(KERNEL, Write, &format!("{back}/state\x002")),
        within(KERNEL, TransactionEnd, "T\0"),
        step(
            KERNEL,
            Watch,
            &format!("/local/domain/{domid}/{front}/state\0f\0"),
        ),
        step(guest, Read, &format!("{front}/backend\0")),
        step(guest, Read, &format!("{back}/mac\0")),
        step(guest, Watch, "control/shutdown\0s\0"),
        step(guest, TransactionStart, "\0"),
        within(guest, Write, &format!("{front}/tx-ring-ref\x008")),
        within(guest, Write, &format!("{front}/state\x004")),
        within(guest, TransactionEnd, "T\0"),
        step(KERNEL, Write, &format!("{back}/state\x004")),
        step(guest, Read, "no/such\0"),
        step(
            TOOL,
            Write,
            &format!("/local/domain/{domid}/control/shutdown\0poweroff"),
        ),
        step(guest, Write, "control/shutdown\0"),
        step(TOOL, Rm, &format!("/local/domain/0/backend/vif/{domid}\0")),
    ]
}

fn perms(path: &str, domid: u16) -> String {
    format!("{path}\0n{domid}\0r0\0")
}

/// As xl makes a guest: one transaction with the nodes, another with the interface.
pub(crate) fn by_xl(domid: u16) -> Vec<Step> {
    use MessageKind::{Introduce, Mkdir, Rm, SetPerms, TransactionEnd, TransactionStart, Write};
    let home = format!("/local/domain/{domid}");
    let mut all = vec![
        step(TOOL, TransactionStart, "\0"),
        within(TOOL, Rm, &format!("{home}\0")),
        within(TOOL, Mkdir, &format!("{home}\0")),
        within(TOOL, SetPerms, &perms(&home, domid)),
    ];
    for folder in ["control", "data", "device"] {
        let path = format!("{home}/{folder}");
        all.push(within(TOOL, Mkdir, &format!("{path}\0")));
        all.push(within(TOOL, SetPerms, &format!("{path}\0n{domid}\0")));
    }
    all.push(within(TOOL, TransactionEnd, "T\0"));
    all.push(step(TOOL, Introduce, &format!("{domid}\x004094\x001\0")));
    all.push(step(TOOL, TransactionStart, "\0"));
    for (path, value) in keys(domid) {
        all.push(within(TOOL, Write, &format!("{path}\0{value}")));
        let owner = if path.contains("/backend/") { 0 } else { domid };
        all.push(within(
            TOOL,
            SetPerms,
            &format!("{path}\0n{owner}\0r{domid}\0"),
        ));
    }
    all.push(within(TOOL, TransactionEnd, "T\0"));
    all.extend(life(domid));
    all
}

/// As hatch makes a guest: writes without a transaction, and one transaction that claims the name.
pub(crate) fn by_hatch(domid: u16) -> Vec<Step> {
    use MessageKind::{Directory, Introduce, SetPerms, TransactionEnd, TransactionStart, Write};
    let home = format!("/local/domain/{domid}");
    let mut all = vec![
        step(TOOL, TransactionStart, "\0"),
        within(TOOL, Directory, "/hatch/names\0"),
    ];
    for (path, value) in keys(domid).into_iter().rev() {
        all.push(step(TOOL, Write, &format!("{path}\0{value}")));
    }
    all.push(step(TOOL, SetPerms, &perms(&home, domid)));
    all.push(within(TOOL, Write, &format!("/hatch/names/guest\0{domid}")));
    all.push(within(TOOL, TransactionEnd, "T\0"));
    all.push(step(TOOL, Introduce, &format!("{domid}\x004094\x001\0")));
    all.extend(life(domid));
    all
}

/// The domain whose ring takes part in [`random`].
pub(crate) const GUEST: u16 = 9;

/// Requests at random, of dom0's clients and of a guest, all of which meet at a few paths.
pub(crate) fn random(random: &mut fastrand::Rng, count: usize) -> Vec<Step> {
    use MessageKind::{
        Directory, GetPerms, Introduce, Mkdir, Read, ResetWatches, Rm, SetPerms, TransactionEnd,
        TransactionStart, Unwatch, Watch, Write,
    };
    let peers = [TOOL, OTHER, KERNEL, Peer::Ring(GUEST)];
    let paths = [
        "/a",
        "/a/b",
        "/a/b/c",
        "/a/d",
        "/local/domain/9/x",
        "/local/domain/9/x/y",
    ];
    let mut steps = vec![step(TOOL, Introduce, "9\x001\x001\0")];
    for path in ["/a", "/local/domain/9"] {
        steps.push(step(TOOL, Write, &format!("{path}\0")));
        steps.push(step(TOOL, SetPerms, &format!("{path}\0b9\0")));
    }
    let kinds = [
        Directory,
        GetPerms,
        Mkdir,
        Read,
        ResetWatches,
        Rm,
        SetPerms,
        TransactionEnd,
        TransactionStart,
        Unwatch,
        Watch,
        Watch,
        Write,
        Write,
        Write,
        Introduce,
    ];
    steps.extend((0..count).map(|number| {
        let path = random.choice(paths).unwrap();
        let token = random.u8(0..3);
        let kind = random.choice(kinds).unwrap();
        let payload = match kind {
            Write => format!("{path}\0{number}"),
            Watch | Unwatch => format!("{path}\0{token}\0"),
            SetPerms => format!(
                "{path}\0{}9\0r{token}\0",
                random.choice(['n', 'b']).unwrap()
            ),
            TransactionStart | ResetWatches => "\0".to_owned(),
            TransactionEnd => random.choice(["T\0", "F\0"]).unwrap().to_owned(),
            // The ring is emptied.
            Introduce => "9\x001\x001\0".to_owned(),
            _ => format!("{path}\0"),
        };
        Step {
            in_transaction: random.bool() && kind != TransactionStart,
            ..step(random.choice(peers).unwrap(), kind, &payload)
        }
    }));
    steps
}

/// Runs steps, and `disturb` before each, with its number, and after it was sent. Returns all answers and events.
pub(crate) fn run(
    kept: &mut Kept,
    steps: &[Step],
    domid: Option<u16>,
    mut disturb: impl FnMut(&mut Kept, usize, bool),
) -> Vec<(Peer, Vec<Message>)> {
    let mut seen = Vec::new();
    let ring = domid.map(Peer::Ring);
    let mut is_introduced = false;
    let mut transactions = Vec::<(Peer, u32)>::new();
    for (index, step) in steps.iter().enumerate() {
        let mut open = transactions.iter().rev();
        let open = open.find(|(peer, _)| *peer == step.peer);
        let transaction = open.filter(|_| step.in_transaction).map_or(0, |it| it.1);
        disturb(kept, index, false);
        let number = kept.send(step.peer, step.kind as u32, transaction, &step.payload);
        disturb(kept, index, true);
        let answer = kept.answer(step.peer, number).unwrap();
        if step.kind == MessageKind::TransactionStart {
            let (_, payload) = answer.last().unwrap();
            let text = String::from_utf8(payload.clone()).unwrap();
            // It is no number if too many transactions are open.
            let number = text.trim_end_matches('\0').parse().ok();
            transactions.extend(number.map(|number| (step.peer, number)));
        }
        seen.push((step.peer, answer));
        // Events that wait when the next ones come could be merged with those, or not.
        let mut peers = vec![TOOL, OTHER, KERNEL];
        peers.extend(ring.filter(|_| is_introduced));
        is_introduced |= step.kind == MessageKind::Introduce;
        seen.extend(settle(kept, &peers));
    }
    seen
}

/// Takes the events that wait for all peers.
pub(crate) fn settle(kept: &mut Kept, peers: &[Peer]) -> Vec<(Peer, Vec<Message>)> {
    let kind = MessageKind::GetDomainPath as u32;
    let each = peers
        .iter()
        .map(|peer| (*peer, kept.ask(*peer, kind, b"0\0")));
    each.collect()
}

//! The xenbus handshake as a pure function: (state, input) to (state, actions).
//!
//! Source: Xen 4.17 public/io/netif.h and io/xenbus.h. The front end publishes
//! its rings and goes straight to `Connected`, whatever state the back end is
//! in: a back end looks at the front end's state when it is ready, and sends
//! what it finds queued.

use crate::abi::XenbusState;

/// Where the front end stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Not started.
    Idle,
    /// The first burst of requests is out: who is the back end?
    Discovering {
        /// The path of the back end is known.
        backend: bool,
        /// The MAC address is known.
        mac: bool,
    },
    /// Rings are published; frames may be queued.
    Live {
        /// The back end has been seen at work, so frames move.
        carrier: bool,
        /// The back end has written `Connected`. Only then does an earlier state
        /// mean that it started anew: it may use the rings before it says so.
        confirmed: bool,
    },
    /// We have left; the back end has yet to let go of the rings.
    Closing,
    /// Nothing is shared. A back end that is ready again restarts the machine; and its state is
    /// looked at again after a while, in case that nobody told of it.
    Closed,
    /// There is no network interface (any more), or what xenstore says of it makes no sense.
    /// It is looked for again after a while.
    Absent,
}

/// What can happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The kernel wants a network.
    Start,
    /// The toolstack has made the rings, and the back end uses them; it may not have said so yet.
    Adopted,
    /// `backend` was answered; `false` if it is no path of a domain.
    Backend(bool),
    /// There is no `backend`.
    NoBackend,
    /// `mac` was answered; `false` if it is no MAC address.
    Mac(bool),
    /// xenstored could not say what `backend` or `mac` is.
    Unreadable,
    /// The rings could not be made.
    LinkFailed,
    /// xenstored refused one of the keys that publish the rings.
    PublishRefused,
    /// The back end's state was read; `Unknown` when it is gone.
    Peer(XenbusState),
    /// The back end says `Connected` and has not bound our event channel: it uses the rings of an
    /// earlier link, and would not look at ours before it has let go of those.
    Elsewhere,
    /// The back end has answered on a ring.
    Activity,
    /// The back end has written nonsense into a ring.
    RingBroken,
    /// The back end's `online` key: it waits to be connected again.
    Online,
    /// The toolstack has plugged the interface anew: what our directory says is not what the
    /// present state was made from.
    Replugged,
    /// The connection to xenstored is a new one: questions will not be answered.
    StoreReset,
    /// The state's time is up.
    Timeout,
}

/// What the shell has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Write states `Closing` and `Closed`.
    Leave,
    /// End the grants, close the ports, free the pages.
    Disconnect,
    /// Read the back end's `online`.
    ReadOnline,
    /// Read the back end's state.
    ReadState,
    /// Write state `Initialising`: the back end may get ready.
    Offer,
    /// Read `backend` and `mac`.
    Discover,
    /// Make the rings, publish them, write state `Connected`.
    Connect,
    /// Write again what was written and not confirmed, and watch anew.
    Resume,
    /// Tell the kernel that frames move.
    ReportCarrier,
    /// Tell the kernel that there is no interface.
    ReportAbsent,
    /// Tell the kernel that the interface makes no sense.
    ReportBad,
    /// Tell the kernel that xenstored does not say what the interface is.
    ReportUnreadable,
    /// Tell the kernel that the back end has left.
    ReportLeft,
    /// Tell the kernel that the interface was plugged anew.
    ReportReplugged,
    /// Tell the kernel that the state's time is up.
    ReportTimeout,
}

/// Actions, in the order in which they are to be done.
pub type Actions = &'static [Action];

const DISCOVERING: State = State::Discovering {
    backend: false,
    mac: false,
};
const LIVE: State = State::Live {
    carrier: false,
    confirmed: false,
};

/// The next state and what to do.
#[must_use]
pub fn step(state: State, input: Input) -> (State, Actions) {
    use Action as A;
    use Input as I;
    use State as S;
    let stay = (state, [].as_slice());
    match (state, input) {
        (S::Idle | S::Closed | S::Absent, I::Start) => (DISCOVERING, &[A::Discover]),
        (S::Idle, I::Adopted) => (LIVE, &[]),
        (S::Idle, _) => stay,

        (S::Discovering { mac, .. }, I::Backend(true)) => discovered(true, mac),
        (S::Discovering { backend, .. }, I::Mac(true)) => discovered(backend, true),
        (S::Discovering { .. }, I::Backend(false) | I::Mac(false)) => (S::Absent, &[A::ReportBad]),
        (S::Discovering { .. }, I::NoBackend) => (S::Absent, &[A::ReportAbsent]),
        (S::Discovering { .. }, I::Unreadable) => (S::Absent, &[A::ReportUnreadable]),
        // A late answer is still an answer.
        (S::Discovering { .. }, I::Timeout) => (state, &[A::ReportTimeout]),
        // The answers to come may be about the old interface, or never come.
        (S::Discovering { .. }, I::Replugged | I::StoreReset) => (DISCOVERING, &[A::Discover]),
        (S::Discovering { .. }, _) => stay,

        (S::Live { .. }, _) => live(state, input),

        (S::Closing, I::Peer(XenbusState::Closed)) => (S::Closed, &[A::Disconnect, A::ReadOnline]),
        (S::Closing, I::Replugged) => (DISCOVERING, &[A::Disconnect, A::Discover]),
        (S::Closing, I::Peer(XenbusState::Unknown)) => (S::Closed, &[A::Disconnect]),
        // It may have become ready for a new start before it saw that we left.
        (S::Closing, I::Timeout) => (S::Closed, &[A::Disconnect, A::ReadState]),
        (S::Closing | S::Closed, I::StoreReset) => (state, &[A::Resume]),
        (S::Closing, _) => stay,

        (S::Closed, I::Peer(XenbusState::Closed)) => (S::Closed, &[A::ReadOnline]),
        (S::Closed, I::Online) => (S::Closed, &[A::Offer]),
        (S::Closed, I::Timeout) => (S::Closed, &[A::ReadState]),
        (S::Closed | S::Absent, I::Replugged | I::Peer(XenbusState::InitWait)) => {
            (DISCOVERING, &[A::Discover])
        }
        (S::Absent, I::StoreReset | I::Timeout) => (DISCOVERING, &[A::Discover]),
        (S::Closed | S::Absent, _) => stay,
    }
}

/// The step from a state in which rings are published.
fn live(state: State, input: Input) -> (State, Actions) {
    use Action as A;
    use Input as I;
    use State as S;
    use XenbusState as X;
    let stay = (state, [].as_slice());
    let S::Live { carrier, confirmed } = state else {
        return stay;
    };
    match input {
        I::Peer(X::Connected) => (
            S::Live {
                carrier: true,
                confirmed: true,
            },
            if carrier { &[] } else { &[A::ReportCarrier] },
        ),
        I::Activity => (
            S::Live {
                carrier: true,
                confirmed,
            },
            &[A::ReportCarrier],
        ),
        I::Peer(X::Closing) => (S::Closing, &[A::Leave, A::ReportLeft]),
        I::Peer(X::Closed) => (
            S::Closed,
            &[A::Leave, A::Disconnect, A::ReadOnline, A::ReportLeft],
        ),
        // The back end is gone.
        I::Peer(X::Unknown) if confirmed => {
            (DISCOVERING, &[A::Disconnect, A::Discover, A::ReportLeft])
        }
        I::Replugged => (
            DISCOVERING,
            &[A::Disconnect, A::Discover, A::ReportReplugged],
        ),
        // It restarted so quickly that we only see the new one. That one may be
        // connecting to the old rings at this moment, so it has to let go first.
        I::Peer(X::Initialising | X::InitWait | X::Initialised) if confirmed => {
            (S::Closing, &[A::Leave, A::ReportLeft])
        }
        I::RingBroken | I::Elsewhere => (S::Closing, &[A::Leave]),
        I::LinkFailed | I::PublishRefused => (S::Closed, &[A::Leave, A::Disconnect]),
        I::StoreReset => (state, &[A::Resume]),
        I::Timeout if !carrier => (state, &[A::ReportTimeout]),
        _ => stay,
    }
}

fn discovered(backend: bool, mac: bool) -> (State, Actions) {
    if backend && mac {
        (LIVE, &[Action::Connect])
    } else {
        (State::Discovering { backend, mac }, &[])
    }
}

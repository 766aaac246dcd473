//! The xenbus handshake as a pure function: (state, input) to (state, actions).
//!
//! Source: Xen 4.17 public/io/netif.h and io/xenbus.h. The front end publishes its rings and goes straight to
//! `Connected`, in any state of the back end: a back end reads the front end's state when it is ready, and sends the
//! frames that it finds queued.

use crate::abi::XenbusState;

/// The state of the front end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Not started.
    Idle,
    /// The first burst of requests, which asks for the back end, has been sent.
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
    /// The front end has left; the back end still has to release the rings.
    Closing,
    /// Nothing is shared. A back end that becomes ready again restarts the state machine. The back end's state is also
    /// read again after a while, in case a watch event was lost.
    Closed,
    /// There is no network interface (any more), or its xenstore keys are invalid. The front end looks again after a
    /// while.
    Absent,
}

/// An input of the handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// The kernel wants a network.
    Start,
    /// The toolstack has made the rings and the back end uses them; it may not have written `Connected` yet.
    Adopted,
    /// `backend` was read; `false` if it is not a domain's path.
    Backend(bool),
    /// The key `backend` does not exist.
    NoBackend,
    /// `mac` was read; `false` if it is not a MAC address.
    Mac(bool),
    /// xenstored failed to read `backend` or `mac`.
    Unreadable,
    /// The rings could not be made.
    LinkFailed,
    /// xenstored refused one of the keys that publish the rings.
    PublishRefused,
    /// The back end's state was read; `Unknown` when it is gone.
    Peer(XenbusState),
    /// The back end is `Connected` but has not bound our event channel: it still uses the rings of an earlier link, and
    /// must release those before it uses ours.
    Elsewhere,
    /// The back end has written a response into a ring.
    Activity,
    /// The back end has written an invalid index into a ring.
    RingBroken,
    /// The back end's `online` key: it waits to be connected again.
    Online,
    /// The toolstack has plugged the interface anew: the keys in our directory have changed since they were read.
    Replugged,
    /// The connection to xenstored was made again: outstanding questions will not be answered.
    StoreReset,
    /// The state's time is up.
    Timeout,
}

/// An action that the caller carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkAction {
    /// Write the states `Closing` and `Closed`.
    Leave,
    /// End the grants, close the ports, free the pages.
    Disconnect,
    /// Read the back end's `online`.
    ReadOnline,
    /// Read the back end's state.
    ReadState,
    /// Write the state `Initialising`, so that the back end gets ready.
    Offer,
    /// Read `backend` and `mac`.
    Discover,
    /// Make the rings, publish them and write the state `Connected`.
    Connect,
    /// Repeat unconfirmed writes, and set the watches again.
    Resume,
    /// Tell the kernel that frames move.
    ReportCarrier,
    /// Tell the kernel that there is no interface.
    ReportAbsent,
    /// Tell the kernel that the keys of the interface are invalid.
    ReportBad,
    /// Tell the kernel that xenstored failed to read the keys of the interface.
    ReportUnreadable,
    /// Tell the kernel that the back end has left.
    ReportLeft,
    /// Tell the kernel that the interface was plugged anew.
    ReportReplugged,
    /// Tell the kernel that the state's time is up.
    ReportTimeout,
}

/// Actions, in the order in which they are carried out.
pub type Actions = &'static [LinkAction];

const DISCOVERING: LinkState = LinkState::Discovering {
    backend: false,
    mac: false,
};
const LIVE: LinkState = LinkState::Live {
    carrier: false,
    confirmed: false,
};

/// The next state and what to do.
#[must_use]
pub fn step(state: LinkState, input: Input) -> (LinkState, Actions) {
    use Input as I;
    use LinkAction as A;
    use LinkState as S;
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
        // The outstanding answers may concern the old interface, or never come.
        (S::Discovering { .. }, I::Replugged | I::StoreReset) => (DISCOVERING, &[A::Discover]),
        (S::Discovering { .. }, _) => stay,

        (S::Live { .. }, _) => live(state, input),

        (S::Closing, I::Peer(XenbusState::Closed)) => (S::Closed, &[A::Disconnect, A::ReadOnline]),
        (S::Closing, I::Replugged) => (DISCOVERING, &[A::Disconnect, A::Discover]),
        (S::Closing, I::Peer(XenbusState::Unknown)) => (S::Closed, &[A::Disconnect]),
        // The back end may have become ready for a new start before it saw that we left.
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
fn live(state: LinkState, input: Input) -> (LinkState, Actions) {
    use Input as I;
    use LinkAction as A;
    use LinkState as S;
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
        // The back end restarted so quickly that we see only the new one. The new one may be connecting to the old
        // rings at this moment, so it has to release them first.
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

fn discovered(backend: bool, mac: bool) -> (LinkState, Actions) {
    if backend && mac {
        (LIVE, &[LinkAction::Connect])
    } else {
        (LinkState::Discovering { backend, mac }, &[])
    }
}

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
    /// Nothing is shared. A back end that is ready again restarts the machine.
    Closed,
    /// There is no network interface (any more), or what xenstore says of it makes no sense.
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
    /// The rings could not be made.
    LinkFailed,
    /// xenstored refused one of the keys that publish the rings.
    PublishRefused,
    /// The back end's state was read; `Unknown` when it is gone.
    Peer(XenbusState),
    /// The back end has answered on a ring.
    Activity,
    /// The back end has written nonsense into a ring.
    RingBroken,
    /// The back end's `online` key: it waits to be connected again.
    Online,
    /// `backend` in our directory was written or removed.
    Replugged,
    /// Our own state was read; `Unknown` when it is gone.
    Own(XenbusState),
    /// The state's time is up.
    Timeout,
}

bitflags::bitflags! {
    /// What the shell has to do, in this order.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Actions: u16 {
        /// Write states `Closing` and `Closed`.
        const LEAVE = 1 << 0;
        /// End the grants, close the port, free the pages.
        const DISCONNECT = 1 << 1;
        /// Read the back end's `online`.
        const READ_ONLINE = 1 << 2;
        /// Read our own state.
        const CHECK = 1 << 3;
        /// Read the back end's state.
        const READ_STATE = 1 << 4;
        /// Write state `Initialising`: the back end may get ready.
        const OFFER = 1 << 5;
        /// Read `backend` and `mac`.
        const DISCOVER = 1 << 6;
        /// Make the rings, publish them, write state `Connected`.
        const CONNECT = 1 << 7;
        /// Tell the kernel that frames move.
        const CARRIER = 1 << 8;
        /// Tell the kernel that there is no interface.
        const REPORT_ABSENT = 1 << 9;
        /// Tell the kernel that the interface makes no sense.
        const REPORT_BAD = 1 << 10;
        /// Tell the kernel that the back end has left.
        const REPORT_LEFT = 1 << 11;
        /// Tell the kernel that the state's time is up.
        const REPORT_TIMEOUT = 1 << 12;
    }
}

const DISCOVERING: State = State::Discovering {
    backend: false,
    mac: false,
};

/// The next state and what to do.
#[must_use]
pub fn step(state: State, input: Input) -> (State, Actions) {
    use Input as I;
    use State as S;
    use XenbusState as X;
    let stay = (state, Actions::empty());
    match (state, input) {
        (S::Idle | S::Closed | S::Absent, I::Start | I::Replugged) => {
            (DISCOVERING, Actions::DISCOVER)
        }
        (S::Idle, I::Adopted) => (
            S::Live {
                carrier: false,
                confirmed: false,
            },
            Actions::empty(),
        ),
        (S::Idle, _) => stay,

        (S::Discovering { mac, .. }, I::Backend(true)) => discovered(true, mac),
        (S::Discovering { backend, .. }, I::Mac(true)) => discovered(backend, true),
        (S::Discovering { .. }, I::Backend(false) | I::Mac(false)) => {
            (S::Absent, Actions::REPORT_BAD)
        }
        (S::Discovering { .. }, I::NoBackend) => (S::Absent, Actions::REPORT_ABSENT),
        // A late answer is still an answer.
        (S::Discovering { .. }, I::Timeout) => (state, Actions::REPORT_TIMEOUT),
        // The answers to come may be about the old interface.
        (S::Discovering { .. }, I::Replugged) => (DISCOVERING, Actions::DISCOVER),
        (S::Discovering { .. }, _) => stay,

        (S::Live { carrier, .. }, I::Peer(X::Connected)) => (
            S::Live {
                carrier: true,
                confirmed: true,
            },
            carrier_if(!carrier),
        ),
        (S::Live { confirmed, .. }, I::Activity) => (
            S::Live {
                carrier: true,
                confirmed,
            },
            Actions::CARRIER,
        ),
        (S::Live { .. }, I::Peer(X::Closing)) => {
            (S::Closing, Actions::LEAVE | Actions::REPORT_LEFT)
        }
        (S::Live { .. }, I::Peer(X::Closed)) => (
            S::Closed,
            Actions::LEAVE | Actions::DISCONNECT | Actions::READ_ONLINE | Actions::REPORT_LEFT,
        ),
        (S::Live { .. }, I::Replugged) => (state, Actions::CHECK),
        (S::Live { .. }, I::Own(X::Connected)) => stay,
        // The back end is gone, or the toolstack has made our directory anew.
        (
            S::Live {
                confirmed: true, ..
            },
            I::Peer(X::Unknown),
        )
        | (S::Live { .. }, I::Own(_)) => (
            DISCOVERING,
            Actions::DISCONNECT | Actions::DISCOVER | Actions::REPORT_LEFT,
        ),
        // It restarted so quickly that we only see the new one. That one may be
        // connecting to the old rings at this moment, so it has to let go first.
        (
            S::Live {
                confirmed: true, ..
            },
            I::Peer(X::Initialising | X::InitWait | X::Initialised),
        ) => (S::Closing, Actions::LEAVE | Actions::REPORT_LEFT),
        (S::Live { .. }, I::RingBroken) => (S::Closing, Actions::LEAVE),
        (S::Live { .. }, I::LinkFailed | I::PublishRefused) => {
            (S::Closed, Actions::LEAVE | Actions::DISCONNECT)
        }
        (S::Live { carrier: false, .. }, I::Timeout) => (state, Actions::REPORT_TIMEOUT),
        (S::Live { .. }, _) => stay,

        (S::Closing, I::Peer(X::Closed)) => (S::Closed, Actions::DISCONNECT | Actions::READ_ONLINE),
        (S::Closing, I::Replugged) => (DISCOVERING, Actions::DISCONNECT | Actions::DISCOVER),
        (S::Closing, I::Peer(X::Unknown)) => (S::Closed, Actions::DISCONNECT),
        // It may have become ready for a new start before it saw that we left.
        (S::Closing, I::Timeout) => (S::Closed, Actions::DISCONNECT | Actions::READ_STATE),
        (S::Closing, _) => stay,

        (S::Closed, I::Peer(X::Closed)) => (S::Closed, Actions::READ_ONLINE),
        (S::Closed, I::Online) => (S::Closed, Actions::OFFER),
        (S::Closed | S::Absent, I::Peer(X::InitWait)) => (DISCOVERING, Actions::DISCOVER),
        (S::Closed | S::Absent, _) => stay,
    }
}

fn carrier_if(rises: bool) -> Actions {
    if rises {
        Actions::CARRIER
    } else {
        Actions::empty()
    }
}

fn discovered(backend: bool, mac: bool) -> (State, Actions) {
    if backend && mac {
        (
            State::Live {
                carrier: false,
                confirmed: false,
            },
            Actions::CONNECT,
        )
    } else {
        (State::Discovering { backend, mac }, Actions::empty())
    }
}

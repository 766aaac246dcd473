//! The questions that the front end asks xenstored, and the queue of questions that wait for room.

use alloc::vec::Vec;

use super::handshake::Input;
use super::{NetFront, Notice};
use crate::Hypervisor;
use crate::abi::XenbusState;
use crate::decimal::Decimal;
use crate::xenstore::{ReqId, StoreError, Xenstore};

/// The front end's directory in xenstore, below the domain's home. One watch is on all of it.
pub(super) const HOME: &[u8] = b"device/vif/0";
/// The watches' tokens.
pub(super) const WATCH_HOME: &[u8] = b"vif0";
pub(super) const WATCH_STATE: &[u8] = b"vif0/state";

/// The greatest number of questions that wait for room in the request queue; more are dropped and counted.
const MAX_UNASKED: usize = 64;

/// A request to xenstored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Question {
    Backend,
    Mac,
    /// A number that lets the back end connect.
    Publish(&'static [u8], u32),
    /// Our own state; `publishes` if the link depends on it.
    State {
        state: XenbusState,
        publishes: bool,
    },
    PeerState,
    Online,
    Mtu,
    Feature(Feature),
    /// Reads a key of our directory again and compares it with the value that the present state was made from.
    Check(Key),
    WatchHome,
    WatchPeer,
    /// Ends the watch on an earlier back end.
    UnwatchPeer(Vec<u8>),
}

/// A key in our directory that the toolstack writes when it plugs the interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Backend,
    Mac,
    /// The state that we have written last. The toolstack writes a different one when it plugs the interface.
    State(Option<XenbusState>),
}

/// The keys in the back end's directory that say what it can do with the frames that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    ScatterGather,
    Segment4,
    NoChecksum4,
    Checksum6,
}

impl Feature {
    pub(super) const ALL: [Self; 4] = [
        Self::ScatterGather,
        Self::Segment4,
        Self::NoChecksum4,
        Self::Checksum6,
    ];

    fn key(self) -> &'static [u8] {
        match self {
            Self::ScatterGather => b"/feature-sg",
            Self::Segment4 => b"/feature-gso-tcpv4",
            Self::NoChecksum4 => b"/feature-no-csum-offload",
            Self::Checksum6 => b"/feature-ipv6-csum-offload",
        }
    }
}

/// The value that the back end has written for each [`Feature`].
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FeaturesSaid([Option<bool>; Feature::ALL.len()]);

impl FeaturesSaid {
    pub(super) fn get(&self, feature: Feature) -> Option<bool> {
        self.0.get(feature as usize).copied().flatten()
    }

    pub(super) fn set(&mut self, feature: Feature, said: bool) {
        if let Some(slot) = self.0.get_mut(feature as usize) {
            *slot = Some(said);
        }
    }
}

impl<'h, H: Hypervisor> NetFront<'h, H> {
    /// Drops all questions about the interface, and the answers that wait to be handled.
    pub(super) fn forget_questions(&mut self) {
        let stays = |question: &Question| matches!(question, Question::WatchHome);
        self.asked.retain(|(_, question)| stays(question));
        if self.unasked.contains(&Question::WatchPeer) {
            self.watched = None;
        }
        self.unasked.retain(stays);
        self.check = None;
        let is_answer = |input: &Input| {
            matches!(
                input,
                Input::Backend(_)
                    | Input::NoBackend
                    | Input::Mac(_)
                    | Input::Unreadable
                    | Input::Peer(_)
                    | Input::Elsewhere
                    | Input::Online
                    | Input::PublishRefused
            )
        };
        self.inputs.retain(|input| !is_answer(input));
    }

    /// Sends a question, or keeps it until the request queue has room.
    pub(super) fn ask(&mut self, question: Question, store: &mut Xenstore<'h, H>) {
        if let Question::State { state, .. } = question {
            self.own_state = Some(state);
        }
        if self.unasked.len() < MAX_UNASKED {
            self.unasked.push_back(question);
        } else {
            self.counters.lost_questions += 1;
        }
        self.ask_waiting(store);
    }

    /// Sends the waiting questions in order.
    pub(super) fn ask_waiting(&mut self, store: &mut Xenstore<'h, H>) {
        while let Some(question) = self.unasked.pop_front() {
            match self.request(&question, store) {
                Ok(id) => self.asked.push((id, question)),
                Err(StoreError::Full) => {
                    self.unasked.push_front(question);
                    return;
                }
                // The kernel reports this once; the reconnection that follows asks anew.
                Err(StoreError::Broken(_)) => {
                    self.unasked.push_front(question);
                    return;
                }
                Err(error) => self.notice(Notice::Store(error)),
            }
        }
    }

    fn request(
        &self,
        question: &Question,
        store: &mut Xenstore<'h, H>,
    ) -> Result<ReqId, StoreError> {
        match question {
            Question::Backend | Question::Check(Key::Backend) => store.read(&[HOME, b"/backend"]),
            Question::Mac | Question::Check(Key::Mac) => store.read(&[HOME, b"/mac"]),
            Question::Check(Key::State(_)) => store.read(&[HOME, b"/state"]),
            Question::Publish(key, number) => {
                store.write(&[HOME, key], Decimal::new(*number).as_bytes())
            }
            Question::State { state, .. } => store.write(&[HOME, b"/state"], state.digit()),
            Question::PeerState => store.read(&[&self.backend, b"/state"]),
            Question::Online => store.read(&[&self.backend, b"/online"]),
            Question::Mtu => store.read(&[HOME, b"/mtu"]),
            Question::Feature(feature) => store.read(&[&self.backend, feature.key()]),
            Question::WatchHome => store.watch(&[HOME], WATCH_HOME),
            Question::WatchPeer => store.watch(&[&self.backend, b"/state"], WATCH_STATE),
            Question::UnwatchPeer(old) => store.unwatch(&[old, b"/state"], WATCH_STATE),
        }
    }
}

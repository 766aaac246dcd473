//! The front end's xenstore keys: reads, writes and watches, and the handling of their answers.
//!
//! Source: Xen 4.17 public/io/netif.h and docs/misc/xenstore-paths.pandoc.

use super::NetFront;
use super::handshake::{Input, LinkState};
use super::link::Link;
use super::questions::{Feature, HOME, Key, Question, WATCH_HOME, WATCH_STATE};
use crate::abi::XenbusState;
use crate::decimal::parse;
use crate::xenstore::{StoreErrno, StoreEvent, Xenstore};
use crate::{DomId, Errno, Hypervisor};
use mayfly_handoff::network;

/// The MTU of Ethernet, and the most that a back end without scatter-gather carries.
pub(super) const MTU_MAX: u16 = 1500;
/// The smallest MTU that is accepted: the datagram that every IPv4 host can receive (RFC 1122, section 3.3.2), and
/// enough for a DNS answer over UDP.
const MTU_MIN: u16 = 576;
/// A check of the keys in our directory.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Check {
    /// The number of outstanding answers.
    missing: usize,
    differs: bool,
    gone: bool,
}

impl<'h, H: Hypervisor> NetFront<'h, H> {
    /// Handles a xenstore event, if it concerns this interface. [`NetFront::drive`] acts on it.
    pub fn xenstore_event(&mut self, event: &StoreEvent<'_>) {
        match *event {
            StoreEvent::Watch { path, token } => {
                if token == WATCH_STATE {
                    self.peer_state_changed = true;
                } else if token == WATCH_HOME {
                    self.home_changed(path);
                }
            }
            StoreEvent::Answer(id, result) => {
                if let Some(at) = self.asked.iter().position(|&(asked, _)| asked == id) {
                    let (_, question) = self.asked.swap_remove(at);
                    self.answered(question, result);
                }
            }
        }
    }

    /// Handles a change in our directory. A toolstack that plugs an interface writes its keys in any order.
    fn home_changed(&mut self, path: &[u8]) {
        let key = path.strip_prefix(HOME).unwrap_or(path);
        let is_plug = matches!(key, b"/backend" | b"/mac");
        let is_any = key.is_empty();
        match self.state {
            // Nothing is shared, so the front end starts at once. (Outstanding answers may concern the old interface.)
            LinkState::Closed if is_plug => self.replugged(),
            LinkState::Discovering { .. } | LinkState::Absent if is_plug || is_any => {
                self.replugged()
            }
            _ => {
                self.plug_changed |= is_plug || is_any;
                self.state_changed |= key == b"/state";
            }
        }
        self.mtu_changed |= key == b"/mtu";
    }

    fn replugged(&mut self) {
        if self.inputs.back() != Some(&Input::Replugged) {
            self.inputs.push_back(Input::Replugged);
        }
    }

    fn answered(&mut self, question: Question, answer: Result<&[u8], StoreErrno>) {
        let value = answer.ok();
        if matches!(question, Question::State { .. }) && value.is_none() {
            // The state in xenstore was written by another domain.
            self.own_state = None;
        }
        let input = match question {
            Question::Backend => {
                let path = value.unwrap_or_default();
                let domain = network::domain_of(path);
                self.backend.clear();
                self.backend.extend_from_slice(path);
                self.domain = domain.unwrap_or(DomId(0));
                match answer {
                    Err(StoreErrno::NoEntry) => Input::NoBackend,
                    Err(StoreErrno::Other) => Input::Unreadable,
                    _ => Input::Backend(domain.is_some()),
                }
            }
            Question::Mac => {
                let mac = value.and_then(parse_mac);
                self.mac = mac.unwrap_or(self.mac);
                match answer {
                    Err(StoreErrno::Other) => Input::Unreadable,
                    _ => Input::Mac(mac.is_some()),
                }
            }
            Question::Publish(..)
            | Question::State {
                publishes: true, ..
            } if value.is_none() => Input::PublishRefused,
            Question::PeerState => match state_read(answer) {
                Some(XenbusState::Unknown) if self.is_forgotten() => return,
                Some(state) => {
                    self.forgotten &= state == XenbusState::Unknown;
                    if let (XenbusState::Connected, Some(link)) = (state, &mut self.link) {
                        link.look_at_ports(self.xen);
                    }
                    let link = self
                        .link
                        .as_ref()
                        .filter(|_| state == XenbusState::Connected);
                    if link.is_some_and(|link| !link.active() && !link.is_bound(self.xen)) {
                        Input::Elsewhere
                    } else {
                        Input::Peer(state)
                    }
                }
                None => return,
            },
            Question::Online if value == Some(b"1") => Input::Online,
            Question::Mtu => return self.mtu_answered(answer),
            Question::Feature(feature) => return self.feature_answered(feature, answer),
            Question::Check(key) => {
                if !self.checked(key, answer) {
                    return;
                }
                Input::Replugged
            }
            Question::WatchHome => {
                self.home_watched = is_watched(answer);
                return;
            }
            Question::WatchPeer => {
                if !is_watched(answer) {
                    self.watched = None;
                }
                return;
            }
            Question::Publish(..)
            | Question::State { .. }
            | Question::Online
            | Question::UnwatchPeer(_) => return,
        };
        self.inputs.push_back(input);
    }

    /// Whether xenstored was restarted with an empty tree while the back end still has our event channel bound. Then
    /// the back end counts as alive.
    fn is_forgotten(&self) -> bool {
        let link = self.link.as_ref().filter(|_| self.forgotten);
        link.is_some_and(|link| link.is_bound(self.xen))
    }

    fn mtu_answered(&mut self, answer: Result<&[u8], StoreErrno>) {
        match answer.map(parse) {
            // Without the key the MTU is Ethernet's.
            Err(StoreErrno::NoEntry) => self.mtu = MTU_MAX,
            Err(_) => {}
            Ok(mtu) => match mtu.and_then(|mtu| u16::try_from(mtu).ok()) {
                Some(mtu) if (MTU_MIN..=MTU_MAX).contains(&mtu) => self.mtu = mtu,
                _ => self.counters.bad_mtu += 1,
            },
        }
    }

    fn feature_answered(&mut self, feature: Feature, answer: Result<&[u8], StoreErrno>) {
        let said = match answer {
            Ok(value) => value == b"1",
            Err(StoreErrno::NoEntry) => false,
            Err(_) => return,
        };
        self.features.set(feature, said);
        if let Some(link) = self.link.as_mut().filter(|_| said) {
            // Room is promised before a frame of many pages is composed, so its pages need grants beforehand.
            link.grant_buffers(self.xen, &mut self.grants);
        }
    }

    /// Handles one answer of a [`Check`]. Returns whether the interface was plugged anew.
    fn checked(&mut self, key: Key, answer: Result<&[u8], StoreErrno>) -> bool {
        let Some(check) = &mut self.check else {
            return false;
        };
        check.missing = check.missing.saturating_sub(1);
        match (key, answer) {
            // A failed read says nothing about the interface.
            (_, Err(StoreErrno::Other)) => {}
            (Key::State(_), Err(_)) => check.gone = true,
            (Key::State(written), Ok(value)) => {
                check.differs |= written.is_some_and(|state| value != state.digit());
            }
            (Key::Backend, Ok(path)) => check.differs |= path != self.backend,
            (Key::Mac, Ok(text)) => {
                check.differs |= parse_mac(text).is_some_and(|mac| mac != self.mac);
            }
            (Key::Backend | Key::Mac, Err(_)) => {}
        }
        let Check {
            missing: 0,
            differs,
            gone,
        } = *check
        else {
            return false;
        };
        self.check = None;
        // A missing directory does not count while the back end is still connected: if the back end goes too, its own
        // directory tells.
        let is_bound = self
            .link
            .as_ref()
            .is_some_and(|link| link.is_bound(self.xen));
        differs || gone && !is_bound
    }

    /// Sends the questions that earlier events have made necessary.
    pub(super) fn follow_events(&mut self, store: &mut Xenstore<'h, H>) {
        if core::mem::take(&mut self.peer_state_changed) && !self.backend.is_empty() {
            self.ask(Question::PeerState, store);
        }
        if core::mem::take(&mut self.mtu_changed) {
            self.ask(Question::Mtu, store);
        }
        let can_check = matches!(
            self.state,
            LinkState::Live { .. } | LinkState::Closing | LinkState::Closed
        );
        if !can_check || self.check.is_some() {
            return;
        }
        let state = Key::State(self.own_state);
        let all = [state, Key::Backend, Key::Mac];
        let keys = match (self.plug_changed, self.state_changed) {
            (true, _) => all.as_slice(),
            (false, true) => &[state],
            (false, false) => return,
        };
        (self.plug_changed, self.state_changed) = (false, false);
        self.check = Some(Check {
            missing: keys.len(),
            ..Check::default()
        });
        for &key in keys {
            self.ask(Question::Check(key), store);
        }
    }

    /// Writes the keys that let the back end connect.
    pub(super) fn publish(&mut self, store: &mut Xenstore<'h, H>) {
        let Some(link) = &self.link else { return };
        let numbers = [
            (b"/tx-ring-ref".as_slice(), link.tx_ring().0),
            (b"/rx-ring-ref", link.rx_ring().0),
            (b"/event-channel-tx", link.ports().tx.get()),
            (b"/event-channel-rx", link.ports().rx.get()),
            // For a back end without feature-split-event-channels: asking first would be a round trip.
            (b"/event-channel", link.ports().tx.get()),
            (b"/request-rx-copy", 1),
            (b"/feature-rx-notify", 1),
        ];
        for (key, number) in numbers {
            self.ask(Question::Publish(key, number), store);
        }
        let state = XenbusState::Connected;
        self.ask(
            Question::State {
                state,
                publishes: true,
            },
            store,
        );
    }

    /// Watches our directory and the state of the present back end, and ends the watch on an older one. Asks for the
    /// MTU and the features of the back end.
    pub(super) fn watch(&mut self, store: &mut Xenstore<'h, H>) {
        self.watch_home(store);
        if self.backend.is_empty() {
            return;
        }
        if self.watched.as_ref() == Some(&self.backend) {
            // An answer may have been dropped with the older questions.
            self.peer_state_changed = true;
        } else {
            if let Some(old) = self.watched.take() {
                self.ask(Question::UnwatchPeer(old), store);
            }
            self.watched = Some(self.backend.clone());
            self.ask(Question::WatchPeer, store);
        }
        self.ask(Question::Mtu, store);
        for feature in Feature::ALL {
            self.ask(Question::Feature(feature), store);
        }
    }

    fn watch_home(&mut self, store: &mut Xenstore<'h, H>) {
        if !self.home_watched {
            // Assume success until xenstored refuses.
            self.home_watched = true;
            self.ask(Question::WatchHome, store);
        }
    }

    /// Repairs losses that no event reports: watches that xenstored refused, a back end's state that a restarted
    /// xenstored does not know, and pages that are unmapped by now. To be called regularly.
    pub fn renew(&mut self, store: &mut Xenstore<'h, H>) {
        let kept = self.quarantined();
        self.sweep();
        if self.quarantined() < kept && self.state == LinkState::Closed {
            self.allow_retry();
            self.peer_state_changed = true;
        }
        if self.housekeeping {
            self.watch_home(store);
            let unwatched = self.watched.is_none() && !self.backend.is_empty();
            if unwatched {
                self.watch(store);
            }
            self.peer_state_changed |= self.forgotten;
        }
        self.run(store);
    }

    /// To be called after a reconnection: xenstored has lost all requests, and maybe the whole tree.
    pub fn reconnected(&mut self, store: &mut Xenstore<'h, H>) {
        self.begin_again(Input::StoreReset, store);
    }

    /// Goes on without the watches of a lost connection.
    fn begin_again(&mut self, input: Input, store: &mut Xenstore<'h, H>) {
        self.watched = None;
        self.home_watched = false;
        self.asked
            .retain(|(_, question)| *question != Question::WatchHome);
        self.unasked
            .retain(|question| *question != Question::WatchHome);
        // Before any question: the watch's first event would else follow the answers, and end the link that they led to.
        if self.housekeeping {
            self.watch_home(store);
        }
        self.inputs.push_back(input);
        self.run(store);
    }

    /// To be called after the guest was resumed in a new domain, with a connection to its xenstored: the interface is
    /// another one with the same buffers.
    ///
    /// # Errors
    /// Xen does not give the grant table.
    pub fn resumed(&mut self, store: &mut Xenstore<'h, H>) -> Result<(), Errno> {
        self.grants.resumed(self.xen)?;
        self.end_link(Link::abandon);
        self.sweep();
        self.forget_questions();
        self.own_state = None;
        self.inputs.clear();
        self.begin_again(Input::Replugged, store);
        Ok(())
    }

    /// Carries out [`LinkAction::Resume`](super::handshake::LinkAction::Resume): repeats writes and watches in a state that
    /// stays.
    pub(super) fn resume(&mut self, store: &mut Xenstore<'h, H>) {
        let publishes = |question: &Question| {
            matches!(
                question,
                Question::Publish(..)
                    | Question::State {
                        publishes: true,
                        ..
                    }
            )
        };
        let asked = || self.asked.iter().map(|(_, question)| question);
        let unpublished = asked().chain(&self.unasked).any(publishes);
        let is_state = |question: &Question| matches!(question, Question::State { .. });
        let unwritten = asked().chain(&self.unasked).any(is_state);
        self.forget_questions();
        self.forgotten = self.carrier();
        if unpublished && !self.carrier() {
            self.publish(store);
        } else if let Some(state) = self.own_state.filter(|_| unwritten) {
            self.write_state(state, store);
        }
        if self.housekeeping {
            self.watch(store);
        }
        self.peer_state_changed = true;
    }

    pub(super) fn write_state(&mut self, state: XenbusState, store: &mut Xenstore<'h, H>) {
        self.ask(
            Question::State {
                state,
                publishes: false,
            },
            store,
        );
    }
}

/// The state in an answer: `Unknown` if the node is gone, `None` if the read failed.
fn state_read(answer: Result<&[u8], StoreErrno>) -> Option<XenbusState> {
    match answer {
        Ok(value) => Some(XenbusState::parse(value)).filter(|&state| state != XenbusState::Unknown),
        // xenstored may answer either error for a missing node.
        Err(StoreErrno::NoEntry | StoreErrno::Access) => Some(XenbusState::Unknown),
        Err(_) => None,
    }
}

fn is_watched(answer: Result<&[u8], StoreErrno>) -> bool {
    matches!(answer, Ok(_) | Err(StoreErrno::Exists))
}

/// A MAC address as xenstore has it: six pairs of hexadecimal digits and colons between them.
fn parse_mac(text: &[u8]) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(|&byte| byte == b':');
    for byte in &mut mac {
        let &[high, low] = parts.next()? else {
            return None;
        };
        *byte = hex(high)? << 4 | hex(low)?;
    }
    // A multicast address is never the address of an interface.
    (parts.next().is_none() && mac[0] & 1 == 0).then_some(mac)
}

fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

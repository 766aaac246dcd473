//! What the front end asks of xenstore and writes there, and what it makes of the answers.
//!
//! Source: Xen 4.17 public/io/netif.h and docs/misc/xenstore-paths.pandoc.

use super::handshake::Input;
use super::{NetFront, Notice};
use crate::abi::XenbusState;
use crate::decimal::{Decimal, parse};
use crate::xenstore::{ReqId, StoreErrno, StoreError, Xenstore};
use crate::{DomId, Hypervisor};
use mayfly_handoff::network;

/// The front end's directory in xenstore, below the domain's home.
pub(super) const HOME: &[u8] = b"device/vif/0/";
pub(super) const WATCH_STATE: &[u8] = b"vif0/state";
pub(super) const WATCH_BACKEND: &[u8] = b"vif0/backend";
/// The MTU of Ethernet, and the most that a back end without scatter-gather carries.
pub(super) const MTU_MAX: u16 = 1500;
/// What every IPv4 host can receive in one datagram (RFC 1122, section 3.3.2), and
/// enough for a DNS answer over UDP.
const MTU_MIN: u16 = 576;

/// What a request of ours asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    Backend,
    Mac,
    Publish,
    PeerState,
    OwnState,
    Online,
    Mtu,
    Feature(Feature),
    /// The answer does not matter.
    Courtesy,
}

/// The keys in the back end's directory that say what it can do with the frames that we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Feature {
    ScatterGather,
    Segment4,
    NoChecksum4,
    Checksum6,
}

pub(super) const FEATURES: [(Feature, &[u8]); 4] = [
    (Feature::ScatterGather, b"/feature-sg"),
    (Feature::Segment4, b"/feature-gso-tcpv4"),
    (Feature::NoChecksum4, b"/feature-no-csum-offload"),
    (Feature::Checksum6, b"/feature-ipv6-csum-offload"),
];

impl<'h, H: Hypervisor> NetFront<'h, H> {
    pub(super) fn answered(&mut self, question: Question, answer: Result<&[u8], StoreErrno>) {
        let value = answer.ok();
        let input = match question {
            Question::Backend => {
                let path = value.unwrap_or_default();
                let domain = network::domain_of(path);
                self.backend.clear();
                self.backend.extend_from_slice(path);
                self.domain = domain.unwrap_or(DomId(0));
                if answer == Err(StoreErrno::NoEntry) {
                    Input::NoBackend
                } else {
                    Input::Backend(domain.is_some())
                }
            }
            Question::Mac => {
                let mac = value.and_then(parse_mac);
                self.mac = mac.unwrap_or(self.mac);
                Input::Mac(mac.is_some())
            }
            Question::Publish if value.is_none() => Input::PublishRefused,
            Question::PeerState | Question::OwnState => {
                let state = match answer {
                    Ok(value) => match XenbusState::parse(value) {
                        // No state at all says nothing.
                        XenbusState::Unknown => return,
                        state => state,
                    },
                    // A node that is gone may be answered either way.
                    Err(StoreErrno::NoEntry | StoreErrno::Access) => XenbusState::Unknown,
                    Err(_) => return,
                };
                if question == Question::OwnState {
                    Input::Own(state)
                } else {
                    Input::Peer(state)
                }
            }
            Question::Online if value == Some(b"1") => Input::Online,
            Question::Mtu => {
                match value.map(parse) {
                    // Without the key the MTU is Ethernet's.
                    None => self.mtu = MTU_MAX,
                    Some(mtu) => match mtu.and_then(|mtu| u16::try_from(mtu).ok()) {
                        Some(mtu) if (MTU_MIN..=MTU_MAX).contains(&mtu) => self.mtu = mtu,
                        _ => self.counters.bad_mtu += 1,
                    },
                }
                return;
            }
            Question::Feature(feature) => {
                let said = match answer {
                    Ok(value) => value == b"1",
                    Err(StoreErrno::NoEntry) => false,
                    Err(_) => return,
                };
                let at = FEATURES.iter().position(|&(known, _)| known == feature);
                if let Some(slot) = at.and_then(|at| self.features.get_mut(at)) {
                    *slot = Some(said);
                }
                if let Some(link) = self.link.as_mut().filter(|_| said) {
                    // Frames of many pages are composed after there was said to be room.
                    link.grant_buffers(self.xen, &mut self.grants);
                }
                return;
            }
            Question::Publish | Question::Online | Question::Courtesy => return,
        };
        self.inputs.push_back(input);
    }

    /// Makes a link and writes the eight keys that let the back end connect.
    pub(super) fn publish(&mut self, store: &mut Xenstore<'h, H>) {
        self.sweep();
        let link = self.make_link();
        let link = match link {
            Ok(link) => link,
            Err(error) => {
                self.notice(Notice::Link(error));
                self.inputs.push_back(Input::LinkFailed);
                return;
            }
        };
        self.counters.links += 1;
        let numbers = [
            (b"tx-ring-ref".as_slice(), link.tx_ring().0),
            (b"rx-ring-ref", link.rx_ring().0),
            (b"event-channel-tx", link.ports().tx.get()),
            (b"event-channel-rx", link.ports().rx.get()),
            // For a back end without feature-split-event-channels: to ask first would be a round trip.
            (b"event-channel", link.ports().tx.get()),
            (b"request-rx-copy", 1),
            (b"feature-rx-notify", 1),
        ];
        self.link = Some(link);
        for (key, number) in numbers {
            let value = Decimal::new(number);
            self.ask(
                Question::Publish,
                |_, store| store.write(&[HOME, key], value.as_bytes()),
                store,
            );
        }
        self.write_state(Question::Publish, XenbusState::Connected, store);
        if self.housekeeping {
            self.watch_backend(store);
        }
    }

    /// Watches the state of the present back end, instead of that of an older one, and asks for
    /// the MTU and what the back end can do.
    pub(super) fn watch_backend(&mut self, store: &mut Xenstore<'h, H>) {
        if self.backend.is_empty() {
            return;
        }
        if self.watched.as_ref() == Some(&self.backend) {
            // An answer may have been dropped with the older questions.
            self.peer_state_changed = true;
        } else {
            if let Some(old) = self.watched.take() {
                self.ask(
                    Question::Courtesy,
                    |_, store| store.unwatch(&[&old, b"/state"], WATCH_STATE),
                    store,
                );
            }
            self.ask(
                Question::Courtesy,
                |net, store| store.watch(&[&net.backend, b"/state"], WATCH_STATE),
                store,
            );
            self.watched = Some(self.backend.clone());
        }
        self.ask(Question::Mtu, |_, store| store.read(&[HOME, b"mtu"]), store);
        for (feature, key) in FEATURES {
            self.ask(
                Question::Feature(feature),
                |net, store| store.read(&[&net.backend, key]),
                store,
            );
        }
    }

    pub(super) fn write_state(
        &mut self,
        question: Question,
        state: XenbusState,
        store: &mut Xenstore<'h, H>,
    ) {
        let digit = [b'0' + state as u8];
        self.ask(
            question,
            |_, store| store.write(&[HOME, b"state"], &digit),
            store,
        );
    }

    pub(super) fn ask(
        &mut self,
        question: Question,
        request: impl FnOnce(&Self, &mut Xenstore<'h, H>) -> Result<ReqId, StoreError>,
        store: &mut Xenstore<'h, H>,
    ) {
        match request(self, store) {
            Ok(id) => self.questions.push((id, question)),
            Err(error) => self.notice(Notice::Store(error)),
        }
    }
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
    // A group address is no interface's own.
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

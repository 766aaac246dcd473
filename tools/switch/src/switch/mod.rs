//! The switch: guests, their bridges, and the frames between them.
//!
//! Everything is done in turns ([`Switch::turn`]) on one thread; with several threads, each has a switch of its own
//! ([`Peers`]). A turn takes the frames that have come from each
//! bridge, at most [`BATCH`], and then serves every guest that sends, up to its share. The frames put into a guest's
//! ring in a turn are published together at once, with one notification at most. While a guest sends, its events stay
//! masked and its ring is checked in each turn. When a turn finds nothing in it, the ring is told to notify again, and
//! checked once more.

mod dump;
mod forward;
mod guest;
mod peers;
mod prepared;
mod share;
mod signs;
mod sleepers;
mod status;
mod turn;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use crate::arena::{Arena, FRAME_MAX, Frame};
use crate::guard::Identity;
pub use crate::held::Bounds;
use crate::held::Held;
use crate::offload::{ETHERNET, Offload};
use crate::port::{Port, Tail, Taken};
use crate::xen::{Direction, Segment, Wire, Xen};
use dump::Dump;
pub use dump::DumpBounds;
pub use guest::{Guard, Guest, Notice, Refusal, Sleeper, WakeFrame};
use peers::Passed;
pub use peers::{Bell, Peers};
pub use prepared::Awake;
use share::Share;
pub use share::{FRAME_COST, QUANTUM, SendLimits};
use signs::Signs;
pub use signs::{Life, Sign};
use sleepers::{Asleep, Hold};
pub use status::{BridgeStatus, GuestStatus, SleeperStatus, SwitchStatus};
pub use turn::Rest;

/// The number of frames that are moved before they are published: with more, the first of them would wait.
pub const BATCH: usize = 64;

/// The number of frames, or segments of one, that are few: whoever gets them probably answers before there are more.
pub const FEW: usize = 2;

/// The time, in ns, from the attachment of a guest until its event channels are bound. It takes the kernel as long as
/// the rest of the attachment. The client starts the guest meanwhile, and the first frame of the guest is seen without
/// an event.
const BIND_AFTER: u64 = 100_000;

/// The bytes of VLAN tags by which a frame from a bridge may be longer than the MTU allows.
const TAGS: usize = 8;

/// A MAC address.
pub type Mac = [u8; 6];

/// A bridge.
struct Net<W> {
    bridge: String,
    /// dom0's own MAC address on the bridge.
    host: Mac,
    /// The longest IP packet, in bytes.
    mtu: usize,
    wire: W,
    is_lost: bool,
    /// Whether it may have frames to read.
    is_readable: bool,
    /// The longest frame that there is room for when frames are read, in bytes. One of this length may have been cut.
    room: usize,
    /// The frames that wait to be sent to it, in the arena.
    out: Vec<Outgoing>,
    counters: NetCounters,
}

/// A frame that waits to be sent to a bridge.
struct Outgoing {
    /// The header and the frame, or its head, in the arena.
    range: Range<usize>,
    /// The number of segments that it is worth.
    segments: usize,
    /// What is still in the guest's pages.
    tail: Option<Tail>,
    /// The guest that has sent it; `None` for an answer of the switch.
    from: Option<usize>,
}

/// The counters of a bridge's port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetCounters {
    /// Frames from the bridge.
    pub frames: u64,
    /// Of these, those that contradict their header, or are malformed.
    pub malformed: u64,
    /// Of these, those that are for no guest here.
    pub unknown: u64,
    /// Frames that guests sent to the bridge.
    pub sent: u64,
}

/// A guest that is served.
struct Live<X: Xen> {
    guest: Guest,
    net: usize,
    identity: Identity,
    port: Port<X>,
    share: Share,
    /// The frames that it has sent, and that wait for its share: fewer than are taken in a turn.
    backlog: VecDeque<(Vec<u8>, Offload)>,
    dump: Option<Dump>,
    /// Whether it may have sent something; its events are masked then.
    is_active: bool,
    /// Whether its ring has frames that are not published yet.
    is_dirty: bool,
    /// For each end in `local`, whether an event has come and it is masked.
    masked: [bool; 2],
    /// The switch's ends of its event channels, once they are bound.
    local: Option<[u32; 2]>,
    /// Whether the notice that its port was shut was sent.
    is_told: bool,
    /// Whether the frames for it are held, though it is there.
    hold: Hold,
    /// The signs of its life, until they were told.
    signs: Option<Signs>,
}

/// The switch.
pub struct Switch<X: Xen, W: Wire> {
    xen: X,
    nets: Vec<Net<W>>,
    guests: Vec<Option<Live<X>>>,
    /// The guests that are attached. The keys of these maps are the configurations', so nobody can choose them so that their
    /// hashes collide, and a quick hash will do.
    by_mac: FxHashMap<(usize, Mac), usize>,
    by_address: FxHashMap<(usize, IpAddr), Mac>,
    by_domain: FxHashMap<u16, usize>,
    by_port: FxHashMap<u32, usize>,
    /// The guests that may sleep, attached or not.
    sleepers: FxHashMap<(usize, Mac), Asleep>,
    /// The guests whose rings are mapped already, by domain, each with the client that has asked for it.
    prepared: FxHashMap<u16, (u64, Port<X>)>,
    active: VecDeque<usize>,
    dirty: Vec<usize>,
    /// The guests with frames that wait for room in their rings.
    waiting: Vec<usize>,
    /// The guests whose event channels are not bound yet, and the time, in ns, at which they will be.
    unbound: Vec<(usize, u64)>,
    /// The guests whose signs of life were not told yet.
    newborns: Vec<usize>,
    notices: VecDeque<Notice>,
    arena: Arena,
    /// What new guests have announced in this turn.
    late: Vec<(usize, Vec<u8>, Offload)>,
    /// The other threads, if there are any.
    peers: Option<Peers>,
    /// What was sent to bridges since this was last asked for, in segments: a long frame counts as many.
    sent: usize,
    /// Whether the last turn has done nothing but give guests a few frames.
    is_calm: bool,
    /// The frames that were read from a bridge last: where each begins in the arena, and its length with its header.
    reads: Vec<(usize, usize)>,
    /// The list of a turn's frames, kept to reuse its memory.
    frames: Vec<Taken>,
    scratch: Vec<u8>,
}

/// The most notices that wait. A client that asks for them late gets the first ones.
const NOTICES_MAX: usize = 1024;

impl<X: Xen, W: Wire> Switch<X, W> {
    /// A switch without bridges and guests.
    pub fn new(xen: X) -> Self {
        Self {
            xen,
            nets: Vec::new(),
            guests: Vec::new(),
            by_mac: FxHashMap::default(),
            by_address: FxHashMap::default(),
            by_domain: FxHashMap::default(),
            by_port: FxHashMap::default(),
            sleepers: FxHashMap::default(),
            prepared: FxHashMap::default(),
            active: VecDeque::new(),
            dirty: Vec::new(),
            waiting: Vec::new(),
            unbound: Vec::new(),
            newborns: Vec::new(),
            notices: VecDeque::new(),
            arena: Arena::default(),
            late: Vec::new(),
            peers: None,
            sent: 0,
            is_calm: false,
            reads: Vec::new(),
            frames: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Adds a port on a bridge, with the MAC address of the bridge and the longest IP packet that it takes, in bytes.
    pub fn add_bridge(&mut self, bridge: &str, host: Mac, mtu: usize, wire: W) {
        self.nets.push(Net {
            bridge: bridge.to_owned(),
            host,
            mtu,
            wire,
            is_lost: false,
            is_readable: true,
            room: mtu.saturating_add(ETHERNET + TAGS + 1).min(FRAME_MAX),
            out: Vec::new(),
            counters: NetCounters::default(),
        });
    }

    /// Makes it one thread of a switch with several.
    pub fn join(&mut self, peers: Peers) {
        self.peers = Some(peers);
    }

    /// The other threads, if there are any.
    pub fn peers(&self) -> Option<&Peers> {
        self.peers.as_ref()
    }

    /// Tells the other threads whether this guest or sleeper is here.
    fn publish(&self, key: (usize, Mac)) {
        let Some(peers) = &self.peers else {
            return;
        };
        let live = self.by_mac.get(&key).and_then(|at| self.guests.get(*at));
        let guest = live.and_then(Option::as_ref).map(|live| &live.guest);
        let sleeper = self.sleepers.get(&key).map(|asleep| &asleep.sleeper);
        let attached = guest.map(|guest| (guest.ipv4, guest.ipv6));
        let declared = sleeper.map(|sleeper| (sleeper.ipv4, sleeper.ipv6));
        let its = attached.or(declared);
        peers.publish(key, its.map(|(v4, v6)| addresses(v4, v6).collect()));
    }

    /// The ports on bridges, in the order in which they were added.
    pub fn wires(&self) -> impl Iterator<Item = &W> {
        self.nets.iter().map(|net| &net.wire)
    }

    /// Grants and event channels.
    pub fn xen(&self) -> &X {
        &self.xen
    }

    /// What was sent to bridges since this was last called, in segments: a long frame counts as many.
    pub fn sent(&mut self) -> usize {
        std::mem::take(&mut self.sent)
    }

    /// Whether the last turn has done nothing but give guests a few frames from bridges. There is nothing to do until one
    /// of them answers.
    pub fn is_calm(&self) -> bool {
        self.is_calm
    }

    /// The next notice.
    pub fn notice(&mut self) -> Option<Notice> {
        self.notices.pop_front()
    }

    /// Queues a notice; returns whether there was room for it.
    fn tell(&mut self, notice: Notice) -> bool {
        let has_room = self.notices.len() < NOTICES_MAX;
        if has_room {
            self.notices.push_back(notice);
        }
        has_room
    }

    fn net(&self, bridge: &str, mac: Mac) -> Result<usize, Refusal> {
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(Refusal::Mac);
        }
        let at = self.nets.iter().position(|net| net.bridge == bridge);
        at.ok_or_else(|| Refusal::Bridge(bridge.to_owned()))
    }

    /// Serves a guest from now on. It continues at the present indices of its rings, and delivers the frames that were
    /// held for it: they are in its receive ring when this returns. It does not depend on an event: the rings are
    /// checked in each turn, until the event channels are bound, which is [`BIND_AFTER`] later.
    ///
    /// # Errors
    /// The guest cannot be served. None of its grants are mapped then.
    pub fn attach(&mut self, guest: Guest, now: u64) -> Result<(), Refusal> {
        let net = self.net(&guest.bridge, guest.mac)?;
        if self.by_mac.contains_key(&(net, guest.mac)) {
            return Err(Refusal::Taken("the MAC address"));
        }
        if self.by_domain.contains_key(&guest.rings.domain) {
            return Err(Refusal::Taken("the domain"));
        }
        if self.find(&guest.name).is_some() {
            return Err(Refusal::Taken("the name"));
        }
        let port = match self.prepared.remove(&guest.rings.domain) {
            Some((_, port)) if port.is_of(&guest.rings, guest.features) => port,
            _ => Port::open(&self.xen, &guest.rings, guest.features)?,
        };
        let at = match self.guests.iter().position(Option::is_none) {
            Some(at) => at,
            None => {
                self.guests.push(None);
                self.guests.len() - 1
            }
        };
        let key = (net, guest.mac);
        self.by_mac.insert(key, at);
        self.by_domain.insert(guest.rings.domain, at);
        for address in addresses(guest.ipv4, guest.ipv6) {
            self.by_address.insert((net, address), guest.mac);
        }
        let host = self.nets.get(net).map_or([0; 6], |net| net.host);
        let asleep = self.sleepers.get_mut(&key);
        let is_newborn = asleep.as_ref().is_some_and(|asleep| !asleep.sleeper.moves);
        let held = asleep.map(Asleep::take);
        let live = Live {
            identity: Identity {
                mac: guest.mac,
                ipv4: guest.ipv4,
                ipv6: guest.ipv6,
                host,
            },
            net,
            port,
            share: Share::new(guest.limits, now),
            backlog: VecDeque::new(),
            dump: None,
            is_active: false,
            is_dirty: false,
            masked: [false; 2],
            local: None,
            is_told: false,
            hold: Hold::No,
            signs: held
                .as_ref()
                .filter(|_| is_newborn)
                .map(|held| Signs::new(now, held.len())),
            guest,
        };
        if let Some(place) = self.guests.get_mut(at) {
            *place = Some(live);
        }
        self.publish(key);
        self.unbound.push((at, now.saturating_add(BIND_AFTER)));
        if is_newborn {
            self.newborns.push(at);
        }
        if let Some(mut held) = held {
            self.replay(at, &mut held, now);
        }
        self.activate(at);
        Ok(())
    }

    /// Delivers the frames that were held for a guest.
    fn replay(&mut self, at: usize, held: &mut Held<Offload>, now: u64) {
        self.arena.clear();
        while let Some((bytes, offload)) = held.pop() {
            if !self.arena.has_room() {
                self.flush();
                self.arena.clear();
            }
            if let Some(range) = self.arena.push(&bytes) {
                self.give(at, &Frame { range, offload }, now);
            }
        }
        self.flush();
    }

    /// Releases a guest. Its grants are unmapped when this returns. Returns its status. If it may sleep, the frames for
    /// it are held from now on.
    ///
    /// # Errors
    /// There is no such guest.
    pub fn detach(&mut self, domain: u16) -> Result<GuestStatus, Refusal> {
        let at = self.by_domain.remove(&domain).ok_or(Refusal::Unknown)?;
        let live = self.guests.get_mut(at).and_then(Option::take);
        let mut live = live.ok_or(Refusal::Unknown)?;
        forget_ports(&mut self.by_port, at, live.local);
        let key = (live.net, live.guest.mac);
        if let Some(asleep) = self.sleepers.get_mut(&key).filter(|one| one.sleeper.moves) {
            asleep.put_first(live.port.unqueue());
        }
        live.port.close(&self.xen);
        self.by_mac.remove(&key);
        for address in addresses(live.guest.ipv4, live.guest.ipv6) {
            self.by_address.remove(&(live.net, address));
        }
        if let Some(asleep) = self.sleepers.get_mut(&key) {
            asleep.told_at = None;
            for address in asleep.addresses() {
                self.by_address.insert((live.net, address), key.1);
            }
        }
        self.publish(key);
        for list in [&mut self.dirty, &mut self.waiting, &mut self.newborns] {
            list.retain(|other| *other != at);
        }
        self.unbound.retain(|(other, _)| *other != at);
        self.late.retain(|(other, ..)| *other != at);
        self.active.retain(|other| *other != at);
        Ok(GuestStatus::of(&live))
    }

    fn find(&self, name: &str) -> Option<usize> {
        let is_it =
            |live: &Option<Live<X>>| live.as_ref().is_some_and(|live| live.guest.name == name);
        self.guests.iter().position(is_it)
    }

    /// All guests, as they were given to the switch.
    pub fn guests(&self) -> impl Iterator<Item = &Guest> {
        self.guests.iter().flatten().map(|live| &live.guest)
    }

    /// The status of the switch.
    pub fn status(&self) -> SwitchStatus {
        SwitchStatus::of(self)
    }

    /// Which guests of these domains have no memory any more.
    #[must_use]
    pub fn ended(&self, domains: &[u16]) -> Vec<u16> {
        let ended = |domain: &&u16| self.is_there(**domain) == Some(false);
        domains.iter().filter(ended).copied().collect()
    }

    /// Whether Xen still has a guest's memory: whether a grant copy from its transmit ring succeeds. A domain that was
    /// destroyed has no grants, even if its pages are still mapped. `None` if there is no such guest.
    fn is_there(&self, domain: u16) -> Option<bool> {
        let at = self.by_domain.get(&domain);
        let live = at.and_then(|at| self.guests.get(*at)?.as_ref());
        let port = live.map(|live| &live.port);
        let port = port.or_else(|| Some(&self.prepared.get(&domain)?.1));
        let mut segment = [Segment {
            reference: port?.rings().tx_ring,
            offset: 0,
            length: 4,
            at: 0,
            is_done: false,
        }];
        let copied = self
            .xen
            .copy(domain, Direction::FromGuest, &mut segment, &mut [0; 4]);
        Some(copied.is_ok() && segment.iter().all(|segment| segment.is_done))
    }

    /// The domid of each guest, and the number of frames that it has sent. Those of which only the rings are mapped are
    /// among them.
    pub fn frames(&self) -> impl Iterator<Item = (u16, u64)> {
        let live = self.guests.iter().flatten();
        let live = live.map(|live| {
            (
                live.guest.rings.domain,
                live.port.counters.from_guest.frames,
            )
        });
        live.chain(self.prepared.keys().map(|domain| (*domain, 0)))
    }

    fn live(&mut self, at: usize) -> Option<&mut Live<X>> {
        self.guests.get_mut(at)?.as_mut()
    }
}

/// Removes a guest's ports. Another guest may have got one of the numbers since, if this guest's own were closed.
fn forget_ports(by_port: &mut FxHashMap<u32, usize>, at: usize, local: Option<[u32; 2]>) {
    for port in local.into_iter().flatten() {
        if by_port.get(&port) == Some(&at) {
            by_port.remove(&port);
        }
    }
}

fn addresses(v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>) -> impl Iterator<Item = IpAddr> {
    let v4 = v4.map(IpAddr::from);
    v4.into_iter().chain(v6.map(IpAddr::from))
}

#[cfg(test)]
mod tests;

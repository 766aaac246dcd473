//! Decides which ports get a frame.
//!
//! All guests and sleepers of a bridge are known, so nothing is learned here: a frame for somebody else goes to the bridge, and what comes
//! from there for nobody here is dropped. Who asks for the address of a guest is answered here, if the guest may have no other address; a
//! guest that may is asked itself, and alone.

use std::net::IpAddr;

use super::share::cost;
use super::{Guard, Hold, Live, Mac, Notice, Outgoing, Passed, Peers, Switch, WakeFrame};
use crate::arena::Frame;
use crate::frame::{self, FrameKind};
use crate::guard::Breach;
use crate::offload::{self, Checksum, ETHERNET, Offload, Transport};
use crate::port::{Tail, Taken, must_complete};
use crate::xen::{Piece, Wire, Xen};

/// Bytes of a VLAN tag, by which a frame may be longer than the MTU allows.
const TAG: usize = 4;

/// Where a frame has come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A guest of this thread.
    Guest(usize),
    /// The bridge.
    Bridge,
    /// Another thread: this one gives it to its own guests only.
    Peer,
}

pub(super) fn target(frame: &[u8]) -> Mac {
    frame.first_chunk().copied().unwrap_or_default()
}

pub(super) fn is_group(mac: Mac) -> bool {
    mac[0] & 1 != 0
}

impl<X: Xen> Live<X> {
    /// Whether the guest may send this.
    fn check(&self, frame: &[u8]) -> Result<(), Breach> {
        match self.guest.guard {
            Guard::Off => Ok(()),
            Guard::Mac if frame.get(6..12) == Some(&self.guest.mac[..]) => Ok(()),
            Guard::Mac => Err(Breach::Source),
            Guard::Full => self.identity.check(frame),
        }
    }
}

impl<X: Xen, W: Wire> Switch<X, W> {
    fn record(&mut self, at: usize, frame: &Frame, now: u64) {
        let Some(Some(live)) = self.guests.get_mut(at) else {
            return;
        };
        if let Some(dump) = live.dump.as_mut().filter(|dump| !dump.is_full()) {
            dump.record(self.arena.frame(&frame.range), now);
            if dump.is_full() {
                let name = live.guest.name.clone();
                self.tell(Notice::Dumped { name });
            }
        }
    }

    /// Forwards what a guest sends; returns the cost ([`cost`]).
    pub(super) fn forward(&mut self, at: usize, taken: Taken, now: u64) -> i64 {
        let Taken {
            mut frame,
            mut tail,
        } = taken;
        let Some(Some(live)) = self.guests.get_mut(at) else {
            return 0;
        };
        if live.dump.is_some()
            && let Some(tail) = tail.take()
        {
            live.port.fetch(&frame, &tail, &mut self.arena);
        }
        self.record(at, &frame, now);
        let Some(Some(live)) = self.guests.get_mut(at) else {
            return 0;
        };
        let length = frame.range.len();
        let there = tail.as_ref().map_or(length, |tail| tail.head);
        let bytes = self
            .arena
            .frame(&(frame.range.start..frame.range.start + there));
        if let Err(breach) = live.check(bytes) {
            live.port.counters.breach(breach);
            return 0;
        }
        if let Some(signs) = &mut live.signs {
            signs.note(bytes, live.guest.mac, now);
        }
        let net = live.net;
        let mtu = self.nets.get(net).map_or(0, |net| net.mtu);
        if frame.offload.cut.is_none() && length > mtu + ETHERNET + TAG {
            live.port.counters.too_long += 1;
            return 0;
        }
        let to = target(bytes);
        let receiver = self.receiver(net, to);
        let is_sleeper = receiver.is_none() && self.sleepers.contains_key(&(net, to));
        let is_out = !is_group(to) && receiver.is_none() && !is_sleeper;
        let peer = is_out.then(|| self.peer(net, to)).flatten();
        if is_out && peer.is_none() {
            return self.send_out(at, net, &mut frame, tail);
        }
        if let Some(tail) = tail
            && let Some(Some(live)) = self.guests.get_mut(at)
        {
            live.port.fetch(&frame, &tail, &mut self.arena);
        }
        if let Some(peer) = peer {
            if !self.pass(peer, net, &frame)
                && let Some(live) = self.live(at)
            {
                live.port.counters.refused += 1;
            }
            return cost(length);
        }
        if is_group(to) {
            // The bridge first: what it does to a frame's checksum is done for the others as well.
            let sent = self.send_out(at, net, &mut frame, None);
            return sent + self.give_group(net, Origin::Guest(at), &frame, now);
        }
        match receiver {
            Some(other) if other == at => 0,
            Some(other) => self.give(other, &frame, now),
            None => {
                self.keep((net, to), Origin::Guest(at), &frame, now);
                cost(length)
            }
        }
    }

    /// Queues a frame for the bridge; [`Switch::flush_out`] sends it. Returns the cost.
    fn send_out(&mut self, at: usize, net: usize, frame: &mut Frame, tail: Option<Tail>) -> i64 {
        let Some(net) = self.nets.get_mut(net).filter(|net| !net.is_lost) else {
            return 0;
        };
        let there = tail.as_ref().map(|tail| tail.head);
        net.out.push(Outgoing {
            range: self.arena.with_header(frame, there),
            segments: frame.range.len().div_ceil(net.mtu.max(1)),
            tail,
            from: Some(at),
        });
        cost(frame.range.len())
    }

    /// Sends what waits to be sent to bridges.
    pub(super) fn flush_out(&mut self) {
        for net in self.nets.iter_mut().filter(|net| !net.out.is_empty()) {
            let mut pieces = Vec::with_capacity(net.out.len());
            let mut ends = Vec::with_capacity(net.out.len());
            let mut refused = Vec::new();
            net.out.retain(|out| {
                let start = pieces.len();
                pieces.push(Piece::Bytes(self.arena.frame(&out.range)));
                let live = out.from.and_then(|at| self.guests.get(at)?.as_ref());
                if let (Some(live), Some(tail)) = (live, &out.tail) {
                    pieces.extend(live.port.left(tail));
                    if pieces.len() - start - 1 != tail.count() {
                        // Its port was shut meanwhile.
                        pieces.truncate(start);
                        refused.extend(out.from);
                        return false;
                    }
                }
                ends.push(pieces.len());
                true
            });
            let mut start = 0;
            let frames = ends.iter().map(|end| {
                let frame = pieces.get(start..*end).unwrap_or_default();
                start = *end;
                frame
            });
            let frames: Vec<&[Piece<'_>]> = frames.collect();
            let out = &net.out;
            let (mut sent, mut segments) = (0, 0);
            net.wire.write(&frames, &mut |index, is_sent| {
                // If the bridge does not take an answer of our own, it is asked for again.
                if let Some((out, from)) = out.get(index).and_then(|out| Some((out, out.from?))) {
                    if is_sent {
                        sent += 1;
                        segments += out.segments;
                    } else {
                        refused.push(from);
                    }
                }
            });
            for from in refused {
                if let Some(Some(live)) = self.guests.get_mut(from) {
                    live.port.counters.refused += 1;
                }
            }
            net.counters.sent += sent;
            self.sent += segments;
            net.out.clear();
        }
    }

    /// The other thread that has a guest or a sleeper with this MAC address.
    fn peer(&self, net: usize, mac: Mac) -> Option<usize> {
        self.peers.as_ref()?.of_mac(net, mac)
    }

    /// Hands a frame over to another thread; returns whether there was room for it.
    fn pass(&mut self, peer: usize, net: usize, frame: &Frame) -> bool {
        let passed = Passed {
            net,
            bytes: self.arena.frame(&frame.range).to_vec(),
            offload: frame.offload,
        };
        let peers = self.peers.as_mut();
        peers.is_some_and(|peers| peers.pass(peer, passed))
    }

    /// Delivers what comes from a bridge or another thread.
    pub(super) fn deliver(&mut self, net: usize, from: Origin, frame: &Frame, now: u64) {
        let bytes = self.arena.frame(&frame.range);
        let to = target(bytes);
        if let Some(at) = self.receiver(net, to) {
            self.give(at, frame, now);
        } else if is_group(to) {
            self.give_group(net, from, frame, now);
        } else if self.sleepers.contains_key(&(net, to)) {
            self.keep((net, to), from, frame, now);
        } else if let Some(net) = self.nets.get_mut(net) {
            net.counters.unknown += 1;
        }
    }

    /// Gives a frame to all of a group but its sender; returns the cost.
    fn give_group(&mut self, net: usize, from: Origin, frame: &Frame, now: u64) -> i64 {
        let bytes = self.arena.frame(&frame.range);
        let to = target(bytes);
        let length = bytes.len();
        // Who is looked for, if this is what the frame does.
        let sought = frame::look(bytes)
            .filter(|seen| matches!(seen.kind, FrameKind::Arp | FrameKind::Solicitation));
        if let Some(seen) = sought {
            if let Some(mac) = self.by_address.get(&(net, seen.to)).copied() {
                return match self.receiver(net, mac) {
                    Some(at) if Origin::Guest(at) == from => 0,
                    Some(at) if !self.is_answered_for(at) => self.give(at, frame, now),
                    _ => self.answer((net, mac), from, frame, &seen, now),
                };
            }
            let peers = self.peers.as_ref();
            if let Some(peer) = peers.and_then(|peers| peers.of_address(net, seen.to)) {
                self.pass(peer, net, frame);
                return cost(length);
            }
        }
        self.keep_group(net, frame);
        let mut spent = 0;
        if from != Origin::Peer {
            for peer in self
                .peers
                .iter()
                .flat_map(Peers::others)
                .collect::<Vec<_>>()
            {
                self.pass(peer, net, frame);
                spent += cost(length);
            }
        }
        for at in 0..self.guests.len() {
            // A guest that is held may be paused: what is for all would wait in its ring for long.
            let wants = |live: &Live<X>| {
                live.net == net && live.hold == Hold::No && live.port.groups.wants(to)
            };
            let live = self.guests.get(at).and_then(Option::as_ref);
            if Origin::Guest(at) != from && live.is_some_and(wants) {
                spent += self.give(at, frame, now);
            }
        }
        spent
    }

    /// Whether address requests for a guest are answered here: its addresses are known, and no other may be its own.
    fn is_answered_for(&self, at: usize) -> bool {
        let live = self.guests.get(at).and_then(Option::as_ref);
        live.is_some_and(|live| live.guest.guard == Guard::Full)
    }

    /// Answers an address request for a guest. If that sleeps, it is wanted.
    fn answer(
        &mut self,
        (net, mac): (usize, Mac),
        from: Origin,
        frame: &Frame,
        seen: &frame::ParsedFrame,
        now: u64,
    ) -> i64 {
        let Some(answer) = frame::answer(self.arena.frame(&frame.range), mac) else {
            return 0;
        };
        // Who only wants to know whether the address is taken (RFC 5227, RFC 4862 section 5.4) is told so, and wants nobody.
        if !seen.from.is_unspecified() && self.receiver(net, mac).is_none() {
            let cause = if seen.kind == FrameKind::Arp {
                WakeFrame::Arp
            } else {
                WakeFrame::Nd
            };
            self.want((net, mac), cause, seen.from, now);
        }
        self.write_back(net, from, &answer, now)
    }

    /// Sends a frame of our own to where one has come from; returns the cost.
    pub(super) fn write_back(&mut self, net: usize, to: Origin, frame: &[u8], now: u64) -> i64 {
        let Some(range) = self.arena.push(frame) else {
            return 0;
        };
        let frame = Frame {
            range,
            offload: Offload::NONE,
        };
        match to {
            Origin::Guest(at) => self.give(at, &frame, now),
            Origin::Bridge | Origin::Peer => self.send_back(net, frame),
        }
    }

    /// Hands a frame that no guest sends over to the thread that has its target, or else queues it for the bridge;
    /// returns the cost.
    pub(super) fn send_back(&mut self, net: usize, mut frame: Frame) -> i64 {
        if let Some(peer) = self.peer(net, target(self.arena.frame(&frame.range))) {
            self.pass(peer, net, &frame);
            return cost(frame.range.len());
        }
        let Some(net) = self.nets.get_mut(net).filter(|net| !net.is_lost) else {
            return 0;
        };
        net.out.push(Outgoing {
            range: self.arena.with_header(&mut frame, None),
            segments: 1,
            tail: None,
            from: None,
        });
        cost(frame.range.len())
    }

    /// Tells the client that somebody wants a guest, unless it knows.
    pub(super) fn want(&mut self, key: (usize, Mac), cause: WakeFrame, from: IpAddr, now: u64) {
        let asleep = self.sleepers.get(&key);
        let Some(asleep) = asleep.filter(|one| !one.is_told(now) && !one.sleeper.moves) else {
            return;
        };
        let name = asleep.sleeper.name.clone();
        if self.tell(Notice::Wanted { name, cause, from })
            && let Some(asleep) = self.sleepers.get_mut(&key)
        {
            asleep.told_at = Some(now);
        }
    }

    /// Gives a guest a frame as it takes it; returns the cost.
    pub(super) fn give(&mut self, at: usize, frame: &Frame, now: u64) -> i64 {
        self.record(at, frame, now);
        let Some(Some(live)) = self.guests.get_mut(at) else {
            return 0;
        };
        let features = live.port.features;
        if !features.take(frame) {
            return match frame.offload.cut {
                Some((_, size)) => self.give_cut(at, frame, size, now),
                None => {
                    live.port.counters.dropped_long += 1;
                    0
                }
            };
        }
        if frame.offload.checksum == Checksum::Blank
            && !(features.csum4 && features.csum6)
            && let Some(found) = Transport::of(self.arena.frame(&frame.range))
            && must_complete(&features, found.family, &frame.offload)
        {
            let Some(range) = self.arena.duplicate(&frame.range) else {
                live.port.counters.dropped_full += 1;
                return 0;
            };
            found.complete(self.arena.frame_mut(&range));
            let offload = Offload {
                checksum: Checksum::Valid,
                cut: None,
            };
            self.put(at, &Frame { range, offload }, now);
        } else {
            self.put(at, frame, now);
        }
        cost(frame.range.len())
    }

    fn put(&mut self, at: usize, frame: &Frame, now: u64) {
        let Some(Some(live)) = self.guests.get_mut(at) else {
            return;
        };
        if live.port.give(&self.xen, &mut self.arena, frame, now) {
            if !live.is_dirty {
                live.is_dirty = true;
                self.dirty.push(at);
            }
        } else if live.port.queued() == 1 {
            self.waiting.push(at);
        } else if live.port.reason().is_some() {
            // Its reason is told when it is next looked at.
            self.activate(at);
        }
    }

    /// Cuts a frame for a guest that takes no such long ones.
    fn give_cut(&mut self, at: usize, frame: &Frame, size: u16, now: u64) -> i64 {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        let bytes = self.arena.frame(&frame.range);
        let ends = match Transport::of(bytes) {
            Some(found) => offload::cut(bytes, &found, size, &mut scratch),
            None => Vec::new(),
        };
        let mark = self.arena.mark();
        let mut start = 0;
        let mut spent = 0;
        for end in ends {
            let segment = scratch.get(start..end).unwrap_or_default();
            start = end;
            let mut range = self.arena.push(segment);
            if range.is_none() {
                // What was put is copied, and then its place is free.
                self.flush();
                self.arena.forget_from(mark);
                range = self.arena.push(segment);
            }
            let Some(range) = range else {
                break;
            };
            let offload = Offload {
                checksum: Checksum::Blank,
                cut: None,
            };
            spent += self.give(at, &Frame { range, offload }, now);
        }
        self.scratch = scratch;
        spent
    }
}

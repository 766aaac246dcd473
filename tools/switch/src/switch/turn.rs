//! One turn of the switch: frames from the bridges first, then those of each guest that sends.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::forward::Origin;
use super::{BATCH, BIND_AFTER, FEW, Live, Notice, Peers, Signs, Switch, forget_ports};
use crate::arena::{FRAME_MAX, Frame};
use crate::frame::is_announcement;
use crate::port::{Budget, Taken};
use crate::vnet;
use crate::xen::{Wire, Xen};

/// The time that the loop may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Not at all: there is work.
    Busy,
    /// Until an event, or until this time in ns, if there is one.
    Until(Option<u64>),
}

/// The interval, in ns, after which the ring of a guest with waiting frames is checked again. Guests notify of new
/// room, so this is only for those that never do.
const LOOK_AGAIN: u64 = 1_000_000_000;

impl<X: Xen, W: Wire> Switch<X, W> {
    /// Handles an event on one of the switch's ports, which is masked until it is unmasked.
    pub fn event(&mut self, port: u32) {
        let at = self.by_port.get(&port).copied();
        let Some(live) = at.and_then(|at| self.live(at)) else {
            // The guest is gone, and its port too.
            return;
        };
        live.port.counters.events += 1;
        for (mine, masked) in live
            .port
            .ports()
            .unwrap_or_default()
            .iter()
            .zip(&mut live.masked)
        {
            *masked |= *mine == port;
        }
        if let Some(at) = at {
            self.activate(at);
        }
    }

    /// Marks all guests as sending, after events were lost.
    pub fn look_at_all(&mut self) {
        for at in 0..self.guests.len() {
            self.activate(at);
        }
    }

    /// Marks a bridge's port as readable, by its number in the order in which they were added.
    pub fn readable(&mut self, net: usize) {
        if let Some(net) = self.nets.get_mut(net) {
            net.is_readable = true;
        }
    }

    pub(super) fn activate(&mut self, at: usize) {
        if let Some(live) = self.live(at)
            && !live.is_active
        {
            live.is_active = true;
            self.active.push_back(at);
        }
    }

    /// Moves frames, within the bounds of a turn. Returns whether any were moved.
    pub fn turn(&mut self, now: u64) -> bool {
        let mut is_busy = self.announce(now);
        is_busy |= self.take_over(now);
        let is_first = !is_busy;
        let mut count = 0;
        for net in 0..self.nets.len() {
            count += self.take_in(net, now);
        }
        is_busy |= count != 0;
        for at in std::mem::take(&mut self.waiting) {
            self.arena.clear();
            if let Some(Some(live)) = self.guests.get_mut(at) {
                if live.port.drain(&self.xen, &mut self.arena, now) {
                    is_busy = true;
                    live.port.flush(&self.xen, &mut self.arena);
                }
                if live.port.queued() != 0 {
                    self.waiting.push(at);
                }
            }
        }
        let mut is_any = false;
        for _ in 0..self.active.len() {
            let Some(at) = self.active.pop_front() else {
                break;
            };
            is_any |= self.serve(at, now);
            // It is served again after the others.
            self.active.push_back(at);
        }
        self.is_calm = is_first && !is_any && (1..=FEW).contains(&count);
        self.wake();
        is_busy || is_any
    }

    /// Wakes the threads that have got frames from this one.
    fn wake(&mut self) {
        if let Some(peers) = &mut self.peers {
            peers.wake();
        }
    }

    /// Delivers frames that other threads have handed over; returns whether there were any.
    fn take_over(&mut self, now: u64) -> bool {
        let mut is_any = false;
        self.arena.clear();
        for _ in 0..BATCH {
            let Some(passed) = self.peers.as_ref().and_then(Peers::next) else {
                break;
            };
            is_any = true;
            if !self.arena.has_room() {
                self.flush();
                self.arena.clear();
            }
            if let Some(range) = self.arena.push(&passed.bytes) {
                let offload = passed.offload;
                let frame = Frame { range, offload };
                self.deliver(passed.net, Origin::Peer, &frame, now);
            }
        }
        if is_any {
            self.flush();
        }
        is_any
    }

    /// Forwards what new guests have announced; returns whether that was anything.
    fn announce(&mut self, now: u64) -> bool {
        if self.late.is_empty() {
            return false;
        }
        self.arena.clear();
        for (at, bytes, offload) in std::mem::take(&mut self.late) {
            if !self.arena.has_room() {
                self.flush();
                self.arena.clear();
            }
            if let Some(range) = self.arena.push(&bytes) {
                let frame = Frame { range, offload };
                self.forward_charged(at, Taken { frame, tail: None }, now);
            }
        }
        self.flush();
        true
    }

    /// Forwards a frame, and charges for it. Returns whether its sender's other frames have to wait.
    fn forward_charged(&mut self, at: usize, taken: Taken, now: u64) -> bool {
        let length = taken.frame.range.len();
        let spent = self.forward(at, taken, now);
        let live = self.live(at);
        live.is_some_and(|live| live.share.charge(length, spent))
    }

    /// Binds the event channels of new guests when it is time; a little later if the turn `is_busy` with frames. It comes
    /// after a turn, and after the receivers of its frames had the time to run: the kernel takes long for it.
    pub fn bind(&mut self, now: u64, is_busy: bool) {
        for (at, time) in std::mem::take(&mut self.unbound) {
            let Some(Some(live)) = self.guests.get_mut(at) else {
                continue;
            };
            if time.saturating_add(if is_busy { BIND_AFTER } else { 0 }) > now {
                self.unbound.push((at, time));
                continue;
            }
            live.port.bind(&self.xen);
            live.local = live.port.ports();
            for port in live.local.into_iter().flatten() {
                self.by_port.insert(port, at);
            }
        }
    }

    /// Asks every guest that has stopped sending to notify again.
    pub fn rest(&mut self, now: u64) -> Rest {
        // What a client has asked for may have sent something as well.
        self.wake();
        let mut is_busy = false;
        let mut until: Option<u64> = None;
        let mut unmask = Vec::new();
        let mut earliest = |time: u64| until = Some(until.map_or(time, |other| other.min(time)));
        for _ in 0..self.active.len() {
            let Some(at) = self.active.pop_front() else {
                break;
            };
            let Some(Some(live)) = self.guests.get_mut(at) else {
                continue;
            };
            if let Some((_, time)) = self.unbound.iter().find(|(other, _)| *other == at) {
                // It cannot notify yet.
                earliest(*time);
                self.active.push_back(at);
                continue;
            }
            if let Some(time) = live.share.limited_until() {
                // Its ring is not checked before that time, so it need not notify.
                earliest(time.max(now + 1));
                self.active.push_back(at);
                continue;
            }
            if !live.backlog.is_empty() || live.port.rest(&self.xen) {
                is_busy = true;
                self.active.push_back(at);
                continue;
            }
            live.is_active = false;
            let ports = live.port.ports().unwrap_or_default();
            for (port, masked) in ports.iter().zip(&mut live.masked) {
                if std::mem::take(masked) {
                    unmask.push(*port);
                }
            }
            Self::shut(at, live, &mut self.notices, &mut self.by_port);
        }
        if !unmask.is_empty() {
            self.xen.unmask(&unmask);
        }
        if !self.waiting.is_empty() {
            earliest(now + LOOK_AGAIN);
        }
        if let Some(time) = Self::tell_lives(
            now,
            (&mut self.newborns, &mut self.guests),
            &mut self.notices,
        ) {
            earliest(time);
        }
        if is_busy || !self.late.is_empty() {
            Rest::Busy
        } else {
            Rest::Until(until)
        }
    }

    /// Tells of new guests that have sent something; returns when to do so again.
    fn tell_lives(
        now: u64,
        (newborns, guests): (&mut Vec<usize>, &mut [Option<Live<X>>]),
        notices: &mut VecDeque<Notice>,
    ) -> Option<u64> {
        let mut again: Option<u64> = None;
        newborns.retain(|at| {
            let Some(Some(live)) = guests.get_mut(*at) else {
                return false;
            };
            match live.signs.as_ref().and_then(Signs::due) {
                None => true,
                Some(due) if due > now => {
                    again = Some(again.map_or(due, |other| other.min(due)));
                    true
                }
                Some(_) => {
                    if let Some(signs) = live.signs.take()
                        && notices.len() < super::NOTICES_MAX
                    {
                        notices.push_back(Notice::Lives {
                            name: live.guest.name.clone(),
                            domain: live.guest.rings.domain,
                            life: signs.told(now),
                        });
                    }
                    false
                }
            }
        });
        again
    }

    /// Sends, once, the notice that a guest's port was shut.
    fn shut(
        at: usize,
        live: &mut Live<X>,
        notices: &mut VecDeque<Notice>,
        by_port: &mut FxHashMap<u32, usize>,
    ) {
        if let Some(reason) = live.port.reason()
            && !live.is_told
        {
            live.is_told = true;
            forget_ports(by_port, at, live.local);
            if notices.len() < super::NOTICES_MAX {
                notices.push_back(Notice::Shut {
                    name: live.guest.name.clone(),
                    domain: live.guest.rings.domain,
                    reason,
                });
            }
        }
    }

    /// Takes frames from a bridge, and delivers them; returns how many.
    fn take_in(&mut self, net: usize, now: u64) -> usize {
        self.arena.clear();
        let mut count = 0;
        while count < BATCH {
            let room = self.nets.get(net).map_or(0, |net| net.room);
            // Often there is one. To make room for many takes as long as to read it, and with room for two it is seen
            // that no other follows.
            let most = if count == 0 { 2 } else { BATCH - count };
            let got = self.read(net, room, most);
            if got == 0 {
                break;
            }
            count += got;
            let mark = self.arena.mark();
            let mut reads = std::mem::take(&mut self.reads);
            for (start, length) in reads.drain(..) {
                if !self.arena.has_room() {
                    // What was made of the frames before this one is copied, and then its place is free.
                    self.flush();
                    self.arena.forget_from(mark);
                }
                self.deliver_read(net, (start, length, room), now);
            }
            self.reads = reads;
        }
        self.flush();
        count
    }

    /// Reads at most `count` frames from a bridge into the arena, with `room` bytes for each, and lists them in `reads`;
    /// returns how many there are.
    fn read(&mut self, net: usize, room: usize, count: usize) -> usize {
        let place = self.nets.get_mut(net);
        let Some(place) = place.filter(|net| net.is_readable && !net.is_lost) else {
            return 0;
        };
        let mut buffers: Vec<&mut [u8]> = self.arena.rooms(room, count).collect();
        let reads = &mut self.reads;
        let read = place.wire.read(&mut buffers, &mut |index, length| {
            reads.push((index, length))
        });
        match read {
            Ok(has_more) => place.is_readable = has_more,
            Err(error) => {
                // Otherwise it would stay readable for ever.
                place.is_lost = true;
                let bridge = place.bridge.clone();
                let error = error.to_string();
                self.tell(Notice::Lost { bridge, error });
            }
        }
        if let Some((last, _)) = self.reads.last() {
            let (first, size) = self.arena.take_rooms(room, last + 1);
            for (start, _) in &mut self.reads {
                *start = first + *start * size;
            }
        }
        self.reads.len()
    }

    /// Delivers a frame that was read to the arena; `length` is that of its header and it, and `room` what there was for
    /// the frame.
    fn deliver_read(&mut self, net: usize, (start, length, room): (usize, usize, usize), now: u64) {
        let Some(place) = self.nets.get_mut(net) else {
            return;
        };
        place.counters.frames += 1;
        let is_cut = length >= vnet::SIZE + room && room < FRAME_MAX;
        if is_cut {
            // The MTU has grown.
            place.room = FRAME_MAX;
        }
        let read = self.arena.was_read(start, length).filter(|_| !is_cut);
        let frame = read.and_then(|(header, range)| {
            let offload = vnet::decode(header, self.arena.frame_mut(&range)).ok()?;
            (range.len() >= crate::offload::ETHERNET).then_some(Frame { range, offload })
        });
        match frame {
            Some(frame) => self.deliver(net, Origin::Bridge, &frame, now),
            None => place.counters.malformed += 1,
        }
    }

    /// Takes frames of a guest, up to its share, and forwards them.
    fn serve(&mut self, at: usize, now: u64) -> bool {
        self.arena.clear();
        let mut frames = std::mem::take(&mut self.frames);
        frames.clear();
        let Some(Some(live)) = self.guests.get_mut(at) else {
            return false;
        };
        let budget = Budget {
            frames: BATCH,
            bytes: live.share.begin(now),
            // The signs of a new guest are looked for in whole frames.
            may_leave: live.signs.is_none(),
        };
        if budget.bytes != 0 && !live.backlog.is_empty() {
            self.go_on(at, now);
            return true;
        }
        if budget.bytes != 0 {
            live.port
                .take(&self.xen, &mut self.arena, budget, &mut frames);
        }
        let is_new = live.signs.is_some();
        let mut must_wait = false;
        for taken in frames.drain(..) {
            let bytes = self.arena.frame(&taken.frame.range);
            if is_new && is_announcement(bytes) {
                // The clients that wait for a new guest come first. Its announcement is forwarded in the next turn.
                self.late.push((at, bytes.to_vec(), taken.frame.offload));
                continue;
            }
            if must_wait {
                self.put_off(at, taken);
            } else {
                must_wait = self.forward_charged(at, taken, now);
            }
        }
        self.frames = frames;
        self.flush();
        let Some(Some(live)) = self.guests.get_mut(at) else {
            return false;
        };
        let is_any = live.port.answer(&self.xen);
        Self::shut(at, live, &mut self.notices, &mut self.by_port);
        is_any
    }

    /// Keeps a frame of a guest that has used up its round by frames for many.
    fn put_off(&mut self, at: usize, taken: Taken) {
        let Some(Some(live)) = self.guests.get_mut(at) else {
            return;
        };
        if let Some(tail) = &taken.tail {
            live.port.fetch(&taken.frame, tail, &mut self.arena);
        }
        let bytes = self.arena.frame(&taken.frame.range).to_vec();
        live.backlog.push_back((bytes, taken.frame.offload));
    }

    /// Forwards what was put off, up to the guest's share.
    fn go_on(&mut self, at: usize, now: u64) {
        let mut must_wait = false;
        while !must_wait
            && let Some((bytes, offload)) = self.live(at).and_then(|live| live.backlog.pop_front())
        {
            if !self.arena.has_room() {
                self.flush();
                self.arena.clear();
            }
            if let Some(range) = self.arena.push(&bytes) {
                let frame = Frame { range, offload };
                must_wait = self.forward_charged(at, Taken { frame, tail: None }, now);
            }
        }
        self.flush();
    }

    /// Publishes the frames that were put into rings, and sends those that wait for bridges. The arena must not be
    /// cleared before this.
    pub(super) fn flush(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            if let Some(Some(live)) = self.guests.get_mut(at) {
                live.is_dirty = false;
                live.port.flush(&self.xen, &mut self.arena);
                // It answers soon. While there is other work, events are looked for in every eighth turn only.
                self.activate(at);
            }
        }
        self.flush_out();
    }
}

//! One turn of the switch: frames from the bridges first, then those of each guest that sends.

use std::collections::{HashMap, VecDeque};

use super::{BATCH, Live, Notice, Switch, forget_ports};
use crate::port::Budget;
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
        let mut is_busy = false;
        for net in 0..self.nets.len() {
            is_busy |= self.take_in(net, now);
        }
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
        for _ in 0..self.active.len() {
            let Some(at) = self.active.pop_front() else {
                break;
            };
            is_busy |= self.serve(at, now);
            // It is served again after the others.
            self.active.push_back(at);
        }
        is_busy
    }

    /// Asks every guest that has stopped sending to notify again.
    pub fn rest(&mut self, now: u64) -> Rest {
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
            if let Some(time) = live.share.limited_until() {
                // Its ring is not checked before that time, so it need not notify.
                earliest(time.max(now + 1));
                self.active.push_back(at);
                continue;
            }
            if live.port.rest(&self.xen) {
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
        if is_busy {
            Rest::Busy
        } else {
            Rest::Until(until)
        }
    }

    /// Sends, once, the notice that a guest's port was shut.
    fn shut(
        at: usize,
        live: &mut Live<X>,
        notices: &mut VecDeque<Notice>,
        by_port: &mut HashMap<u32, usize>,
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

    fn take_in(&mut self, net: usize, now: u64) -> bool {
        self.arena.clear();
        let mut is_any = false;
        for _ in 0..BATCH {
            let Some(place) = self
                .nets
                .get_mut(net)
                .filter(|net| net.is_readable && !net.is_lost)
            else {
                break;
            };
            if !self.arena.has_room() {
                break;
            }
            let length = match place.wire.read(self.arena.read_room()) {
                Ok(Some(length)) => length,
                Ok(None) => {
                    place.is_readable = false;
                    break;
                }
                Err(error) => {
                    // Otherwise it would stay readable for ever.
                    place.is_lost = true;
                    let bridge = place.bridge.clone();
                    self.tell(Notice::Lost {
                        bridge,
                        error: error.to_string(),
                    });
                    break;
                }
            };
            is_any = true;
            place.counters.frames += 1;
            let read = self.arena.was_read(length);
            let frame = read.and_then(|(header, range)| {
                let offload = vnet::decode(header, self.arena.frame_mut(&range)).ok()?;
                (range.len() >= crate::offload::ETHERNET)
                    .then_some(crate::arena::Frame { range, offload })
            });
            match frame {
                Some(frame) => self.deliver(net, &frame, now),
                None => place.counters.malformed += 1,
            }
        }
        self.flush();
        is_any
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
        };
        if budget.bytes != 0 {
            live.port
                .take(&self.xen, &mut self.arena, budget, &mut frames);
        }
        for frame in frames.drain(..) {
            let length = frame.range.len();
            let copies = self.forward(at, frame, now);
            if let Some(live) = self.live(at) {
                live.share.charge(length, copies);
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

    /// Publishes the frames that were put into rings.
    pub(super) fn flush(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            if let Some(Some(live)) = self.guests.get_mut(at) {
                live.is_dirty = false;
                live.port.flush(&self.xen, &mut self.arena);
            }
        }
    }
}

//! Frames that the bridge sends to the daemon's port, for services without a running guest.
//!
//! The maker decides whether a frame wakes its service. Until then the frame waits, together with the frames after it.

use std::time::Instant;

use super::super::cause::WakeCause;
use super::super::channel::{Stance, ToMaker, Wake};
use super::super::fleet::ServiceId;
use super::super::wire::frame::{self, FrameKind, ParsedFrame};
use super::Front;

/// The number of frames taken in a turn.
const TURN: usize = 64;
/// The greatest number of undecided wakes: more than come in the time that the maker needs for one packet.
const UNDECIDED: usize = 256;
/// The greatest number of frames that wait behind a waking frame.
const BEHIND: usize = 16;

/// Frames of one service that wait for the maker's decision.
pub(super) struct Waiting {
    service: ServiceId,
    bridge: String,
    /// Whether the first frame asks for the service's link address: the answer waits for the decision, too.
    is_question: bool,
    frames: Vec<Vec<u8>>,
}

impl Front {
    pub(super) fn frames(&mut self, bridge: &str) {
        let mut buffer = std::mem::take(&mut self.buffer);
        for _ in 0..TURN {
            let Some(port) = self.ports.get(bridge) else {
                break;
            };
            match port.read(&mut buffer) {
                Ok(Some(frame)) => {
                    if let Some(seen) = frame::look(frame) {
                        self.frame(bridge, frame, &seen);
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    // A broken port stays readable, so it is dropped. The maker makes another one.
                    self.ports.remove(bridge);
                    self.tell(&ToMaker::PortLost(bridge.to_owned()));
                }
            }
        }
        self.buffer = buffer;
    }

    pub(super) fn frame(&mut self, bridge: &str, frame: &[u8], seen: &ParsedFrame) {
        let cause = match seen.kind {
            FrameKind::Arp => WakeCause::Arp,
            FrameKind::Solicitation => WakeCause::Nd,
            FrameKind::Syn => WakeCause::Syn,
            FrameKind::Datagram => WakeCause::Udp,
            FrameKind::Other => return self.other(bridge, frame, seen),
        };
        let by_address = self.addresses.get(&(bridge.to_owned(), seen.to));
        let Some((&id, entry)) = by_address.and_then(|id| Some((id, self.entries.get(id)?))) else {
            return;
        };
        let is_question = matches!(seen.kind, FrameKind::Arp | FrameKind::Solicitation);
        match (is_question, entry.stance) {
            // A running guest answers itself.
            (true, Stance::Takes) => {}
            // A probe of whether the address is in use (RFC 5227) is answered, but wakes no service.
            (true, _) if seen.from.is_unspecified() => self.answer(bridge, frame, id),
            // A broadcast is not for this service.
            (false, _) if entry.place.mac != seen.mac => {}
            (_, Stance::Sleeps) => self.wake(bridge, frame, seen, (id, cause)),
            (true, Stance::Holds | Stance::Leaves) => {
                self.answer(bridge, frame, id);
                self.stay(id);
            }
            (false, _) => {
                self.hold(bridge, frame, id);
                self.stay(id);
            }
        }
    }

    /// Handles a frame that wakes no service. It may be for a guest that is being made or was made just now.
    fn other(&mut self, bridge: &str, frame: &[u8], seen: &ParsedFrame) {
        let key = (bridge.to_owned(), seen.mac);
        let Some((&id, entry)) =
            (self.macs.get(&key)).and_then(|id| Some((id, self.entries.get(id)?)))
        else {
            return;
        };
        let (stance, ticket) = (entry.stance, entry.ticket);
        // It may be a later fragment of a waking packet.
        if stance == Stance::Sleeps
            && let Some(waiting) = ticket.and_then(|ticket| self.waiting.get_mut(&ticket))
            && waiting.frames.len() <= BEHIND
        {
            return waiting.frames.push(frame.to_vec());
        }
        self.hold(bridge, frame, id);
        self.stay(id);
        if stance == Stance::Sleeps
            && self.addresses.get(&(key.0, seen.to)) == Some(&id)
            && let Some(reset) = frame::reset(frame)
        {
            self.write(bridge, &reset);
        }
    }

    /// Asks the maker to wake a service because of this frame.
    fn wake(
        &mut self,
        bridge: &str,
        frame: &[u8],
        seen: &ParsedFrame,
        (id, cause): (ServiceId, WakeCause),
    ) {
        let ticket = self.next_ticket;
        let wake = Wake {
            service: id,
            cause,
            from: seen.from,
            at: self.clock.moment(Instant::now()),
            answered: None,
            ticket: Some(ticket),
        };
        if self.waiting.len() < UNDECIDED && self.tell(&ToMaker::Wake(wake)) {
            let waiting = Waiting {
                service: id,
                bridge: bridge.to_owned(),
                is_question: matches!(seen.kind, FrameKind::Arp | FrameKind::Solicitation),
                frames: vec![frame.to_vec()],
            };
            self.waiting.insert(ticket, waiting);
            self.next_ticket = ticket.wrapping_add(1);
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.ticket = Some(ticket);
            }
        } else {
            self.hold(bridge, frame, id);
        }
    }

    /// Handles the maker's decision about a wake.
    pub(super) fn decided(&mut self, ticket: u32, is_woken: bool) {
        let Some(waiting) = self.waiting.remove(&ticket) else {
            return;
        };
        let id = waiting.service;
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.ticket = entry.ticket.filter(|last| *last != ticket);
        }
        let mut frames = waiting.frames.into_iter();
        if waiting.is_question
            && let Some(question) = frames.next()
            && is_woken
        {
            self.answer(&waiting.bridge, &question, id);
        }
        for frame in frames {
            let bounds = self.bounds;
            match self.entries.get_mut(&id) {
                // The stance with the guest follows this message.
                Some(entry) if is_woken && entry.stance == Stance::Sleeps => {
                    entry.held.push(&frame, bounds);
                }
                _ => self.hold(&waiting.bridge, &frame, id),
            }
        }
    }

    /// Sets the stance to a service.
    pub(super) fn stand(&mut self, id: ServiceId, stance: Stance) {
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        entry.stance = stance;
        entry.has_told = false;
        match stance {
            Stance::Sleeps | Stance::Holds => entry.guest = None,
            Stance::Leaves => {}
            Stance::Takes => {
                entry.guest.get_or_insert_default();
                let began = Instant::now();
                let frames: Vec<_> = entry.held.replay().collect();
                let bridge = entry.place.bridge.clone();
                for frame in &frames {
                    self.write(&bridge, frame);
                }
                if !frames.is_empty()
                    && let Some(entry) = self.entries.get_mut(&id)
                {
                    let moment = |at| self.clock.moment(at);
                    entry.replayed = Some((moment(began), moment(Instant::now())));
                    // The maker has time for this when the guest has answered.
                    self.count();
                }
            }
        }
    }

    /// Reports a packet for a service whose guest is about to be removed, so that the guest stays.
    fn stay(&mut self, id: ServiceId) {
        if let Some(entry) = self.entries.get_mut(&id)
            && entry.stance == Stance::Leaves
            && !entry.has_told
        {
            entry.has_told = self.to.push(&ToMaker::Heard(id), None).is_ok();
        }
    }

    fn answer(&self, bridge: &str, frame: &[u8], id: ServiceId) {
        if let Some(entry) = self.entries.get(&id)
            && let Some(answer) = frame::answer(frame, entry.place.mac)
        {
            self.write(bridge, &answer);
        }
    }

    /// Holds a frame for a guest that is being made, or gives it back to the bridge if there is a guest.
    fn hold(&mut self, bridge: &str, frame: &[u8], id: ServiceId) {
        let bounds = self.bounds;
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match entry.stance {
            Stance::Holds | Stance::Leaves => entry.held.push(frame, bounds),
            Stance::Takes => {
                entry.held.counts.replayed += 1;
                self.write(bridge, frame);
            }
            Stance::Sleeps => entry.held.counts.dropped += 1,
        }
    }

    fn write(&self, bridge: &str, frame: &[u8]) {
        if let Some(port) = self.ports.get(bridge) {
            let _ = port.write(frame);
        }
    }
}

//! Frames that the bridge gives to the daemon's port, for guests that sleep or are being created.

use std::time::Instant;

use super::super::fleet::{Course, Event, Id, State};
use super::super::held::Bounds;
use super::super::log::{Level, line};
use super::super::wire::frame::{self, Seen, What};
use super::{Cause, Daemon};

/// Frames that are taken before something else has its turn.
const TURN: usize = 64;

impl Daemon {
    pub(super) fn frames(&mut self, bridge: &str) {
        let mut buffer = std::mem::take(&mut self.buffer);
        self.frames_by(bridge, &mut buffer);
        self.buffer = buffer;
    }

    fn frames_by(&mut self, bridge: &str, buffer: &mut [u8]) {
        for _ in 0..TURN {
            let Some(port) = self.ports.get(bridge) else {
                return;
            };
            let frame = match port.read(buffer) {
                Ok(Some(frame)) => frame,
                Ok(None) => return,
                Err(error) => {
                    line(Level::Error, "the port does not work")
                        .with("bridge", bridge)
                        .with("why", error)
                        .write();
                    // It would be readable for ever.
                    self.ports.remove(bridge);
                    return self.mend_ports();
                }
            };
            if let Some(seen) = frame::look(frame) {
                self.frame(bridge, frame, &seen);
            }
        }
    }

    fn frame(&mut self, bridge: &str, frame: &[u8], seen: &Seen) {
        let now = Instant::now();
        let by_address = self.addresses.get(&(bridge.to_owned(), seen.to)).copied();
        let cause = match seen.what {
            What::Arp => Cause::Arp,
            What::Solicitation => Cause::Nd,
            What::Syn => Cause::Syn,
            What::Datagram => Cause::Udp,
            What::Other => return self.other(bridge, frame, seen),
        };
        let Some(id) = by_address else {
            return;
        };
        match seen.what {
            What::Arp | What::Solicitation => {
                // A guest that runs answers by itself.
                if self.fleet.takes(id) {
                    return;
                }
                // Who only wants to know whether the address is taken (RFC 5227) is told so, and wakes nobody.
                if seen.from.is_unspecified() || self.wake(id, cause, seen.from, now) {
                    self.answer(bridge, frame, id);
                }
            }
            _ if self.is_for(id, seen) => {
                self.wake(id, cause, seen.from, now);
                self.hold(bridge, frame, id);
            }
            _ => {}
        }
    }

    /// What wakes nobody. It may be for a guest that is being born, or has been just now.
    fn other(&mut self, bridge: &str, frame: &[u8], seen: &Seen) {
        let key = (bridge.to_owned(), seen.mac);
        let Some(&id) = self.macs.get(&key) else {
            return;
        };
        let state = self.fleet.unit(id).map(|unit| unit.state);
        if matches!(state, Some(State::Running(running)) if running.leaves()) {
            // Somebody has come after its last answer.
            self.step(Instant::now(), Event::Heard(id));
            self.carry_out();
        }
        self.hold(bridge, frame, id);
        if self.fleet.course(id) == Course::Drop
            && self.addresses.get(&(key.0, seen.to)) == Some(&id)
            && let Some(reset) = frame::reset(frame)
            && let Some(port) = self.ports.get(bridge)
        {
            let _ = port.write(&reset);
        }
    }

    /// Whether a frame has a service's MAC address: a broadcast is for nobody in particular.
    fn is_for(&self, id: Id, seen: &Seen) -> bool {
        let entry = self.entries.get(&id);
        entry.is_some_and(|entry| entry.service.mac == seen.mac)
    }

    fn answer(&mut self, bridge: &str, frame: &[u8], id: Id) {
        if let Some(entry) = self.entries.get(&id)
            && let Some(port) = self.ports.get(bridge)
            && let Some(answer) = frame::answer(frame, entry.service.mac)
        {
            let _ = port.write(&answer);
        }
    }

    /// Holds a frame for a guest that will be there, or gives it back to the bridge for one that is.
    fn hold(&mut self, bridge: &str, frame: &[u8], id: Id) {
        let limits = &self.config.daemon.limits;
        let bounds = Bounds {
            frames: limits.held_frames,
            octets: limits.held_octets,
        };
        let Some(entry) = self.entries.get_mut(&id) else {
            return;
        };
        match self.fleet.course(id) {
            Course::Hold => entry.held.push(frame, bounds),
            Course::Return => {
                entry.held.replayed += 1;
                if let Some(port) = self.ports.get(bridge) {
                    let _ = port.write(frame);
                }
            }
            Course::Drop => entry.held.dropped += 1,
        }
    }
}

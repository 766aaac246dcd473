//! The supervision of running guests: whether each sends something, and whether it is alive.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::super::config::{Network, OnChange};
use super::super::fleet::{FleetEvent, ServiceId};
use super::super::log::{Level, line};
use super::super::made_of::MadeOf;
use super::super::maker::{FoundGuest, MadeGuest};
use super::super::wire::Witness;
use super::super::wire::frame::{Sign, sign};
use super::{Daemon, ServiceEntry};
use mayfly_links::Link;
use mayfly_switch::control::{SwitchConnection, SwitchOrder, SwitchReply};

/// The time for which a new guest's frames are watched, if it does not answer sooner.
const WATCHED: Duration = Duration::from_secs(10);
/// The time that the switch has for its counters.
pub(super) const PATIENCE: Duration = Duration::from_millis(100);
/// The time between two checks of the images and sites.
const FILES: Duration = Duration::from_secs(1);
/// The number of frames looked at in a turn.
const TURN: usize = 64;
/// `SHUTDOWN_*` (sched.h) that are no failures.
const POWEROFF: u8 = 0;
const REBOOT: u8 = 1;
const SUSPEND: u8 = 2;

/// A running guest.
pub(super) struct RunningGuest {
    pub(super) domid: u16,
    /// Its interface, or the switch's port.
    pub(super) vif: Link,
    pub(super) network: Network,
    /// The record of what it was made of, if that is known.
    of: Option<MadeOf>,
    /// The frames at its vif, until it has answered.
    witness: Option<Witness>,
    watched_until: Instant,
    /// The kernel's counter of frames that it has sent. `None` until it is first needed, or if the vif was gone then.
    frames: Option<File>,
    seen: u64,
    /// Whether it was asked for its connections: then the frames that it sends are the answer to us.
    pub(super) is_asked: bool,
    /// Whether frames that end that connection may still come.
    is_ending: bool,
    /// The number of such questions that it has answered.
    pub(super) asked: u64,
}

impl RunningGuest {
    pub(super) fn new(made: MadeGuest, now: Instant) -> Self {
        Self {
            witness: made.witness,
            ..Self::found(
                &FoundGuest {
                    domid: made.domid,
                    network: made.network,
                    of: made.of,
                },
                &made.vif,
                now,
            )
        }
    }

    /// A running guest of an earlier daemon.
    pub(super) fn found(found: &FoundGuest, vif: &Link, now: Instant) -> Self {
        Self {
            domid: found.domid,
            of: found.of,
            vif: vif.clone(),
            network: found.network,
            witness: None,
            watched_until: now + WATCHED,
            frames: None,
            seen: 0,
            is_asked: false,
            is_ending: false,
            asked: 0,
        }
    }

    /// Watches a guest that was unpaused like a new one.
    pub(super) fn goes_on(&mut self, now: Instant, witness: Option<Witness>) {
        self.witness = witness.filter(|witness| witness.look_at(&self.vif).is_ok());
        self.watched_until = now + WATCHED;
    }

    pub(super) fn witness(&self) -> Option<&Witness> {
        self.witness.as_ref()
    }

    fn count(&mut self, on_switch: &BTreeMap<u16, u64>) -> Option<u64> {
        if self.network == Network::Switch {
            return on_switch.get(&self.domid).copied();
        }
        if self.frames.is_none() {
            // The guest's sent frames are the kernel's received ones.
            let path = format!("/sys/class/net/{}/statistics/rx_packets", self.vif.name);
            self.frames = File::open(path).ok();
        }
        let mut text = [0; 24];
        let length = self.frames.as_ref()?.read_at(&mut text, 0).ok()?;
        std::str::from_utf8(text.get(..length)?)
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Whether it has sent a frame since the last call. Its answers to our own questions do not count.
    fn is_heard(&mut self, on_switch: &BTreeMap<u16, u64>) -> bool {
        if self.is_asked {
            return false;
        }
        let count = self.count(on_switch).unwrap_or(self.seen);
        let is_ending = std::mem::take(&mut self.is_ending);
        count != std::mem::replace(&mut self.seen, count) && !is_ending
    }

    /// Records that it has answered our question.
    pub(super) fn answered(&mut self) {
        self.is_asked = false;
        self.is_ending = true;
    }
}

/// The name of the step of a birth that a guest's frame is.
pub(super) fn step(sign: Sign) -> &'static str {
    match sign {
        Sign::Frame => "first frame",
        Sign::SynAck => "SYN-ACK",
        Sign::Answer => "first byte",
    }
}

impl Daemon {
    pub(super) fn look_after_guests(&mut self, now: Instant) {
        let mut events = Vec::new();
        let on_switch = self.frames_on_switch();
        for (&id, entry) in &mut self.entries {
            let Some(guest) = &mut entry.guest else {
                continue;
            };
            if now >= guest.watched_until {
                guest.witness = None;
            }
            if guest.is_heard(&on_switch) {
                events.push(FleetEvent::Heard(id));
            }
            let domid = guest.domid;
            let ended = match self.xen.info(domid) {
                Ok(Some(info)) if info.is_dying() => Some((false, "another program removes it")),
                Ok(Some(info)) => {
                    // A guest that an administrator has paused is left alone.
                    if info.is_paused() && self.fleet.runs(id) {
                        events.push(FleetEvent::Heard(id));
                    }
                    match info.shutdown() {
                        // Another toolstack is saving it, and will remove or unpause it.
                        None | Some(SUSPEND) => None,
                        Some(POWEROFF) => Some((false, "it has switched itself off")),
                        Some(REBOOT) => Some((false, "it has asked for a reboot")),
                        Some(_) => Some((true, "it has crashed: see `xl dmesg`")),
                    }
                }
                Ok(None) => Some((false, "another program has removed it")),
                // Its state cannot be read, so it counts as unchanged.
                Err(_) => None,
            };
            if let Some((is_failure, what)) = ended {
                line(Level::Warning, "ended")
                    .with("service", &entry.service.name)
                    .with("domid", domid)
                    .with("why", what)
                    .write();
                events.push(FleetEvent::Ended(id, is_failure, what.to_owned()));
            }
        }
        for event in events {
            self.step(now, event);
        }
    }

    /// The numbers of frames that the guests on the switch have sent. Empty if the switch does not answer.
    fn frames_on_switch(&mut self) -> BTreeMap<u16, u64> {
        let mut guests = self
            .entries
            .values()
            .filter_map(|entry| entry.guest.as_ref());
        if !guests.any(|guest| guest.network == Network::Switch) {
            return BTreeMap::new();
        }
        if self.switch.is_none() {
            self.switch = SwitchConnection::open(&self.switched.socket, PATIENCE).ok();
        }
        let said = self
            .switch
            .as_mut()
            .map(|switch| switch.ask(&SwitchOrder::Frames));
        if let Some(Ok(SwitchReply::Frames(frames))) = said {
            return frames.into_iter().collect();
        }
        self.switch = None;
        BTreeMap::new()
    }

    /// Checks whether images and sites were replaced, for services whose running guests are then removed.
    pub(super) fn look_at_files(&mut self, now: Instant) {
        if now < self.files_at {
            return;
        }
        self.files_at = now + FILES;
        let is_outdated = |entry: &ServiceEntry| {
            let of = entry.guest.as_ref().and_then(|guest| guest.of);
            entry.service.on_change == OnChange::RestartWhenIdle
                && of.is_some_and(|of| of.has_other_files_than(&entry.service))
        };
        let outdated = (self.entries.iter()).filter(|(_, entry)| is_outdated(entry));
        let outdated: Vec<_> = outdated.map(|(&id, _)| id).collect();
        for id in outdated {
            self.fleet.outdate(id, &mut self.actions);
        }
    }

    /// Reads the frames at a new guest's vif.
    pub(super) fn witness(&mut self, id: ServiceId) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut is_heard = false;
        for _ in 0..TURN {
            let Some(entry) = self.entries.get_mut(&id) else {
                break;
            };
            let Some(guest) = &mut entry.guest else {
                break;
            };
            let frame = match guest
                .witness
                .as_ref()
                .map(|witness| witness.read(&mut buffer))
            {
                Some(Ok(Some(frame))) => frame,
                Some(Ok(None)) | None => break,
                Some(Err(_)) => {
                    guest.witness = None;
                    break;
                }
            };
            let Some(sign) = sign(frame, entry.service.mac) else {
                continue;
            };
            if let Some(birth) = &mut entry.birth {
                birth.once(step(sign), Instant::now());
            }
            is_heard = true;
            if sign == Sign::Answer {
                guest.witness = None;
            }
        }
        self.buffer = buffer;
        if is_heard {
            self.step(Instant::now(), FleetEvent::Heard(id));
        }
    }
}

//! Running guests: whether each can be heard, and whether it is alive.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use super::super::config::{Network, OnChange};
use super::super::fleet::{Event, Id};
use super::super::log::{Level, line};
use super::super::made_of::MadeOf;
use super::super::maker::{Found, Made};
use super::super::wire::Witness;
use super::super::wire::frame::{Sign, sign};
use super::{Daemon, Entry};
use mayfly_links::Link;
use mayfly_switch::control::{Order, Reply};
use mayfly_toolstack::builder::switch_connection;

/// A new guest is looked at for so long, if it does not answer sooner.
const WATCHED: Duration = Duration::from_secs(10);
/// How long the switch may take to say what it counts.
const PATIENCE: Duration = Duration::from_millis(100);
/// How often it is looked whether images and sites were replaced.
const FILES: Duration = Duration::from_secs(1);
/// Frames that are looked at before something else has its turn.
const TURN: usize = 64;
/// `SHUTDOWN_*` (sched.h): what is no failure.
const POWEROFF: u8 = 0;
const REBOOT: u8 = 1;
const SUSPEND: u8 = 2;

/// A guest.
pub(super) struct Guest {
    pub(super) domid: u16,
    /// Its interface, or the switch's port.
    pub(super) vif: Link,
    pub(super) network: Network,
    /// What it was made of, if that is known.
    of: Option<MadeOf>,
    /// What it sends, and is sent, until it has answered.
    witness: Option<Witness>,
    watched_until: Instant,
    /// How many frames it has sent, as the kernel counts them; not there before it is first asked for, or when the vif was gone then.
    frames: Option<File>,
    seen: u64,
    /// It was asked for its connections, and so what it sends is its answer to us.
    pub(super) is_asked: bool,
    /// The end of that connection may still be under way.
    is_ending: bool,
    /// How often it has answered that.
    pub(super) asked: u64,
}

impl Guest {
    pub(super) fn new(made: Made, now: Instant) -> Self {
        Self {
            witness: made.witness,
            ..Self::found(
                &Found {
                    domid: made.domid,
                    network: made.network,
                    of: made.of,
                },
                &made.vif,
                now,
            )
        }
    }

    /// One of an earlier daemon's, which is not new.
    pub(super) fn found(found: &Found, vif: &Link, now: Instant) -> Self {
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

    /// It stood still, and is looked at like a new one.
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
            // From the guest's side it is sent; from the kernel's it is received.
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

    /// Whether it has sent anything since this was last asked. Its answers to our own question do not count.
    fn is_heard(&mut self, on_switch: &BTreeMap<u16, u64>) -> bool {
        if self.is_asked {
            return false;
        }
        let count = self.count(on_switch).unwrap_or(self.seen);
        let is_ending = std::mem::take(&mut self.is_ending);
        count != std::mem::replace(&mut self.seen, count) && !is_ending
    }

    /// It has answered our question.
    pub(super) fn answered(&mut self) {
        self.is_asked = false;
        self.is_ending = true;
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
                events.push(Event::Heard(id));
            }
            let domid = guest.domid;
            let ended = match self.xen.info(domid) {
                Ok(Some(info)) if info.is_dying() => Some((false, "somebody else removes it")),
                Ok(Some(info)) => {
                    // An administrator has paused it, and expects to find it again.
                    if info.is_paused() && self.fleet.runs(id) {
                        events.push(Event::Heard(id));
                    }
                    match info.shutdown() {
                        // Another toolstack saves it, and then removes it or lets it go on.
                        None | Some(SUSPEND) => None,
                        Some(POWEROFF) => Some((false, "it has switched itself off")),
                        Some(REBOOT) => Some((false, "it wants to be started anew")),
                        Some(_) => Some((true, "it has crashed: see `xl dmesg`")),
                    }
                }
                Ok(None) => Some((false, "somebody else has removed it")),
                // Nothing is known, and so nothing has changed.
                Err(_) => None,
            };
            if let Some((is_failure, what)) = ended {
                line(Level::Warning, "ended")
                    .with("service", &entry.service.name)
                    .with("domid", domid)
                    .with("why", what)
                    .write();
                events.push(Event::Ended(id, is_failure, what.to_owned()));
            }
        }
        for event in events {
            self.step(now, event);
        }
    }

    /// How many frames each guest on the switch has sent. Nothing is known of those of a switch that does not answer.
    fn frames_on_switch(&mut self) -> BTreeMap<u16, u64> {
        let mut guests = self
            .entries
            .values()
            .filter_map(|entry| entry.guest.as_ref());
        if !guests.any(|guest| guest.network == Network::Switch) {
            return BTreeMap::new();
        }
        if self.switch.is_none() {
            self.switch = switch_connection(PATIENCE).ok();
        }
        let said = self
            .switch
            .as_mut()
            .map(|switch| switch.ask(&Order::Frames));
        if let Some(Ok(Reply::Frames(frames))) = said {
            return frames.into_iter().collect();
        }
        self.switch = None;
        BTreeMap::new()
    }

    /// Looks whether images and sites were replaced, where the file says that this is a matter of guests that run.
    pub(super) fn look_at_files(&mut self, now: Instant) {
        if now < self.files_at {
            return;
        }
        self.files_at = now + FILES;
        let is_outdated = |entry: &Entry| {
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

    /// Looks at what goes through a new guest's vif.
    pub(super) fn witness(&mut self, id: Id) {
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
            let what = match sign {
                Sign::SynIn => "SYN seen",
                Sign::Frame => "first frame",
                Sign::SynAck => "SYN-ACK",
                Sign::Answer => "first octet",
            };
            if let Some(birth) = &mut entry.birth {
                birth.once(what, Instant::now());
            }
            is_heard |= sign != Sign::SynIn;
            if sign == Sign::Answer {
                guest.witness = None;
            }
        }
        self.buffer = buffer;
        if is_heard {
            self.step(Instant::now(), Event::Heard(id));
        }
    }
}

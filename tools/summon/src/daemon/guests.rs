//! Running guests: whether each can be heard, and whether it is alive.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::fleet::{Event, Id};
use super::super::log::{Level, line};
use super::super::wire::Witness;
use super::super::wire::frame::{Sign, sign};
use super::Daemon;
use mayfly_links::Link;

/// A new guest is looked at for so long, if it does not answer sooner.
const WATCHED: Duration = Duration::from_secs(10);
/// Frames that are looked at before something else has its turn.
const TURN: usize = 64;
/// `SHUTDOWN_*` (sched.h): what is no failure.
const POWEROFF: u8 = 0;
const REBOOT: u8 = 1;

/// A guest.
pub(super) struct Guest {
    pub(super) domid: u16,
    pub(super) vif: Link,
    /// What it sends, and is sent, until it has answered.
    witness: Option<Witness>,
    watched_until: Instant,
    /// How many frames it has sent, as the kernel counts them; not there before it is first asked for, or when the vif was gone then.
    frames: Option<File>,
    seen: u64,
    /// Gone when the guest is forgotten.
    pub(super) alive: Arc<()>,
    /// It was asked for its connections, and so what it sends is its answer to us.
    pub(super) is_asked: bool,
    /// The end of that connection may still be under way.
    is_ending: bool,
    /// How often it has answered that.
    pub(super) asked: u64,
}

impl Guest {
    pub(super) fn new(domid: u16, vif: &Link, now: Instant) -> Self {
        Self {
            domid,
            vif: vif.clone(),
            witness: Witness::open(vif).ok(),
            watched_until: now + WATCHED,
            frames: None,
            seen: 0,
            alive: Arc::default(),
            is_asked: false,
            is_ending: false,
            asked: 0,
        }
    }

    /// One of an earlier daemon's, which is not new.
    pub(super) fn found(domid: u16, vif: &Link, now: Instant) -> Self {
        Self {
            witness: None,
            ..Self::new(domid, vif, now)
        }
    }

    /// It stood still, and is looked at like a new one.
    pub(super) fn goes_on(&mut self, now: Instant) {
        self.witness = Witness::open(&self.vif).ok();
        self.watched_until = now + WATCHED;
    }

    pub(super) fn witness(&self) -> Option<&Witness> {
        self.witness.as_ref()
    }

    fn count(&mut self) -> Option<u64> {
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
    fn is_heard(&mut self) -> bool {
        if self.is_asked {
            return false;
        }
        let count = self.count().unwrap_or(self.seen);
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
        for (&id, entry) in &mut self.entries {
            let Some(guest) = &mut entry.guest else {
                continue;
            };
            if now >= guest.watched_until {
                guest.witness = None;
            }
            if guest.is_heard() {
                events.push(Event::Heard(id));
            }
            let domid = guest.domid;
            let ended = match self.xen.info(domid) {
                Ok(Some(info)) if info.is_dying() => Some((false, "somebody else removes it")),
                Ok(Some(info)) => info.shutdown().map(|reason| match reason {
                    POWEROFF => (false, "it has switched itself off"),
                    REBOOT => (false, "it wants to be started anew"),
                    _ => (true, "it has crashed: see `xl dmesg`"),
                }),
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

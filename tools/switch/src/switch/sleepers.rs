//! Guests that may sleep. While such a guest is not attached, or is about to go, the frames for it are held here.
//!
//! A client of the control socket declares them, and is told when somebody wants one. They are forgotten with the
//! client: nobody would wake them.

use std::net::IpAddr;

use super::forward::{Origin, is_group, target};
use super::{Mac, Refusal, Signs, Sleeper, Switch, WakeFrame, addresses};
use crate::arena::Frame;
use crate::frame::{self, FrameKind};
use crate::held::Held;
use crate::offload::Offload;
use crate::xen::{Wire, Xen};

/// The time, in ns, after which a client is told again that a guest is wanted, if it has done nothing about it.
const TELL_AGAIN: u64 = 1_000_000_000;

/// What is done with frames for a guest that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hold {
    /// It gets them.
    No,
    /// They are held: it is about to go ([`Switch::hold`]).
    All,
    /// It is paused, and gets those that are for it alone ([`Switch::suspend`]).
    Paused {
        /// Whether it has got one.
        is_woken: bool,
    },
}

/// A guest that may sleep.
pub(super) struct Asleep {
    pub(super) sleeper: Sleeper,
    pub(super) held: Held<Offload>,
    /// The number of frames that were not held.
    pub(super) dropped: u64,
    /// The client that has declared it.
    owner: u64,
    /// Whether frames for it are sent back to the bridge: it moves, and is reached there by now.
    is_relayed: bool,
    /// When the client was told that the guest is wanted, if it has not answered.
    pub(super) told_at: Option<u64>,
}

impl Asleep {
    /// Takes the frames that were held.
    pub(super) fn take(&mut self) -> Held<Offload> {
        self.told_at = None;
        std::mem::take(&mut self.held)
    }

    /// Holds frames that came before those that are held.
    pub(super) fn put_first(&mut self, frames: impl Iterator<Item = (Vec<u8>, Offload)>) {
        let mut later = std::mem::take(&mut self.held);
        let later = std::iter::from_fn(|| later.pop());
        for (bytes, offload) in frames.chain(later) {
            let is_held = self.held.push(&bytes, offload, self.sleeper.bounds);
            self.dropped += u64::from(!is_held);
        }
    }

    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        addresses(self.sleeper.ipv4, self.sleeper.ipv6)
    }

    /// Whether the client knows that the guest is wanted.
    pub(super) fn is_told(&self, now: u64) -> bool {
        self.told_at
            .is_some_and(|at| now.saturating_sub(at) < TELL_AGAIN)
    }
}

impl<X: Xen, W: Wire> Switch<X, W> {
    /// From now on, whenever this guest is not attached, holds the frames for it and answers address requests for it.
    /// The client `owner` is told by [`super::Notice::Wanted`] when somebody wants it.
    ///
    /// # Errors
    /// There is no such bridge, or another client has declared a guest with its MAC address or name.
    pub fn sleep(&mut self, sleeper: Sleeper, owner: u64) -> Result<(), Refusal> {
        let net = self.net(&sleeper.bridge, sleeper.mac)?;
        let key = (net, sleeper.mac);
        for (other_key, other) in &self.sleepers {
            let is_other = other.owner != owner || *other_key != key;
            if is_other && (*other_key == key || other.sleeper.name == sleeper.name) {
                return Err(Refusal::Taken("the MAC address or the name"));
            }
        }
        let old = self.unlist(key);
        if !self.by_mac.contains_key(&key) {
            for address in addresses(sleeper.ipv4, sleeper.ipv6) {
                self.by_address.insert((net, address), sleeper.mac);
            }
        }
        let (held, dropped, told_at) = old.map_or((Held::default(), 0, None), |old| {
            (old.held, old.dropped, old.told_at)
        });
        let is_relayed = false;
        self.sleepers.insert(
            key,
            Asleep {
                sleeper,
                held,
                dropped,
                owner,
                is_relayed,
                told_at,
            },
        );
        self.publish(key);
        Ok(())
    }

    /// Holds the frames for a guest that is attached: it is about to go. The client is told of the first of them.
    ///
    /// # Errors
    /// No guest of this name may sleep.
    pub fn hold(&mut self, name: &str) -> Result<(), Refusal> {
        self.set_hold(name, Hold::All).map(drop)
    }

    /// The same for a guest that is paused, and will be unpaused as soon as the client is told that it is wanted: the
    /// frames that are for it alone, and those that were held, are put into its ring at once. So nobody waits for
    /// [`Switch::open`]; until then it gets nothing that is for all.
    ///
    /// # Errors
    /// No guest of this name may sleep.
    pub fn suspend(&mut self, name: &str, now: u64) -> Result<(), Refusal> {
        let key = self.set_hold(name, Hold::Paused { is_woken: false })?;
        if let Some(&at) = self.by_mac.get(&key)
            && let Some(asleep) = self.sleepers.get_mut(&key)
            && !asleep.held.is_empty()
        {
            let mut held = std::mem::take(&mut asleep.held);
            for _ in 0..held.len() {
                self.rouse(at, now);
            }
            self.replay(at, &mut held, now);
        }
        Ok(())
    }

    /// Whether a guest is paused, and gets the frames that are for it alone.
    pub(super) fn is_paused(&self, at: usize) -> bool {
        let live = self.guests.get(at).and_then(Option::as_ref);
        live.is_some_and(|live| matches!(live.hold, Hold::Paused { .. }))
    }

    /// Takes note of a frame for a guest that is paused. With the first one its life begins again, of which the client
    /// is told as of a new guest's.
    pub(super) fn rouse(&mut self, at: usize, now: u64) {
        if let Some(live) = self.live(at) {
            let is_first = live.hold == Hold::Paused { is_woken: false };
            if is_first {
                live.hold = Hold::Paused { is_woken: true };
                live.signs = Some(Signs::new(now, 0));
            }
            if let Some(signs) = &mut live.signs {
                signs.hold();
            }
            if is_first && !self.newborns.contains(&at) {
                self.newborns.push(at);
            }
        }
    }

    /// Does so no more: the frames that were held are delivered, and the first frames that the guest sends from now on
    /// are told as those of a new guest, as it may have been paused.
    ///
    /// # Errors
    /// No guest of this name may sleep.
    pub fn open(&mut self, name: &str, now: u64) -> Result<(), Refusal> {
        let key = self.sleeper_of(name)?;
        let at = self.by_mac.get(&key).copied();
        let held = at.and_then(|at| Some(self.guests.get(at)?.as_ref()?.hold));
        self.set_hold(name, Hold::No)?;
        // Of one that was paused, and has got a frame, its life has begun with that.
        if let Some(at) = at
            && held != Some(Hold::Paused { is_woken: true })
            && let Some(asleep) = self.sleepers.get_mut(&key)
        {
            let mut held = asleep.take();
            if let Some(live) = self.live(at) {
                live.signs = Some(Signs::new(now, held.len()));
            }
            if !self.newborns.contains(&at) {
                self.newborns.push(at);
            }
            self.replay(at, &mut held, now);
        }
        Ok(())
    }

    /// Sends the frames that are held for a guest that moves to the bridge, and those that still come: it is reached
    /// there now.
    ///
    /// # Errors
    /// No guest of this name moves.
    pub fn relay(&mut self, name: &str) -> Result<(), Refusal> {
        let key = self.sleeper_of(name)?;
        let asleep = self.sleepers.get_mut(&key);
        let Some(asleep) = asleep.filter(|asleep| asleep.sleeper.moves) else {
            return Err(Refusal::Unknown);
        };
        asleep.is_relayed = true;
        let mut held = asleep.take();
        self.arena.clear();
        while let Some((mut bytes, offload)) = held.pop() {
            // Others have got a frame for a group already.
            if let Some(target) = bytes.first_chunk_mut() {
                *target = key.1;
            }
            if !self.arena.has_room() {
                self.flush_out();
                self.arena.clear();
            }
            if let Some(range) = self.arena.push(&bytes) {
                self.send_back(key.0, Frame { range, offload });
            }
        }
        self.flush_out();
        Ok(())
    }

    /// Holds a frame for a guest that sleeps, if it is one that wakes it, or follows one that has; and any frame for a
    /// guest that is held.
    pub(super) fn keep(&mut self, key: (usize, Mac), from: Origin, frame: &Frame, now: u64) {
        if self.keep_moving(key, frame) {
            return;
        }
        let there = self.by_mac.get(&key).copied();
        let is_there = there.is_some();
        let paused = there.filter(|at| self.is_paused(*at));
        let bytes = self.arena.frame(&frame.range);
        let Some(asleep) = self.sleepers.get_mut(&key) else {
            return;
        };
        let seen = frame::look(bytes);
        let is_its = |to: IpAddr| asleep.addresses().any(|own| own == to);
        let seen = seen.filter(|seen| is_there || is_its(seen.to));
        let cause = seen.and_then(|seen| {
            let cause = match seen.kind {
                FrameKind::Syn => WakeFrame::Syn,
                FrameKind::Datagram => WakeFrame::Udp,
                FrameKind::Arp => WakeFrame::Arp,
                FrameKind::Solicitation => WakeFrame::Nd,
                FrameKind::Other if is_there => WakeFrame::Other,
                FrameKind::Other => return None,
            };
            Some((cause, seen.from))
        });
        if cause.is_none() && asleep.held.is_empty() && !asleep.is_told(now) {
            asleep.dropped += 1;
            // The peer of a guest that is gone need not wait for it.
            if seen.is_some()
                && let Some(reset) = frame::reset(bytes)
            {
                self.write_back(key.0, from, &reset, now);
            }
            return;
        }
        if let Some(at) = paused {
            if let Some((cause, from)) = cause {
                self.want(key, cause, from, now);
            }
            self.rouse(at, now);
            self.give(at, frame, now);
            return;
        }
        let bounds = asleep.sleeper.bounds;
        let is_held = asleep.held.push(bytes, frame.offload, bounds);
        asleep.dropped += u64::from(!is_held);
        // If there is no room, the client may not know of those that were held before.
        let is_wanted = is_held || !asleep.held.is_empty();
        if let Some((cause, from)) = cause.filter(|_| is_wanted) {
            self.want(key, cause, from, now);
        }
    }

    /// Holds a frame for a guest that moves, or sends it to where the guest is by now. Returns whether the guest moves.
    pub(super) fn keep_moving(&mut self, key: (usize, Mac), frame: &Frame) -> bool {
        let asleep = self.sleepers.get_mut(&key);
        let Some(asleep) = asleep.filter(|asleep| asleep.sleeper.moves) else {
            return false;
        };
        if !asleep.is_relayed {
            let bytes = self.arena.frame(&frame.range);
            let is_held = asleep
                .held
                .push(bytes, frame.offload, asleep.sleeper.bounds);
            asleep.dropped += u64::from(!is_held);
        } else if !is_group(target(self.arena.frame(&frame.range))) {
            let (range, offload) = (frame.range.clone(), frame.offload);
            self.send_back(key.0, Frame { range, offload });
        }
        true
    }

    /// Holds a frame for a group for all guests of a bridge that move. The bridge itself reaches those that are there.
    pub(super) fn keep_group(&mut self, net: usize, frame: &Frame) {
        let moving = self.sleepers.iter().filter(|(key, asleep)| {
            key.0 == net && asleep.sleeper.moves && !self.by_mac.contains_key(key)
        });
        let keys: Vec<_> = moving.map(|(key, _)| *key).collect();
        for key in keys {
            self.keep_moving(key, frame);
        }
    }

    fn set_hold(&mut self, name: &str, hold: Hold) -> Result<(usize, Mac), Refusal> {
        let key = self.sleeper_of(name)?;
        if let Some(asleep) = self.sleepers.get_mut(&key) {
            asleep.told_at = None;
        }
        if let Some(&at) = self.by_mac.get(&key)
            && let Some(live) = self.live(at)
        {
            live.hold = hold;
        }
        Ok(key)
    }

    /// Drops the frames that are held: there will be no guest for them.
    ///
    /// # Errors
    /// No guest of this name may sleep.
    pub fn drop_held(&mut self, name: &str) -> Result<(), Refusal> {
        let key = self.sleeper_of(name)?;
        if let Some(asleep) = self.sleepers.get_mut(&key) {
            asleep.dropped += asleep.take().len() as u64;
        }
        Ok(())
    }

    /// Forgets that a guest may sleep, with the frames that are held for it.
    ///
    /// # Errors
    /// No guest of this name may sleep.
    pub fn forget(&mut self, name: &str) -> Result<(), Refusal> {
        let key = self.sleeper_of(name)?;
        self.unlist(key);
        if let Some(&at) = self.by_mac.get(&key)
            && let Some(live) = self.live(at)
        {
            live.hold = Hold::No;
        }
        Ok(())
    }

    /// Forgets all that a client has declared or prepared.
    pub fn forget_all(&mut self, owner: u64) {
        self.unprepare_all(owner);
        let sleepers = self.sleepers.values();
        let owned = sleepers.filter(|asleep| asleep.owner == owner);
        let names: Vec<String> = owned.map(|asleep| asleep.sleeper.name.clone()).collect();
        for name in names {
            // It was just found.
            let _ = self.forget(&name);
        }
    }

    /// Whether a guest of this name may sleep.
    #[must_use]
    pub fn may_sleep(&self, name: &str) -> bool {
        self.sleeper_of(name).is_ok()
    }

    /// The guest that takes frames for this MAC address by itself: one that is attached and not held.
    pub(super) fn receiver(&self, net: usize, mac: Mac) -> Option<usize> {
        let at = *self.by_mac.get(&(net, mac))?;
        let live = self.guests.get(at)?.as_ref()?;
        (live.hold == Hold::No).then_some(at)
    }

    fn sleeper_of(&self, name: &str) -> Result<(usize, Mac), Refusal> {
        let mut sleepers = self.sleepers.iter();
        let found = sleepers.find(|(_, asleep)| asleep.sleeper.name == name);
        found.map(|(key, _)| *key).ok_or(Refusal::Unknown)
    }

    /// Removes one, and its addresses unless its guest, which is attached, has them.
    fn unlist(&mut self, key: (usize, Mac)) -> Option<Asleep> {
        let asleep = self.sleepers.remove(&key)?;
        let live = self.by_mac.get(&key).and_then(|at| self.guests.get(*at));
        let guest = live.and_then(Option::as_ref).map(|live| &live.guest);
        let kept: Vec<IpAddr> = guest.map_or(Vec::new(), |guest| {
            addresses(guest.ipv4, guest.ipv6).collect()
        });
        for address in asleep.addresses().filter(|address| !kept.contains(address)) {
            self.by_address.remove(&(key.0, address));
        }
        self.publish(key);
        Some(asleep)
    }
}

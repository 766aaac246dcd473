//! The threads of one switch. Each serves the guests whose MAC addresses lead to it ([`queue_of`]), and gets the frames
//! that the bridges send them. A frame for a guest of another thread, or for all, is handed over to that thread.
//!
//! Frames from one thread to another stay in their order. All threads know which guests the others have.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};

use mayfly_links::queue_of;
use rustc_hash::FxHashMap;
use rustix::event::{EventfdFlags, eventfd};

use super::Mac;
use crate::offload::Offload;

/// The most frames that wait for a thread, from all others together.
const WAITING: usize = 512;

/// A frame for another thread.
pub(super) struct Passed {
    pub(super) net: usize,
    pub(super) bytes: Vec<u8>,
    pub(super) offload: Offload,
}

/// By this a thread is woken.
#[derive(Clone, Debug)]
pub struct Bell(Arc<OwnedFd>);

impl Bell {
    fn new() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    /// Wakes the thread: its poll returns until it has called [`Bell::hear`].
    pub fn ring(&self) {
        // It fails only if it has been rung very often, and then it rings anyway.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Ends it. What it was rung for has to be looked at after this.
    pub fn hear(&self) {
        // It fails if it was not rung.
        let _ = rustix::io::read(&self.0, &mut [0; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The guests and sleepers of all threads.
#[derive(Debug, Default)]
struct Everyone {
    macs: FxHashMap<(usize, Mac), Vec<IpAddr>>,
    addresses: FxHashMap<(usize, IpAddr), Mac>,
}

/// One thread's view of the others.
pub struct Peers {
    mine: usize,
    bell: Bell,
    everyone: Arc<RwLock<Everyone>>,
    to: Vec<SyncSender<Passed>>,
    from: Receiver<Passed>,
    bells: Vec<Bell>,
    /// The threads that have to be woken.
    pending: Vec<bool>,
}

impl Peers {
    /// The views of `count` threads, in their order.
    ///
    /// # Errors
    /// The kernel has no room for a descriptor.
    pub fn of(count: usize) -> io::Result<Vec<Self>> {
        let everyone = Arc::new(RwLock::new(Everyone::default()));
        let bells = (0..count).map(|_| Bell::new()).collect::<io::Result<_>>()?;
        let bells: Vec<Bell> = bells;
        let (to, from): (Vec<_>, Vec<_>) = (0..count).map(|_| sync_channel(WAITING)).unzip();
        let views = from.into_iter().zip(bells.clone()).enumerate();
        let views = views.map(|(mine, (from, bell))| Self {
            mine,
            bell,
            everyone: everyone.clone(),
            to: to.clone(),
            from,
            bells: bells.clone(),
            pending: vec![false; count],
        });
        Ok(views.collect())
    }

    /// The bell of this thread.
    #[must_use]
    pub fn bell(&self) -> &Bell {
        &self.bell
    }

    /// The number of threads.
    fn count(&self) -> usize {
        self.to.len()
    }

    /// The other thread that has a guest or a sleeper with this MAC address.
    pub(super) fn of_mac(&self, net: usize, mac: Mac) -> Option<usize> {
        let home = queue_of(mac, self.count());
        if home == self.mine {
            return None;
        }
        let everyone = self.everyone.read().unwrap_or_else(PoisonError::into_inner);
        everyone.macs.contains_key(&(net, mac)).then_some(home)
    }

    /// The other thread that has the guest or sleeper with this address.
    pub(super) fn of_address(&self, net: usize, address: IpAddr) -> Option<usize> {
        let everyone = self.everyone.read().unwrap_or_else(PoisonError::into_inner);
        let home = queue_of(*everyone.addresses.get(&(net, address))?, self.count());
        (home != self.mine).then_some(home)
    }

    /// Tells the other threads the addresses of one of ours; `None` when it is there no more.
    pub(super) fn publish(&self, key: (usize, Mac), addresses: Option<Vec<IpAddr>>) {
        let everyone = self.everyone.write();
        let mut everyone = everyone.unwrap_or_else(PoisonError::into_inner);
        for old in everyone.macs.remove(&key).unwrap_or_default() {
            if everyone.addresses.get(&(key.0, old)) == Some(&key.1) {
                everyone.addresses.remove(&(key.0, old));
            }
        }
        if let Some(addresses) = addresses {
            for address in &addresses {
                everyone.addresses.insert((key.0, *address), key.1);
            }
            everyone.macs.insert(key, addresses);
        }
    }

    /// The other threads.
    pub(super) fn others(&self) -> impl Iterator<Item = usize> + use<> {
        let mine = self.mine;
        (0..self.count()).filter(move |other| *other != mine)
    }

    /// Hands a frame over; returns whether there was room for it.
    pub(super) fn pass(&mut self, to: usize, frame: Passed) -> bool {
        let sender = self.to.get(to);
        let is_passed = sender.is_some_and(|sender| sender.try_send(frame).is_ok());
        if let Some(pending) = self.pending.get_mut(to) {
            // Who has no room has work, but may have gone to sleep with it.
            *pending = true;
        }
        is_passed
    }

    /// The next frame that was handed over to this thread.
    pub(super) fn next(&self) -> Option<Passed> {
        self.from.try_recv().ok()
    }

    /// Wakes the threads that have got frames.
    pub(super) fn wake(&mut self) {
        for (pending, bell) in self.pending.iter_mut().zip(&self.bells) {
            if std::mem::take(pending) {
                bell.ring();
            }
        }
    }
}

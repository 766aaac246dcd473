//! A link that delays and loses frames, as Linux' netem does.

use std::collections::VecDeque;

use mayfly_drivers::Hypervisor;
use mayfly_drivers::fake::{FakeXen, Packet};

use crate::random::Random;

/// Frames on their way in one direction, and when each arrives.
type Queue = VecDeque<(u64, Vec<u8>)>;

/// Returns whether a frame is lost.
pub type Loses = Box<dyn FnMut(&[u8]) -> bool>;

/// A link between the guest and the client. The default one is a wire: it delays and loses nothing.
pub struct Link {
    /// The delay of a frame in either direction, in ns.
    pub delay: u64,
    /// The time to send each byte from the guest, in ns. Bytes are sent one after the other.
    pub ns_per_byte: u64,
    /// The number of frames in a million that are lost, in either direction.
    pub loss: usize,
    /// Decides for each frame of the guest whether it is lost.
    pub loses: Option<Loses>,
    /// The number of frames that were lost.
    pub lost: u64,
    /// The frames that the guest has sent, with their times and including lost ones, if they are recorded.
    pub taken: Option<Vec<(u64, Vec<u8>)>>,
    /// The time at which the last byte from the guest has left.
    free_at: u64,
    random: Random,
    to_guest: Queue,
    to_client: Queue,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            delay: 0,
            ns_per_byte: 0,
            free_at: 0,
            loss: 0,
            loses: None,
            lost: 0,
            taken: None,
            random: Random::new(1),
            to_guest: Queue::new(),
            to_client: Queue::new(),
        }
    }
}

impl Link {
    fn is_lost(&mut self) -> bool {
        let is_lost = self.loss > 0 && self.random.below(1_000_000) < self.loss;
        self.lost += u64::from(is_lost);
        is_lost
    }

    /// Takes a frame of the client.
    pub fn send(&mut self, xen: &FakeXen, frame: Vec<u8>) {
        if !self.is_lost() {
            self.to_guest.push_back((xen.now().0 + self.delay, frame));
        }
        self.carry(xen);
    }

    /// A frame of the guest that has arrived by now.
    pub fn receive(&mut self, xen: &FakeXen) -> Option<Vec<u8>> {
        self.carry(xen);
        let (at, _) = self.to_client.front()?;
        if *at > xen.now().0 {
            return None;
        }
        self.to_client.pop_front().map(|(_, frame)| frame)
    }

    /// Takes the frames that the guest has sent, and delivers those that have arrived by now.
    pub fn carry(&mut self, xen: &FakeXen) {
        let now = xen.now().0;
        let sent: Vec<_> = xen.with(|world| world.netback.transmitted.drain(..).collect());
        for frame in sent {
            if let Some(taken) = &mut self.taken {
                taken.push((now, frame.clone()));
            }
            if self.loses.as_mut().is_some_and(|loses| loses(&frame)) {
                self.lost += 1;
                continue;
            }
            if !self.is_lost() {
                self.free_at = self.free_at.max(now) + frame.len() as u64 * self.ns_per_byte;
                self.to_client.push_back((self.free_at + self.delay, frame));
            }
        }
        while let Some((_, frame)) = self.to_guest.pop_front_if(|(at, _)| *at <= now) {
            xen.with(|world| world.netback.deliver(Packet::new(&frame)));
        }
    }

    /// The time at which the next frame arrives at either end.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        let first = |queue: &Queue| queue.front().map(|(at, _)| *at);
        [first(&self.to_guest), first(&self.to_client)]
            .into_iter()
            .flatten()
            .min()
    }
}

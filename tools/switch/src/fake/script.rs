//! Interprets bytes as a sequence of operations: two hostile guests do anything to the memory that they share with the
//! switch, and one guest is sound.

use std::cell::RefCell;
use std::rc::Rc;

use mayfly_drivers::abi::sring;

use super::{
    BRIDGE, BUFFERS, COUNT, HOST, Machines, Memory, RX_RING, TX_RING, Tap, datagram, guest, mac,
};
use crate::Switch;
use crate::port::Features;
use crate::switch::{Awake, Bounds, Rest, Sleeper};
use crate::vnet;

/// The hostile guests, and the sound one.
const HOSTILE: [u16; 2] = [1, 2];
const SOUND: u16 = 3;
/// The operation that detaches a guest.
const DETACH: usize = 5;
/// The turns in which all work has to be done: each ring has 256 slots.
const TURNS: usize = 2000;

/// The unread part of the input.
struct Input<'b>(&'b [u8]);

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// The next `N` bytes; zeros after the end of the input.
    fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte().unwrap_or(0))
    }

    fn word(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        let (some, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        some.to_vec()
    }
}

struct Run {
    machines: Machines,
    tap: Tap,
    switch: Switch<Machines, Tap>,
    now: u64,
    features: Features,
    memories: [Rc<RefCell<Memory>>; 3],
    /// Whether frames for a guest were sent back to the bridge, as for one that moves to another back end.
    has_relayed: bool,
}

/// Runs the operations that the bytes encode.
///
/// # Panics
/// If the switch does not finish its work, a frame is delivered to the wrong receiver, the sound guest is not served,
/// or a page stays mapped.
pub fn run(bytes: &[u8]) {
    let mut input = Input(bytes);
    let flags = input.byte().unwrap_or(0);
    let features = Features {
        sg: flags & 1 != 0,
        gso_tcpv4: flags & 2 != 0,
        gso_tcpv6: flags & 4 != 0,
        csum4: flags & 8 != 0,
        csum6: flags & 16 != 0,
        persistent: flags & 32 != 0,
    };
    let machines = Machines::default();
    let memories = [1, 2, SOUND].map(|domain| machines.add(domain));
    let tap = Tap::default();
    let switch = Switch::new(machines.clone());
    let mut run = Run {
        machines,
        tap,
        switch,
        now: 1,
        features,
        memories,
        has_relayed: false,
    };
    for buffer in 0..COUNT / 2 {
        run.memories[2].borrow_mut().post(COUNT / 2 + buffer);
    }
    run.memories[2].borrow().publish();
    run.start();
    while let Some(op) = input.byte() {
        run.step(op, &mut input);
    }
    run.end();
}

impl Run {
    /// Starts a new switch, which takes over all guests that can be taken over.
    fn start(&mut self) {
        for memory in &self.memories {
            // The kernel releases the mappings of the old process.
            memory.borrow_mut().is_bound = false;
        }
        self.switch = Switch::new(self.machines.clone());
        self.switch.add_bridge(BRIDGE, HOST, 1500, self.tap.clone());
        for domain in HOSTILE.into_iter().chain([SOUND]) {
            let mut guest = guest(domain);
            if domain != SOUND {
                guest.features = self.features;
            }
            // A guest whose rings are not granted any more cannot be served.
            let _ = self.switch.attach(guest, self.now);
        }
    }

    fn step(&mut self, op: u8, input: &mut Input<'_>) {
        self.now += 1_000_000;
        let which = usize::from(op >> 7);
        let (memory, domain) = (&self.memories[which], HOSTILE[which]);
        let buffer = |input: &mut Input<'_>| u32::from(input.byte().unwrap_or(0)) % COUNT;
        match op & 15 {
            0 => memory.borrow_mut().transmit(&input.array::<12>()),
            1 => {
                // An almost valid request gets further.
                let mut slot = input.array::<12>();
                slot[..4].copy_from_slice(&(BUFFERS + buffer(input)).to_le_bytes());
                slot[5] &= 0x0f;
                slot[7] = 0;
                slot[11] &= 0x0f;
                memory.borrow_mut().transmit(&slot);
            }
            2 => {
                let (page, at) = ([TX_RING, RX_RING][usize::from(op >> 4) & 1], input.word());
                let offset = [
                    sring::REQ_PROD,
                    sring::RSP_PROD,
                    sring::REQ_EVENT,
                    sring::RSP_EVENT,
                ];
                let offset = offset[usize::from(op >> 5) & 3];
                memory.borrow().page(page).store_release(offset, at);
            }
            3 => {
                let (page, at) = (
                    input.byte().unwrap_or(0),
                    usize::from(input.byte().unwrap_or(0)) * 16,
                );
                let bytes = input.bytes(16);
                let page = [TX_RING, RX_RING, BUFFERS, BUFFERS + 1][usize::from(page) & 3];
                memory.borrow().page(page).copy_in(at, &bytes);
            }
            4 => {
                let reference = BUFFERS + buffer(input);
                if let Some((_, is_writable)) = memory.borrow_mut().grants.get_mut(&reference) {
                    *is_writable = !*is_writable;
                }
            }
            5 => memory.borrow_mut().post(buffer(input)),
            6 => memory.borrow().publish(),
            7 => self.switch.event(domain.into()),
            8 => {
                self.switch.readable(0);
                let is_busy = self.switch.turn(self.now);
                self.switch.bind(self.now, is_busy);
            }
            9 => {
                self.switch.rest(self.now);
            }
            10 => {
                let header: [u8; vnet::SIZE] = input.array();
                let length = usize::from(input.byte().unwrap_or(0));
                self.tap.send_with(header, &input.bytes(length));
            }
            11 => {
                let (to, length) = (input.byte().unwrap_or(0), input.byte().unwrap_or(0));
                let frame = datagram(
                    9,
                    mac(u16::from(to % 5)),
                    &vec![7; usize::from(length) * 16],
                );
                let header: [u8; vnet::SIZE] = input.array();
                self.tap.send_with(header, &frame);
            }
            12 => {
                let to = mac(u16::from(input.byte().unwrap_or(0) % 5));
                let frame = datagram(domain, to, &[3; 100]);
                memory.borrow_mut().send(buffer(input), &frame);
            }
            13 => self.start(),
            14 => self.sleeps(usize::from(op >> 4) & 7, domain),
            _ => {
                let mut again = guest(domain);
                again.features = self.features;
                let _ = self.switch.attach(again, self.now);
            }
        }
    }

    /// A guest goes, or a client does something about one that may sleep.
    fn sleeps(&mut self, what: usize, domain: u16) {
        let guest = guest(domain);
        // Most of it is refused, as it comes in any order.
        let _ = match what & 7 {
            0 => self.switch.sleep(
                Sleeper {
                    moves: domain.is_multiple_of(2),
                    name: guest.name,
                    bridge: guest.bridge,
                    mac: guest.mac,
                    ipv4: guest.ipv4,
                    ipv6: guest.ipv6,
                    bounds: Bounds::default(),
                },
                1,
            ),
            1 => self.switch.hold(&guest.name),
            2 => self.switch.open(&guest.name, self.now),
            3 => {
                let relayed = self.switch.relay(&guest.name);
                self.has_relayed |= relayed.is_ok();
                relayed.or_else(|_| self.switch.drop_held(&guest.name))
            }
            4 => self.switch.forget(&guest.name),
            DETACH => {
                self.switch.unprepare(domain);
                self.switch.detach(domain).map(drop)
            }
            6 => self.switch.suspend(&guest.name, self.now),
            _ => {
                let prepared = self.switch.prepare(&guest.rings, self.features, 1);
                prepared.or_else(|_| {
                    let awake = Awake {
                        name: guest.name,
                        guard: guest.guard,
                        rings: guest.rings,
                        features: self.features,
                    };
                    let guest = self.switch.awake(&awake)?;
                    self.switch.attach(guest, self.now)
                })
            }
        };
        if what & 7 == DETACH {
            let memory = self.machines.get(domain).unwrap();
            assert_eq!(memory.borrow().mapped(), 0, "it is let go of");
        }
    }

    fn rest(&mut self) {
        for _ in 0..TURNS {
            self.now += 1_000_000;
            for domain in HOSTILE.into_iter().chain([SOUND]) {
                self.switch.event(domain.into());
            }
            self.switch.readable(0);
            let is_busy = self.switch.turn(self.now);
            self.switch.bind(self.now, is_busy);
            if !is_busy && self.switch.rest(self.now) != Rest::Busy && self.tap.unread() == 0 {
                return;
            }
        }
        panic!("the switch does not come to rest");
    }

    /// Takes all frames that wait for the sound guest, whose buffers are posted again.
    fn emptied(&mut self) -> Vec<Vec<u8>> {
        let sound = self.memories[2].clone();
        let mut all = Vec::new();
        loop {
            let before = all.len();
            loop {
                let Some((response, frame)) = sound.borrow_mut().receive() else {
                    break;
                };
                all.push(frame);
                sound.borrow_mut().post(response.id.into());
            }
            if all.len() == before {
                return all;
            }
            sound.borrow().publish();
            self.rest();
        }
    }

    fn end(&mut self) {
        self.rest();
        while self.switch.notice().is_some() {}
        for frame in self.tap.frames() {
            let from = frame.get(6..12).unwrap_or_default();
            // Address requests for the sound guest are answered, too.
            let mut guests = HOSTILE.into_iter().chain([SOUND]);
            let is_known = guests.any(|domain| from == mac(domain));
            let to = frame.get(..6).unwrap_or_default();
            let is_relayed = self.has_relayed && HOSTILE.iter().any(|domain| to == mac(*domain));
            assert!(
                is_known || is_relayed,
                "a frame from {from:02x?} to {to:02x?} has left"
            );
        }
        // All frames so far are for this guest and no other.
        for frame in self.emptied() {
            let to = frame.get(..6).unwrap_or_default();
            assert!(to == mac(SOUND) || to.first().is_some_and(|first| first & 1 != 0));
        }
        let sound = self.memories[2].clone();
        let sent = datagram(SOUND, HOST, b"sound");
        sound.borrow_mut().send(0, &sent);
        sound.borrow().publish();
        let came = datagram(9, mac(SOUND), b"for it");
        self.tap.send(&came);
        self.rest();
        assert!(
            self.tap.frames().contains(&sent),
            "the sound guest is heard"
        );
        assert!(self.emptied().contains(&came), "the sound guest is served");
        for (domain, memory) in [1, 2, SOUND].into_iter().zip(&self.memories) {
            let _ = self.switch.detach(domain);
            self.switch.unprepare(domain);
            assert_eq!(memory.borrow().mapped(), 0, "nothing stays mapped");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(mayfly_seeds::cases(2000))]

        #[test]
        fn any_operations(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            super::run(&bytes);
        }
    }
}

//! Two threads of one switch, each with guests of its own.

use std::cell::RefCell;
use std::rc::Rc;

use super::*;
use crate::fake::{Memory, datagram, ip, mac};
use crate::switch::{Bounds, Peers, Sleeper, SwitchStatus};

type Shared = Rc<RefCell<Memory>>;

/// Threads, in one of the test's.
struct Threads {
    machines: Machines,
    all: Vec<(super::super::Switch<Machines, Tap>, Tap)>,
    now: u64,
}

impl Threads {
    fn new() -> Self {
        let machines = Machines::default();
        let all = Peers::of(2).unwrap().into_iter().map(|peers| {
            let tap = Tap::default();
            let mut switch = super::super::Switch::new(machines.clone());
            switch.add_bridge(BRIDGE, HOST, 1500, tap.clone());
            switch.join(peers);
            (switch, tap)
        });
        let all = all.collect();
        Self {
            machines,
            all,
            now: 1,
        }
    }

    /// A guest of the thread that its MAC address leads to: an odd domain is on the second.
    fn add(&mut self, domain: u16) -> Shared {
        let memory = self.machines.add(domain);
        for buffer in 32..fake::COUNT {
            memory.borrow_mut().post(buffer);
        }
        memory.borrow().publish();
        let now = self.now;
        self.of(domain).attach(guest(domain), now).unwrap();
        self.now += super::super::BIND_AFTER;
        self.run();
        memory
    }

    fn of(&mut self, domain: u16) -> &mut super::super::Switch<Machines, Tap> {
        &mut self.all[usize::from(domain % 2)].0
    }

    fn send(&mut self, from: (&Shared, u16), frames: &[Vec<u8>]) {
        for (buffer, frame) in (0..).zip(frames) {
            from.0.borrow_mut().send(buffer, frame);
        }
        from.0.borrow().publish();
        self.of(from.1).event(from.1.into());
        self.run();
    }

    /// Until all threads sleep.
    fn run(&mut self) {
        for _ in 0..1000 {
            let mut is_any = false;
            for (switch, _) in &mut self.all {
                self.now += 1000;
                // A thread that sleeps turns only when it is woken.
                switch.readable(0);
                let is_busy = switch.turn(self.now);
                switch.bind(self.now, is_busy);
                is_any |= is_busy || switch.rest(self.now) == Rest::Busy;
            }
            if !is_any {
                return;
            }
        }
        panic!("the threads do not come to rest");
    }
}

fn received(memory: &Shared) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| memory.borrow_mut().receive())
        .map(|(_, frame)| frame)
        .collect()
}

#[test]
fn frames_pass_between_threads_in_their_order() {
    let mut threads = Threads::new();
    let one = threads.add(1);
    let other = threads.add(2);
    let frames: Vec<_> = (0..20).map(|n| datagram(1, mac(2), &[n; 30])).collect();
    threads.send((&one, 1), &frames);
    assert_eq!(received(&other), frames);
    // Nothing of it went to a bridge, and nothing came back.
    assert!(threads.all.iter().all(|(_, tap)| tap.frames().is_empty()));
    assert!(received(&one).is_empty());
    // What is for nobody here is for the bridge.
    let away = datagram(1, HOST, b"away");
    threads.send((&one, 1), std::slice::from_ref(&away));
    assert_eq!(threads.all[1].1.frames(), [away]);
    let status = SwitchStatus::merge(
        threads
            .all
            .iter()
            .map(|(switch, _)| switch.status())
            .collect(),
    );
    let names: Vec<_> = status.guests.iter().map(|guest| &guest.name).collect();
    assert_eq!(names, ["guest1", "guest2"]);
    assert_eq!(status.bridges.len(), 1);
    assert_eq!(status.bridges[0].counters.sent, 1);
}

#[test]
fn a_guest_that_is_gone_is_on_the_bridge() {
    let mut threads = Threads::new();
    let one = threads.add(1);
    threads.add(2);
    threads.of(2).detach(2).unwrap();
    let frame = datagram(1, mac(2), b"late");
    threads.send((&one, 1), std::slice::from_ref(&frame));
    assert_eq!(threads.all[1].1.frames(), [frame]);
}

#[test]
fn a_frame_for_all_reaches_the_guests_of_all_threads_once() {
    let mut threads = Threads::new();
    let memories = [1, 2, 3, 4].map(|domain| threads.add(domain));
    // From the bridge, by the queue of any thread.
    let frame = datagram(9, [0xff; 6], b"all");
    threads.all[0].1.send(&frame);
    threads.run();
    for memory in &memories {
        assert_eq!(received(memory), [&frame[..]]);
    }
}

/// An ARP request of a guest for an address.
fn request(from: u16, to: u16) -> Vec<u8> {
    let mut frame = [&[0xff; 6][..], &mac(from), &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend(mac(from));
    frame.extend(ip(from).octets());
    frame.extend([0; 6]);
    frame.extend(ip(to).octets());
    frame
}

#[test]
fn who_asks_for_an_address_is_answered_by_the_thread_that_has_it() {
    let mut threads = Threads::new();
    let [one, two, _four] = [1, 2, 4].map(|domain| threads.add(domain));
    threads.send((&one, 1), &[request(1, 2)]);
    let answers = received(&one);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][..12], [mac(1), mac(2)].concat());
    assert!(received(&two).is_empty(), "it is answered for");
    // One of the bridge's, which has come by the other thread's queue.
    for (_, tap) in &threads.all {
        let _ = tap.frames();
    }
    threads.all[1].1.send(&request(9, 2));
    threads.run();
    let answers: Vec<_> = threads
        .all
        .iter()
        .flat_map(|(_, tap)| tap.frames())
        .collect();
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0][..12], [mac(9), mac(2)].concat());
}

#[test]
fn a_sleeper_of_another_thread_is_wanted() {
    let mut threads = Threads::new();
    let one = threads.add(1);
    let asleep = guest(2);
    let sleeper = Sleeper {
        name: asleep.name,
        bridge: asleep.bridge,
        mac: asleep.mac,
        ipv4: asleep.ipv4,
        ipv6: None,
        bounds: Bounds::default(),
        moves: false,
    };
    threads.of(2).sleep(sleeper, 1).unwrap();
    threads.send((&one, 1), &[request(1, 2)]);
    assert_eq!(received(&one).len(), 1);
    let notice = threads.of(2).notice();
    assert!(matches!(notice, Some(Notice::Wanted { .. })), "{notice:?}");
    // It is forgotten, and nobody answers any more.
    threads.of(2).forget_all(1);
    threads.send((&one, 1), &[request(1, 2)]);
    assert!(received(&one).is_empty());
}

#[test]
fn a_thread_that_does_not_run_costs_frames_and_no_memory() {
    let mut threads = Threads::new();
    let one = threads.add(1);
    let other = threads.add(2);
    let frames: Vec<_> = (0..32).map(|n| datagram(1, mac(2), &[n; 30])).collect();
    for _ in 0..40 {
        for (buffer, frame) in (0..).zip(&frames) {
            one.borrow_mut().send(buffer, frame);
        }
        one.borrow().publish();
        threads.of(1).event(1);
        threads.now += 1000;
        let now = threads.now;
        threads.of(1).turn(now);
    }
    let refused = threads.of(1).status().guests[0].counters.refused;
    assert_eq!(refused, 40 * 32 - 512);
    threads.run();
    assert_eq!(received(&other).first(), frames.first());
}

//! Guests that are given another back end while they run.

use std::net::Ipv4Addr;

use super::forwarding::{CLIENT, arp, free, received};
use super::sleepers::{OWNER, segment, sleeper};
use super::*;
use crate::fake::{COUNT, datagram, mac};
use crate::switch::{Bounds, Sleeper};

fn moving(domain: u16) -> Sleeper {
    Sleeper {
        moves: true,
        bounds: Bounds {
            frames: 1000,
            bytes: 1 << 20,
        },
        ..sleeper(domain)
    }
}

#[test]
fn a_guest_that_comes_gets_all_that_came_meanwhile() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(moving(1), OWNER).unwrap();
    let other = dom0.add(2);
    // Every frame, and not only those that would wake it; and a broadcast, which nobody else can answer.
    let request = arp(
        CLIENT,
        Ipv4Addr::new(10, 0, 2, 9),
        Ipv4Addr::new(10, 0, 2, 200),
    );
    let frames = [segment(1, 0x10), segment(1, 0x02), request.clone()];
    for frame in &frames {
        dom0.tap.send(frame);
    }
    dom0.run(2);
    other.borrow_mut().send(0, &datagram(2, mac(1), b"x"));
    other.borrow().publish();
    dom0.run(2);
    assert!(dom0.tap.frames().is_empty(), "no reset, no answer");
    assert_eq!(dom0.notices(), [], "nobody has to wake it");
    let memory = dom0.add_as(free(1));
    let all = [&frames[..], &[datagram(2, mac(1), b"x")]].concat();
    assert_eq!(received(&memory), all);
    // From now on it gets them itself, once.
    for frame in [&segment(1, 0x10), &request] {
        dom0.tap.send(frame);
    }
    dom0.run(1);
    assert_eq!(received(&memory).len(), 2);
    dom0.switch.forget_all(OWNER);
    assert_eq!(dom0.notices(), []);
    dom0.tap.send(&segment(1, 0x10));
    dom0.run(1);
    assert_eq!(received(&memory).len(), 1);
}

#[test]
fn what_comes_for_a_guest_that_goes_follows_it_over_the_bridge() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    let other = dom0.add(2);
    assert!(dom0.switch.relay("guest1").is_err(), "it does not move");
    // Its ring is full, so that frames wait for room.
    let full = (0..COUNT + 2).map(|number| datagram_to(1, number));
    let full: Vec<_> = full.collect();
    for frame in &full {
        dom0.tap.send(frame);
    }
    dom0.run(1);
    let posted = received(&memory).len();
    assert!(posted < full.len());
    dom0.switch.sleep(moving(1), OWNER).unwrap();
    dom0.switch.hold("guest1").unwrap();
    dom0.tap.send(&segment(1, 0x10));
    dom0.run(1);
    dom0.switch.detach(1).unwrap();
    other.borrow_mut().send(0, &datagram(2, mac(1), b"x"));
    other.borrow().publish();
    let request = arp(
        CLIENT,
        Ipv4Addr::new(10, 0, 2, 9),
        Ipv4Addr::new(10, 0, 2, 200),
    );
    dom0.tap.send(&request);
    dom0.run(2);
    let _ = received(&other);
    let _ = dom0.tap.frames();
    dom0.switch.relay("guest1").unwrap();
    let mut ours = request.clone();
    ours[..6].copy_from_slice(&mac(1));
    let held = [segment(1, 0x10), ours, datagram(2, mac(1), b"x")];
    let mut sent = dom0.tap.frames();
    // What had waited for room comes first.
    let waited = sent.len() - held.len();
    assert_eq!(sent[..waited], full[posted..]);
    sent.drain(..waited);
    sent.sort();
    let mut held = held.to_vec();
    held.sort();
    assert_eq!(sent, held);
    // What was on its way is sent after it; a broadcast reaches the guest on the bridge.
    dom0.tap.send(&segment(1, 0x18));
    dom0.tap.send(&request);
    dom0.run(2);
    assert_eq!(dom0.tap.frames(), [segment(1, 0x18)]);
    dom0.switch.forget_all(OWNER);
    dom0.tap.send(&segment(1, 0x18));
    dom0.run(2);
    assert!(dom0.tap.frames().is_empty());
    assert_eq!(dom0.notices(), []);
}

/// A datagram from the bridge.
fn datagram_to(to: u16, number: u32) -> Vec<u8> {
    let mut frame = segment(to, 0x10);
    frame.extend(number.to_be_bytes());
    frame
}

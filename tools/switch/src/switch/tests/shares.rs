//! One that floods delays the others by a bounded time.

use super::*;
use crate::fake::{datagram, mac};
use crate::switch::{BATCH, Guard, SendLimits};

/// Fills a guest's ring with frames of this size.
fn flood(memory: &std::cell::RefCell<fake::Memory>, domain: u16, payload: usize) {
    let frame = datagram(domain, HOST, &vec![9; payload]);
    let mut memory = memory.borrow_mut();
    for index in 0..256 {
        memory.send(index % 32, &frame);
    }
    memory.publish();
}

#[test]
fn a_flood_delays_others_by_its_quantum() {
    for payload in [1, 1472] {
        let mut dom0 = Dom0::new();
        let one = dom0.add(1);
        let other = dom0.add(2);
        dom0.run(1);
        dom0.run(2);
        flood(&one, 1, payload);
        dom0.switch.event(1);
        dom0.switch.turn(dom0.now);
        // It comes in the middle, and is not behind all of the flood.
        let mine = datagram(2, HOST, b"mine");
        other.borrow_mut().send(0, &mine);
        other.borrow().publish();
        dom0.switch.event(2);
        let _ = dom0.tap.frames();
        dom0.switch.turn(dom0.now);
        let frames = dom0.tap.frames();
        let before = frames.iter().position(|frame| *frame == mine);
        assert!(before.is_some_and(|before| before <= BATCH), "{before:?}");
        dom0.run(1);
        assert_eq!(
            dom0.switch.status().guests[0].counters.from_guest.frames,
            256
        );
    }
}

#[test]
fn a_flood_of_frames_for_all_costs_as_much_as_any_other() {
    let mut dom0 = Dom0::new();
    let one = dom0.add_as(crate::Guest {
        guard: Guard::Mac,
        ..guest(1)
    });
    let count: u16 = 50;
    let others: Vec<_> = (2..2 + count).map(|domain| dom0.add(domain)).collect();
    let frame = datagram(1, [0xff; 6], b"all");
    {
        let mut memory = one.borrow_mut();
        for index in 0..32 {
            memory.send(index, &frame);
        }
        memory.publish();
    }
    let delivered = || -> usize {
        let got = |memory: &std::rc::Rc<std::cell::RefCell<fake::Memory>>| {
            std::iter::from_fn(|| memory.borrow_mut().receive()).count()
        };
        others.iter().map(got).sum()
    };
    // The last frame may go beyond the round.
    let round = usize::try_from(crate::switch::QUANTUM / crate::switch::FRAME_COST).unwrap();
    dom0.switch.event(1);
    let (mut all, mut turns) = (0, 0);
    while all < 32 * usize::from(count) {
        dom0.now += 1000;
        dom0.switch.turn(dom0.now);
        let some = delivered();
        assert!(some <= round + usize::from(count), "{some} in a turn");
        all += some;
        let is_over = dom0.switch.rest(dom0.now) == Rest::Until(None);
        assert_eq!(is_over, all == 32 * usize::from(count), "{all}");
        turns += 1;
        assert!(turns < 100);
    }
    assert!(turns >= all / round, "{turns}");
    // Each of them got all of them, and the sender is served as before.
    dom0.run(1);
    assert_eq!(delivered(), 0);
    let mine = datagram(1, HOST, b"mine");
    one.borrow_mut().send(0, &mine);
    one.borrow().publish();
    let _ = dom0.tap.frames();
    dom0.run(1);
    assert_eq!(dom0.tap.frames(), [mine]);
}

#[test]
fn an_answer_beside_a_flood_waits_for_no_event() {
    let mut dom0 = Dom0::new();
    let one = dom0.add(1);
    let other = dom0.add(2);
    dom0.run(1);
    dom0.run(2);
    flood(&one, 1, 1);
    dom0.switch.event(1);
    dom0.tap.send(&datagram(9, mac(2), b"question"));
    dom0.switch.readable(0);
    dom0.switch.turn(dom0.now);
    assert!(other.borrow_mut().receive().is_some());
    let answer = datagram(2, HOST, b"answer");
    other.borrow_mut().send(0, &answer);
    other.borrow().publish();
    let _ = dom0.tap.frames();
    // Nobody has read its event yet.
    dom0.switch.turn(dom0.now);
    assert!(dom0.tap.frames().contains(&answer));
}

#[test]
fn what_comes_from_the_bridge_is_bounded_as_well() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    dom0.run(1);
    for _ in 0..1000 {
        dom0.tap.send(&datagram(9, mac(1), &[0; 1000]));
    }
    memory.borrow_mut().send(0, &datagram(1, HOST, b"mine"));
    memory.borrow().publish();
    dom0.switch.event(1);
    dom0.switch.readable(0);
    dom0.switch.turn(dom0.now);
    assert_eq!(dom0.tap.unread(), 1000 - BATCH);
    assert_eq!(dom0.tap.frames().len(), 1);
}

#[test]
fn a_limit_is_held_and_the_guest_goes_on_later() {
    let mut dom0 = Dom0::new();
    let memory = dom0.machines.add(1);
    let mut limited = guest(1);
    limited.limits = SendLimits {
        frames: Some(100),
        bytes: None,
    };
    dom0.switch.attach(limited, dom0.now).unwrap();
    flood(&memory, 1, 10);
    dom0.switch.event(1);
    let mut sent = 0;
    let start = dom0.now;
    while sent < 256 {
        let is_busy = dom0.switch.turn(dom0.now);
        dom0.switch.bind(dom0.now, is_busy);
        sent += dom0.tap.frames().len();
        match dom0.switch.rest(dom0.now) {
            Rest::Busy => dom0.now += 1000,
            Rest::Until(Some(time)) => {
                assert!(time > dom0.now);
                dom0.now = time;
            }
            Rest::Until(None) => break,
        }
        assert!(dom0.now < 10_000_000_000);
    }
    assert_eq!(sent, 256);
    let seconds = (dom0.now - start) as f64 / 1e9;
    assert!((2.0..2.6).contains(&seconds), "{seconds}");
}

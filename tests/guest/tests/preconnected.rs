//! A guest whose network the toolstack has connected before it runs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_drivers::Gfn;
use mayfly_drivers::fake::Packet;
use mayfly_guest_tests::frames::arp;
use mayfly_guest_tests::{GUEST4, Setup};

const PEER: [u8; 6] = [2, 0, 0, 0, 0, 9];

#[test]
fn it_answers_what_came_before_it_ran_without_asking_xenstore() {
    let setup = Setup::preconnected();
    setup.xen.with(|world| {
        world
            .netback
            .deliver(Packet::new(&arp(1, PEER, [10, 0, 2, 2], [0; 6], GUEST4)));
    });
    setup.xen.run();
    let before = setup.xen.with(|world| world.machine.counts);
    setup.run(|net| {
        assert!(net.sent().is_empty());
        net.step();
        // The guest has sent the announcements and the answer.
        let sent = net.sent();
        assert!(
            sent.iter()
                .any(|frame| frame[12..14] == [8, 6] && frame[20..22] == [0, 2]),
            "{sent:?}"
        );
        let counters = net.guest.store.counters();
        assert_eq!(counters.round_trips, 0);
        // The only request is `data/mayfly/ready`, after the first packet.
        assert_eq!(counters.requests, 1);
        let counts = net.xen.with(|world| world.machine.counts);
        // The hypercalls are for the grant table, the frames, and the key.
        assert_eq!(counts.hypercalls() - before.hypercalls(), 3);
        net.assert_serves();
    });
}

#[test]
fn housekeeping_is_done() {
    Setup::preconnected().run(|net| {
        assert!(net.until(2.0, |net| net.key("data/mayfly/ready").is_some()));
        assert!(net.until(2.0, |net| net.key("control/feature-poweroff").is_some()));
        assert!(net.until(2.0, |net| net.debug().contains("boot us: preconnected")));
        net.run_for(1.0);
        // The guest has read the back end's features.
        assert!(net.guest.nic.front().features().segment);
        let before = net.steps;
        net.run_for(60.0);
        assert!(net.steps - before < 200);
        net.assert_serves();
    });
}

/// Runs a guest that the toolstack introduces to xenstored only after this many seconds, or never.
fn introduced_late(offers: bool, after: Option<f64>) {
    let setup = Setup::preconnected();
    setup.xen.with(|world| world.store.unintroduced());
    setup.run(|net| {
        net.assert_serves();
        net.run_for(after.unwrap_or(600.0));
        net.assert_serves();
        assert_eq!(net.guest.store.counters().requests, 0);
        if after.is_none() {
            return;
        }
        net.xen.with(|world| match offers {
            true => world.store.introduce_and_offer(),
            false => world.store.introduce(&mut world.machine),
        });
        net.run_for(0.1);
        assert!(net.key("data/mayfly/ready").is_some(), "{offers} {after:?}");
        net.run_for(1.0);
        assert!(net.key("control/feature-poweroff").is_some());
        assert!(net.guest.nic.front().features().segment);
        assert!(!net.debug().contains("xenstore:"), "{}", net.debug());
        assert_eq!(net.guest.nic.front().counters().links, 1);
        let before = net.steps;
        net.run_for(60.0);
        assert!(net.steps - before < 200);
        net.assert_serves();
    });
}

#[test]
fn it_serves_before_it_is_introduced_to_xenstored() {
    for offers in [false, true] {
        for after in [0.0, 0.005, 0.04, 0.2, 5.0, 90.0] {
            introduced_late(offers, Some(after));
        }
    }
    introduced_late(false, None);
}

#[test]
fn a_back_end_that_comes_back_is_served_again() {
    Setup::preconnected().run(|net| {
        net.assert_serves();
        net.run_for(1.0);
        for round in 0..3 {
            net.xen.with(|world| {
                if round == 1 {
                    world.netback.unplug(&mut world.machine, &mut world.store);
                } else {
                    world.netback.unload(&mut world.machine, &mut world.store);
                }
            });
            net.run_for(2.0);
            net.xen.with(|world| {
                world.netback.load(&mut world.store);
                world.netback.plug(&mut world.store);
            });
            net.assert_serves();
        }
        assert_eq!(net.guest.nic.front().quarantined(), 0);
    });
}

#[test]
fn a_back_end_that_left_before_housekeeping_is_served_again() {
    Setup::preconnected().run(|net| {
        net.xen
            .with(|world| world.netback.unload(&mut world.machine, &mut world.store));
        net.run_for(2.0);
        net.xen.with(|world| world.netback.load(&mut world.store));
        net.assert_serves();
    });
}

#[test]
fn pages_that_are_not_there_are_a_line() {
    for change in [0, 1, 1 << 40, u64::MAX - 0x100] {
        let mut setup = Setup::preconnected();
        let network = setup.network.as_mut().unwrap();
        let wrong = network.first.0.wrapping_add(change);
        if change == 0 {
            network.rx_buffers = 128;
        }
        network.first = Gfn(wrong);
        let line = setup.try_run(|_| ()).unwrap_err();
        assert!(line.contains("vif"), "{line}");
    }
}

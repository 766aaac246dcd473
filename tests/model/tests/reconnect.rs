//! A back end that leaves and comes back, in every possible way.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::fake::{FakeXen, World};
use mayfly_drivers::netfront::handshake::LinkState;
use mayfly_drivers::netfront::{BufferCounts, Notice};
use mayfly_model_tests::{Guest, numbered_frame};

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 32,
    tx_buffers: 16,
};

/// Boots by either entry, breaks and restores the connection, and checks that nothing is left behind.
fn survives(name: &str, leave: impl Fn(&mut World), come_back: impl Fn(&mut World)) {
    let xen = FakeXen::new();
    outlives(name, Guest::boot(&xen, CONFIG).unwrap(), &leave, &come_back);
    let (xen, network) = FakeXen::preconnected(CONFIG.rx_buffers);
    let guest = Guest::adopt(&xen, CONFIG, &network).unwrap();
    let name = format!("{name}, preconnected");
    outlives(&name, guest, &leave, &come_back);
}

fn outlives(
    name: &str,
    mut guest: Guest<'_>,
    leave: impl Fn(&mut World),
    come_back: impl Fn(&mut World),
) {
    for round in 0..5 {
        assert!(guest.turn_until_carrier(), "{name}, round {round}");
        assert!(guest.carries(round * 10));
        let pages = guest.world(|world| world.machine.pages_allocated());
        assert!(pages <= 32 + 16 + 2, "{name}: {pages} pages");
        guest.world(&leave);
        for _ in 0..3 {
            guest.turn();
            guest.send(&numbered_frame(99, 60));
        }
        guest.world(&come_back);
    }
    assert!(guest.turn_until_carrier(), "{name}");
    assert!(guest.carries(1000));
    assert!(guest.notices.contains(&Notice::Left), "{name}");
    assert_eq!(guest.net.quarantined(), 0, "{name}");
    assert_eq!(guest.violations(), [""; 0], "{name}");
    assert!(
        guest.world(|world| world.netback.connections) >= 6,
        "{name}"
    );
}

#[test]
fn the_interface_is_detached_and_attached() {
    survives(
        "detach, remove, attach",
        |world| world.netback.begin_close(&mut world.store),
        |world| {
            world.netback.unplug(&mut world.machine, &mut world.store);
            world.netback.plug(&mut world.store);
        },
    );
}

#[test]
fn the_interface_is_removed_by_force() {
    survives(
        "unplug, plug",
        |world| world.netback.unplug(&mut world.machine, &mut world.store),
        |world| world.netback.plug(&mut world.store),
    );
}

#[test]
fn netback_is_unloaded_and_loaded() {
    survives(
        "unload, load",
        |world| world.netback.unload(&mut world.machine, &mut world.store),
        |world| world.netback.load(&mut world.store),
    );
}

#[test]
fn netback_restarts_before_the_guest_looks_and_finds_the_old_rings() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    for round in 0..5 {
        assert!(guest.turn_until_carrier());
        assert!(guest.carries(round * 10));
        guest.world(|world| {
            world.netback.unload(&mut world.machine, &mut world.store);
            world.netback.load(&mut world.store);
        });
    }
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(100));
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn netback_restarts_and_waits_while_the_guest_looks() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    for round in 0..5 {
        assert!(guest.turn_until_carrier());
        assert!(guest.carries(round * 10));
        guest.world(|world| {
            world.netback.never_connect = true;
            world.netback.unload(&mut world.machine, &mut world.store);
            world.netback.load(&mut world.store);
        });
        guest.turn_until(5, |_| false);
        guest.world(|world| world.netback.never_connect = false);
    }
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(100));
    assert_eq!(guest.net.counters().links, 6);
    assert_eq!(guest.net.quarantined(), 0);
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn pages_that_a_back_end_keeps_are_never_used_again() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(1));
    let refs = guest.world(|world| {
        let refs = world.netback.ring_refs().unwrap();
        world.netback.keep_mapped = true;
        world.netback.unload(&mut world.machine, &mut world.store);
        refs
    });
    guest.turn_until(5, |_| false);
    assert_eq!(guest.net.quarantined(), 2);
    guest.world(|world| {
        world.netback.keep_mapped = false;
        world.netback.load(&mut world.store);
    });
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(10));
    guest.world(|world| {
        let new = world.netback.ring_refs().unwrap();
        assert!(new.iter().all(|gref| !refs.contains(gref)));
        // It finally unmaps them, and the next link notices.
        world.netback.unmap(&mut world.machine, &refs);
        world.netback.unload(&mut world.machine, &mut world.store);
    });
    guest.turn_until(5, |_| false);
    guest.world(|world| world.netback.load(&mut world.store));
    assert!(guest.turn_until(50, |guest| guest.net.quarantined() == 0));
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(20));
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn a_back_end_that_starts_to_close_and_stops_is_left_after_a_while() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    guest.world(|world| {
        world
            .store
            .set(b"/local/domain/0/backend/vif/1/0/state", b"5");
    });
    xen.run();
    guest.service();
    // xenstored is gone as well, so no answer comes.
    guest.world(|world| world.store.dead = true);
    assert!(guest.turn_until(100, |guest| guest.net.state() == LinkState::Closed));
    assert_eq!(guest.net.ports(), None);
}

/// Checks that the back end is ignored until it is plugged anew.
fn assert_given_up(guest: &mut Guest<'_>, name: &str) {
    let given_up = |&&notice: &&Notice| notice == Notice::GivenUp;
    assert_eq!(guest.notices.iter().filter(given_up).count(), 1, "{name}");
    // The event that comes with the watch itself may count as a plug.
    let links = guest.net.counters().links;
    assert!((16..=17).contains(&links), "{name}: {links} links");
    assert_eq!(guest.net.state(), LinkState::Closed, "{name}");
    let pages = guest.world(|world| world.machine.pages_allocated());
    assert_eq!(pages, guest.net.quarantined(), "{name}");
    guest.world(|world| {
        world.store.refuse = None;
        world.netback.unplug(&mut world.machine, &mut world.store);
        world.netback.plug(&mut world.store);
    });
    assert!(guest.turn_until_carrier(), "{name}");
    assert!(guest.carries(1));
    assert_eq!(guest.violations(), [""; 0], "{name}");
}

#[test]
fn a_back_end_that_restarts_for_ever_is_given_up() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    for _ in 0..50 {
        guest.turn_until(20, |guest| guest.net.carrier());
        guest.world(|world| world.netback.unload(&mut world.machine, &mut world.store));
        guest.turn_until(20, |guest| guest.net.ports().is_none());
        guest.world(|world| world.netback.load(&mut world.store));
    }
    assert_given_up(&mut guest, "unload, load");
}

#[test]
fn a_back_end_whose_directory_comes_and_goes_is_given_up() {
    let state = b"/local/domain/0/backend/vif/1/0/state";
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    for _ in 0..50 {
        guest.world(|world| world.store.set(state, b"4"));
        guest.turn_until(3, |_| false);
        guest.world(|world| world.store.remove(state));
        guest.turn_until(3, |_| false);
    }
    assert_given_up(&mut guest, "remove, write");
}

#[test]
fn a_back_end_that_waits_while_the_state_is_refused_is_given_up() {
    let xen = FakeXen::new();
    xen.with(|world| world.store.refuse = Some(b"device/vif/0/state".to_vec()));
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    guest.turn_until(500, |_| false);
    assert_given_up(&mut guest, "refused");
}

#[test]
fn a_long_life_has_room_for_any_number_of_restarts() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    for round in 0..40 {
        assert!(guest.turn_until_carrier(), "round {round}");
        let later = guest.world(|world| world.machine.now()) + 11_000_000_000;
        assert!(guest.turn_until(200, |guest| {
            guest.world(|world| world.machine.now()) >= later
        }));
        guest.world(|world| world.netback.unload(&mut world.machine, &mut world.store));
        guest.turn();
        guest.world(|world| world.netback.load(&mut world.store));
    }
    // A replug by the toolstack is always accepted, however often.
    for round in 0..40 {
        assert!(guest.turn_until_carrier(), "round {round}");
        guest.world(|world| world.netback.begin_close(&mut world.store));
        guest.turn_until(3, |_| false);
        guest.world(|world| {
            world.netback.unplug(&mut world.machine, &mut world.store);
            world.netback.plug(&mut world.store);
        });
    }
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(1));
    assert!(!guest.notices.contains(&Notice::GivenUp));
    assert_eq!(guest.violations(), [""; 0]);
}

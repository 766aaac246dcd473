//! The toolstack plugs the interface of a running guest anew, and writes its keys in any order.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::fake::{BACKEND, FakeXen};
use mayfly_drivers::netfront::handshake::LinkState;
use mayfly_drivers::netfront::{BufferCounts, Notice};
use mayfly_model_tests::Guest;

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 16,
    tx_buffers: 16,
};
const NEW_BACKEND: &str = "/local/domain/0/backend/vif/1/7";
const NEW_MAC: &str = "00:16:3e:00:00:99";

/// Violations that a back end finds which is made while the keys of the old link exist.
const BY_THE_TOOLSTACK: [&str; 2] = [
    "a grant reference that grants nothing",
    "an event channel that is not there to be bound",
];

/// All orders of `items`.
fn orders<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![vec![]];
    }
    let mut all = Vec::new();
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        for mut order in orders(&rest) {
            order.insert(0, first.clone());
            all.push(order);
        }
    }
    all
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// Makes another back end, in state `InitWait`.
    MakeBackend,
    Key(&'static str),
}

const STEPS: [Step; 4] = [
    Step::MakeBackend,
    Step::Key("backend"),
    Step::Key("mac"),
    Step::Key("state"),
];

/// The steps after which the guest runs.
#[derive(Debug, Clone, Copy)]
enum Pace {
    All,
    Each,
    Two,
}

fn replug(order: &[Step], path: &str, mac: &str, pace: Pace) {
    let name = format!("{order:?} {path} {mac} {pace:?}");
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(1), "{name}");
    for round in 0..2 {
        for (number, step) in order.iter().enumerate() {
            guest.world(|world| match step {
                Step::MakeBackend => {
                    world
                        .netback
                        .remake(&mut world.machine, &mut world.store, path);
                }
                Step::Key(key) => {
                    let value = match *key {
                        "backend" => path,
                        "mac" => mac,
                        _ => "1",
                    };
                    let path = format!("device/vif/0/{key}");
                    world.store.set(path.as_bytes(), value.as_bytes());
                }
            });
            match pace {
                Pace::Each => guest.turn(),
                Pace::Two if number % 2 == 1 => guest.turn(),
                Pace::All | Pace::Two => {}
            }
        }
        // A broken link is noticed within the time limit of one state.
        guest.turn_until(100, |_| false);
        assert!(guest.turn_until_carrier(), "{name} {round}");
        let as_plugged: Vec<String> = guest.net.mac().iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(as_plugged.join(":"), mac, "{name} {round}");
        assert!(guest.carries(1), "{name}");
        let told = [Notice::Replugged, Notice::Left, Notice::NoVif];
        assert!(
            guest.notices.iter().any(|notice| told.contains(notice)),
            "{name}: without a line"
        );
        assert!(!guest.notices.contains(&Notice::GivenUp), "{name}");
        assert!(guest.net.counters().links <= 8, "{name}");
        guest.notices.clear();
    }
    let mut violations = guest.violations();
    violations.retain(|violation| !BY_THE_TOOLSTACK.contains(&violation.as_str()));
    assert_eq!(violations, [""; 0], "{name}");
}

#[test]
fn in_all_orders_of_the_keys() {
    for order in orders(&STEPS) {
        for path in [BACKEND, NEW_BACKEND] {
            for mac in ["00:16:3e:00:00:01", NEW_MAC] {
                for pace in [Pace::All, Pace::Each, Pace::Two] {
                    replug(&order, path, mac, pace);
                }
            }
        }
    }
}

#[test]
fn backend_before_state_with_nothing_else_to_tell() {
    // The path and the MAC address are the same, and the old back end does not change: only the state says that the
    // interface was plugged anew.
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    guest.turn_until(5, |_| false);
    guest.world(|world| world.store.set(b"device/vif/0/backend", BACKEND.as_bytes()));
    guest.turn_until(5, |_| false);
    assert_eq!(
        guest.net.counters().links,
        1,
        "the state says that it is the same"
    );
    guest.world(|world| world.store.set(b"device/vif/0/state", b"1"));
    assert!(guest.turn_until(10, |guest| guest.notices.contains(&Notice::Replugged)));
    assert!(guest.turn_until(100, |guest| guest.net.counters().links >= 2));
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(1), "state alone");
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn the_guest_does_not_take_its_own_state_for_a_plug() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    for round in 1..=5 {
        assert!(guest.turn_until_carrier());
        assert!(guest.carries(1), "own state");
        guest.turn_until(150, |_| false);
        assert_eq!(guest.net.counters().links, round);
        guest.world(|world| world.netback.unload(&mut world.machine, &mut world.store));
        guest.turn_until(5, |_| false);
        guest.world(|world| world.netback.load(&mut world.store));
    }
    assert!(!guest.notices.contains(&Notice::Replugged));
}

#[test]
fn an_interface_that_is_plugged_later_is_found_in_any_order() {
    for order in orders(&STEPS) {
        let xen = FakeXen::new();
        let mut guest = Guest::boot(&xen, CONFIG).unwrap();
        assert!(guest.turn_until_carrier());
        guest.world(|world| world.netback.unplug(&mut world.machine, &mut world.store));
        assert!(guest.turn_until(50, |guest| guest.net.state() == LinkState::Absent));
        for step in &order {
            guest.world(|world| match step {
                Step::MakeBackend => {
                    let (machine, store) = (&mut world.machine, &mut world.store);
                    world.netback.remake(machine, store, NEW_BACKEND);
                }
                Step::Key("backend") => {
                    world
                        .store
                        .set(b"device/vif/0/backend", NEW_BACKEND.as_bytes());
                }
                Step::Key("mac") => world.store.set(b"device/vif/0/mac", NEW_MAC.as_bytes()),
                Step::Key(_) => world.store.set(b"device/vif/0/state", b"1"),
            });
            guest.turn();
        }
        assert!(guest.turn_until_carrier(), "{order:?}");
        assert!(guest.carries(1), "plugged later");
        assert_eq!(guest.violations(), [""; 0], "{order:?}");
    }
}

#[test]
fn an_mtu_that_changes_is_heard_of() {
    let xen = FakeXen::new();
    let mut guest = Guest::boot(&xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    for mtu in [1400, 576, 1500] {
        guest.world(|world| {
            world
                .store
                .set(b"device/vif/0/mtu", mtu.to_string().as_bytes());
        });
        assert!(guest.turn_until(5, |guest| guest.net.mtu() == mtu));
    }
}

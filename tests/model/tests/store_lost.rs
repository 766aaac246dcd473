//! A xenstored that is lost, lies, or is suddenly replaced: the guest reconnects, and the network works meanwhile.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::abi::{xenstore_domain_interface as ring, xs};
use mayfly_drivers::control::Command;
use mayfly_drivers::fake::{FakeXen, Fault};
use mayfly_drivers::netfront::BufferCounts;
use mayfly_drivers::netfront::handshake::LinkState;
use mayfly_drivers::xenstore::Broken;
use mayfly_model_tests::{Guest, RENEW_NS, SECOND};
use proptest::prelude::*;

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 16,
    tx_buffers: 16,
};

fn up(xen: &FakeXen, offers: bool) -> Guest<'_> {
    if offers {
        xen.with(|world| world.store.offer_reconnection());
    }
    let mut guest = Guest::boot(xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    guest.turn_until(5, |_| false);
    guest
}

/// Checks that the guest obeys commands soon, and that its interface is watched again.
fn assert_obeys(guest: &mut Guest<'_>, name: &str) {
    assert!(guest.carries(1), "{name}");
    guest.world(|world| world.store.set(b"control/shutdown", b"poweroff"));
    let obeyed = guest.turn_until(2000, |guest| guest.command.is_some());
    assert!(obeyed, "{name}: {:?}", guest.broken);
    assert_eq!(guest.command.take(), Some(Command::Poweroff), "{name}");
    guest.world(|world| world.store.set(b"device/vif/0/mtu", b"1400"));
    let heard = guest.turn_until(2000, |guest| guest.net.mtu() == 1400);
    assert!(heard, "{name}: the interface is not watched");
    assert_eq!(
        guest.net.counters().links,
        1,
        "{name}: the link has lived on"
    );
    let mut violations = guest.violations();
    // A violation that the fake caused itself by moving its index.
    violations.retain(|violation| violation != "the guest moved the answer index out of range");
    assert_eq!(violations, [""; 0], "{name}");
}

fn header(kind: u32, id: u32, length: u32) -> Vec<u8> {
    [kind, id, 0, length].map(u32::to_le_bytes).concat()
}

#[test]
fn what_the_protocol_forbids_is_followed_by_a_new_connection() {
    let faults = [
        (Fault::WrongId, Broken::UnknownId),
        (Fault::Twice, Broken::UnknownId),
        (Fault::WrongType, Broken::Type),
        (Fault::TooLong, Broken::Length),
        (Fault::Garbage(vec![0xff; 64]), Broken::Length),
        (Fault::Garbage(header(xs::WATCH_EVENT, 0, 0)), Broken::Watch),
    ];
    for offers in [true, false] {
        for (fault, broken) in &faults {
            let name = format!("{fault:?}, offered: {offers}");
            let xen = FakeXen::new();
            let mut guest = up(&xen, offers);
            guest.world(|world| {
                world.store.fault(Some(fault.clone()));
                world.store.set(b"control/shutdown", b"");
            });
            assert!(
                guest.turn_until(50, |guest| guest.reconnected == 1),
                "{name}"
            );
            assert_eq!(guest.broken, [*broken], "{name}");
            let reconnections = guest.world(|world| world.store.reconnections);
            assert_eq!(reconnections, u64::from(offers), "{name}");
            assert_obeys(&mut guest, &name);
        }
    }
}

#[test]
fn an_index_out_of_range_is_got_over() {
    for offers in [true, false] {
        for jump in [2000, u32::MAX, 1 << 31] {
            let name = format!("{jump}, offered: {offers}");
            let xen = FakeXen::new();
            let mut guest = up(&xen, offers);
            assert_eq!(guest.violations(), [""; 0]);
            guest.world(|world| {
                world.store.fault(Some(Fault::Index(jump)));
                world.store.set(b"control/shutdown", b"");
            });
            assert!(guest.turn_until(50, |guest| !guest.broken.is_empty()));
            guest.world(|world| world.store.dead = false);
            assert!(
                guest.turn_until(200, |guest| guest.reconnected == 1),
                "{name}"
            );
            assert_obeys(&mut guest, &name);
        }
    }
}

#[test]
fn a_consumer_index_that_lies_is_got_over_when_it_is_right_again() {
    let xen = FakeXen::new();
    let mut guest = up(&xen, false);
    let page = xen.with(|world| world.store.page());
    let right = page.load_acquire(ring::REQ_CONS);
    guest.world(|world| world.store.dead = true);
    page.store_release(ring::REQ_CONS, right.wrapping_add(77));
    guest.run_for(RENEW_NS / SECOND + 1);
    assert_eq!(guest.broken, [Broken::Index]);
    let prod = page.load_acquire(ring::REQ_PROD);
    page.store_release(ring::REQ_CONS, prod);
    guest.world(|world| world.store.restart(false));
    assert!(guest.turn_until(2000, |guest| guest.reconnected > 0));
    assert_obeys(&mut guest, "consumer index");
}

/// The behaviours of a new xenstored.
#[derive(Debug, Clone, Copy)]
enum Successor {
    /// It empties the ring at the introduction of the domain.
    C,
    /// It goes on with the ring as it is, and offers reconnection.
    Ocaml,
    /// It goes on with the ring as it is, and offers nothing.
    Silent,
}

#[test]
fn a_xenstored_that_was_killed_and_started_again_is_found() {
    for successor in [Successor::C, Successor::Ocaml, Successor::Silent] {
        for (away, busy) in [(0, false), (5, true), (90, false), (90, true)] {
            let name = format!("{successor:?}, away for {away} s, busy: {busy}");
            let xen = FakeXen::new();
            let mut guest = up(&xen, matches!(successor, Successor::Ocaml));
            guest.world(|world| world.store.dead = true);
            if busy {
                // A request is pending that will never be answered.
                guest.store.read(&[b"data/never"]).unwrap();
                guest.store.flush();
            }
            guest.run_for(away);
            assert!(guest.carries(1), "{name}");
            guest.world(|world| {
                world.store.restart(false);
                if let Successor::C = successor {
                    world.store.introduce(&mut world.machine);
                }
            });
            assert_obeys(&mut guest, &name);
        }
    }
}

#[test]
fn the_network_outlives_a_xenstored_that_knows_nothing_any_more() {
    let xen = FakeXen::new();
    let mut guest = up(&xen, false);
    guest.world(|world| {
        world.store.restart(true);
        world.store.introduce(&mut world.machine);
    });
    guest.run_for(100);
    assert!(guest.reconnected > 0);
    for _ in 0..3 {
        assert!(guest.carries(1), "an empty store");
        guest.run_for(100);
    }
    assert_eq!(guest.net.counters().links, 1);
    // The back end goes, and only its event channel shows it.
    guest.world(|world| {
        world.netback.unplug(&mut world.machine, &mut world.store);
        world.store.restart(true);
    });
    let left = |guest: &mut Guest<'_>| matches!(guest.net.state(), LinkState::Absent);
    assert!(guest.turn_until(2000, left), "{:?}", guest.net.state());
    // A toolstack that uses the new xenstored plugs it again.
    guest.world(|world| world.netback.plug(&mut world.store));
    let carrier = guest.turn_until(2000, |guest| guest.net.carrier());
    assert!(carrier, "{:?} {:?}", guest.net.state(), guest.notices);
    assert!(guest.carries(1), "plugged again");
}

#[test]
fn keys_that_were_on_their_way_are_written_again() {
    let xen = FakeXen::new();
    xen.with(|world| world.store.offer_reconnection());
    let mut guest = Guest::start(&xen, CONFIG);
    let deadline = mayfly_drivers::SystemTime(guest.now() + SECOND);
    guest.net.discover(&mut guest.store, deadline).unwrap();
    guest.world(|world| world.store.dead = true);
    guest.net.connect(&mut guest.store).unwrap();
    guest.housekeeping();
    guest.run_for(10);
    assert!(!guest.net.carrier());
    guest.world(|world| world.store.restart(false));
    assert!(guest.turn_until(2000, |guest| guest.net.carrier()));
    assert_obeys(&mut guest, "published again");
}

#[test]
fn a_xenstored_that_always_lies_is_asked_ever_more_rarely() {
    for offers in [true, false] {
        let xen = FakeXen::new();
        let mut guest = up(&xen, offers);
        let end = guest.now() + 3600 * SECOND;
        while guest.now() < end {
            guest.world(|world| world.store.inject(&[0xff; 40]));
            guest.turn();
        }
        let counters = guest.store.counters();
        assert!(counters.lost < 40, "{counters:?}, {offers}");
        assert!(counters.notifications < 2000, "{counters:?}, {offers}");
        assert!(guest.carries(1), "meanwhile");
        // xenstored is restarted and works again.
        guest.world(|world| world.store.restart(false));
        guest.run_for(400);
        assert_obeys(&mut guest, "after all");
    }
}

#[test]
fn a_watch_that_is_refused_is_asked_for_again() {
    for refused in 0..10 {
        let xen = FakeXen::new();
        let mut guest = Guest::start(&xen, CONFIG);
        guest.connect().unwrap();
        guest.world(|world| {
            for _ in 0..refused {
                world.store.fault(None);
            }
            for _ in 0..3 {
                world.store.fault(Some(Fault::Error("ENOSPC")));
            }
        });
        guest.housekeeping();
        guest.run_for(2 * RENEW_NS / SECOND);
        assert_obeys(&mut guest, &format!("refused from {refused} on"));
    }
}

#[test]
fn a_queue_that_is_full_loses_no_question() {
    let xen = FakeXen::new();
    let mut guest = up(&xen, false);
    guest.world(|world| world.store.dead = true);
    while guest.store.read(&[b"data/filler"]).is_ok() {}
    // The interface is plugged anew, while no request can be sent.
    guest.world(|world| {
        world.netback.unplug(&mut world.machine, &mut world.store);
        world.netback.plug(&mut world.store);
        world.store.dead = false;
    });
    guest.store.flush();
    assert!(guest.turn_until(50, |guest| guest.net.counters().links == 2));
    assert!(guest.turn_until_carrier());
    assert!(guest.carries(1), "asked later");
}

#[test]
fn a_command_that_could_not_be_read_is_read_again() {
    let xen = FakeXen::new();
    let mut guest = up(&xen, false);
    guest.world(|world| {
        world.store.fault(Some(Fault::Error("EAGAIN")));
        world.store.set(b"control/shutdown", b"poweroff");
    });
    guest.run_for(RENEW_NS / SECOND + 2);
    assert_eq!(guest.command, Some(Command::Poweroff));
}

#[derive(Debug, Clone)]
enum Op {
    Turn(usize),
    Wait(u64),
    Fault(Fault),
    Inject(Vec<u8>),
    Word(usize, u32),
    Restart(bool),
    Introduce,
    Dead(bool),
    Poke,
}

fn op() -> impl Strategy<Value = Op> {
    let words = prop_oneof![
        Just(ring::REQ_CONS),
        Just(ring::REQ_PROD),
        Just(ring::RSP_CONS),
        Just(ring::RSP_PROD),
        Just(ring::SERVER_FEATURES),
        Just(ring::CONNECTION),
        Just(ring::ERROR),
    ];
    prop_oneof![
        6 => (1_usize..5).prop_map(Op::Turn),
        3 => (1_u64..100).prop_map(Op::Wait),
        1 => Just(Op::Fault(Fault::WrongId)),
        1 => Just(Op::Fault(Fault::Silent)),
        1 => Just(Op::Fault(Fault::TooLong)),
        1 => any::<u32>().prop_map(|jump| Op::Fault(Fault::Index(jump))),
        2 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Op::Inject),
        3 => (words, prop_oneof![any::<u32>(), 0_u32..4]).prop_map(|(at, value)| Op::Word(at, value)),
        1 => any::<bool>().prop_map(Op::Restart),
        1 => Just(Op::Introduce),
        1 => any::<bool>().prop_map(Op::Dead),
        3 => Just(Op::Poke),
    ]
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(300))]

    #[test]
    fn whatever_it_does_to_the_ring_an_introduction_mends(ops in prop::collection::vec(op(), 1..60)) {
        let xen = FakeXen::new();
        let mut guest = up(&xen, false);
        for op in ops {
            match op {
                Op::Turn(count) => { guest.turn_until(count, |_| false); }
                Op::Wait(seconds) => guest.run_for(seconds),
                Op::Fault(fault) => xen.with(|world| world.store.fault(Some(fault))),
                Op::Inject(bytes) => xen.with(|world| world.store.inject(&bytes)),
                Op::Word(at, value) => xen.with(|world| world.store.page().store_release(at, value)),
                Op::Restart(empty) => xen.with(|world| world.store.restart(empty)),
                Op::Introduce => xen.with(|world| world.store.introduce(&mut world.machine)),
                Op::Dead(dead) => xen.with(|world| world.store.dead = dead),
                Op::Poke => xen.with(|world| world.store.set(b"control/shutdown", b"")),
            }
        }
        xen.with(|world| {
            world.store.page().store_release(ring::SERVER_FEATURES, 0);
            world.store.restart(false);
            world.store.introduce(&mut world.machine);
        });
        guest.run_for(700);
        xen.with(|world| world.store.set(b"control/shutdown", b"poweroff"));
        let obeyed = guest.turn_until(1000, |guest| guest.command.is_some());
        prop_assert!(obeyed, "{:?} {:?}", guest.broken, guest.store.counters());
    }
}

//! A hostile back end: its input is dropped and counted, or it is disconnected, and nothing worse happens.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::SystemTime;
use mayfly_drivers::abi::{NetRxFlags, PAGE_SIZE, netif_rx_response, netif_tx_response};
use mayfly_drivers::fake::{FakeXen, Packet, Ring};
use mayfly_drivers::netfront::{BufferCounts, Counters, Notice, RingError};
use mayfly_model_tests::{Guest, numbered_frame};
use proptest::prelude::*;

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 32,
    tx_buffers: 32,
};

/// Violations that a back end finds because it lied about its state, ids or indices.
const ITS_OWN_FAULT: [&str; 5] = [
    "a grant reference that grants nothing",
    "a page to be written is granted read-only",
    "a transmit id that is in flight already",
    "the guest overran the transmit ring",
    "the guest overran the receive ring",
];

fn connected(xen: &FakeXen) -> Guest<'_> {
    let mut guest = Guest::boot(xen, CONFIG).unwrap();
    assert!(guest.turn_until_carrier());
    guest
}

fn answer_rx(guest: &Guest<'_>, response: impl FnOnce(u16) -> netif_rx_response) {
    let data = numbered_frame(1, 60);
    let answered =
        guest.world(|world| world.netback.answer_rx(&mut world.machine, response, &data));
    assert!(answered);
}

/// Afterwards a good frame still arrives, and all buffers are posted.
fn assert_alive(guest: &mut Guest<'_>) {
    let good = numbered_frame(77, 100);
    guest.world(|world| world.netback.deliver(Packet::new(&good)));
    assert!(guest.turn_until(10, |guest| {
        guest
            .received
            .last()
            .is_some_and(|(frame, _)| *frame == good)
    }));
    guest.turn();
    assert_eq!(guest.world(|world| world.netback.posted()), 32);
    let mut violations = guest.violations();
    violations.retain(|violation| !ITS_OWN_FAULT.contains(&violation.as_str()));
    assert_eq!(violations, [""; 0]);
}

fn rx(id: u16, offset: u16, flags: NetRxFlags, status: i16) -> netif_rx_response {
    netif_rx_response {
        id,
        offset,
        flags: flags.bits(),
        status,
    }
}

#[test]
fn bad_receive_responses_are_dropped_and_counted() {
    type Response = fn(u16) -> netif_rx_response;
    let none = Counters::default();
    let cases: [(&str, Response, Counters); 12] = [
        (
            "an id never sent",
            |_| rx(999, 0, NetRxFlags::empty(), 60),
            Counters {
                rx_bad_id: 1,
                ..none
            },
        ),
        (
            "the largest id",
            |_| rx(u16::MAX, 0, NetRxFlags::empty(), 60),
            Counters {
                rx_bad_id: 1,
                ..none
            },
        ),
        (
            "an id not due",
            |id| rx(id ^ 1, 0, NetRxFlags::empty(), 60),
            Counters {
                rx_bad_id: 1,
                ..none
            },
        ),
        (
            "an error",
            |id| rx(id, 0, NetRxFlags::empty(), -1),
            Counters {
                rx_errors: 1,
                ..none
            },
        ),
        (
            "the least status",
            |id| rx(id, 0, NetRxFlags::empty(), i16::MIN),
            Counters {
                rx_errors: 1,
                ..none
            },
        ),
        (
            "nothing",
            |id| rx(id, 0, NetRxFlags::empty(), 0),
            Counters {
                rx_bad_size: 1,
                ..none
            },
        ),
        (
            "less than a header",
            |id| rx(id, 0, NetRxFlags::empty(), 13),
            Counters {
                rx_bad_size: 1,
                ..none
            },
        ),
        (
            "beyond the page",
            |id| rx(id, 4090, NetRxFlags::empty(), 60),
            Counters {
                rx_bad_size: 1,
                ..none
            },
        ),
        (
            "far beyond",
            |id| rx(id, u16::MAX, NetRxFlags::empty(), i16::MAX),
            Counters {
                rx_bad_size: 1,
                ..none
            },
        ),
        (
            "more than a page",
            |id| rx(id, 0, NetRxFlags::empty(), 4097),
            Counters {
                rx_bad_size: 1,
                ..none
            },
        ),
        (
            "a GSO prefix",
            |id| rx(id, 0, NetRxFlags::GSO_PREFIX, 60),
            Counters {
                rx_chains: 1,
                ..none
            },
        ),
        (
            "a good one",
            |id| rx(id, 4036, NetRxFlags::empty(), 60),
            Counters {
                rx_frames: 1,
                ..none
            },
        ),
    ];
    for (name, response, expected) in cases {
        let xen = FakeXen::new();
        let mut guest = connected(&xen);
        answer_rx(&guest, response);
        guest.service();
        let found = guest.net.counters();
        let common = Counters {
            links: 1,
            notifications: found.notifications,
            rx_bytes: found.rx_frames * 60,
            ..expected
        };
        assert_eq!(found, common, "{name}");
        assert_alive(&mut guest);
    }
}

#[test]
fn a_duplicate_is_not_due() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    answer_rx(&guest, |id| rx(id, 0, NetRxFlags::empty(), 60));
    answer_rx(&guest, |id| rx(id - 1, 0, NetRxFlags::empty(), 60));
    guest.service();
    assert_eq!(guest.received.len(), 1);
    assert_eq!(guest.net.counters().rx_bad_id, 1);
    assert_alive(&mut guest);
}

#[test]
fn chains_are_dropped_whole_and_extra_info_is_skipped() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    let more = NetRxFlags::MORE_DATA;
    // Three slots, the last one without the flag.
    for flags in [more, more, NetRxFlags::empty()] {
        answer_rx(&guest, |id| rx(id, 0, flags, 60));
    }
    guest.service();
    assert_eq!(guest.received.len(), 0);
    assert_eq!(guest.net.counters().rx_chains, 1);
    assert_alive(&mut guest);

    // A frame and two extra-info slots: type and flags are the bytes of the id.
    guest.received.clear();
    answer_rx(&guest, |id| rx(id, 0, NetRxFlags::EXTRA_INFO, 60));
    guest.service();
    answer_rx(&guest, |_| rx(0x0101, 0xffff, NetRxFlags::all(), -1));
    guest.service();
    answer_rx(&guest, |_| rx(0x0001, 0xffff, NetRxFlags::all(), -1));
    guest.service();
    assert_eq!(guest.received.len(), 1);
    assert_eq!(guest.net.counters().rx_extra, 2);
    assert_alive(&mut guest);

    // A chain with extra info between its slots.
    guest.received.clear();
    answer_rx(&guest, |id| rx(id, 0, NetRxFlags::EXTRA_INFO | more, 60));
    answer_rx(&guest, |_| rx(0x0001, 0, NetRxFlags::empty(), 0));
    answer_rx(&guest, |id| rx(id, 0, more, 60));
    answer_rx(&guest, |id| rx(id, 0, NetRxFlags::empty(), 60));
    guest.service();
    assert_eq!(guest.received.len(), 0);
    assert_eq!(guest.net.counters().rx_chains, 2);
    assert_alive(&mut guest);
}

#[test]
fn transmit_responses_that_lie_cost_no_slot() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    guest.world(|world| world.netback.hold_tx = true);
    for round in 0..10 {
        while guest.net.can_send() {
            guest.net.send(&numbered_frame(round, 60)).unwrap();
        }
        guest.net.flush();
        assert_eq!(
            guest.world(|world| world.netback.held()),
            32,
            "round {round}"
        );
        guest.world(|world| {
            let mut count = 0;
            while world.netback.answer_tx(&mut world.machine, |id| {
                count += 1;
                match count % 4 {
                    0 => netif_tx_response { id: 999, status: 0 },
                    1 => netif_tx_response {
                        id: u16::MAX,
                        status: 0,
                    },
                    2 => netif_tx_response { id: 3, status: 0 },
                    _ => netif_tx_response { id, status: -2 },
                }
            }) {}
        });
        guest.service();
    }
    let counters = guest.net.counters();
    assert!(counters.tx_bad_id >= 200, "{counters:?}");
    assert!(counters.tx_errors > 0);
    assert_eq!(counters.tx_frames, 320);
    assert_alive(&mut guest);
}

#[test]
fn indices_out_of_range_disconnect_and_the_back_end_may_come_back() {
    for ring in [Ring::Rx, Ring::Tx] {
        for jump in [u32::MAX, u32::MAX - 5, 33, 256, 257, 1 << 31] {
            let xen = FakeXen::new();
            let mut guest = connected(&xen);
            guest.world(|world| world.netback.jump(&mut world.machine, ring, jump));
            guest.turn();
            guest.turn();
            let broken = Notice::Broken(RingError::Index);
            assert!(guest.notices.contains(&broken), "{ring:?} {jump}");
            assert_eq!(guest.net.counters().broken, 1);
            assert!(guest.turn_until_carrier(), "{ring:?} {jump}");
            assert_alive(&mut guest);
        }
    }
}

#[test]
fn a_ring_that_is_found_broken_before_the_sleep_is_left_at_once() {
    for (ring, receive) in [(Ring::Rx, false), (Ring::Rx, true), (Ring::Tx, false)] {
        let xen = FakeXen::new();
        let mut guest = connected(&xen);
        guest.service();
        assert!(!guest.net.prepare_sleep());
        guest.world(|world| world.netback.jump(&mut world.machine, ring, 1000));
        if receive {
            // The stack's poll, after `drive`.
            assert!(guest.net.receive(&mut [0; PAGE_SIZE]).is_none());
        }
        assert!(guest.net.prepare_sleep(), "{ring:?}");
        let now = guest.world(|world| SystemTime(world.machine.now()));
        guest.net.drive(&mut guest.store, now);
        let broken = Notice::Broken(RingError::Index);
        assert_eq!(guest.net.take_notice(), Some(broken), "{ring:?}");
        assert!(!guest.net.prepare_sleep(), "{ring:?}: it spins");
    }
}

#[test]
fn a_back_end_that_always_breaks_its_rings_is_given_up() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    let given_up = guest.turn_until(2000, |guest| {
        guest.world(|world| world.netback.jump(&mut world.machine, Ring::Rx, 1000));
        guest.notices.contains(&Notice::GivenUp)
    });
    assert!(given_up);
    assert!(guest.net.counters().broken <= 16);
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn a_flood_of_notifications_for_nothing_does_not_stop_the_clock() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    for _ in 0..1000 {
        guest.world(|world| world.netback.notify(&mut world.machine));
        guest.turn();
    }
    assert_alive(&mut guest);
}

#[derive(Debug, Clone)]
enum Op {
    Rx(u16, u16, u16, i16),
    /// The same as `Rx`, but with the id that is due.
    RxDue(u16, u16, i16),
    Tx(u16, i16),
    TxDue(i16),
    Jump(bool, u32),
    Good,
    Send(usize),
    Hold(bool),
    Service,
    Turn,
    State(u8),
    Close,
    Unload,
    Load,
    Unplug,
    Plug,
}

fn op() -> impl Strategy<Value = Op> {
    let status = || prop_oneof![any::<i16>(), -2_i16..100, 4000_i16..4200];
    let flags = || prop_oneof![any::<u16>(), 0_u16..32];
    let offset = || prop_oneof![any::<u16>(), 0_u16..64, 4000_u16..4100];
    prop_oneof![
        4 => (0_u16..40, offset(), flags(), status()).prop_map(|(a, b, c, d)| Op::Rx(a, b, c, d)),
        6 => (offset(), flags(), status()).prop_map(|(a, b, c)| Op::RxDue(a, b, c)),
        3 => (0_u16..40, status()).prop_map(|(a, b)| Op::Tx(a, b)),
        3 => status().prop_map(Op::TxDue),
        1 => (any::<bool>(), prop_oneof![any::<u32>(), 0_u32..40]).prop_map(|(a, b)| Op::Jump(a, b)),
        4 => Just(Op::Good),
        4 => (0_usize..20).prop_map(Op::Send),
        2 => any::<bool>().prop_map(Op::Hold),
        6 => Just(Op::Service),
        6 => Just(Op::Turn),
        1 => (0_u8..10).prop_map(Op::State),
        1 => Just(Op::Close),
        1 => Just(Op::Unload),
        1 => Just(Op::Load),
        1 => Just(Op::Unplug),
        1 => Just(Op::Plug),
    ]
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(300))]

    #[test]
    fn whatever_it_does_it_can_be_replaced(ops in prop::collection::vec(op(), 1..120)) {
        let xen = FakeXen::new();
        let mut guest = connected(&xen);
        for op in ops {
            let data = numbered_frame(5, 60);
            guest.world(|world| match op {
                Op::Rx(id, offset, flags, status) => {
                    let response = netif_rx_response { id, offset, flags, status };
                    world.netback.answer_rx(&mut world.machine, |_| response, &data);
                }
                Op::RxDue(offset, flags, status) => {
                    let response = |id| netif_rx_response { id, offset, flags, status };
                    world.netback.answer_rx(&mut world.machine, response, &data);
                }
                Op::Tx(id, status) => {
                    world.netback.answer_tx(&mut world.machine, |_| netif_tx_response { id, status });
                }
                Op::TxDue(status) => {
                    world.netback.answer_tx(&mut world.machine, |id| netif_tx_response { id, status });
                }
                Op::Jump(tx, jump) => {
                    let ring = if tx { Ring::Tx } else { Ring::Rx };
                    world.netback.jump(&mut world.machine, ring, jump);
                }
                Op::Good => world.netback.deliver(Packet::new(&data)),
                Op::Hold(hold) => world.netback.hold_tx = hold,
                Op::State(digit) => {
                    let path = b"/local/domain/0/backend/vif/1/0/state";
                    world.store.set(path, &[b'0' + digit]);
                }
                Op::Close => world.netback.begin_close(&mut world.store),
                Op::Unload => world.netback.unload(&mut world.machine, &mut world.store),
                Op::Load => world.netback.load(&mut world.store),
                Op::Unplug => world.netback.unplug(&mut world.machine, &mut world.store),
                Op::Plug => world.netback.plug(&mut world.store),
                Op::Send(_) | Op::Service | Op::Turn => {}
            });
            match op {
                Op::Send(count) => {
                    for number in 0..count {
                        guest.send(&numbered_frame(u32::try_from(number).unwrap(), 60));
                    }
                }
                Op::Service => guest.service(),
                Op::Turn => guest.turn(),
                _ => {}
            }
        }
        prop_assert!(guest.received.iter().all(|(frame, _)| (14..=PAGE_SIZE).contains(&frame.len())));
        prop_assert_eq!(&guest.broken, &[]);
        // The toolstack replaces it by a correct one.
        guest.world(|world| {
            world.netback.hold_tx = false;
            world.netback.unplug(&mut world.machine, &mut world.store);
        });
        guest.turn_until(100, |_| false);
        guest.world(|world| world.netback.plug(&mut world.store));
        prop_assert!(guest.turn_until_carrier(), "{:?} {:?}", guest.net.state(), guest.notices);
        guest.received.clear();
        assert_alive(&mut guest);
        prop_assert!(guest.send(&numbered_frame(123, 60)));
        let pages = guest.world(|world| {
            prop_assert_eq!(world.netback.transmitted.back(), Some(&numbered_frame(123, 60)));
            Ok(world.machine.pages_allocated())
        })?;
        prop_assert!(pages <= 2 + 32 + 32, "{} pages", pages);
    }
}

//! Every frame arrives exactly once and in order, both ways, whatever the schedule.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::Hypervisor;
use mayfly_drivers::abi::netif_tx_response;
use mayfly_drivers::fake::{FakeXen, Packet};
use mayfly_drivers::netfront::{BufferCounts, Checksum};
use mayfly_model_tests::{Guest, numbered_frame};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Op {
    /// The guest queues this number of frames, if it has the slots.
    Send(usize),
    /// The guest publishes the queued frames.
    Flush,
    /// This number of frames arrives for the guest.
    Deliver {
        count: usize,
        length: usize,
        offset: u16,
        flags: u16,
    },
    /// The guest's event loop turns.
    Turn,
    /// The guest looks at its rings without sleeping.
    Service,
    /// netback holds completions back.
    Hold(bool),
    /// netback completes the last request first.
    Reorder(bool),
    /// netback notifies without a response.
    Notify,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1_usize..40).prop_map(Op::Send),
        3 => Just(Op::Flush),
        3 => (1_usize..40, 18_usize..1514, 0_u16..2500, 0_u16..4).prop_map(
            |(count, length, offset, flags)| Op::Deliver { count, length, offset, flags }
        ),
        4 => Just(Op::Turn),
        2 => Just(Op::Service),
        1 => any::<bool>().prop_map(Op::Hold),
        1 => any::<bool>().prop_map(Op::Reorder),
        1 => Just(Op::Notify),
    ]
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(250))]

    #[test]
    fn frames_arrive_once_and_in_order(
        rx_buffers in 1_usize..=256,
        tx_buffers in 1_usize..=256,
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let xen = FakeXen::new();
        let mut guest = Guest::boot(&xen, BufferCounts { rx_buffers, tx_buffers }).unwrap();
        let mut sent = Vec::new();
        let mut delivered = Vec::new();
        for op in ops {
            match op {
                Op::Send(count) => {
                    for _ in 0..count {
                        let number = u32::try_from(sent.len()).unwrap();
                        let frame = numbered_frame(number, 18 + sent.len() % 1400);
                        let can_send = guest.net.can_send();
                        prop_assert_eq!(guest.net.send(&frame).is_ok(), can_send);
                        if can_send {
                            sent.push(frame);
                        }
                    }
                }
                Op::Flush => guest.net.flush(),
                Op::Deliver { count, length, offset, flags } => guest.world(|world| {
                    for _ in 0..count {
                        let number = u32::try_from(delivered.len()).unwrap();
                        let bytes = numbered_frame(number, length);
                        world.netback.deliver(Packet { bytes: bytes.clone(), flags, offset });
                        delivered.push((bytes, flags));
                    }
                }),
                Op::Turn => guest.turn(),
                Op::Service => guest.service(),
                Op::Hold(hold) => guest.world(|world| {
                    world.netback.hold_tx = hold;
                    world.netback.notify(&mut world.machine);
                }),
                Op::Reorder(reorder) => guest.world(|world| world.netback.reorder_tx = reorder),
                Op::Notify => guest.world(|world| world.netback.notify(&mut world.machine)),
            }
        }
        // Let all work finish. Waiting for a timeout would hide a lost notification, so the clock must not move.
        guest.net.flush();
        guest.world(|world| {
            world.netback.hold_tx = false;
            world.netback.deliver(Packet::new(&numbered_frame(u32::MAX, 60)));
        });
        delivered.push((numbered_frame(u32::MAX, 60), 0));
        let start = guest.world(|world| world.machine.now());
        let expected = delivered.len();
        guest.turn_until(2 * expected + 50, |guest| {
            guest.received.len() == expected
                && guest.world(|world| world.netback.transmitted.len()) == sent.len()
        });
        prop_assert_eq!(guest.world(|world| world.machine.now()), start, "slept over a frame");
        guest.world(|world| assert!(world.netback.transmitted.iter().eq(sent.iter())));
        prop_assert_eq!(guest.received.len(), expected);
        for ((bytes, flags), (received, frame)) in delivered.iter().zip(&guest.received) {
            prop_assert_eq!(bytes, received);
            let checksum = match flags & 3 {
                0 => Checksum::Unknown,
                1 => Checksum::Validated,
                _ => Checksum::Blank,
            };
            prop_assert_eq!(frame.checksum, checksum);
        }
        // All slots are free once the back end has answered.
        guest.turn();
        let mut free = 0;
        while guest.net.can_send() && guest.net.send(&numbered_frame(0, 60)).is_ok() {
            free += 1;
        }
        prop_assert_eq!(free, tx_buffers);
        prop_assert_eq!(guest.violations(), [""; 0]);
        let counters = guest.net.counters();
        prop_assert_eq!(counters.rx_bad_id + counters.rx_bad_size + counters.rx_errors, 0);
        prop_assert_eq!(counters.tx_bad_id + counters.tx_errors + counters.broken, 0);
    }
}

/// A guest with this number of buffers on each ring, whose frames move.
fn connected(xen: &FakeXen, rx_buffers: usize, tx_buffers: usize) -> Guest<'_> {
    let config = BufferCounts {
        rx_buffers,
        tx_buffers,
    };
    let mut guest = Guest::boot(xen, config).unwrap();
    assert!(guest.turn_until_carrier());
    guest
}

#[test]
fn a_batch_is_one_notification_each_way() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen, 128, 128);
    guest.turn();
    let before = guest.net.counters().notifications;
    let kicks = guest.world(|world| world.netback.kicks);
    for number in 0..100 {
        guest.net.send(&numbered_frame(number, 60)).unwrap();
    }
    guest.net.flush();
    assert_eq!(guest.net.counters().notifications - before, 1);
    assert_eq!(guest.world(|world| world.netback.kicks) - kicks, 1);
    let notifications = guest.world(|world| {
        for number in 0..100 {
            world
                .netback
                .deliver(Packet::new(&numbered_frame(number, 60)));
        }
        world.netback.notifications
    });
    xen.run();
    assert_eq!(
        guest.world(|world| world.netback.notifications) - notifications,
        1
    );
    guest.turn();
    assert_eq!(guest.received.len(), 100);
    assert_eq!(
        guest.net.counters().notifications - before,
        1,
        "reposting wakes nobody"
    );
}

#[test]
fn a_full_ring_wakes_the_guest_when_half_of_it_is_done() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen, 8, 64);
    // The very first completion always wakes.
    assert!(guest.send(&numbered_frame(0, 60)));
    guest.turn();
    guest.world(|world| world.netback.hold_tx = true);
    while guest.net.can_send() {
        guest.net.send(&numbered_frame(0, 60)).unwrap();
    }
    guest.turn();
    let [port, _] = guest.net.ports().unwrap();
    for answered in 1..=32 {
        assert!(!xen.evtchn_take(port), "woken by {answered}");
        guest.world(|world| {
            let okay = |id| netif_tx_response { id, status: 0 };
            assert!(world.netback.answer_tx(&mut world.machine, okay));
        });
    }
    assert!(xen.evtchn_take(port));
    // A guest that checks the ring itself need not wait for that.
    assert!(guest.net.can_send());
}

#[test]
fn slots_that_come_free_before_the_sleep_are_work() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen, 8, 8);
    guest.world(|world| world.netback.hold_tx = true);
    while guest.net.can_send() {
        guest.net.send(&numbered_frame(0, 60)).unwrap();
    }
    guest.service();
    assert!(!guest.net.prepare_sleep());
    guest.world(|world| {
        let okay = |id| netif_tx_response { id, status: 0 };
        while world.netback.answer_tx(&mut world.machine, okay) {}
    });
    // No completion is left that could wake a guest whose stack found the ring full.
    assert!(guest.net.prepare_sleep());
    assert!(!guest.net.prepare_sleep(), "it spins");
}

#[test]
fn a_ring_that_shrank_for_want_of_grants_still_wakes_the_guest() {
    let xen = FakeXen::new();
    xen.with(|world| world.machine.grant_frame_limit = 1);
    let mut guest = connected(&xen, 256, 256);
    // Its completion has the next wake-up at half of 256 pages.
    assert!(guest.send(&numbered_frame(0, 60)));
    guest.turn();
    guest.world(|world| world.netback.hold_tx = true);
    let sent = (0..256)
        .take_while(|_| guest.net.send(&numbered_frame(0, 60)).is_ok())
        .count();
    // 512 entries of one frame, 8 of them reserved, 2 rings and 256 receive buffers.
    assert_eq!(sent, 246);
    guest.service();
    assert!(!guest.net.prepare_sleep());
    let [port, _] = guest.net.ports().unwrap();
    let okay = |id| netif_tx_response { id, status: 0 };
    for answered in 1..=123 {
        assert!(!xen.evtchn_take(port), "woken by {answered}");
        guest.world(|world| assert!(world.netback.answer_tx(&mut world.machine, okay)));
    }
    assert!(xen.evtchn_take(port), "asleep with half of the pages free");
    assert!(guest.net.can_send());
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn a_back_end_that_knows_one_channel_is_notified_there_of_both_rings() {
    for one_channel in [false, true] {
        let xen = FakeXen::new();
        xen.with(|world| world.netback.one_channel = one_channel);
        let mut guest = Guest::boot(
            &xen,
            BufferCounts {
                rx_buffers: 8,
                tx_buffers: 8,
            },
        )
        .unwrap();
        assert!(guest.turn_until_carrier());
        // More frames than buffers: netback stops, and asks for a notification of new ones.
        guest.world(|world| {
            for number in 0..20 {
                world
                    .netback
                    .deliver(Packet::new(&numbered_frame(number, 60)));
            }
        });
        assert!(guest.turn_until(20, |guest| guest.received.len() == 20));
        assert!(guest.send(&numbered_frame(1, 60)));
        assert_eq!(guest.violations(), [""; 0]);
    }
}

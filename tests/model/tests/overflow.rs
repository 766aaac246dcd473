//! No ring ever holds more requests than slots, whatever is sent and however full it is.
//!
//! The tests of each ring:
//!
//! | ring | requests beyond the ring | invalid indices |
//! |---|---|---|
//! | transmit | here, and by the fake at each look at either ring | `hostile_netback.rs`: a response index that goes back or beyond the requests breaks the link |
//! | receive | here: a buffer is posted when its response has been taken, a power of two of them | `hostile_netback.rs`, the same |
//! | xenstore | here: requests without space wait, 8 KiB at most | `xenstore.rs` and `store_lost.rs`: either index out of range, an emptied ring |
//! | console | `console.rs` in `drivers`, beside the code: every pair of indices | the same: an invalid index counts as a full ring until it is valid again |
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::abi::{
    NET_RX_RING_SIZE, NET_TX_RING_SIZE, PAGE_SIZE, xenstore_domain_interface,
};
use mayfly_drivers::fake::{FakeXen, Packet};
use mayfly_drivers::netfront::{BufferCounts, Offload, SendError};
use mayfly_drivers::xenstore::{StoreEvent, Xenstore};
use mayfly_drivers::{Hypervisor, SystemTime};
use mayfly_model_tests::frames::tcp;
use mayfly_model_tests::{Guest, numbered_frame};

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 256,
    tx_buffers: 256,
};
/// Ethernet, IPv4 and TCP.
const HEADERS: usize = 54;

/// A guest whose back end has all features and holds its responses back.
fn held(xen: &FakeXen, config: BufferCounts) -> Guest<'_> {
    let mut guest = Guest::boot(xen, config).unwrap();
    assert!(guest.turn_until(50, |guest| guest.net.features().segment));
    assert!(guest.turn_until_carrier());
    guest.world(|world| world.netback.hold_tx = true);
    guest
}

/// The kinds of frames: bytes of TCP payload, offload, and ring slots.
const KINDS: [(usize, Offload, usize); 8] = [
    (100, Offload::Checksum, 1),
    (PAGE_SIZE - HEADERS, Offload::Checksum, 1),
    (PAGE_SIZE - HEADERS, Offload::Segment(1000), 2),
    (1500, Offload::Segment(633), 2),
    (PAGE_SIZE + 1, Offload::Segment(1460), 3),
    (2 * PAGE_SIZE - HEADERS, Offload::Segment(500), 3),
    (3 * PAGE_SIZE, Offload::Segment(1460), 5),
    (16 * PAGE_SIZE - HEADERS - 1, Offload::Segment(1460), 17),
];

fn send(guest: &mut Guest<'_>, frame: &[u8], offload: Offload) -> bool {
    let segmented = matches!(offload, Offload::Segment(_));
    let Some(mut room) = guest.net.frame(frame.len(), segmented) else {
        return false;
    };
    room.bytes().copy_from_slice(frame);
    room.send(frame.len(), offload).unwrap();
    true
}

/// Fills the ring until `in_flight` slots have no response: with single pages, or with frames of two slots on one page
/// each, so that pages are left.
fn fill(guest: &mut Guest<'_>, in_flight: usize, pages_left: bool) {
    let small = tcp(1, 700);
    let mut slots = 0;
    while slots + 2 <= in_flight && pages_left {
        assert!(send(guest, &small, Offload::Segment(633)));
        slots += 2;
    }
    while slots < in_flight {
        assert!(send(guest, &small, Offload::Checksum));
        slots += 1;
    }
    guest.net.flush();
    guest.turn();
    assert_eq!(guest.world(|world| world.netback.held()), in_flight);
}

#[test]
fn every_kind_of_frame_at_every_residue_of_the_transmit_ring() {
    let size = NET_TX_RING_SIZE as usize;
    for in_flight in 240..=size {
        for pages_left in [true, false] {
            for (payload, offload, slots) in KINDS {
                let name = format!("{slots} slots behind {in_flight}, {pages_left}");
                let xen = FakeXen::new();
                let mut guest = held(&xen, CONFIG);
                fill(&mut guest, in_flight, pages_left);
                let frame = tcp(7, payload);
                let segmented = matches!(offload, Offload::Segment(_));
                let room = guest.net.can_send_bytes(frame.len(), segmented);
                assert_eq!(send(&mut guest, &frame, offload), room, "{name}");
                let fits = in_flight + slots <= size;
                assert!(fits || !room, "{name}: too many slots");
                assert!(room || !fits || !pages_left, "{name}: it has room");
                guest.net.flush();
                guest.turn();
                let held = guest.world(|world| world.netback.held());
                assert_eq!(held, in_flight + if room { slots } else { 0 }, "{name}");
                assert_eq!(guest.violations(), [""; 0], "{name}");
                // Once it answers, transmission goes on.
                guest.world(|world| {
                    world.netback.hold_tx = false;
                    world.netback.release(&mut world.machine);
                });
                assert!(send(&mut guest, &frame, offload), "{name}");
                guest.net.flush();
                guest.turn();
                assert_eq!(guest.world(|world| world.netback.held()), 0, "{name}");
                assert_eq!(guest.net.counters().tx_bad_id, 0, "{name}");
                assert_eq!(guest.violations(), [""; 0], "{name}");
            }
        }
    }
}

#[test]
fn a_frame_of_one_page_to_be_cut_does_not_fit_one_slot() {
    // Found by `whatever_is_sent_arrives_in_order`: 226 buffers, a back end that holds its answers,
    // and a last frame of 3,291 bytes with an MSS of 633.
    let xen = FakeXen::new();
    let mut guest = held(
        &xen,
        BufferCounts {
            tx_buffers: 226,
            ..CONFIG
        },
    );
    fill(&mut guest, NET_TX_RING_SIZE as usize - 1, true);
    let last = tcp(9, 3291 - HEADERS);
    assert!(guest.net.can_send(), "one slot is left");
    assert!(!guest.net.can_send_bytes(last.len(), true));
    assert!(!send(&mut guest, &last, Offload::Segment(633)));
    // A caller who asked for room without segmentation and then wants it is refused, and that is counted.
    let dropped = guest.net.counters().tx_dropped;
    let mut room = guest.net.frame(last.len(), false).unwrap();
    room.bytes().copy_from_slice(&last);
    let sent = room.send(last.len(), Offload::Segment(633));
    assert_eq!(sent, Err(SendError::Full));
    assert_eq!(guest.net.counters().tx_dropped, dropped + 1);
    guest.net.flush();
    guest.turn();
    let held = guest.world(|world| world.netback.held());
    assert_eq!(held, NET_TX_RING_SIZE as usize - 1);
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn who_wants_two_slots_is_woken_when_they_are_there() {
    let xen = FakeXen::new();
    let mut guest = held(&xen, CONFIG);
    fill(&mut guest, NET_TX_RING_SIZE as usize - 1, true);
    assert!(!guest.net.can_send_bytes(3000, true));
    assert!(!guest.net.prepare_sleep());
    let [port, _] = guest.net.ports().unwrap();
    guest.world(|world| world.netback.release(&mut world.machine));
    assert!(xen.evtchn_take(port));
    assert!(guest.net.can_send_bytes(3000, true));
}

#[test]
fn the_receive_ring_is_never_posted_beyond_its_slots() {
    for rx_buffers in [1, 2, 64, 200, 255, 256] {
        let xen = FakeXen::new();
        let config = BufferCounts {
            rx_buffers,
            ..CONFIG
        };
        let mut guest = Guest::boot(&xen, config).unwrap();
        assert!(guest.turn_until_carrier());
        let posted = guest.world(|world| world.netback.posted()) as usize;
        assert!(posted <= rx_buffers && posted.is_power_of_two());
        for number in 0..600 {
            guest.world(|world| {
                let frame = numbered_frame(number, 60);
                world.netback.deliver(Packet::new(&frame));
            });
            if number % 7 == 0 {
                guest.turn();
            }
            let posted = guest.world(|world| world.netback.posted());
            assert!(posted <= NET_RX_RING_SIZE, "{posted} of {rx_buffers}");
        }
        assert!(guest.turn_until(700, |guest| guest.received.len() == 600));
        assert_eq!(guest.violations(), [""; 0]);
    }
}

#[test]
fn the_request_ring_of_xenstore_takes_every_length_at_every_residue() {
    const RING: usize = xenstore_domain_interface::RING_SIZE as usize;
    /// The fixed bytes of a request: its header, its path and the NUL after it.
    const FIXED: usize = 16 + 9;
    for left in 0..=80 {
        for length in [0, 1, 15, 16, 40, 55, 56, 1000, 2000] {
            let name = format!("{length} bytes where {left} are left");
            let xen = FakeXen::new();
            let (page, port) = xen.store_ring();
            let mut store = Xenstore::new(&xen, page, port);
            xen.with(|world| world.store.dead = true);
            let first = vec![b'x'; RING - left - FIXED];
            store.write(&[b"data/full"], &first).unwrap();
            store.write(&[b"data/next"], &vec![b'y'; length]).unwrap();
            store.flush();
            let used = xen.with(|world| {
                let page = world.store.page();
                let prod = page.load_acquire(xenstore_domain_interface::REQ_PROD);
                prod.wrapping_sub(page.load_acquire(xenstore_domain_interface::REQ_CONS))
            });
            assert!(used as usize <= RING, "{name}: {used}");
            xen.with(|world| world.store.dead = false);
            let deadline = SystemTime(xen.now().0 + 1_000_000_000);
            let mut answers = 0;
            while answers < 2 {
                // A dead xenstored has missed the notification.
                xen.evtchn_send(port).unwrap();
                store.wait(deadline).unwrap();
                let event = store.pump().unwrap();
                answers += usize::from(matches!(event, Some(StoreEvent::Answer(_, Ok(b"OK\0")))));
            }
            xen.with(|world| {
                assert_eq!(world.store.get(b"data/full"), Some(&first[..]), "{name}");
                let next = world.store.get(b"data/next").map(<[u8]>::len);
                assert_eq!(next, Some(length), "{name}");
                assert_eq!(world.machine.violations(), [""; 0], "{name}");
            });
        }
    }
}

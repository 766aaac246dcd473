//! Offloads to the back end: checksums and segmentation, with frames of many pages.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use mayfly_drivers::Hypervisor;
use mayfly_drivers::abi::{NETIF_RSP_NULL, NETIF_RSP_OKAY, PAGE_SIZE, netif_tx_response};
use mayfly_drivers::fake::FakeXen;
use mayfly_drivers::netfront::{BufferCounts, Features, Offload};
use mayfly_model_tests::frames::{sum, tcp};
use mayfly_model_tests::{Guest, numbered_frame};
use proptest::prelude::*;

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 16,
    tx_buffers: 256,
};
/// Ethernet, IPv4 and TCP.
const HEADERS: usize = 54;
const ALL: Features = Features {
    checksum4: true,
    checksum6: true,
    segment: true,
};

fn connected(xen: &FakeXen) -> Guest<'_> {
    let mut guest = Guest::boot(xen, CONFIG).unwrap();
    assert!(guest.turn_until(50, |guest| guest.net.features() == ALL));
    assert!(guest.turn_until_carrier());
    guest
}

fn segmented(offload: Offload) -> bool {
    matches!(offload, Offload::Segment(_))
}

fn send(guest: &mut Guest<'_>, frame: &[u8], offload: Offload) -> bool {
    match guest.net.frame(frame.len(), segmented(offload)) {
        Some(mut room) => {
            room.bytes().copy_from_slice(frame);
            room.send(frame.len(), offload).unwrap();
            true
        }
        None => false,
    }
}

/// The payload of the sent segments, in order; each must be complete.
fn received(guest: &Guest<'_>) -> Vec<u8> {
    let frames: Vec<Vec<u8>> = guest.world(|world| world.netback.transmitted.drain(..).collect());
    let mut payload = Vec::new();
    for frame in frames {
        assert!(frame.len() <= 1514);
        assert_eq!(sum(&frame[14..34]), 0xffff);
        let length = u16::try_from(frame.len() - 34).unwrap().to_be_bytes();
        let message = [&frame[26..34], &[0, 6], &length, &frame[34..]].concat();
        assert_eq!(sum(&message), 0xffff);
        payload.extend(&frame[HEADERS..]);
    }
    payload
}

#[test]
fn features_are_what_the_back_end_says() {
    type Set = &'static [(&'static str, &'static str)];
    let cases: [(Set, Features); 6] = [
        (&[], ALL),
        (
            &[("feature-sg", "0")],
            Features {
                segment: false,
                ..ALL
            },
        ),
        (
            &[("feature-gso-tcpv4", "junk")],
            Features {
                segment: false,
                ..ALL
            },
        ),
        (
            &[("feature-no-csum-offload", "1")],
            Features {
                checksum4: false,
                segment: false,
                ..ALL
            },
        ),
        (
            &[("feature-ipv6-csum-offload", "0")],
            Features {
                checksum6: false,
                ..ALL
            },
        ),
        (&[("feature-no-csum-offload", "0")], ALL),
    ];
    for (keys, expected) in cases {
        let xen = FakeXen::new();
        xen.with(|world| {
            for (key, value) in keys {
                let path = format!("/local/domain/0/backend/vif/1/0/{key}");
                world.store.set(path.as_bytes(), value.as_bytes());
            }
        });
        let mut guest = Guest::start(&xen, CONFIG);
        guest.connect().unwrap();
        assert_eq!(
            guest.net.features(),
            Features::default(),
            "nothing is known yet"
        );
        guest.housekeeping();
        guest.turn_until(50, |_| false);
        assert_eq!(guest.net.features(), expected, "{keys:?}");
    }
}

#[test]
fn a_packet_of_64_kib_is_16_requests_and_44_segments() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    assert_eq!(guest.net.longest_frame(), 0xffff);
    let frame = tcp(0, 64_000);
    assert!(send(&mut guest, &frame, Offload::Segment(1460)));
    guest.net.flush();
    guest.world(|world| {
        assert_eq!(world.netback.transmitted.len(), 44);
        assert_eq!((world.netback.segmented, world.netback.most_slots), (1, 16));
    });
    assert_eq!(received(&guest), &frame[HEADERS..]);
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn a_blank_checksum_is_filled_in() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    let frame = tcp(7, 100);
    assert!(send(&mut guest, &frame, Offload::Checksum));
    guest.net.flush();
    assert_eq!(received(&guest), &frame[HEADERS..]);
    // The fake checks that this is true.
    assert!(send(&mut guest, &frame, Offload::None));
    guest.net.flush();
    assert_eq!(
        guest.violations(),
        ["a checksum that was said to be right and is not"]
    );
}

#[test]
fn long_and_short_frames_share_the_pages() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    guest.world(|world| world.netback.hold_tx = true);
    let mut expected = Vec::new();
    let mut long = 0;
    while guest.net.can_send_bytes(HEADERS + 64_000, true) {
        let frame = tcp(long, 64_000);
        assert!(send(&mut guest, &frame, Offload::Segment(1460)));
        expected.extend(&frame[HEADERS..]);
        long += 1;
    }
    // 16 pages and an extra-info slot each, of a ring of 256.
    assert_eq!(long, 15);
    guest.turn();
    assert_eq!(received(&guest), expected);
    // One slot is left on the ring for a short frame.
    assert!(send(&mut guest, &tcp(1, 10), Offload::Checksum));
    assert!(!guest.net.can_send());
    guest.turn();
    assert!(!guest.net.prepare_sleep());
    // All slots come back; extra-info slots have no id.
    let [port, _] = guest.net.ports().unwrap();
    guest.world(|world| {
        world.netback.hold_tx = false;
        world.netback.notify(&mut world.machine);
    });
    let mut answered = 0;
    while guest.world(|world| {
        let okay = |id| netif_tx_response {
            id,
            status: if id == 0 {
                NETIF_RSP_NULL
            } else {
                NETIF_RSP_OKAY
            },
        };
        world.netback.answer_tx(&mut world.machine, okay)
    }) {
        answered += 1;
    }
    assert_eq!(answered, 15 * 17 + 1);
    assert!(xen.evtchn_take(port));
    assert!(guest.net.can_send_bytes(HEADERS + 64_000, true));
    assert_eq!(guest.net.counters().tx_bad_id, 0);
    assert_eq!(guest.violations(), [""; 0]);
}

#[test]
fn who_wanted_a_long_frame_is_woken() {
    let xen = FakeXen::new();
    let mut guest = connected(&xen);
    guest.world(|world| world.netback.hold_tx = true);
    for number in 0..250 {
        assert!(guest.net.send(&numbered_frame(number, 60)).is_ok());
    }
    guest.turn();
    assert!(!guest.net.can_send_bytes(10 * PAGE_SIZE, true));
    assert!(guest.net.can_send());
    assert!(!guest.net.prepare_sleep());
    let [port, _] = guest.net.ports().unwrap();
    guest.world(|world| {
        let okay = |id| netif_tx_response { id, status: 0 };
        while world.netback.answer_tx(&mut world.machine, okay) {}
    });
    assert!(xen.evtchn_take(port), "asleep with all pages free");
    assert!(guest.net.can_send_bytes(10 * PAGE_SIZE, true));
    assert!(!guest.net.prepare_sleep());
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(60))]

    #[test]
    fn whatever_is_sent_arrives_in_order(
        tx_buffers in 1_usize..=256,
        sizes in prop::collection::vec((1_usize..60_000, 500_u16..1460, any::<bool>()), 1..40),
        hold in any::<bool>(),
        reorder in any::<bool>(),
    ) {
        let xen = FakeXen::new();
        let config = BufferCounts { tx_buffers, ..CONFIG };
        let mut guest = Guest::boot(&xen, config).unwrap();
        prop_assert!(guest.turn_until(50, |guest| guest.net.features().checksum4));
        prop_assert!(guest.turn_until_carrier());
        guest.world(|world| {
            world.netback.hold_tx = hold;
            world.netback.reorder_tx = reorder;
        });
        let mut expected = Vec::new();
        for (number, (size, mss, flush)) in sizes.into_iter().enumerate() {
            let can_segment = guest.net.features().segment;
            let most = if can_segment { guest.net.longest_frame() - HEADERS } else { 1460 };
            let size = size.min(most);
            let frame = tcp(u32::try_from(number).unwrap(), size);
            let offload = if size > usize::from(mss) && can_segment {
                Offload::Segment(mss)
            } else if size <= 1460 {
                Offload::Checksum
            } else {
                continue;
            };
            let room = guest.net.can_send_bytes(frame.len(), segmented(offload));
            prop_assert_eq!(send(&mut guest, &frame, offload), room);
            if room {
                expected.extend(&frame[HEADERS..]);
            }
            if flush {
                guest.net.flush();
            }
        }
        guest.net.flush();
        guest.turn();
        prop_assert_eq!(received(&guest), expected);
        prop_assert_eq!(guest.violations(), [""; 0]);
        let counters = guest.net.counters();
        prop_assert_eq!((counters.tx_bad_id, counters.tx_errors, counters.broken), (0, 0, 0));
    }
}

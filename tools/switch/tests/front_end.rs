//! The real front end and the switch, joined over the guest's own memory.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod common;

use common::{Dom0, boot, guest, is_right, mac, tcp};
use mayfly_drivers::fake::FakeXen;
use mayfly_drivers::netfront::{BufferCounts, Checksum, Offload};
use mayfly_model_tests::{Guest as Front, numbered_frame};
use mayfly_switch::switch::DumpBounds;
use proptest::prelude::*;

const CONFIG: BufferCounts = BufferCounts {
    rx_buffers: 32,
    tx_buffers: 256,
};

/// A frame with a number, from a guest to the bridge's side or the other way round.
fn numbered(number: u32, length: usize, to: [u8; 6], from: [u8; 6]) -> Vec<u8> {
    let mut frame = numbered_frame(number, length);
    frame[..6].copy_from_slice(&to);
    frame[6..12].copy_from_slice(&from);
    // A kind that nobody looks into.
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn send(front: &mut Front<'_>, frame: &[u8], offload: Offload) -> bool {
    let is_cut = matches!(offload, Offload::Segment(_));
    match front.net.frame(frame.len(), is_cut) {
        Some(mut room) => {
            room.bytes().copy_from_slice(frame);
            room.send(frame.len(), offload).unwrap();
            front.net.flush();
            true
        }
        None => false,
    }
}

#[track_caller]
fn assert_sound(front: &Front<'_>) {
    assert_eq!(front.violations(), [""; 0]);
}

#[test]
fn frames_go_both_ways_and_a_guest_that_sleeps_is_woken() {
    let (xen, network) = FakeXen::preconnected_to_process(32);
    let mut dom0 = Dom0::new();
    dom0.xen.add(1, &xen);
    dom0.attach(guest(1, &network));
    // What came before it ran is in its ring.
    let early = numbered(1, 60, mac(1), CLIENT);
    dom0.tap.send(&early);
    dom0.run();
    let mut front = boot(&xen, &network, CONFIG);
    front.service();
    assert_eq!(front.received[0].0, early);
    for number in 0..2000 {
        let frame = numbered(number, 60 + number as usize % 1400, CLIENT, mac(1));
        assert!(front.send(&frame), "{number}");
        let back = numbered(number, 1514 - number as usize % 1400, mac(1), CLIENT);
        dom0.tap.send(&back);
        dom0.run();
        assert_eq!(dom0.tap.frames(), [frame]);
        // It sleeps as a guest does: an event has to wake it.
        let ports = front.net.ports().unwrap();
        let is_woken = ports.iter().any(|port| {
            use mayfly_drivers::Hypervisor as _;
            xen.evtchn_take(*port)
        });
        assert!(is_woken || front.net.prepare_sleep(), "{number}");
        front.service();
        assert_eq!(front.received.last().unwrap().0, back);
        assert!(!front.net.prepare_sleep());
    }
    let status = dom0.switch.status();
    assert_eq!(status.guests[0].counters.from_guest.frames, 2000);
    assert_eq!(status.guests[0].counters.to_guest.frames, 2001);
    // Its buffers were used again and again, and are mapped by now, also those beside references that are not granted.
    assert_eq!(status.guests[0].mapped, 48);
    assert_sound(&front);
    dom0.switch.detach(1).unwrap();
    assert_eq!(xen.with(|world| world.machine.mapped_by_process()), 0);
}

#[test]
fn what_is_not_persistent_is_never_mapped() {
    let (xen, network) = FakeXen::preconnected_to_process(32);
    let mut dom0 = Dom0::new();
    dom0.xen.add(1, &xen);
    let mut guest = guest(1, &network);
    guest.features.persistent = false;
    dom0.attach(guest);
    let mut front = boot(&xen, &network, CONFIG);
    for number in 0..500 {
        assert!(front.send(&numbered(number, 60, CLIENT, mac(1))));
        dom0.tap.send(&numbered(number, 60, mac(1), CLIENT));
        dom0.run();
        front.service();
        assert_eq!(xen.with(|world| world.machine.mapped_by_process()), 2);
    }
    assert_eq!((front.received.len(), dom0.tap.frames().len()), (500, 500));
    assert_sound(&front);
}

#[test]
fn long_frames_pass_whole_and_blank_checksums_stay_blank() {
    let (xen, network) = FakeXen::preconnected_to_process(32);
    let mut dom0 = Dom0::new();
    dom0.xen.add(1, &xen);
    dom0.attach(guest(1, &network));
    let mut front = boot(&xen, &network, CONFIG);
    dom0.run();
    assert!(front.turn_until(50, |front| front.net.features().segment));
    let frame = tcp(1, CLIENT, 7, 65_000 - 54);
    assert!(send(&mut front, &frame, Offload::Segment(1460)));
    dom0.run();
    let (header, passed) = dom0.tap.received().unwrap();
    assert_eq!(passed, frame);
    // NEEDS_CSUM, TCPV4; 54 bytes of headers, 1460 of payload; from 34 on, at 16.
    let mut wanted = [0; 10];
    wanted[..2].copy_from_slice(&[1, 1]);
    for (at, value) in [(2, 54_u16), (4, 1460), (6, 34), (8, 16)] {
        wanted[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    }
    assert_eq!(header, wanted);
    // One that is a single segment is not to be cut.
    let short = tcp(1, CLIENT, 7, 1000);
    assert!(send(&mut front, &short, Offload::Segment(1460)));
    assert!(send(&mut front, &short, Offload::Checksum));
    dom0.run();
    for _ in 0..2 {
        let (header, passed) = dom0.tap.received().unwrap();
        assert_eq!((header[0], header[1], &passed), (1, 0, &short));
    }
    // From the bridge: blank, right, and unknown.
    let to = tcp(9, mac(1), 3, 100);
    let mut blank = [0; 10];
    blank[0] = 1;
    blank[6..8].copy_from_slice(&34_u16.to_ne_bytes());
    blank[8..10].copy_from_slice(&16_u16.to_ne_bytes());
    dom0.tap.send_with(blank, &to);
    let mut valid = [0; 10];
    valid[0] = 2;
    dom0.tap.send_with(valid, &to);
    dom0.tap.send(&to);
    dom0.run();
    front.service();
    let got: Vec<_> = front
        .received
        .iter()
        .map(|(frame, seen)| (frame, seen.checksum))
        .collect();
    assert_eq!(
        got,
        [
            (&to, Checksum::Blank),
            (&to, Checksum::Validated),
            (&to, Checksum::Unknown)
        ]
    );
    assert_sound(&front);
}

#[test]
fn the_tail_of_a_long_frame_is_not_copied_once_its_pages_are_mapped() {
    let (xen, network) = FakeXen::preconnected_to_process(32);
    let mut dom0 = Dom0::new();
    dom0.xen.add(1, &xen);
    dom0.attach(guest(1, &network));
    let mut front = boot(&xen, &network, CONFIG);
    dom0.run();
    assert!(front.turn_until(50, |front| front.net.features().segment));
    let mut pass = |dom0: &mut Dom0, seq: u32| {
        let frame = tcp(1, CLIENT, seq, 20_000 + seq as usize);
        assert!(send(&mut front, &frame, Offload::Segment(1460)));
        dom0.run();
        let (_, passed) = dom0.tap.received().unwrap();
        assert!(passed == frame, "{seq}");
        front.service();
    };
    // The first frames are copied; then pages are mapped, and beside references that are not granted one by one.
    for seq in 0..1000 {
        pass(&mut dom0, seq);
    }
    let before = dom0.tap.gathered();
    assert!(before > 500, "{before}");
    // What is recorded is copied whole.
    let name = dom0.switch.status().guests[0].name.clone();
    dom0.switch
        .dump(
            &name,
            DumpBounds {
                snap: 65_535,
                ..DumpBounds::MAX
            },
        )
        .unwrap();
    for seq in 0..10 {
        pass(&mut dom0, seq);
    }
    assert_eq!(dom0.tap.gathered(), before);
    let file = dom0.switch.dumped(&name).unwrap();
    let last = tcp(1, CLIENT, 9, 20_009);
    assert!(file.ends_with(&last));
    pass(&mut dom0, 7);
    assert_eq!(dom0.tap.gathered(), before + 1);
    // A port that is shut has no pages any more.
    dom0.switch.detach(1).unwrap();
    assert_eq!(xen.with(|world| world.machine.mapped_by_process()), 0);
}

#[test]
fn a_long_frame_is_cut_for_a_guest_that_takes_none() {
    let (one, network_of_one) = FakeXen::preconnected_to_process(256);
    let (other, network_of_other) = FakeXen::preconnected_to_process(256);
    let mut dom0 = Dom0::new();
    dom0.xen.add(1, &one);
    dom0.xen.add(2, &other);
    dom0.attach(guest(1, &network_of_one));
    let mut receiver = guest(2, &network_of_other);
    receiver.features.csum4 = false;
    dom0.attach(receiver);
    let config = BufferCounts {
        rx_buffers: 256,
        ..CONFIG
    };
    let mut sender = boot(&one, &network_of_one, config);
    let mut receiver = boot(&other, &network_of_other, config);
    dom0.run();
    assert!(sender.turn_until(50, |front| front.net.features().segment));
    let mut sent = Vec::new();
    for round in 0..20_u32 {
        let payload = 60_000 + round as usize;
        let frame = tcp(1, mac(2), round * 100_000, payload);
        assert!(send(&mut sender, &frame, Offload::Segment(1448)));
        sent.extend_from_slice(&frame[54..]);
        dom0.run();
        sender.service();
        receiver.service();
    }
    let mut got = Vec::new();
    for (frame, seen) in &receiver.received {
        assert!(is_right(frame) && frame.len() <= 54 + 1448);
        assert_eq!(seen.checksum, Checksum::Validated);
        got.extend_from_slice(&frame[54..]);
    }
    assert_eq!(got.len(), sent.len());
    assert!(got == sent);
    assert!(dom0.tap.frames().is_empty(), "it is nobody else's");
    assert_sound(&sender);
    assert_sound(&receiver);
}

#[test]
fn a_switch_that_was_killed_is_followed_by_one_that_goes_on() {
    let (xen, network) = FakeXen::preconnected_to_process(32);
    let mut dom0 = Dom0::new();
    dom0.xen.add(1, &xen);
    dom0.attach(guest(1, &network));
    let mut front = boot(&xen, &network, CONFIG);
    let (mut sent, mut back) = (Vec::new(), Vec::new());
    for number in 0..600 {
        let frame = numbered(number, 60, CLIENT, mac(1));
        assert!(front.send(&frame));
        sent.push(frame);
        let frame = numbered(number, 60, mac(1), CLIENT);
        dom0.tap.send(&frame);
        back.push(frame);
        if number % 7 == 3 {
            // Between turns, with requests that nobody has looked at.
            dom0.kill();
        }
        if number % 5 == 0 {
            dom0.run();
            front.service();
        }
    }
    dom0.run();
    front.service();
    assert_eq!(dom0.tap.frames(), sent);
    let got: Vec<_> = front
        .received
        .iter()
        .map(|(frame, _)| frame.clone())
        .collect();
    assert_eq!(got, back);
    assert_sound(&front);
}

#[test]
fn a_full_ring_lets_frames_wait_and_drops_what_is_too_much() {
    let (xen, network) = FakeXen::preconnected_to_process(16);
    let mut dom0 = Dom0::new();
    dom0.xen.add(1, &xen);
    dom0.attach(guest(1, &network));
    for number in 0..400 {
        dom0.tap.send(&numbered(number, 100, mac(1), CLIENT));
    }
    dom0.run();
    let counters = dom0.switch.status().guests[0].counters;
    assert_eq!(
        (counters.to_guest.frames, counters.dropped_full),
        (16, 400 - 16 - 256)
    );
    let mut front = boot(&xen, &network, CONFIG);
    for _ in 0..100 {
        front.service();
        dom0.run();
    }
    let numbers: Vec<_> = front
        .received
        .iter()
        .map(|(frame, _)| frame.clone())
        .collect();
    let wanted: Vec<_> = (0..272)
        .map(|number| numbered(number, 100, mac(1), CLIENT))
        .collect();
    assert_eq!(numbers, wanted);
    assert_sound(&front);
}

#[derive(Clone, Debug)]
enum Op {
    Send(usize),
    Deliver(usize, usize),
    Service,
    Run,
    Turn,
    Kill,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (1_usize..60).prop_map(Op::Send),
        4 => (1_usize..60, 60_usize..1514).prop_map(|(count, length)| Op::Deliver(count, length)),
        3 => Just(Op::Service),
        3 => Just(Op::Run),
        3 => Just(Op::Turn),
        1 => Just(Op::Kill),
    ]
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(100))]

    /// Whatever the schedule, every frame arrives once and in its order, but for those that found the queue full.
    #[test]
    fn frames_arrive_once_and_in_order(
        rx_log in 0_u32..=8,
        tx_buffers in 1_usize..=256,
        persistent in any::<bool>(),
        ops in prop::collection::vec(op(), 1..80),
    ) {
        let (xen, network) = FakeXen::preconnected_to_process(1 << rx_log);
        let mut dom0 = Dom0::new();
        dom0.xen.add(1, &xen);
        let mut guest = guest(1, &network);
        guest.features.persistent = persistent;
        dom0.attach(guest);
        let mut front = boot(&xen, &network, BufferCounts { tx_buffers, ..CONFIG });
        let (mut sent, mut delivered) = (Vec::new(), 0_u32);
        for op in ops {
            match op {
                Op::Send(count) => for _ in 0..count {
                    let frame = numbered(u32::try_from(sent.len()).unwrap(), 60, CLIENT, mac(1));
                    if front.net.can_send() {
                        prop_assert!(front.send(&frame));
                        sent.push(frame);
                    }
                },
                Op::Deliver(count, length) => for _ in 0..count {
                    dom0.tap.send(&numbered(delivered, length, mac(1), CLIENT));
                    delivered += 1;
                },
                Op::Service => front.service(),
                Op::Run => dom0.run(),
                Op::Turn => {
                    let is_busy = dom0.switch.turn(dom0.now);
                    dom0.switch.bind(dom0.now, is_busy);
                }
                Op::Kill => dom0.kill(),
            }
        }
        let mut dropped = 0;
        for _ in 0..300 {
            dom0.run();
            front.service();
        }
        dropped += dom0.switch.status().guests[0].counters.dropped_full;
        prop_assert_eq!(dom0.tap.frames(), sent);
        let numbers: Vec<u32> = front.received.iter()
            .map(|(frame, _)| u32::from_le_bytes(frame[14..18].try_into().unwrap()))
            .collect();
        prop_assert!(numbers.is_sorted_by(|one, other| one < other), "{:?}", numbers);
        // A switch that was killed takes its queue with it.
        prop_assert!(numbers.len() as u64 + dropped <= u64::from(delivered));
        prop_assert_eq!(front.violations(), Vec::<String>::new());
    }
}

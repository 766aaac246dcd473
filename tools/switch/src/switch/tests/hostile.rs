//! Hostile guests.

use mayfly_drivers::abi::{
    NETIF_RSP_NULL, NetTxFlags, netif_extra_gso, netif_tx_request, netif_tx_response, sring,
};

use super::*;
use crate::fake::{BUFFERS, Memory, RX_RING, TX_RING, datagram, mac};
use crate::port::{PortCounters, Shut};

const OK: i16 = 0;
const ERROR: i16 = -1;

fn request(buffer: u32, flags: NetTxFlags, offset: u16, size: u16) -> netif_tx_request {
    netif_tx_request {
        gref: BUFFERS + buffer,
        offset,
        flags: flags.bits(),
        id: 100 + u16::try_from(buffer).unwrap(),
        size,
    }
}

const NONE: NetTxFlags = NetTxFlags::empty();
const MORE: NetTxFlags = NetTxFlags::MORE_DATA;
const EXTRA: NetTxFlags = NetTxFlags::EXTRA_INFO;
const BLANK: NetTxFlags = NetTxFlags::CSUM_BLANK;

fn extra(type_: u8, flags: u8, size: u16, gso_type: u8) -> netif_extra_gso {
    netif_extra_gso {
        type_,
        flags,
        size,
        gso_type,
        pad: 0,
        features: 0,
        unused: 0,
    }
}

/// The id and status of each response from the start of the ring.
fn answers(memory: &Memory) -> Vec<(u16, i16)> {
    let page = memory.page(TX_RING);
    let count = page.load_acquire(sring::RSP_PROD) as usize;
    let read = |index: usize| -> netif_tx_response { page.read(sring::RING + index * 12) };
    (0..count)
        .map(read)
        .map(|answer| (answer.id, answer.status))
        .collect()
}

/// Asserts that the other guests are served.
#[track_caller]
fn assert_others_are_served(dom0: &mut Dom0) {
    let _ = dom0.tap.frames();
    let memory = dom0.add(77);
    let sent = datagram(77, HOST, &[1; 30]);
    memory.borrow_mut().send(0, &sent);
    memory.borrow().publish();
    let came = datagram(5, mac(77), &[2; 30]);
    dom0.tap.send(&came);
    dom0.run(77);
    assert!(dom0.tap.frames().contains(&sent));
    assert_eq!(memory.borrow_mut().receive().unwrap().1, came);
    dom0.switch.detach(77).unwrap();
    assert_eq!(memory.borrow().mapped(), 0);
}

/// Asserts that a fault in a guest's ring shuts its port, and no other.
#[track_caller]
fn shuts(reason: Shut, what: impl FnOnce(&mut Memory)) {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    what(&mut memory.borrow_mut());
    dom0.run(1);
    let wanted = Notice::Shut {
        name: "guest1".to_owned(),
        domain: 1,
        reason,
    };
    assert_eq!(dom0.notices(), [wanted]);
    // None of its grants are held, and its ring is not read again.
    assert_eq!(memory.borrow().mapped(), 0);
    dom0.run(1);
    assert!(dom0.tap.frames().is_empty());
    assert_eq!(dom0.notices(), []);
    let status = dom0.switch.status();
    assert_eq!(status.guests[0].shut, Some(reason.to_string()));
    dom0.tap.send(&datagram(5, mac(1), &[0; 30]));
    assert_others_are_served(&mut dom0);
    dom0.switch.detach(1).unwrap();
}

#[test]
fn indices_that_lie() {
    for jump in [257, 1000, 0x8000_0000, u32::MAX, u32::MAX - 1] {
        shuts(Shut::Index, |memory| {
            memory.page(TX_RING).store_release(sring::REQ_PROD, jump);
        });
    }
    for jump in [257, 0x8000_0000, u32::MAX] {
        let mut dom0 = Dom0::new();
        let memory = dom0.add(1);
        memory
            .borrow()
            .page(RX_RING)
            .store_release(sring::REQ_PROD, jump);
        // There is no fault until a frame is sent to it.
        dom0.run(1);
        assert_eq!(dom0.notices(), []);
        dom0.tap.send(&datagram(5, mac(1), &[0; 30]));
        dom0.run(1);
        assert!(matches!(
            dom0.notices()[..],
            [Notice::Shut {
                reason: Shut::Index,
                ..
            }]
        ));
        assert_others_are_served(&mut dom0);
    }
    // The back end's index in the page can be written by the guest, and is not read.
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    for ring in [TX_RING, RX_RING] {
        memory
            .borrow()
            .page(ring)
            .store_release(sring::RSP_PROD, 12345);
    }
    memory.borrow_mut().send(0, &datagram(1, HOST, &[0; 30]));
    memory.borrow().publish();
    dom0.run(1);
    assert_eq!(dom0.tap.frames().len(), 1);
}

#[test]
fn what_no_front_end_does() {
    let frame = |memory: &mut Memory, slots: &[netif_tx_request]| {
        for slot in slots {
            memory.transmit(slot);
        }
        memory.publish();
    };
    shuts(Shut::MissingSlots, |memory| {
        frame(memory, &[request(0, MORE, 0, 100)]);
    });
    shuts(Shut::MissingExtra, |memory| {
        frame(memory, &[request(0, EXTRA, 0, 100)]);
    });
    shuts(Shut::TooManySlots, |memory| {
        let mut slots = vec![request(0, MORE, 0, 1000)];
        slots.extend([request(1, MORE, 0, 1); 30]);
        frame(memory, &slots);
    });
    shuts(Shut::CrossesPage, |memory| {
        frame(memory, &[request(0, NONE, 4000, 97)]);
    });
    shuts(Shut::CrossesPage, |memory| {
        frame(memory, &[request(0, NONE, u16::MAX, u16::MAX)]);
    });
    shuts(Shut::CrossesPage, |memory| {
        frame(
            memory,
            &[request(0, MORE, 0, 200), request(1, NONE, 4090, 7)],
        );
    });
    for type_ in [0, 6, 255] {
        shuts(Shut::BadExtra, |memory| {
            memory.transmit(&request(0, EXTRA, 0, 100));
            memory.transmit(&extra(type_, 0, 1460, 1));
            memory.publish();
        });
    }
    for (size, type_) in [(0, 1), (1460, 0), (1460, 3)] {
        shuts(Shut::BadGso, |memory| {
            memory.transmit(&request(0, EXTRA, 0, 100));
            memory.transmit(&extra(1, 0, size, type_));
            memory.publish();
        });
    }
    // Extra info without an end.
    shuts(Shut::MissingExtra, |memory| {
        memory.transmit(&request(0, EXTRA, 0, 100));
        for _ in 0..255 {
            memory.transmit(&extra(4, 1, 0, 0));
        }
        memory.publish();
    });
}

/// Asserts that a faulty frame is answered with an error and counted, and that the next is forwarded.
#[track_caller]
fn drops(statuses: &[i16], wanted: impl FnOnce(&mut PortCounters), what: impl FnOnce(&mut Memory)) {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    what(&mut memory.borrow_mut());
    let good = datagram(1, HOST, &[3; 30]);
    memory.borrow_mut().send(31, &good);
    memory.borrow().publish();
    dom0.run(1);
    assert_eq!(dom0.tap.frames(), std::slice::from_ref(&good));
    assert_eq!(dom0.notices(), []);
    let got: Vec<_> = answers(&memory.borrow())
        .iter()
        .map(|answer| answer.1)
        .collect();
    assert_eq!(got, [statuses, &[OK]].concat());
    let counters = dom0.switch.status().guests[0].counters;
    let mut expected = PortCounters {
        from_guest: counters.from_guest,
        notifications: counters.notifications,
        events: counters.events,
        ..PortCounters::default()
    };
    wanted(&mut expected);
    assert_eq!(counters, expected);
    assert_others_are_served(&mut dom0);
}

#[test]
fn sizes_that_cannot_be() {
    let size = |counters: &mut PortCounters| counters.bad_size = 1;
    for bytes in [0, 1, 13] {
        drops(&[ERROR], size, |memory| {
            memory.transmit(&request(0, NONE, 0, bytes))
        });
    }
    // A further slot has more than the whole.
    drops(&[ERROR; 2], size, |memory| {
        memory.transmit(&request(0, MORE, 0, 100));
        memory.transmit(&request(1, NONE, 0, 101));
    });
    // Less than a header is left for the first.
    drops(&[ERROR; 2], size, |memory| {
        memory.transmit(&request(0, MORE, 0, 100));
        memory.transmit(&request(1, NONE, 0, 90));
    });
    drops(
        &[ERROR; 19],
        |counters| counters.too_many_slots = 1,
        |memory| {
            memory.transmit(&request(0, MORE, 0, 1000));
            for index in 1..19 {
                let flags = if index == 18 { NONE } else { MORE };
                memory.transmit(&request(index, flags, 0, 10));
            }
        },
    );
}

#[test]
fn grants_that_are_none() {
    let grant = |counters: &mut PortCounters| counters.bad_grant = 1;
    for reference in [0, 7, 500, u32::MAX] {
        drops(&[ERROR], grant, |memory| {
            memory.transmit(&netif_tx_request {
                gref: reference,
                ..request(0, NONE, 0, 100)
            });
        });
    }
    // One of several parts.
    drops(&[ERROR; 2], grant, |memory| {
        memory.transmit(&request(0, MORE, 0, 200));
        memory.transmit(&netif_tx_request {
            gref: 5000,
            ..request(1, NONE, 0, 100)
        });
    });
    // A receive buffer that may not be written, or is none: the frame is lost, and the next is not.
    let mut dom0 = Dom0::new();
    let memory = dom0.machines.add(1);
    for buffer in 0..3 {
        memory.borrow_mut().post(buffer);
    }
    memory.borrow().publish();
    memory.borrow_mut().grants.get_mut(&BUFFERS).unwrap().1 = false;
    memory
        .borrow()
        .page(RX_RING)
        .write(sring::RING + 8, &[1, 0, 0, 0, 255, 255, 255, 255_u8]);
    dom0.switch.attach(guest(1), 0).unwrap();
    for _ in 0..3 {
        dom0.tap.send(&datagram(5, mac(1), &[0; 30]));
    }
    dom0.run(1);
    let got = || memory.borrow_mut().receive().unwrap().0.status;
    assert_eq!([got(), got(), got()], [ERROR, ERROR, 72]);
    assert_eq!(dom0.switch.status().guests[0].counters.bad_grant, 2);
}

#[test]
fn offloads_that_do_not_hold() {
    let offload = |counters: &mut PortCounters| counters.bad_offload = 1;
    // A blank checksum in a protocol without one.
    drops(&[ERROR], offload, |memory| {
        memory.page(BUFFERS).copy_in(0, &[0xff; 100]);
        memory.transmit(&request(0, BLANK, 0, 100));
    });
    // To be cut: UDP, and TCP whose header is longer than the packet.
    drops(&[ERROR, NETIF_RSP_NULL], offload, |memory| {
        memory
            .page(BUFFERS)
            .copy_in(0, &datagram(1, HOST, &[0; 58]));
        memory.transmit(&request(0, EXTRA | BLANK, 0, 100));
        memory.transmit(&extra(1, 0, 10, 1));
    });
    drops(&[ERROR, NETIF_RSP_NULL], offload, |memory| {
        let mut frame = datagram(1, HOST, &[0; 58]);
        frame[23] = 6;
        frame[46] = 0xf0;
        frame.truncate(80);
        frame[17] = 66;
        memory.page(BUFFERS).copy_in(0, &frame);
        memory.transmit(&request(0, EXTRA | BLANK, 0, 80));
        memory.transmit(&extra(1, 0, 10, 1));
    });
}

#[test]
fn the_guard_and_the_mtu() {
    drops(
        &[OK],
        |counters| counters.guard_source = 1,
        |memory| {
            memory.send(0, &datagram(2, HOST, &[0; 30]));
        },
    );
    drops(
        &[OK],
        |counters| counters.guard_address = 1,
        |memory| {
            let mut frame = datagram(1, HOST, &[0; 30]);
            frame[29] ^= 1;
            memory.send(0, &frame);
        },
    );
    drops(
        &[OK],
        |counters| counters.guard_group = 1,
        |memory| {
            memory.send(0, &datagram(1, [0xff; 6], &[0; 30]));
        },
    );
    drops(
        &[OK],
        |counters| counters.too_long = 1,
        |memory| {
            memory.send(0, &datagram(1, HOST, &[0; 1519 - 42]));
        },
    );
}

#[test]
fn what_changes_after_it_was_checked_is_not_looked_at_again() {
    // The bytes that were checked are sent, even if the buffer changes afterwards.
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    let good = datagram(1, HOST, &[3; 30]);
    memory.borrow_mut().send(0, &good);
    memory.borrow().publish();
    dom0.run(1);
    memory.borrow().page(BUFFERS).zero();
    assert_eq!(dom0.tap.frames(), [good]);
}

#[test]
fn answers_come_in_order_with_extra_info_between() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    let frame = datagram(1, HOST, &[3; 100]);
    memory.borrow().page(BUFFERS).copy_in(0, &frame[..50]);
    memory.borrow().page(BUFFERS + 1).copy_in(7, &frame[50..]);
    let size = u16::try_from(frame.len()).unwrap();
    memory
        .borrow_mut()
        .transmit(&request(0, MORE | EXTRA, 0, size));
    // A hash of the flow.
    memory.borrow_mut().transmit(&extra(4, 0, 0, 0));
    memory
        .borrow_mut()
        .transmit(&request(1, NONE, 7, size - 50));
    memory.borrow().publish();
    dom0.run(1);
    assert_eq!(dom0.tap.frames(), [frame]);
    assert_eq!(
        answers(&memory.borrow()),
        [(100, OK), (0, NETIF_RSP_NULL), (101, OK)]
    );
    // A notification was asked for with the first response.
    assert_eq!(memory.borrow().notified, 1);
}

#[test]
fn indices_wrap() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    for round in 0..2000_u32 {
        let frame = datagram(1, HOST, &round.to_be_bytes());
        memory.borrow_mut().send(round % 32, &frame);
        memory.borrow().publish();
        dom0.run(1);
        assert_eq!(dom0.tap.frames(), [frame]);
    }
}

//! The receivers of frames.

use std::net::Ipv4Addr;

use super::*;
use crate::fake::{datagram, ip, mac};
use crate::switch::{DumpBounds, Guard, Refusal};

pub(super) const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];

pub(super) fn arp(from: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [
        &[0xff; 6][..],
        &from,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &from,
    ]
    .concat();
    frame.extend(sender.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

/// A guest that may have other IP addresses than the one that is known.
pub(super) fn free(domain: u16) -> crate::Guest {
    crate::Guest {
        guard: Guard::Mac,
        ..guest(domain)
    }
}

pub(super) fn received(memory: &std::cell::RefCell<fake::Memory>) -> Vec<Vec<u8>> {
    let mut memory = memory.borrow_mut();
    std::iter::from_fn(|| memory.receive())
        .map(|(_, frame)| frame)
        .collect()
}

#[test]
fn guests_the_bridge_and_nobody() {
    let mut dom0 = Dom0::new();
    let [one, two, three] = [1, 2, 3].map(|domain| dom0.add(domain));
    let to_two = datagram(1, mac(2), b"to two");
    let to_somebody = datagram(1, CLIENT, b"to somebody");
    let to_itself = datagram(1, mac(1), b"to itself");
    for (buffer, frame) in (0..).zip([&to_two, &to_somebody, &to_itself]) {
        one.borrow_mut().send(buffer, frame);
    }
    one.borrow().publish();
    dom0.tap.send(&datagram(9, CLIENT, b"for nobody here"));
    dom0.tap.send(&[0; 13]);
    dom0.run(1);
    assert_eq!(received(&two), [to_two]);
    assert_eq!(dom0.tap.frames(), [to_somebody]);
    assert!(received(&one).is_empty() && received(&three).is_empty());
    let counters = dom0.switch.status().bridges[0].counters;
    assert_eq!(
        (counters.unknown, counters.malformed, counters.sent),
        (1, 1, 1)
    );
}

#[test]
fn who_asks_for_a_guest_is_heard_by_it_alone() {
    let mut dom0 = Dom0::new();
    let [one, two] = [1, 2].map(|domain| dom0.add_as(free(domain)));
    let for_one = arp(CLIENT, Ipv4Addr::new(10, 0, 2, 9), ip(1));
    let for_nobody = arp(CLIENT, Ipv4Addr::new(10, 0, 2, 9), ip(99));
    let from_two = arp(mac(2), ip(2), ip(1));
    dom0.tap.send(&for_one);
    dom0.tap.send(&for_nobody);
    two.borrow_mut().send(0, &from_two);
    two.borrow().publish();
    dom0.run(2);
    assert_eq!(
        received(&one),
        [for_one, for_nobody.clone(), from_two.clone()]
    );
    assert_eq!(received(&two), [for_nobody]);
    assert_eq!(dom0.tap.frames(), [from_two]);
}

#[test]
fn groups_that_a_guest_has_asked_for() {
    use mayfly_drivers::abi::{netif_extra_gso, netif_tx_request};
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    let group = [1, 0, 0x5e, 1, 2, 3];
    let to_group = |to: [u8; 6]| datagram(9, to, b"to a group");
    let ask = |dom0: &mut Dom0, type_| {
        memory.borrow_mut().transmit(&netif_tx_request {
            gref: 0,
            offset: 0,
            flags: 8,
            id: 9,
            size: 0,
        });
        memory.borrow_mut().transmit(&netif_extra_gso {
            type_,
            flags: 0,
            size: u16::from_le_bytes([group[0], group[1]]),
            gso_type: group[2],
            pad: group[3],
            features: u16::from_le_bytes([group[4], group[5]]),
            unused: 0,
        });
        memory.borrow().publish();
        dom0.run(1);
        dom0.tap.send(&to_group(group));
        dom0.tap.send(&to_group([1, 0, 0x5e, 9, 9, 9]));
        dom0.tap.send(&to_group([0xff; 6]));
        dom0.run(1);
        received(&memory).len()
    };
    assert_eq!(ask(&mut dom0, 2), 2);
    assert_eq!(ask(&mut dom0, 3), 1);
}

#[test]
fn two_of_one_name_address_or_domain() {
    let mut dom0 = Dom0::new();
    let _one = dom0.add(1);
    let _two = dom0.machines.add(2);
    let refused = |dom0: &mut Dom0, change: fn(&mut crate::Guest)| {
        let mut other = guest(2);
        change(&mut other);
        dom0.switch.attach(other, 0).unwrap_err().to_string()
    };
    assert_eq!(
        refused(&mut dom0, |other| other.mac = mac(1)),
        "the MAC address is taken"
    );
    assert_eq!(
        refused(&mut dom0, |other| other.name = "guest1".into()),
        "the name is taken"
    );
    assert_eq!(
        refused(&mut dom0, |other| other.rings.domain = 1),
        "the domain is taken"
    );
    assert_eq!(
        refused(&mut dom0, |other| other.bridge = "none".into()),
        "no port on a bridge none"
    );
    assert_eq!(
        refused(&mut dom0, |other| other.mac = [1; 6]),
        "no MAC address of one interface"
    );
    assert!(refused(&mut dom0, |other| other.rings.tx_ring = 700).starts_with("its rings: "));
    // The refused guests hold no grants.
    dom0.switch.attach(guest(2), 0).unwrap();
    assert!(matches!(dom0.switch.detach(3), Err(Refusal::Unknown)));
}

#[test]
fn who_names_an_event_channel_that_is_none_is_shut() {
    let wrong: [fn(&mut crate::Guest); 2] = [
        |guest| guest.rings.tx_port = 700,
        |guest| guest.rings.rx_port = Some(9),
    ];
    for change in wrong {
        let mut dom0 = Dom0::new();
        let mut guest = guest(1);
        change(&mut guest);
        let memory = dom0.add_as(guest);
        let notices = dom0.notices();
        let [Notice::Shut { reason, .. }] = notices.as_slice() else {
            panic!("{notices:?}");
        };
        assert_eq!(*reason, crate::port::Shut::Channel);
        assert_eq!(memory.borrow().mapped(), 0);
    }
}

#[test]
fn a_guest_that_is_gone_leaves_nothing() {
    let mut dom0 = Dom0::new();
    for _ in 0..3 {
        let memory = dom0.add(1);
        memory.borrow_mut().send(0, &datagram(1, CLIENT, b"x"));
        memory.borrow().publish();
        dom0.run(1);
        assert_eq!(memory.borrow().mapped(), 2);
        let gone = dom0.switch.detach(1).unwrap();
        assert_eq!(gone.counters.from_guest.frames, 1);
        assert_eq!(memory.borrow().mapped(), 0);
        // A late event, and frames whose receiver is gone.
        dom0.tap.send(&datagram(9, mac(1), b"x"));
        dom0.run(1);
        assert!(dom0.switch.status().guests.is_empty());
    }
}

#[test]
fn a_record_is_bounded_and_of_one_guest() {
    let mut dom0 = Dom0::new();
    let [one, two] = [1, 2].map(|domain| dom0.add(domain));
    let bounds = DumpBounds {
        frames: 2,
        ..DumpBounds::default()
    };
    dom0.switch.dump("guest1", bounds).unwrap();
    assert!(dom0.switch.dump("nobody", bounds).is_err());
    let frames = [datagram(1, CLIENT, b"out"), datagram(9, mac(1), b"in")];
    two.borrow_mut().send(0, &datagram(2, CLIENT, b"not this"));
    two.borrow().publish();
    dom0.run(2);
    one.borrow_mut().send(0, &frames[0]);
    one.borrow().publish();
    dom0.run(1);
    dom0.tap.send(&frames[1]);
    dom0.tap.send(&frames[1]);
    dom0.run(1);
    let name = "guest1".to_owned();
    assert_eq!(dom0.notices(), [Notice::Dumped { name }]);
    let file = dom0.switch.dumped("guest1").unwrap();
    assert_eq!(file.len(), 24 + 2 * 16 + frames[0].len() + frames[1].len());
    assert_eq!(&file[40..40 + frames[0].len()], frames[0]);
    assert!(dom0.switch.dumped("guest1").is_err());
}

#[test]
fn a_bridge_that_is_lost_is_told_once_and_guests_go_on() {
    let mut dom0 = Dom0::new();
    let [one, two] = [1, 2].map(|domain| dom0.add(domain));
    dom0.tap.lose();
    let frame = datagram(1, mac(2), b"x");
    one.borrow_mut().send(0, &frame);
    one.borrow().publish();
    dom0.run(1);
    dom0.run(1);
    assert!(matches!(dom0.notices()[..], [Notice::Lost { .. }]));
    assert_eq!(received(&two), [frame]);
}

#[test]
fn without_a_guard() {
    let mut dom0 = Dom0::new();
    let memory = dom0.machines.add(1);
    let spoofed = datagram(7, CLIENT, b"from another");
    for (guard, passes) in [(Guard::Off, 1), (Guard::Mac, 0)] {
        let mut open = guest(1);
        open.guard = guard;
        dom0.switch.attach(open, 0).unwrap();
        memory.borrow_mut().send(0, &spoofed);
        memory.borrow().publish();
        dom0.run(1);
        assert_eq!(dom0.tap.frames().len(), passes);
        dom0.switch.detach(1).unwrap();
    }
}

#[test]
fn who_has_no_memory_any_more_is_not_there() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    dom0.add(2);
    assert!(dom0.switch.ended(&[1, 2, 3]).is_empty());
    assert_eq!(dom0.switch.frames().collect::<Vec<_>>(), [(1, 0), (2, 0)]);
    // Xen has destroyed it: it has no grants.
    memory.borrow_mut().grants.clear();
    assert_eq!(dom0.switch.ended(&[1, 2, 3]), [1]);
}

#[test]
fn a_frame_longer_than_the_mtu_allows_is_dropped_once() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add_as(crate::Guest {
        features: crate::port::Features {
            sg: true,
            ..crate::port::Features::default()
        },
        ..free(1)
    });
    let frame = |payload: usize| datagram(9, mac(1), &vec![7; payload]);
    // The longest that there is room for: two VLAN tags.
    dom0.tap.send(&frame(1472 + 8));
    dom0.run(1);
    for payload in [1472 + 9, 2000, 1472] {
        dom0.tap.send(&frame(payload));
    }
    // Two are read together, so both are cut; the room has grown for the next ones.
    dom0.run(1);
    let lengths = |memory: &_| -> Vec<usize> { received(memory).iter().map(Vec::len).collect() };
    assert_eq!(lengths(&memory), [1522, 1514]);
    assert_eq!(dom0.switch.status().bridges[0].counters.malformed, 2);
    dom0.tap.send(&frame(2000));
    dom0.run(1);
    assert_eq!(lengths(&memory), [2042]);
    assert_eq!(dom0.switch.status().bridges[0].counters.malformed, 2);
}

#[test]
fn all_of_a_burst_arrive_in_their_order() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    let frames: Vec<_> = (0..30_u8)
        .map(|number| datagram(9, mac(1), &[number; 900]))
        .collect();
    for frame in &frames {
        dom0.tap.send(frame);
    }
    dom0.run(1);
    assert!(received(&memory) == frames);
}

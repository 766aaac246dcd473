//! The receivers of frames.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::*;
use crate::fake::{datagram, ip, mac};
use crate::switch::{Bounds, Cause, DumpBounds, Guard, Refusal, Sleeper};

const CLIENT: [u8; 6] = [2, 0, 0, 0, 0, 9];

fn arp(from: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
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

fn received(memory: &std::cell::RefCell<fake::Memory>) -> Vec<Vec<u8>> {
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
    let [one, two] = [1, 2].map(|domain| dom0.add(domain));
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

fn sleeper(domain: u16) -> Sleeper {
    Sleeper {
        name: format!("guest{domain}"),
        bridge: BRIDGE.to_owned(),
        mac: mac(domain),
        ipv4: Some(ip(domain)),
        ipv6: Some(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, domain)),
        bounds: Bounds {
            frames: 3,
            bytes: 10_000,
        },
    }
}

/// A segment to a guest that sleeps.
fn segment(to: u16, flags: u8) -> Vec<u8> {
    let mut frame = [
        &mac(to)[..],
        &CLIENT,
        &[8, 0, 0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0],
    ]
    .concat();
    frame.extend([10, 0, 2, 9]);
    frame.extend(ip(to).octets());
    frame.extend([
        0x30, 0x39, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0x10, 0, 0, 0, 0, 0,
    ]);
    frame
}

#[test]
fn what_comes_for_a_sleeper_is_in_its_ring_when_it_is_there() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1)).unwrap();
    let other = dom0.add(2);
    // Address requests for it are answered, from the bridge and from a guest.
    dom0.tap
        .send(&arp(CLIENT, Ipv4Addr::new(10, 0, 2, 9), ip(1)));
    dom0.run(2);
    let answer = dom0.tap.frames().remove(0);
    assert_eq!(
        (&answer[..6], &answer[6..12], answer[21]),
        (&CLIENT[..], &mac(1)[..], 2)
    );
    other.borrow_mut().send(0, &arp(mac(2), ip(2), ip(1)));
    other.borrow().publish();
    dom0.run(2);
    assert_eq!(received(&other).len(), 1);
    // A probe does not count as a request.
    dom0.tap.send(&arp(CLIENT, Ipv4Addr::UNSPECIFIED, ip(1)));
    // A segment of an old connection is not held.
    dom0.tap.send(&segment(1, 0x10));
    dom0.run(2);
    let _ = dom0.tap.frames();
    let wanted = |cause, from: [u8; 4]| Notice::Wanted {
        name: "guest1".to_owned(),
        cause,
        from: IpAddr::from(from),
    };
    assert_eq!(
        dom0.notices(),
        [
            wanted(Cause::Arp, [10, 0, 2, 9]),
            wanted(Cause::Arp, [10, 0, 0, 2])
        ]
    );
    for _ in 0..2 {
        dom0.tap.send(&segment(1, 0x02));
        dom0.tap.send(&segment(1, 0x10));
    }
    dom0.run(2);
    // There was room for three.
    let by_syn = wanted(Cause::Syn, [10, 0, 2, 9]);
    assert_eq!(dom0.notices(), [by_syn.clone(), by_syn]);
    let status = dom0.switch.status().sleepers;
    assert_eq!((status[0].held, status[0].dropped), (3, 2));
    let memory = dom0.add(1);
    assert_eq!(
        received(&memory),
        [segment(1, 0x02), segment(1, 0x10), segment(1, 0x02)]
    );
    assert!(dom0.switch.status().sleepers.is_empty());
    // From now on the guest answers by itself.
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    assert_eq!(received(&memory).len(), 1);
    assert_eq!(dom0.notices(), []);
}

#[test]
fn a_neighbour_solicitation_is_answered_and_a_sleeper_is_forgotten() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1)).unwrap();
    let mut frame = [
        &[0x33, 0x33, 0xff, 0, 0, 1][..],
        &CLIENT,
        &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 24, 58, 255],
    ]
    .concat();
    let from = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0x99);
    let target = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1);
    let to = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 1);
    frame.extend(from.octets());
    frame.extend(to.octets());
    frame.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    frame.extend(target.octets());
    let pseudo = [&frame[22..54], &[0, 24, 0, 58], &frame[54..]].concat();
    let mut sum: u32 = pseudo
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    frame[56..58].copy_from_slice(&(!u16::try_from(sum).unwrap()).to_be_bytes());
    dom0.tap.send(&frame);
    dom0.run(1);
    let answers = dom0.tap.frames();
    assert_eq!((answers.len(), answers[0][54]), (1, 136));
    dom0.switch.forget("guest1").unwrap();
    dom0.tap.send(&frame);
    dom0.run(1);
    assert!(dom0.tap.frames().is_empty());
    assert!(matches!(
        dom0.switch.forget("guest1"),
        Err(Refusal::Unknown)
    ));
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
    assert!(refused(&mut dom0, |other| other.rings.tx_port = 700).starts_with("its rings: "));
    assert!(refused(&mut dom0, |other| other.rings.rx_port = Some(9)).starts_with("its rings: "));
    // The refused guests hold no grants.
    dom0.switch.attach(guest(2), 0).unwrap();
    assert!(dom0.switch.sleep(sleeper(1)).is_err());
    assert!(matches!(dom0.switch.detach(3), Err(Refusal::Unknown)));
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
    assert_eq!(dom0.switch.is_there(1).ok(), Some(true));
    assert_eq!(dom0.switch.frames().collect::<Vec<_>>(), [(1, 0), (2, 0)]);
    // Xen has destroyed it: it has no grants.
    memory.borrow_mut().grants.clear();
    assert_eq!(dom0.switch.is_there(1).ok(), Some(false));
    assert_eq!(dom0.switch.is_there(2).ok(), Some(true));
    assert!(dom0.switch.is_there(3).is_err());
}

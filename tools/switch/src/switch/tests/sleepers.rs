//! Guests that may sleep, and guests that are new.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::forwarding::{CLIENT, arp, free, received};
use super::*;
use crate::fake::{datagram, ip, mac};
use crate::switch::{Bounds, Refusal, Rest, Sign, Sleeper, WakeFrame};

/// The client that declares who may sleep.
pub(super) const OWNER: u64 = 7;

pub(super) fn sleeper(domain: u16) -> Sleeper {
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
        moves: false,
    }
}

/// A segment to a guest that sleeps.
pub(super) fn segment(to: u16, flags: u8) -> Vec<u8> {
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
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
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
    dom0.run(2);
    let _ = dom0.tap.frames();
    let wanted = |cause, from: [u8; 4]| Notice::Wanted {
        name: "guest1".to_owned(),
        cause,
        from: IpAddr::from(from),
    };
    // It is told once that it is wanted, until something is done about it.
    assert_eq!(dom0.notices(), [wanted(WakeFrame::Arp, [10, 0, 2, 9])]);
    dom0.switch.drop_held("guest1").unwrap();
    for _ in 0..2 {
        dom0.tap.send(&segment(1, 0x02));
        dom0.tap.send(&segment(1, 0x10));
    }
    dom0.run(2);
    // There was room for three.
    assert_eq!(dom0.notices(), [wanted(WakeFrame::Syn, [10, 0, 2, 9])]);
    let status = dom0.switch.status().sleepers;
    assert_eq!((status[0].held, status[0].dropped), (3, 1));
    let memory = dom0.add(1);
    assert_eq!(
        received(&memory),
        [segment(1, 0x02), segment(1, 0x10), segment(1, 0x02)]
    );
    assert_eq!(dom0.switch.status().sleepers[0].held, 0);
    // From now on the guest answers by itself.
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    assert_eq!(received(&memory).len(), 1);
    assert_eq!(dom0.notices(), []);
}

#[test]
fn a_notice_is_repeated_though_there_is_no_room_for_more() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    for _ in 0..4 {
        dom0.tap.send(&segment(1, 0x02));
    }
    dom0.run(0);
    assert_eq!(dom0.notices().len(), 1);
    // The client did nothing about it, and its peers send again.
    dom0.now += 1_000_000_000;
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(0);
    assert_eq!(dom0.notices().len(), 1);
    assert_eq!(dom0.switch.status().sleepers[0].held, 3);
}

#[test]
fn the_peer_of_a_guest_that_is_gone_is_told_so() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    let other = dom0.add(2);
    dom0.tap.send(&segment(1, 0x10));
    dom0.run(2);
    let reset = dom0.tap.frames().remove(0);
    assert_eq!((&reset[..6], reset[47]), (&CLIENT[..], 0x04));
    // To an address that is none of its own, or a reset: no answer.
    let mut strange = segment(1, 0x10);
    strange[33] = 99;
    dom0.tap.send(&strange);
    dom0.tap.send(&segment(1, 0x04));
    dom0.run(2);
    assert!(dom0.tap.frames().is_empty());
    assert_eq!(dom0.switch.status().sleepers[0].dropped, 3);
    assert_eq!(dom0.notices(), []);
    assert!(received(&other).is_empty());
}

#[test]
fn what_comes_for_a_guest_that_is_about_to_go_is_held() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    // A guest that runs already may be declared, and one that may not sleep cannot be held.
    assert!(dom0.switch.hold("guest1").is_err());
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    dom0.switch.hold("guest1").unwrap();
    let ack = segment(1, 0x10);
    dom0.tap.send(&ack);
    dom0.tap
        .send(&arp(CLIENT, Ipv4Addr::new(10, 0, 2, 9), ip(1)));
    dom0.run(1);
    assert!(received(&memory).is_empty());
    // The request was answered.
    assert_eq!(dom0.tap.frames().len(), 1);
    let told = |cause| Notice::Wanted {
        name: "guest1".to_owned(),
        cause,
        from: [10, 0, 2, 9].into(),
    };
    assert_eq!(dom0.notices(), [told(WakeFrame::Other)]);
    // It stays, and gets what was held.
    dom0.switch.open("guest1", dom0.now).unwrap();
    assert_eq!(received(&memory), std::slice::from_ref(&ack));
    dom0.tap.send(&ack);
    dom0.run(1);
    assert_eq!(received(&memory).len(), 1);
    // It goes, and the next one gets what was held meanwhile.
    dom0.switch.hold("guest1").unwrap();
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    dom0.switch.detach(1).unwrap();
    assert_eq!(dom0.notices(), [told(WakeFrame::Syn)]);
    let next = dom0.add(1);
    assert_eq!(received(&next), [segment(1, 0x02)]);
}

#[test]
fn a_guest_that_is_held_gets_nothing_that_is_for_all_and_is_told_of_when_it_goes_on() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    let to_all = arp(
        CLIENT,
        Ipv4Addr::new(10, 0, 2, 9),
        Ipv4Addr::new(10, 0, 2, 99),
    );
    dom0.switch.hold("guest1").unwrap();
    for _ in 0..300 {
        dom0.tap.send(&to_all);
        dom0.run(1);
    }
    // It may be paused: its ring would be full when it goes on.
    assert!(received(&memory).is_empty());
    assert_eq!(dom0.switch.status().guests[0].waiting, 0);
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    assert_eq!(dom0.notices().len(), 1);
    dom0.switch.open("guest1", dom0.now).unwrap();
    assert_eq!(received(&memory), [segment(1, 0x02)]);
    memory.borrow_mut().send(0, &datagram(1, CLIENT, b"x"));
    memory.borrow().publish();
    dom0.run(1);
    let notices = dom0.notices();
    assert!(
        matches!(notices.as_slice(), [Notice::Lives { domain: 1, life, .. }] if life.held == 1),
        "{notices:?}"
    );
    // From here on it is like any other.
    dom0.tap.send(&to_all);
    dom0.run(1);
    assert_eq!(received(&memory).len(), 1);
}

#[test]
fn a_paused_guest_has_what_is_for_it_alone_before_it_goes_on() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    assert!(dom0.switch.suspend("guest1", dom0.now).is_err());
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    // What was held while it was about to go comes first.
    dom0.switch.hold("guest1").unwrap();
    dom0.tap.send(&segment(1, 0x10));
    dom0.run(1);
    assert_eq!(dom0.notices().len(), 1);
    dom0.switch.suspend("guest1", dom0.now).unwrap();
    assert_eq!(received(&memory), [segment(1, 0x10)]);
    dom0.switch.open("guest1", dom0.now).unwrap();
    dom0.switch.hold("guest1").unwrap();
    dom0.switch.suspend("guest1", dom0.now).unwrap();
    assert!(received(&memory).is_empty());
    let to_all = arp(
        CLIENT,
        Ipv4Addr::new(10, 0, 2, 9),
        Ipv4Addr::new(10, 0, 2, 99),
    );
    dom0.tap.send(&to_all);
    dom0.tap
        .send(&arp(CLIENT, Ipv4Addr::new(10, 0, 2, 9), ip(1)));
    dom0.tap.send(&segment(1, 0x02));
    dom0.tap.send(&segment(1, 0x10));
    dom0.run(1);
    // The request was answered, and the client told once.
    assert_eq!(dom0.tap.frames().len(), 1);
    assert_eq!(dom0.notices().len(), 1);
    assert_eq!(received(&memory), [segment(1, 0x02), segment(1, 0x10)]);
    memory.borrow_mut().send(0, &datagram(1, CLIENT, b"x"));
    memory.borrow().publish();
    dom0.run(1);
    assert_eq!(dom0.tap.frames().len(), 1);
    let lives = |notices: &[Notice], held| match notices {
        [
            Notice::Lives {
                domain: 1, life, ..
            },
        ] => life.held == held,
        _ => false,
    };
    let notices = dom0.notices();
    assert!(lives(&notices, 2), "{notices:?}");
    // What it has got already is not given again, and from here on it is like any other.
    dom0.switch.open("guest1", dom0.now).unwrap();
    dom0.tap.send(&to_all);
    dom0.run(1);
    assert_eq!(received(&memory), [to_all]);
    // One that goes on without a frame is told of too.
    dom0.switch.suspend("guest1", dom0.now).unwrap();
    dom0.switch.open("guest1", dom0.now).unwrap();
    memory.borrow_mut().send(1, &datagram(1, CLIENT, b"x"));
    memory.borrow().publish();
    dom0.run(1);
    let notices = dom0.notices();
    assert!(lives(&notices, 0), "{notices:?}");
}

#[test]
fn a_paused_guest_gets_no_more_than_its_ring_and_its_queue_take() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    dom0.switch.suspend("guest1", dom0.now).unwrap();
    for _ in 0..2000 {
        dom0.tap.send(&segment(1, 0x02));
        dom0.run(1);
    }
    assert!(!received(&memory).is_empty());
    let status = dom0.switch.status();
    let guest = &status.guests[0];
    assert!(guest.waiting <= 256 && guest.counters.dropped_full > 1000);
    assert_eq!(status.sleepers[0].held, 0);
}

#[test]
fn who_is_declared_is_forgotten_with_the_client() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    // Its own client may declare it again, and no other; and no other guest has its name.
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    assert!(dom0.switch.sleep(sleeper(1), OWNER + 1).is_err());
    let mut namesake = sleeper(2);
    namesake.name = "guest1".to_owned();
    assert!(dom0.switch.sleep(namesake, OWNER).is_err());
    let memory = dom0.add(1);
    dom0.switch.hold("guest1").unwrap();
    dom0.switch.forget_all(OWNER + 1);
    assert_eq!(dom0.switch.status().sleepers.len(), 1);
    dom0.switch.forget_all(OWNER);
    assert!(dom0.switch.status().sleepers.is_empty());
    // The guest is held no more.
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    assert_eq!(received(&memory).len(), 1);
    dom0.switch.detach(1).unwrap();
    dom0.tap
        .send(&arp(CLIENT, Ipv4Addr::new(10, 0, 2, 9), ip(1)));
    dom0.run(1);
    assert!(dom0.tap.frames().is_empty());
}

#[test]
fn who_is_wanted_is_told_again_when_nothing_is_done() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    for (passed, told) in [(0, 1), (1000, 0), (1_000_000_000, 1)] {
        dom0.now += passed;
        dom0.tap.send(&segment(1, 0x02));
        dom0.run(1);
        assert_eq!(dom0.notices().len(), told);
    }
}

#[test]
fn an_address_request_is_answered_for_a_guest_that_has_no_other_address() {
    let mut dom0 = Dom0::new();
    let memory = dom0.add(1);
    let request = arp(CLIENT, Ipv4Addr::new(10, 0, 2, 9), ip(1));
    dom0.tap.send(&request);
    dom0.run(1);
    let answer = dom0.tap.frames().remove(0);
    assert_eq!((&answer[..6], &answer[6..12]), (&CLIENT[..], &mac(1)[..]));
    assert!(received(&memory).is_empty());
    dom0.switch.detach(1).unwrap();
    // Another guest may have other addresses as well: it is asked itself.
    let memory = dom0.add_as(free(1));
    dom0.tap.send(&request);
    dom0.run(1);
    assert!(dom0.tap.frames().is_empty());
    assert_eq!(received(&memory), [request]);
}

#[test]
fn the_first_frames_of_a_guest_are_told_when_it_has_answered() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    let _ = dom0.notices();
    let memory = dom0.add(1);
    let lives = |dom0: &mut Dom0| match dom0.notices().as_slice() {
        [] => None,
        [Notice::Lives { name, domain, life }] => {
            assert_eq!((name.as_str(), *domain), ("guest1", 1));
            let signs: Vec<_> = life.signs.iter().map(|(sign, _)| *sign).collect();
            Some((signs, life.held))
        }
        others => panic!("{others:?}"),
    };
    memory.borrow_mut().send(0, &arp(mac(1), ip(1), ip(9)));
    memory.borrow().publish();
    dom0.run(1);
    assert_eq!(lives(&mut dom0), None);
    memory.borrow_mut().send(1, &datagram(1, CLIENT, b"x"));
    memory.borrow().publish();
    dom0.run(1);
    assert_eq!(lives(&mut dom0), Some((vec![Sign::Frame, Sign::Answer], 1)));
    // One that answers nobody is told of a little later.
    dom0.switch.sleep(sleeper(2), OWNER).unwrap();
    let memory = dom0.add(2);
    memory.borrow_mut().send(0, &arp(mac(2), ip(2), ip(9)));
    memory.borrow().publish();
    dom0.run(2);
    assert_eq!(dom0.notices(), []);
    let until = dom0.switch.rest(dom0.now);
    assert!(matches!(until, Rest::Until(Some(_))), "{until:?}");
    dom0.now += 2_000_000;
    let _ = dom0.switch.rest(dom0.now);
    assert_eq!(dom0.notices().len(), 1);
}

#[test]
fn a_neighbour_solicitation_is_answered_and_a_sleeper_is_forgotten() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
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
fn a_guest_is_served_before_its_event_channels_are_bound() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    let memory = dom0.add_unbound(guest(1));
    memory.borrow_mut().send(0, &datagram(1, CLIENT, b"x"));
    memory.borrow().publish();
    assert!(dom0.switch.turn(dom0.now));
    assert_eq!(dom0.tap.frames().len(), 1);
    // It asked to be notified of what was held for it, and of its own frame, and is when that can be done.
    dom0.run(1);
    assert_eq!(memory.borrow().notified, 0);
    dom0.bind();
    assert_eq!(memory.borrow().notified, 1);
}

#[test]
fn the_announcement_of_a_new_guest_lets_others_pass() {
    let mut dom0 = Dom0::new();
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    let memory = dom0.add(1);
    let announcement = arp(mac(1), ip(1), ip(1));
    let frames = [b"a", b"b"].map(|text| datagram(1, CLIENT, text));
    memory.borrow_mut().send(0, &announcement);
    memory.borrow_mut().send(1, &frames[0]);
    memory.borrow_mut().send(2, &frames[1]);
    memory.borrow().publish();
    dom0.run(1);
    let [a, b] = frames;
    assert_eq!(dom0.tap.frames(), [a, b, announcement]);
}

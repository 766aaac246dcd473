//! Guests whose rings are mapped ahead, and guests that are attached by the name of a declared one.

use super::forwarding::{CLIENT, received};
use super::sleepers::{OWNER, segment, sleeper};
use super::*;
use crate::fake::{datagram, ip, mac};
use crate::switch::{Awake, Guest};

fn awake(domain: u16) -> Awake {
    let Guest {
        name,
        guard,
        rings,
        features,
        ..
    } = guest(domain);
    Awake {
        name,
        guard,
        rings,
        features,
    }
}

#[test]
fn a_guest_that_was_prepared_is_served_under_the_name_that_it_gets() {
    let mut dom0 = Dom0::new();
    let memory = dom0.machines.add(1);
    for buffer in 32..fake::COUNT {
        memory.borrow_mut().post(buffer);
    }
    memory.borrow().publish();
    let wanted = awake(1);
    let (rings, features) = (wanted.rings, wanted.features);
    dom0.switch.prepare(&rings, features, OWNER).unwrap();
    assert!(dom0.switch.prepare(&rings, features, OWNER).is_err());
    assert_eq!(memory.borrow().mapped(), 2);
    // It is looked for if its domain ends, and gets nothing.
    assert_eq!(dom0.switch.frames().collect::<Vec<_>>(), [(1, 0)]);
    assert!(dom0.switch.ended(&[1]).is_empty());
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    assert!(received(&memory).is_empty() && dom0.switch.guests().next().is_none());
    // Nobody of this name was declared.
    assert!(dom0.switch.awake(&wanted).is_err());
    dom0.switch.sleep(sleeper(1), OWNER).unwrap();
    dom0.tap.send(&segment(1, 0x02));
    dom0.run(1);
    let guest = dom0.switch.awake(&wanted).unwrap();
    assert_eq!((guest.mac, guest.ipv4), (mac(1), Some(ip(1))));
    dom0.switch.attach(guest, dom0.now).unwrap();
    assert_eq!(received(&memory), [segment(1, 0x02)]);
    assert!(dom0.switch.prepare(&rings, features, OWNER).is_err());
    assert!(!dom0.switch.unprepare(1));
    dom0.bind();
    memory.borrow_mut().send(0, &datagram(1, CLIENT, b"x"));
    memory.borrow().publish();
    dom0.run(1);
    assert_eq!(dom0.tap.frames().len(), 1);
    dom0.switch.detach(1).unwrap();
    assert_eq!(memory.borrow().mapped(), 0);
}

#[test]
fn what_was_prepared_is_released_with_its_client_or_by_its_number() {
    let mut dom0 = Dom0::new();
    let machines = [1, 2, 3].map(|domain| dom0.machines.add(domain));
    for (domain, owner) in [(1, OWNER), (2, OWNER), (3, OWNER + 1)] {
        let Awake {
            rings, features, ..
        } = awake(domain);
        dom0.switch.prepare(&rings, features, owner).unwrap();
    }
    let mapped = |machines: &[std::rc::Rc<std::cell::RefCell<fake::Memory>>; 3]| {
        machines.each_ref().map(|memory| memory.borrow().mapped())
    };
    assert!(dom0.switch.unprepare(1) && !dom0.switch.unprepare(1));
    assert_eq!(mapped(&machines), [0, 2, 2]);
    dom0.switch.forget_all(OWNER);
    assert_eq!(mapped(&machines), [0, 0, 2]);
    // One with other rings than were prepared is mapped as it is.
    let mut other = guest(3);
    other.features.sg = !other.features.sg;
    dom0.switch.attach(other, dom0.now).unwrap();
    assert_eq!(mapped(&machines), [0, 0, 2]);
    dom0.switch.detach(3).unwrap();
    assert_eq!(mapped(&machines), [0, 0, 0]);
}

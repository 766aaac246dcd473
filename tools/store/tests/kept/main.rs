//! A daemon whose worker is killed: nobody notices.
#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on fails"
)]

mod costs;
mod daemon;
mod machine;
mod pages;
mod script;

use std::time::{Duration, Instant};

use daemon::{Kept, Message, Peer, descriptors, memory};
use machine::POISON;
use mayfly_xenstore::wire::MessageKind;
use script::{GUEST, Step, before, by_hatch, by_xl, run, settle};

#[test]
#[ignore = "the process that the other tests start"]
fn the_daemon() {
    daemon::be_daemon();
}

#[test]
#[ignore = "measures"]
fn costs() {
    println!("| kept | idle domains | READ | most | WRITE | most | pause (ms) | most | KiB |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for domains in [0, 100, 1000] {
        for is_kept in [false, true] {
            costs::print(is_kept, domains);
        }
    }
}

type Seen = Vec<(Peer, Vec<Message>)>;

/// The births and ends of two guests, one by each toolstack.
fn whole(kept: &mut Kept, mut disturb: impl FnMut(&mut Kept, usize, bool)) -> Seen {
    let clients = [(); 3].map(|()| kept.connect());
    let mut seen = run(kept, &before(), None, |_, _, _| ());
    for (domid, steps) in [(7, by_xl(7)), (8, by_hatch(8))] {
        kept.make_ring(domid);
        seen.extend(birth(kept, domid, &steps, &clients, &mut disturb));
    }
    let check = kept.ask(clients[0], MessageKind::Control as u32, b"check\0");
    assert_eq!(check.last().unwrap().1, b"OK\0");
    seen
}

fn birth(
    kept: &mut Kept,
    domid: u16,
    steps: &[Step],
    clients: &[Peer],
    disturb: &mut impl FnMut(&mut Kept, usize, bool),
) -> Seen {
    let mut seen = run(kept, steps, Some(domid), &mut *disturb);
    let all = [clients, &[Peer::Ring(domid)]].concat();
    seen.extend(settle(kept, &all));
    kept.set_state(domid, 2);
    disturb(kept, steps.len(), true);
    std::thread::sleep(Duration::from_millis(20));
    seen.extend(settle(kept, &all));
    kept.set_state(domid, 0);
    disturb(kept, steps.len() + 1, true);
    std::thread::sleep(Duration::from_millis(20));
    seen.extend(settle(kept, clients));
    seen
}

fn undisturbed() -> Seen {
    whole(&mut Kept::start(), |_, _, _| ())
}

fn compare(seen: &Seen, expected: &Seen) {
    for (index, (seen, expected)) in seen.iter().zip(expected).enumerate() {
        assert_eq!(seen, expected, "answer {index}");
    }
    assert_eq!(seen.len(), expected.len());
}

#[test]
fn a_worker_that_is_killed_at_every_request_of_a_birth_is_not_missed() {
    let expected = undisturbed();
    let mut random = fastrand::Rng::with_seed(mayfly_seeds::seed());
    for is_sent in [false, true, true, true] {
        let mut kept = Kept::start();
        let mut kills = 0;
        let seen = whole(&mut kept, |kept, _, now| {
            if now == is_sent {
                let delay = Duration::from_micros(random.u64(0..60));
                let start = Instant::now();
                while start.elapsed() < delay {
                    std::hint::spin_loop();
                }
                kept.kill_worker();
                kills += 1;
            }
        });
        compare(&seen, &expected);
        assert!(kills > 80, "{kills}");
        eprintln!(
            "{kills} kills; the longest time for an answer: {:?}",
            kept.longest
        );
    }
}

#[test]
fn random_requests_have_the_same_answers_with_kills() {
    let mut random = fastrand::Rng::with_seed(mayfly_seeds::seed());
    for _ in 0..3 {
        let steps = script::random(&mut random, 100);
        let mut session = |may_kill: bool| {
            let mut kept = Kept::start();
            let _clients = [(); 3].map(|()| kept.connect());
            kept.make_ring(GUEST);
            run(&mut kept, &steps, Some(GUEST), |kept, _, is_sent| {
                if may_kill && is_sent && random.u8(0..3) == 0 {
                    std::thread::sleep(Duration::from_micros(random.u64(0..40)));
                    kept.kill_worker();
                }
            })
        };
        let expected = session(false);
        compare(&session(true), &expected);
    }
}

#[test]
fn a_worker_may_end_within_any_step_of_the_machine() {
    let expected = undisturbed();
    for place in [
        "attach", "bound", "begin", "emptied", "begun", "notify", "events", "detach", "detached",
    ] {
        let mut kept = Kept::start();
        kept.end_at(place);
        let seen = whole(&mut kept, |_, _, _| ());
        assert!(!kept.is_to_end_at(place), "{place} was not reached");
        compare(&seen, &expected);
    }
}

#[test]
fn a_second_end_during_the_recovery_is_not_missed_either() {
    let expected = undisturbed();
    let mut kept = Kept::start();
    let seen = whole(&mut kept, |kept, index, is_sent| {
        if index % 5 == 3 && is_sent {
            kept.end_at("recover");
            kept.kill_worker();
        }
    });
    compare(&seen, &expected);
}

#[test]
fn a_poisonous_request_costs_its_sender_alone() {
    let mut kept = Kept::start();
    let [sender, other] = [(); 2].map(|()| kept.connect());
    kept.ask(other, MessageKind::Write as u32, b"/a\0there");
    kept.ask(other, MessageKind::Watch as u32, b"/a\0t\0");
    let poison = format!("/a\0n0\0r{POISON}\0");
    let number = kept.send(sender, MessageKind::SetPerms as u32, 0, poison.as_bytes());
    assert_eq!(kept.answer(sender, number), None, "the connection is ended");
    let answers = kept.ask(other, MessageKind::Read as u32, b"/a\0");
    assert_eq!(answers.last().unwrap().1, b"there");
    let log = kept.log();
    assert_eq!(log.matches("a poisonous request").count(), 3, "{log}");
    assert!(log.contains("the connection of a client is ended"), "{log}");
    // The same from a domain: its ring is shut.
    kept.make_ring(5);
    kept.ask(other, MessageKind::Introduce as u32, b"5\x001\x001\0");
    kept.ask(other, MessageKind::SetPerms as u32, b"/a\0n5\0");
    let ring = Peer::Ring(5);
    let number = kept.send(
        ring,
        MessageKind::SetPerms as u32,
        0,
        poison.replace("n0", "n5").as_bytes(),
    );
    assert_eq!(kept.answer(ring, number), None, "the ring is shut");
    assert_eq!(kept.word(5, machine::ERROR), 3);
    let answers = kept.ask(other, MessageKind::Read as u32, b"/a\0");
    assert_eq!(answers.last().unwrap().1, b"there");
}

#[test]
fn a_thousand_kills_leak_nothing() {
    let mut kept = Kept::start();
    let client = kept.connect();
    kept.make_ring(3);
    kept.ask(client, MessageKind::Introduce as u32, b"3\x001\x001\0");
    let round = |kept: &mut Kept, number: usize| {
        let guest = kept.connect();
        let payload = format!("/a/{}\0{number}", number % 10);
        let request = kept.send(guest, MessageKind::Write as u32, 0, payload.as_bytes());
        kept.kill_worker();
        kept.answer(guest, request).unwrap();
        kept.disconnect(guest);
        kept.ask(Peer::Ring(3), MessageKind::Read as u32, b"/a\0");
    };
    let state = |kept: &mut Kept| {
        std::thread::sleep(Duration::from_millis(50));
        let worker = kept.worker().unwrap();
        (descriptors(worker), memory(worker), kept.children().len())
    };
    (0..20).for_each(|number| round(&mut kept, number));
    let (files, kib, children) = state(&mut kept);
    assert_eq!(children, 2);
    (0..1000).for_each(|number| round(&mut kept, number));
    let (files_now, kib_now, children_now) = state(&mut kept);
    assert_eq!((files_now, children_now), (files, children));
    assert!(kib_now < kib + 256, "{kib} KiB before, {kib_now} KiB now");
    eprintln!(
        "{kib} KiB before, {kib_now} KiB now; the longest time: {:?}",
        kept.longest
    );
}

#[test]
fn a_copy_that_is_killed_is_made_again() {
    let mut kept = Kept::start();
    let client = kept.connect();
    kept.ask(client, MessageKind::Write as u32, b"/a\0there");
    for _ in 0..3 {
        let worker = kept.worker().unwrap();
        let copy = kept.children().into_iter().find(|child| *child != worker);
        let copy = rustix::process::Pid::from_raw(copy.unwrap()).unwrap();
        rustix::process::kill_process(copy, rustix::process::Signal::KILL).unwrap();
        std::thread::sleep(Duration::from_millis(50));
        kept.kill_worker();
        let answers = kept.ask(client, MessageKind::Read as u32, b"/a\0");
        assert_eq!(answers.last().unwrap().1, b"there");
    }
}

#[test]
fn the_journal_is_begun_anew_again_and_again() {
    let mut kept = Kept::start();
    let client = kept.connect();
    let value = "x".repeat(1900);
    for number in 0..2000 {
        let payload = format!("/a/{}\0{number}{value}", number % 7);
        if number % 100 == 50 {
            let request = kept.send(client, MessageKind::Write as u32, 0, payload.as_bytes());
            kept.kill_worker();
            kept.answer(client, request).unwrap();
        } else {
            kept.ask(client, MessageKind::Write as u32, payload.as_bytes());
        }
    }
    let answers = kept.ask(client, MessageKind::Read as u32, b"/a/4\0");
    assert!(answers.last().unwrap().1.starts_with(b"1999x"));
}

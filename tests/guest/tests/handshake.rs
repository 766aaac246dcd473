//! Initial sequence numbers and SYN cookies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test may stop at the first surprise"
)]

use mayfly_guest_tests::frames::{self, ACK, FIN, PSH, RST, SYN, Seen, Segment};
use mayfly_guest_tests::peer::{PEER4, Peer, flood, segments};
use mayfly_guest_tests::{Net, Setup};

const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

fn syn(net: &mut Net<'_>, port: u16, options: &[u8]) -> Seen {
    let frame = frames::tcp(
        &Peer::path(),
        &Segment {
            from_port: port,
            to_port: 80,
            seq: 1000,
            flags: SYN,
            window: 60_000,
            options: options.to_vec(),
            ..Segment::default()
        },
    );
    net.deliver(&frame);
    let answers = segments(net, port);
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!((answers[0].flags, answers[0].ack), (SYN | ACK, 1001));
    answers[0].clone()
}

/// The sequence number that the guest answers with.
fn number(net: &mut Net<'_>, port: u16) -> u32 {
    syn(net, port, &[]).seq
}

#[test]
fn sequence_numbers_follow_a_clock_for_one_connection_and_tell_nothing_of_another() {
    let numbers = |random| {
        let mut setup = Setup::new();
        setup.random = Some(random);
        setup.run(|net| {
            net.run_for(1.0);
            let first = number(net, 4000);
            let before = net.now().0;
            // The same ports again, after a reset.
            let mut peer = Peer::new(PEER4, 4000, 80);
            peer.seq = 1001;
            peer.send(net, RST, b"");
            net.run_for(1.0);
            let again = number(net, 4000);
            // RFC 6528: a tick is 4 us.
            let ticks = u32::try_from((net.now().0 - before) / 4000).unwrap();
            let grown = again.wrapping_sub(first);
            assert!(grown.abs_diff(ticks) < 100, "{grown} in {ticks} ticks");
            let mut others: Vec<_> = (4001..4101).map(|port| number(net, port)).collect();
            others.push(again);
            others
        })
    };
    let one = numbers([1; 32]);
    // The numbers of other connections do not help to guess one: neither numbers nor differences are close together.
    let mut high: Vec<_> = one.iter().map(|number| number >> 24).collect();
    high.sort_unstable();
    high.dedup();
    assert!(high.len() > 60, "{high:?}");
    // Another secret gives other numbers.
    let other = numbers([2; 32]);
    assert!(
        one.iter()
            .zip(&other)
            .all(|(one, other)| one.abs_diff(*other) > 1000)
    );
}

#[test]
fn a_reset_between_two_syns_of_one_turn_leads_to_no_other_numbers() {
    Setup::new().run(|net| {
        net.run_for(1.0);
        let segment = |port, flags, seq| Segment {
            from_port: port,
            to_port: 80,
            seq,
            flags,
            window: 1000,
            ..Segment::default()
        };
        let first = number(net, 4000);
        let mut peer = Peer::new(PEER4, 4000, 80);
        peer.seq = 1001;
        peer.send(net, RST, b"");
        let before = net.now().0;
        // An attacker spoofs a SYN, resets it, gets a number for a connection of its own, and spoofs the SYN again.
        for segment in [
            segment(4000, SYN, 1000),
            segment(4000, RST, 1001),
            segment(4001, SYN, 1000),
            segment(4000, SYN, 1000),
        ] {
            net.deliver(&frames::tcp(&Peer::path(), &segment));
        }
        let answers = segments(net, 4000);
        let again = answers.last().expect("a SYN-ACK");
        assert_eq!(again.flags, SYN | ACK);
        let ticks = u32::try_from((net.now().0 - before) / 4000).unwrap() + 100;
        assert!(
            again.seq.wrapping_sub(first) <= ticks,
            "it follows the clock"
        );
    });
}

/// Runs a test on a guest that has as many half-open connections as it may have.
fn flooded<T>(test: impl FnOnce(&mut Net<'_>) -> T) -> T {
    Setup::new().run(|net| {
        net.run_for(1.0);
        flood(net);
        let value = test(net);
        assert_eq!(net.violations(), [""; 0]);
        value
    })
}

/// Requests a page on a connection that a cookie opens. Returns the segments of the answer.
fn ask(net: &mut Net<'_>, port: u16, options: &[u8], bare_ack: bool) -> Vec<Seen> {
    let answer = syn(net, port, options);
    let mut peer = Peer::new(PEER4, port, 80);
    peer.seq = 1001;
    peer.ack = answer.seq.wrapping_add(1);
    peer.window = 60_000;
    if bare_ack {
        assert_eq!(peer.send(net, ACK, b""), []);
    }
    let mut answers = peer.send(net, ACK | PSH, CLOSE);
    answers.extend(peer.send(net, ACK, b""));
    assert_eq!(answers[0].seq, answer.seq.wrapping_add(1));
    assert_eq!(answers[0].ack, peer.seq);
    answers
}

#[test]
fn a_cookie_opens_a_connection_with_the_ack_or_with_the_request_itself() {
    flooded(|net| {
        for (port, bare_ack) in [(4000, true), (4001, false)] {
            let answers = ask(net, port, &[2, 4, 5, 0xb4], bare_ack);
            let payload: Vec<u8> = answers
                .iter()
                .flat_map(|seen| seen.payload.clone())
                .collect();
            assert!(payload.starts_with(b"HTTP/1.1 200"), "{answers:?}");
            assert_ne!(answers.last().unwrap().flags & FIN, 0);
        }
        assert_eq!(net.guest.stack.stats().cookies_taken, 2);
    });
}

#[test]
fn a_cookie_brings_the_mss_back() {
    flooded(|net| {
        // A cookie rounds an MSS of 600 down to 536. The window scale is ignored.
        for (port, mss, longest) in [(4000, 600_u16, 536), (4001, 64, 64)] {
            let [a, b] = mss.to_be_bytes();
            let answers = ask(net, port, &[2, 4, a, b, 3, 3, 7, 0], true);
            let found = answers.iter().map(|seen| seen.payload.len()).max();
            assert_eq!(found, Some(longest), "{mss}");
        }
    });
}

#[test]
fn a_segment_that_answers_no_cookie_is_reset_and_takes_no_slot() {
    flooded(|net| {
        let before = net.guest.stack.stats();
        let answer = syn(net, 4000, &[]);
        for (port, ack) in [
            (4000, answer.seq.wrapping_add(0x101)),
            (4001, answer.seq.wrapping_add(1)),
        ] {
            let mut peer = Peer::new(PEER4, port, 80);
            peer.seq = 1001;
            peer.ack = ack;
            let answers = peer.send(net, ACK, b"");
            assert_eq!(answers.len(), 1);
            assert_ne!(answers[0].flags & RST, 0);
        }
        let after = net.guest.stack.stats();
        assert_eq!(after.connections, before.connections);
        assert_eq!(after.cookies_taken, 0);
        // A cookie is invalid after its time.
        net.run_for(40.0);
        let mut peer = Peer::new(PEER4, 4000, 80);
        peer.seq = 1001;
        peer.ack = answer.seq.wrapping_add(1);
        assert_ne!(peer.send(net, ACK, b"")[0].flags & RST, 0);
    });
}

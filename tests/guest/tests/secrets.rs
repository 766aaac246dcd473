//! A guest's secrets depend on random bytes, and on nothing that another guest shares.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use mayfly::secrets::ROOT;
use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::frames::{self, Question, SYN, Segment};
use mayfly_guest_tests::peer::{Peer, segments};
use mayfly_guest_tests::{Net, Setup};
use mayfly_handoff::network::Random;
use smoltcp::wire::IpEndpoint;

/// The values that are made with a guest's keys: initial sequence numbers, and the server's part of a DNS cookie.
#[derive(Debug, PartialEq, Eq)]
struct Made {
    numbers: Vec<u32>,
    cookie: Vec<u8>,
    /// Whether it warned that its secrets can be guessed.
    is_warned: bool,
}

/// The sequence number with which the guest answers a SYN.
fn number(net: &mut Net<'_>, port: u16) -> u32 {
    let syn = Segment {
        from_port: port,
        to_port: 80,
        seq: 1000,
        flags: SYN,
        window: 60_000,
        ..Segment::default()
    };
    net.deliver(&frames::tcp(&Peer::path(), &syn));
    segments(net, port)[0].seq
}

/// The server's part of the cookie for a client (RFC 9018): nonce, time and hash.
fn cookie(net: &mut Net<'_>) -> Vec<u8> {
    let mut query = frames::dns_query(&Question {
        edns: Some(1232),
        ..Question::a("mayfly.test")
    });
    // COOKIE, with the client's part, in the OPT record at the end.
    let end = query.len();
    query[end - 1] = 12;
    query.extend([0, 10, 0, 8]);
    query.extend(*b"client's");
    let socket = net.client.datagrams();
    let to = IpEndpoint::new(guest4(), 53);
    net.client.send_to(socket, to, &query);
    let mut answer = None;
    net.until(1.0, |net| {
        answer = net.client.receive_from(socket);
        answer.is_some()
    });
    let (answer, _) = answer.unwrap();
    let mut parts = answer.windows(8);
    let at = parts.position(|part| part == b"client's").unwrap();
    answer[at + 8..at + 24].to_vec()
}

/// Boots a guest with these random bytes of its CPU and of its toolstack. Everything else is the same for all.
fn made(cpu: Option<u8>, toolstack: Option<u8>) -> Made {
    let mut setup = Setup::preconnected();
    setup.random = cpu.map(|byte| [byte; ROOT]);
    let network = setup.network.as_mut().unwrap();
    network.random = toolstack.map(|byte| Random([byte; ROOT]));
    setup.run(|net| {
        net.run_for(1.0);
        Made {
            numbers: (4000..4008).map(|port| number(net, port)).collect(),
            cookie: cookie(net),
            is_warned: net.debug().contains("secrets can be guessed"),
        }
    })
}

#[test]
fn guests_that_differ_in_random_bytes_alone_share_no_secret() {
    let kinds = [
        (None, None),
        (Some(1), None),
        (Some(2), None),
        (None, Some(4)),
        (None, Some(8)),
        (Some(1), Some(4)),
        (Some(1), Some(8)),
        (Some(2), Some(4)),
    ];
    let all = kinds.map(|(cpu, toolstack)| made(cpu, toolstack));
    for (at, one) in all.iter().enumerate() {
        let (cpu, toolstack) = kinds[at];
        // The compared values depend on these bytes alone.
        assert_eq!(*one, made(cpu, toolstack));
        assert_eq!(one.is_warned, cpu.is_none() && toolstack.is_none());
        for other in &all[..at] {
            // The nonce and the time of a cookie are no secrets.
            assert_ne!(one.cookie[8..], other.cookie[8..], "{one:?} {other:?}");
            for (a, b) in one.numbers.iter().zip(&other.numbers) {
                assert!(a.abs_diff(*b) > 1000, "{one:?} {other:?}");
            }
        }
    }
}

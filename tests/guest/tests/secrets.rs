//! A guest's secrets depend on its random bytes alone, and each purpose has a key of its own.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use mayfly::secrets::{Entropy, Purpose, ROOT, Root, keyed_hash};
use mayfly_guest_tests::client::guest4;
use mayfly_guest_tests::frames::{self, Question};
use mayfly_guest_tests::peer::{PEER4, flood, initial_number};
use mayfly_guest_tests::{GUEST4, Net, Setup};
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
            numbers: (4000..4008).map(|port| initial_number(net, port)).collect(),
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

/// The root key of the guest in [`made`].
fn root(cpu: u8, toolstack: u8) -> Root {
    let mut network = Setup::preconnected().network;
    if let Some(network) = &mut network {
        network.random = Some(Random([toolstack; ROOT]));
    }
    let entropy = Entropy {
        cpu: Some([cpu; ROOT]),
        ..Entropy::default()
    };
    entropy.root(network.as_ref()).0
}

/// The purposes with a key by which a value can be explained.
fn purposes(root: &Root, explains: impl Fn(&[u8; 16]) -> bool) -> Vec<Purpose> {
    let mut all = vec![
        Purpose::Dns,
        Purpose::Connections,
        Purpose::Sequence,
        Purpose::SynCookie,
        Purpose::Smoltcp,
    ];
    all.retain(|purpose| explains(&root.key(*purpose)));
    all
}

/// The bytes of a connection to port 80 that the guest hashes.
fn tuple(port: u16) -> Vec<u8> {
    let ports = [port.to_be_bytes(), 80_u16.to_be_bytes()];
    [ports.as_flattened(), &PEER4, &GUEST4].concat()
}

/// The low half of a hash.
#[allow(clippy::cast_possible_truncation, reason = "the guest uses this half")]
fn low(hash: u64) -> u32 {
    hash as u32
}

#[test]
fn each_secret_value_is_made_with_the_key_of_its_purpose_and_no_other() {
    let mut setup = Setup::preconnected();
    setup.random = Some([1; ROOT]);
    setup.network.as_mut().unwrap().random = Some(Random([4; ROOT]));
    let root = root(1, 4);
    setup.run(|net| {
        net.run_for(1.0);
        // RFC 9018 section 4.4: client cookie, version, reserved, timestamp and client address are hashed.
        let cookie = cookie(net);
        let input = [b"client's", &cookie[..8], &[10, 0, 2, 2]].concat();
        let dns = purposes(&root, |key| {
            keyed_hash(key, &[&input]).to_le_bytes() == cookie[8..]
        });
        assert_eq!(dns, [Purpose::Dns]);

        // RFC 6528: without the hash, only the clock is left, which is almost the same for both connections.
        let numbers = [4000, 4001].map(|port| (port, initial_number(net, port)));
        let sequence = purposes(&root, |key| {
            let clock = |(port, number): (u16, u32)| {
                number.wrapping_sub(low(keyed_hash(key, &[&tuple(port)])))
            };
            let [one, two] = numbers.map(clock);
            two.wrapping_sub(one) < 1000
        });
        assert_eq!(sequence, [Purpose::Sequence]);

        // All bits but the three of the MSS are those of the hash of period, sequence number and connection.
        flood(net);
        let number = initial_number(net, 4002);
        let period = u32::try_from(net.instant().secs() / 16).unwrap();
        let times = [period.to_le_bytes(), 1000_u32.to_le_bytes()];
        let syn_cookie = purposes(&root, |key| {
            let hash = low(keyed_hash(key, &[times.as_flattened(), &tuple(4002)]));
            (hash ^ number) >> 3 == 0
        });
        assert_eq!(syn_cookie, [Purpose::SynCookie]);
    });
}

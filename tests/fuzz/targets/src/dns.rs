//! One DNS query, over UDP and TCP, with and without what may be left out, from the zones of the
//! unit tests.
//!
//! Input: the bytes of room for the answer (times 8); flags: minimal answers, a limit of one answer
//! a second; the query.

use std::num::NonZeroU16;
use std::sync::OnceLock;

use mayfly_dns::{Client, Identity, Server, ServerConfig, Transport, UDP_MAX};

use crate::model;

static ZONES: OnceLock<model::Model> = OnceLock::new();

/// Runs one input.
pub fn run(data: &[u8]) {
    let [room, flags, query @ ..] = data else {
        return;
    };
    let zones = ZONES.get_or_init(model::zones);
    let room = usize::from(*room) * 8;
    let mut config = ServerConfig::new([7; 16]);
    config.identity = Identity::from_slice(b"me").unwrap();
    config.minimal = flags & 1 != 0;
    config.rate_limit = NonZeroU16::new(u16::from(flags & 2));
    let mut server = Server::new(config);
    let mut out = [0; 2048];
    for transport in [Transport::Udp, Transport::Tcp, Transport::Udp] {
        let client = Client {
            address: [192, 0, 2, 1].into(),
            transport,
        };
        let answer = server.answer(zones, 0, 0, client, query, &mut out[..room]);
        assert_eq!(server.stats.broken, 0);
        let Some(written) = answer else {
            continue;
        };
        assert!(written >= 12 && written <= room);
        assert!(transport == Transport::Tcp || written <= usize::from(UDP_MAX));
        assert_eq!(out[..2], query[..2], "ID");
        assert_eq!((query[2] & 0x80, out[2] & 0x80), (0, 0x80), "QR");
        assert_eq!(query[2] & 0x79, out[2] & 0x79, "opcode and RD");
        assert_eq!(out[3] & 0xf0, 0, "RA, AD and CD");
        let counts: [u16; 4] =
            std::array::from_fn(|at| u16::from_be_bytes([out[4 + 2 * at], out[5 + 2 * at]]));
        let mut at = 12;
        assert!(counts[0] <= 1);
        if counts[0] == 1 {
            at = skip_name(&out[..written], at) + 4;
            assert_eq!(out[12..at], query[12..at], "the question as it came");
        }
        for _ in 0..counts[1] + counts[2] + counts[3] {
            at = skip_name(&out[..written], at);
            at += 10 + usize::from(u16::from_be_bytes([out[at + 8], out[at + 9]]));
        }
        assert_eq!(at, written, "records that were announced, and nothing else");
    }
}

/// The offset of the end of the name at `at`. Every pointer points backwards.
fn skip_name(message: &[u8], mut at: usize) -> usize {
    let mut end = None;
    loop {
        match message[at] {
            0 => return end.unwrap_or(at + 1),
            length @ 1..64 => at += 1 + usize::from(length),
            high => {
                assert!(high >= 0xc0);
                let target = usize::from(high & 0x3f) << 8 | usize::from(message[at + 1]);
                assert!(target < at && target >= 12);
                end.get_or_insert(at + 2);
                at = target;
            }
        }
    }
}

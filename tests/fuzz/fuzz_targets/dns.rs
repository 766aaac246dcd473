//! One DNS message: over UDP, over TCP, and as a stream in two pieces.
//!
//! Input: the octets of room for the answer (times 8), where the stream is cut, the message.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly::services::dns::{Connection, Stats, TCP_QUERY_MAX, Transport, UDP_MAX, answer};
use mayfly::services::site::BuiltIn;
use mayfly::services::{Input, Next};

fuzz_target!(|data: &[u8]| {
    let [room, cut, message @ ..] = data else {
        return;
    };
    let site = BuiltIn::new("10.0.2.80".parse().ok(), "fd00::80".parse().ok());
    let room = usize::from(*room) * 8;
    let mut out = [0; 2048];
    let mut stats = Stats::default();

    for transport in [Transport::Udp, Transport::Tcp] {
        let Some(written) = answer(&site, message, transport, &mut out[..room], &mut stats) else {
            continue;
        };
        assert!(written >= 12 && written <= room);
        assert!(transport == Transport::Tcp || written <= usize::from(UDP_MAX));
        assert_eq!(out[..2], message[..2], "ID");
        assert_eq!((message[2] & 0x80, out[2] & 0x80), (0, 0x80), "QR");
        assert_eq!(message[2] & 0x79, out[2] & 0x79, "opcode and RD");
        assert_eq!(out[3] & 0xf0, 0, "RA and Z");
        let question = usize::from(u16::from_be_bytes([out[4], out[5]]));
        assert!(question <= 1);
        if question == 1 {
            let name_end = 12 + message[12..].iter().position(|&octet| octet == 0).unwrap();
            assert_eq!(
                out[12..name_end],
                message[12..name_end],
                "the question as it came"
            );
        }
    }

    let Ok(length) = u16::try_from(message.len()) else {
        return;
    };
    let stream = [
        &length.to_be_bytes(),
        message,
        &length.to_be_bytes(),
        message,
    ]
    .concat();
    let once = stream.len() / 2;
    let mut answers = Vec::new();
    let mut connection = Connection::new(0);
    let mut start = 0;
    for end in [usize::from(*cut).min(stream.len()), stream.len()] {
        let input = Input {
            octets: &stream[start.min(end)..end],
            ended: end == stream.len(),
        };
        let progress = connection.process(0, &site, input, &mut out, 1000, &mut stats);
        assert!(progress.consumed <= input.octets.len() && progress.written <= out.len());
        answers.extend_from_slice(&out[..progress.written]);
        start += progress.consumed;
        if progress.next == Next::Abort {
            assert!(message.len() < 12 || message.len() > TCP_QUERY_MAX);
            return;
        }
        // Whole queries for which there is room do not stay.
        assert!(end - start < once || progress.written + 1000 > out.len());
    }
    let (first, second) = answers.split_at(answers.len() / 2);
    assert_eq!(first, second, "the same question, the same answer");
});

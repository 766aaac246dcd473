//! A stream of DNS messages over TCP: whatever it is cut into, the same answers come back.
//!
//! Input: bytes of a piece; bytes of room for an answer (times 8); the stream.

use std::sync::OnceLock;

use mayfly_dns::{Connection, Server, ServerConfig};
use mayfly_stream::{Input, Next};

use crate::model;

static ZONES: OnceLock<model::Model> = OnceLock::new();

/// Runs one input.
pub fn run(data: &[u8]) {
    let [step, room, stream @ ..] = data else {
        return;
    };
    let room = usize::from(*room) * 8;
    let whole = answers(stream, stream.len().max(1), room);
    let pieces = answers(stream, usize::from(*step).max(1), room);
    assert_eq!(whole, pieces);
    // Each answer has its length before it.
    let mut rest = &whole.0[..];
    while let Some((length, tail)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes(*length));
        assert!((12..=room - 2).contains(&length));
        assert!(tail[2] & 0x80 != 0, "QR");
        rest = &tail[length..];
    }
    assert!(rest.is_empty());
}

/// The answers to a stream and its end, if all answers are taken at once.
fn answers(stream: &[u8], step: usize, room: usize) -> (Vec<u8>, Next, u32) {
    let zones = ZONES.get_or_init(model::zones);
    let mut server = Server::new(ServerConfig::new([7; 16]));
    let mut connection = Connection::new(0);
    let (mut buffer, mut sent) = (Vec::new(), Vec::new());
    let mut out = [0; 2048];
    let mut pieces = stream.chunks(step);
    // A transfer may take a call for each message that it is made of.
    for _ in 0..stream.len() + 10_000 {
        let piece = pieces.next();
        buffer.extend_from_slice(piece.unwrap_or_default());
        let input = Input {
            bytes: &buffer,
            ended: piece.is_none(),
        };
        let address = [192, 0, 2, 1].into();
        let progress = connection.process(&mut server, zones, 0, 0, address, input, &mut out, room);
        assert!(progress.consumed <= buffer.len() && progress.written <= out.len());
        buffer.drain(..progress.consumed);
        sent.extend_from_slice(&out[..progress.written]);
        if progress.next != Next::Keep {
            return (sent, progress.next, server.stats.aborted);
        }
        if piece.is_none() && progress.written == 0 {
            // Only room that there never is can be missing.
            assert!(room > out.len() || room < 2);
            return (sent, Next::Keep, 0);
        }
    }
    panic!("an end");
}

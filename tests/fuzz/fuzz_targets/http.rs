//! An HTTP connection: the same octets in one piece and in several, with room for a few at a time.
//!
//! Input: the length of a piece, the octets of room, the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly::services::http::{Connection, Stats};
use mayfly::services::site::{Body, Page, Pages};
use mayfly::services::{Input, Next};

const HEAD_MAX: usize = 256;

struct Site;

impl Pages for Site {
    fn page(&self, path: &[u8]) -> Option<Page<'_>> {
        let body = match path {
            b"/" => Body::Octets(b"<p>"),
            b"/a b" => Body::Octets(&[0x80; 700]),
            b"/r" => Body::Rendered(&"rendered"),
            _ => return None,
        };
        Some(Page {
            content_type: "text/html",
            body,
        })
    }
}

fn feed(stream: &[u8], piece: usize, room: usize) -> Vec<u8> {
    let mut connection = Connection::new(0, HEAD_MAX);
    let mut stats = Stats::default();
    let (mut start, mut end) = (0, 0);
    let (mut sent, mut out) = (Vec::new(), vec![0; room]);
    loop {
        let input = Input {
            octets: &stream[start..end],
            ended: end == stream.len(),
        };
        let progress = connection.process(0, 0, input, &mut out, &Site, &mut stats);
        start += progress.consumed;
        assert!(start <= end);
        sent.extend_from_slice(&out[..progress.written]);
        match progress.next {
            Next::Close => return sent,
            Next::Abort => panic!("no deadline has passed"),
            Next::Keep if progress.written > 0 => {}
            Next::Keep => {
                assert!(!input.ended, "neither done nor getting on");
                end = stream.len().min(end + piece);
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let [piece, room, stream @ ..] = data else {
        return;
    };
    let whole = feed(stream, stream.len() + 1, 1 << 16);
    let pieces = feed(stream, usize::from(*piece) + 1, usize::from(*room) + 1);
    assert!(whole == pieces, "the same octets, the same responses");
    assert!(whole.is_empty() || whole.starts_with(b"HTTP/1.1 "));
});

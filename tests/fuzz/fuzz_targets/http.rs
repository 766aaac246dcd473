//! An HTTP connection: the same octets in one piece and in several, with room for a few at a time.
//!
//! Input: the length of a piece, the octets of room, the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mayfly::services::http::{Connection, Shared};
use mayfly::services::site::{Broken, Coding, File, Pages, Resource, Variant};
use mayfly::services::{Input, Next};

const HEAD_MAX: usize = 512;
const BODY: &[u8] = &[0x80; 700];
const IDENTITY: &[u8] = b"ETag: \"tag\"\r\nContent-Type: text/plain\r\nContent-Length: 700\r\n";
const GZIP: &[u8] =
    b"ETag: \"gzip\"\r\nContent-Encoding: gzip\r\nContent-Type: text/plain\r\nContent-Length: 9\r\n";

struct Site;

fn file() -> File<'static> {
    let identity = Variant {
        coding: Coding::Identity,
        etag: b"\"tag\"",
        lines: IDENTITY,
        common: 13,
        encoded: 13,
        typed: 39,
        body: BODY,
    };
    let gzip = Variant {
        coding: Coding::Gzip,
        etag: b"\"gzip\"",
        lines: GZIP,
        common: 14,
        encoded: 38,
        typed: 64,
        body: b"\x1f\x8bseven..",
    };
    File {
        modified: 784_111_777,
        variants: [Some(gzip), Some(identity), None, None],
    }
}

impl Pages for Site {
    fn resource(&self, host: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken> {
        assert!(host.len() <= 255 && !host.iter().any(u8::is_ascii_uppercase));
        assert!(path.starts_with(b"/") && !path.contains(&0));
        assert!(
            path.split(|&octet| octet == b'/')
                .all(|segment| segment != b"..")
        );
        Ok(match path {
            b"/" | b"/alphabet.txt" | b"/lines.txt" | b"/a b.txt" => Some(Resource::File(file())),
            b"/old" => Some(Resource::Redirect {
                status: 301,
                location: b"/new#top",
            }),
            b"/rendered" => Some(Resource::Rendered {
                content_type: "text/plain",
                text: &"rendered",
            }),
            b"/payload" => Some(Resource::Payload(100)),
            b"/broken" => return Err(Broken),
            _ => None,
        })
    }

    fn error_page(&self, host: &[u8], status: u16) -> Result<Option<File<'_>>, Broken> {
        Ok((host == b"b.test" && status == 404).then(file))
    }
}

fn feed(stream: &[u8], piece: usize, room: usize) -> (Vec<u8>, Shared) {
    let mut connection = Connection::new(0, HEAD_MAX);
    let mut shared = Shared::default();
    let (mut start, mut end) = (0, 0);
    let (mut sent, mut out) = (Vec::new(), vec![0; room]);
    loop {
        let input = Input {
            octets: &stream[start..end],
            ended: end == stream.len(),
        };
        let progress = connection.process(0, 0, input, &mut out, &Site, &mut shared);
        start += progress.consumed;
        assert!(start <= end);
        sent.extend_from_slice(&out[..progress.written]);
        match progress.next {
            Next::Close => return (sent, shared),
            Next::Abort => panic!("no deadline has passed"),
            Next::Keep if progress.written > 0 => {}
            Next::Keep => {
                assert!(!input.ended, "neither done nor getting on");
                end = stream.len().min(end + piece);
            }
        }
    }
}

/// How many responses some octets are, the 100s among them.
fn responses(mut sent: &[u8]) -> u64 {
    let mut count = 0;
    while !sent.is_empty() {
        let end = sent.windows(4).position(|octets| octets == b"\r\n\r\n");
        let (head, rest) = sent.split_at(end.expect("a whole head") + 4);
        assert!(head.starts_with(b"HTTP/1.1 "));
        let head = std::str::from_utf8(head).expect("no octets of the request but in Location");
        let length = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("Content-Length: "));
        let length: usize = length.map_or(0, |length| length.parse().expect("a number"));
        sent = if rest.is_empty() || rest.starts_with(b"HTTP/1.1 ") {
            rest
        } else {
            rest.get(length..).expect("as much content as was promised")
        };
        count += 1;
    }
    count
}

fuzz_target!(|data: &[u8]| {
    let [piece, room, stream @ ..] = data else {
        return;
    };
    let (whole, shared) = feed(stream, stream.len() + 1, 1 << 16);
    let (pieces, _) = feed(stream, usize::from(*piece) + 1, usize::from(*room) + 1);
    assert!(whole == pieces, "the same octets, the same responses");
    if !stream.contains(&b'?') {
        let counted: u64 = shared.stats.statuses().map(|(_, count)| count).sum();
        assert_eq!(responses(&whole), counted);
    }
});

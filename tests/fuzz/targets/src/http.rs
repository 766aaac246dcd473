//! An HTTP connection: the same bytes in one piece and in several, with room for a few at a time.
//!
//! Input: the length of a piece, the bytes of room, the stream.

use mayfly_http_tests::feed;
use mayfly_site::{Broken, Coding, File, Pages, Resource, Variant};

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
            path.split(|&byte| byte == b'/')
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

    fn lines(&self, _: &[u8], path: &[u8]) -> Result<&[u8], Broken> {
        Ok(if path == b"/old" {
            b"X-Own: 1\r\n"
        } else {
            b""
        })
    }
}

/// The number of responses in some bytes, including the 100s.
fn responses(mut sent: &[u8]) -> u64 {
    let mut count = 0;
    while !sent.is_empty() {
        let end = sent.windows(4).position(|bytes| bytes == b"\r\n\r\n");
        let (head, rest) = sent.split_at(end.expect("a whole head") + 4);
        assert!(head.starts_with(b"HTTP/1.1 "));
        let head = std::str::from_utf8(head).expect("no bytes of the request but in Location");
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

/// Runs one input.
pub fn run(data: &[u8]) {
    let [piece, room, stream @ ..] = data else {
        return;
    };
    let (piece, room) = (usize::from(*piece) + 1, usize::from(*room) + 1);
    let (whole, shared) = feed(&Site, HEAD_MAX, stream, usize::MAX, 1 << 16).unwrap();
    let (pieces, _) = feed(&Site, HEAD_MAX, stream, piece, room).unwrap();
    assert!(whole == pieces, "the same bytes, the same responses");
    if !stream.contains(&b'?') {
        let counted: u64 = shared.stats.statuses().map(|(_, count)| count).sum();
        assert_eq!(responses(&whole), counted);
    }
}

//! A site with resources of every kind, and connections to it.

use super::*;

/// A file with one variant for each coding, with header lines as in a pack.
pub(super) struct Stored {
    pub(super) etags: [String; 4],
    pub(super) lines: [(String, [usize; 3]); 4],
    pub(super) bodies: [Vec<u8>; 4],
}

pub(super) const CODINGS: [(Coding, &str); 4] = [
    (Coding::Identity, ""),
    (Coding::Gzip, "gzip"),
    (Coding::Brotli, "br"),
    (Coding::Zstd, "zstd"),
];

impl Stored {
    pub(super) fn new(content_type: &str, body: &[u8]) -> Self {
        let etags = CODINGS.map(|(_, name)| format!("\"{}{name}\"", body.len()));
        let bodies = CODINGS.map(|(_, name)| [name.as_bytes(), body].concat());
        let lines = core::array::from_fn(|n| {
            let common = format!("ETag: {}\r\nVary: Accept-Encoding\r\n", etags[n]);
            let encoded = match CODINGS[n].1 {
                "" => String::new(),
                name => format!("Content-Encoding: {name}\r\n"),
            };
            let typed = format!("Content-Type: {content_type}\r\n");
            let marks = [0, encoded.len(), encoded.len() + typed.len()];
            let marks = marks.map(|mark| mark + common.len());
            let length = format!("Content-Length: {}\r\n", bodies[n].len());
            (common + &encoded + &typed + &length, marks)
        });
        Self {
            etags,
            lines,
            bodies,
        }
    }

    pub(super) fn variant(&self, n: usize) -> Variant<'_> {
        let (lines, [common, encoded, typed]) = &self.lines[n];
        Variant {
            coding: CODINGS[n].0,
            etag: self.etags[n].as_bytes(),
            lines: lines.as_bytes(),
            common: *common,
            encoded: *encoded,
            typed: *typed,
            body: &self.bodies[n],
        }
    }

    pub(super) fn file(&self) -> File<'_> {
        File {
            modified: NOW - 1000,
            variants: core::array::from_fn(|n| Some(self.variant(n))),
        }
    }
}

/// A site with resources of every kind.
pub(super) struct Site {
    pub(super) index: Stored,
    pub(super) other: Stored,
    pub(super) empty: Stored,
    pub(super) space: Stored,
    pub(super) large: Stored,
    pub(super) missing: Stored,
}

/// Renders this many digits.
pub(super) struct Digits(usize);

impl fmt::Display for Digits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (0..self.0).try_for_each(|digit| write!(f, "{}", digit % 10))
    }
}

impl Pages for Site {
    fn resource(&self, host: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken> {
        let rendered = |text| Resource::Rendered {
            content_type: "application/json",
            text,
        };
        let redirect = |status, location| Resource::Redirect { status, location };
        Ok(Some(match (host, path) {
            (b"other", b"/") => Resource::File(self.other.file()),
            (_, b"/") => Resource::File(self.index.file()),
            (_, b"/empty") => Resource::File(self.empty.file()),
            (_, b"/a b") => Resource::File(self.space.file()),
            (_, b"/large") => Resource::File(self.large.file()),
            (_, b"/rendered") => rendered(&Digits(12)),
            (_, b"/longest") => rendered(&Digits(RENDERED_MAX)),
            (_, b"/too-long") => rendered(&Digits(RENDERED_MAX + 1)),
            (_, b"/payload") => Resource::Payload(3000),
            (_, b"/old") => redirect(301, b"/new"),
            (_, b"/old-query") => redirect(308, b"/new?a"),
            (_, b"/old-fragment") => redirect(302, b"/new#a"),
            (_, b"/bad-redirect") => redirect(200, b"/"),
            (_, b"/broken") => return Err(Broken),
            (_, b"/no-identity") => Resource::File(File {
                modified: 0,
                variants: [None; 4],
            }),
            (_, b"/bad-lines") => {
                let mut file = self.index.file();
                for variant in file.variants.iter_mut().flatten() {
                    (variant.common, variant.typed) = (1000, 1000);
                }
                Resource::File(file)
            }
            _ => return Ok(None),
        }))
    }

    fn error_page(&self, host: &[u8], status: u16) -> Result<Option<File<'_>>, Broken> {
        match (host, status) {
            (b"other", 404) => Ok(Some(self.missing.file())),
            (b"broken", _) => Err(Broken),
            _ => Ok(None),
        }
    }

    fn lines(&self, _: &[u8], _: &[u8]) -> Result<&[u8], Broken> {
        Ok(b"")
    }
}

pub(super) fn site() -> Site {
    let large: Vec<_> = (0..20_000_u32).map(|n| n.to_le_bytes()[0] | 0x80).collect();
    site_with(&large)
}

pub(super) fn site_with(large: &[u8]) -> Site {
    Site {
        index: Stored::new("text/html", b"<p>"),
        other: Stored::new("text/html", b"<p>other"),
        empty: Stored::new("text/plain", b""),
        space: Stored::new("text/plain", b"space"),
        large: Stored::new("image/x", large),
        missing: Stored::new("text/html", b"<p>missing"),
    }
}

pub(super) const HEAD_LIMIT: usize = 1024;
pub(super) const NOW: u64 = 784_111_777;

pub(super) fn at(now: Millis) -> Moment {
    Moment {
        now,
        unix_seconds: Some(NOW),
    }
}
pub(super) const DATE: &str = "Date: Sun, 06 Nov 1994 08:49:37 GMT";

/// Feeds a stream to a connection in pieces that end at `cuts`, with room for `size` bytes at a time. Returns the bytes
/// that the connection sends.
pub(super) fn feed(
    site: &Site,
    stream: &[u8],
    mut cuts: impl Iterator<Item = usize>,
    size: usize,
) -> Vec<u8> {
    let mut connection = Connection::new(0, HEAD_LIMIT);
    let mut shared = Shared::default();
    let (mut start, mut end) = (0, 0);
    let mut sent = Vec::new();
    let mut out = std::vec![0; size];
    loop {
        let ended = end == stream.len();
        let input = Input {
            bytes: &stream[start..end],
            ended,
        };
        let progress = connection.process(at(0), input, &mut out, site, &mut shared);
        start += progress.consumed;
        assert!(start <= end, "no more is consumed than there is");
        sent.extend_from_slice(&out[..progress.written]);
        match progress.next {
            Next::Keep if progress.written > 0 => {}
            Next::Keep if ended => panic!("neither done nor getting on"),
            Next::Keep => end = cuts.next().unwrap_or(stream.len()).clamp(end, stream.len()),
            Next::Close => return sent,
            Next::Abort => panic!("abort without a deadline"),
        }
    }
}

pub(super) fn whole(site: &Site, stream: &[u8]) -> Vec<u8> {
    feed(site, stream, core::iter::empty(), 1 << 20)
}

/// A summary of each response: `status content-length[ head][ other lines]`.
pub(super) fn summary(mut sent: &[u8]) -> Vec<String> {
    let mut responses = Vec::new();
    while !sent.is_empty() {
        let end = sent
            .windows(4)
            .position(|bytes| bytes == b"\r\n\r\n")
            .expect("a whole head");
        let head = core::str::from_utf8(&sent[..end]).unwrap();
        sent = &sent[end + 4..];
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().strip_prefix("HTTP/1.1 ").unwrap();
        let mut text = String::from(&status[..3]);
        if text != "100" {
            assert_eq!(lines.next(), Some("Server: mayfly"));
            assert_eq!(lines.next(), Some(DATE));
        }
        let mut rest: Vec<_> = lines.collect();
        let length = rest
            .iter()
            .position(|line| line.starts_with("Content-Length: "));
        if let Some(length) = length.map(|at| rest.remove(at)) {
            let length: usize = length["Content-Length: ".len()..].parse().unwrap();
            text = format!("{text} {length}");
            if !sent.starts_with(b"HTTP/1.1 ") && !sent.is_empty() {
                sent = &sent[length..];
            } else if length > 0 {
                text += " head";
            }
        }
        rest.retain(|line| {
            !["Content-Type: ", "ETag: ", "Vary: "]
                .iter()
                .any(|name| line.starts_with(name))
        });
        responses.push([&[text.as_str()], &rest[..]].concat().join(" "));
    }
    responses
}

/// A connection whose clock is set by the test.
pub(super) struct Timed<'s> {
    pub(super) site: &'s Site,
    pub(super) connection: Connection<'s>,
    pub(super) shared: Shared,
}

impl<'s> Timed<'s> {
    pub(super) fn new(site: &'s Site) -> Self {
        Self {
            site,
            connection: Connection::new(0, HEAD_LIMIT),
            shared: Shared::default(),
        }
    }

    /// The bytes sent, and whether the connection goes on.
    pub(super) fn at(
        &mut self,
        now: Millis,
        bytes: &[u8],
        ended: bool,
        room: usize,
    ) -> (Vec<u8>, Next) {
        let mut out = std::vec![0; room];
        let input = Input { bytes, ended };
        let progress =
            self.connection
                .process(at(now), input, &mut out, self.site, &mut self.shared);
        out.truncate(progress.written);
        (out, progress.next)
    }

    /// The numbers of responses, and of connections that expired, that were reset, and that were closed within a
    /// request.
    pub(super) fn figures(&self) -> (u64, u64, u64, u64) {
        let stats = &self.shared.stats;
        let responses = stats.statuses().map(|(_, count)| count).sum();
        (responses, stats.expired, stats.aborted, stats.incomplete)
    }
}

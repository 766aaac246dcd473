//! Files with their variants and complete header lines.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mayfly_site::Coding;
use mayfly_site::date::imf_fixdate;
use mayfly_site::pack::ACCEPT_RANGES;

use super::super::config::Checked;
use super::super::problem::Findings;
use super::compress::{self, Read};
use super::lines;
use super::scan::Found;
use super::spool::Spool;
use super::types::media_type;
use super::{Body, Source};

/// The size in bytes from which on a body begins at a page of its own.
const LARGE: u64 = 64 << 10;

/// A variant of a file.
pub(super) struct Variant {
    pub(super) coding: Coding,
    pub(super) lines: String,
    pub(super) etag: usize,
    pub(super) common: usize,
    pub(super) encoded: usize,
    pub(super) typed: usize,
    pub(super) at: u64,
    pub(super) bytes: u64,
}

/// A file that can be served.
pub(super) struct Page {
    pub(super) modified: u64,
    pub(super) variants: Vec<Variant>,
}

/// Reads all files, as many at a time as there are threads. A file that cannot be read is an error.
pub(super) fn read_all(
    files: &[Found],
    config: &Checked,
    threads: usize,
    spool: &Spool,
    findings: &mut Findings,
) -> Vec<Option<Read>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<io::Result<Read>>>> =
        files.iter().map(|_| Mutex::new(None)).collect();
    let threads = threads.clamp(1, 64).min(files.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(number) = Some(next.fetch_add(1, Ordering::Relaxed))
                    && let (Some(file), Some(result)) = (files.get(number), results.get(number))
                {
                    let media_type = media_type(&file.path, config);
                    let read = compress::read(file, &media_type, &config.config.compression, spool);
                    if let Ok(mut place) = result.lock() {
                        *place = Some(read);
                    }
                }
            });
        }
    });
    let mut read = Vec::new();
    for (file, result) in files.iter().zip(results) {
        let result = result.into_inner().ok().flatten();
        let result = result.unwrap_or_else(|| Err(io::Error::other("not read")));
        let result = result.map_err(|error| {
            findings.error(&file.shown, None, format!("cannot be read: {error}"));
        });
        read.push(result.ok());
    }
    read
}

/// The bodies. Equal bodies are stored once.
#[derive(Default)]
pub(super) struct Bodies {
    pub(super) list: Vec<Body>,
    pub(super) bytes: u64,
    /// The known bodies, by the digest of their source.
    known: HashMap<([u8; 32], u8), (u64, u64)>,
}

impl Bodies {
    /// Adds a body. Returns its offset and its size.
    fn add(&mut self, digest: [u8; 32], coding: Coding, source: Source) -> (u64, u64) {
        let bytes = source.bytes();
        *self.known.entry((digest, coding as u8)).or_insert_with(|| {
            let align = if bytes >= LARGE { 4096 } else { 16 };
            let at = self.bytes.next_multiple_of(align);
            self.bytes = at + bytes;
            self.list.push(Body { at, source });
            (at, bytes)
        })
    }
}

/// Makes a file with its variants and complete header lines.
pub(super) fn page(found: &Found, read: Read, config: &Checked, bodies: &mut Bodies) -> Page {
    let path = &found.path;
    let modified = found.modified.seconds;
    let own = lines::at(path, &read.media_type, config);
    let cache = config.cache.iter();
    let cache = cache.rev().find(|rule| rule.fits(path, &read.media_type));

    let mut common = String::new();
    if modified != 0 {
        let date = imf_fixdate(modified);
        common = format!("Last-Modified: {}\r\n", String::from_utf8_lossy(&date));
    }
    for (name, value) in cache.iter().flat_map(|rule| &rule.lines) {
        common.push_str(&format!("{name}: {value}\r\n"));
    }
    if !read.variants.is_empty() {
        common.push_str("Vary: Accept-Encoding\r\n");
    }
    common.push_str(&String::from_utf8_lossy(ACCEPT_RANGES));
    common.push_str(&own);
    let digest: String = read.digest[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();

    let identity = match read.made {
        Some(kept) => Source::Made(kept),
        None => Source::File {
            path: found.file.clone(),
            shown: found.shown.clone(),
            bytes: read.bytes,
            digest: read.digest,
        },
    };
    let sources = read
        .variants
        .into_iter()
        .map(|(coding, kept)| (coding, Source::Made(kept)))
        .chain([(Coding::Identity, identity)]);
    let variants = sources.map(|(coding, source)| {
        let (suffix, token) = match coding {
            Coding::Identity => ("", None),
            Coding::Gzip => ("-gz", Some("gzip")),
            Coding::Brotli => ("-br", Some("br")),
            Coding::Zstd => ("-zst", Some("zstd")),
        };
        let (at, bytes) = bodies.add(read.digest, coding, source);
        let mut lines = format!("ETag: \"{digest}{suffix}\"\r\n{common}");
        let common = lines.len();
        if let Some(token) = token {
            lines.push_str(&format!("Content-Encoding: {token}\r\n"));
        }
        let encoded = lines.len();
        lines.push_str(&format!("Content-Type: {}\r\n", read.media_type));
        let typed = lines.len();
        lines.push_str(&format!("Content-Length: {bytes}\r\n"));
        Variant {
            coding,
            lines,
            etag: digest.len() + suffix.len() + 2,
            common,
            encoded,
            typed,
            at,
            bytes,
        }
    });
    Page {
        modified,
        variants: variants.collect(),
    }
}

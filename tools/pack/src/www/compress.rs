//! What there is to say of a file, and its compressed variants.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use mayfly_site::Coding;
use sha2::{Digest, Sha256};

use super::super::config::Compression;
use super::scan::Found;

/// Larger files are not compressed, and not read into memory.
const LARGE: u64 = 32 << 20;
/// Smaller files are not compressed.
const SMALL: usize = 256;
/// Brotli of files beyond this size takes a quality that is ten times as fast.
const BROTLI_SLOW: usize = 1 << 20;

/// A file that was read.
pub(super) struct Read {
    pub(super) octets: u64,
    pub(super) digest: [u8; 32],
    /// With the charset, where it is known.
    pub(super) media_type: String,
    /// Smaller than the file, the smallest first.
    pub(super) variants: Vec<(Coding, Vec<u8>)>,
}

/// Reads a file to the end.
pub(super) fn read(found: &Found, media_type: &str, compression: &Compression) -> io::Result<Read> {
    let mut file = File::open(&found.file)?;
    let mut media_type = media_type.to_owned();
    if file.metadata()?.len() > LARGE {
        let mut hash = Sha256::new();
        let mut octets = 0;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let read = file.read(&mut buffer)?;
            let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
                break;
            };
            hash.update(part);
            octets += part.len() as u64;
        }
        return Ok(Read {
            octets,
            digest: hash.finalize().into(),
            media_type,
            variants: Vec::new(),
        });
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    if media_type.starts_with("text/")
        && !media_type.contains(';')
        && std::str::from_utf8(&content).is_ok()
    {
        media_type.push_str("; charset=utf-8");
    }
    let mut variants = Vec::new();
    if content.len() >= SMALL && compressible(&media_type) {
        if compression.gzip {
            variants.push((Coding::Gzip, gzip(&content)?));
        }
        if compression.brotli {
            variants.push((Coding::Brotli, brotli(&content)?));
        }
        if compression.zstd {
            variants.push((Coding::Zstd, zstd::bulk::compress(&content, 19)?));
        }
        // A few octets fewer are not worth another variant in every cache.
        variants.retain(|(_, variant)| variant.len() + 64 + content.len() / 50 <= content.len());
        variants.sort_by_key(|(_, variant)| variant.len());
    }
    Ok(Read {
        octets: content.len() as u64,
        digest: Sha256::digest(&content).into(),
        media_type,
        variants,
    })
}

/// Media types of what is not compressed already.
fn compressible(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || essence.starts_with("font/") && !essence.starts_with("font/woff")
        || [
            "application/javascript",
            "application/json",
            "application/manifest",
            "application/rtf",
            "application/wasm",
            "application/x-javascript",
            "application/xml",
            "application/x-ndjson",
            "image/bmp",
            "image/vnd.microsoft.icon",
            "image/x-icon",
            "image/x-ms-bmp",
        ]
        .contains(&essence)
}

/// RFC 1952, without a time and a name, so that it is the same each time.
fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let level = flate2::Compression::best();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(content)?;
    encoder.finish()
}

/// RFC 7932.
fn brotli(content: &[u8]) -> io::Result<Vec<u8>> {
    let parameters = brotli::enc::BrotliEncoderParams {
        quality: if content.len() > BROTLI_SLOW { 9 } else { 11 },
        lgwin: 22,
        size_hint: content.len(),
        ..Default::default()
    };
    let mut out = Vec::new();
    brotli::BrotliCompress(&mut &content[..], &mut out, &parameters)?;
    Ok(out)
}

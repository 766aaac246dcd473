//! Compresses a file, and describes it.

use std::io::{self, Read as _, Write as _};

use mayfly_site::Coding;
use sha2::{Digest, Sha256};

use super::super::config::Compression;
use super::super::files;
use super::scan::Found;
use super::spool::{Kept, Spool};
use super::types::{extension, is_utf8};

/// The size in bytes above which files are neither compressed nor read into memory.
const LARGE: u64 = 32 << 20;
/// The size in bytes below which files are not compressed.
const SMALL: usize = 256;
/// The size in bytes above which brotli uses a quality that is ten times as fast.
const BROTLI_SLOW: usize = 1 << 20;

/// A file that was read.
pub(super) struct Read {
    pub(super) bytes: u64,
    pub(super) digest: [u8; 32],
    /// The media type, with the charset if it is known.
    pub(super) media_type: String,
    /// The content that is served in place of the file, if it is different.
    pub(super) made: Option<Kept>,
    /// The variants that are smaller than the file, the smallest first.
    pub(super) variants: Vec<(Coding, Kept)>,
}

/// Reads a file to the end. The variants made of it go to `spool`.
pub(super) fn read(
    found: &Found,
    media_type: &str,
    compression: &Compression,
    spool: &Spool,
) -> io::Result<Read> {
    let mut file = files::open(&found.file)?;
    let mut media_type = media_type.to_owned();
    if file.metadata()?.len() > LARGE {
        let (bytes, digest) = sum(&mut file)?;
        return Ok(Read {
            bytes,
            digest,
            media_type,
            made: None,
            variants: Vec::new(),
        });
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    let mut made = None;
    let mut variants = Vec::new();
    if extension(&found.file).as_deref() == Some("svgz") {
        // The site's own gzip is always sent, whatever its size.
        variants.push((Coding::Gzip, spool.keep(&content)?));
        content = unpacked(&content)?;
        made = Some(spool.keep(&content)?);
    }
    if media_type.starts_with("text/")
        && !media_type.contains(';')
        && is_utf8(&content, &media_type)
    {
        media_type.push_str("; charset=utf-8");
    }
    let gzip_wanted = compression.gzip && variants.is_empty();
    if content.len() >= SMALL && compressible(&media_type) {
        // Only one variant at a time is in memory.
        let mut add = |coding, variant: Vec<u8>| {
            // Saving a few bytes is not worth another variant in every cache.
            if variant.len() + 64 + content.len() / 50 <= content.len() {
                variants.push((coding, spool.keep(&variant)?));
            }
            io::Result::Ok(())
        };
        if gzip_wanted {
            add(Coding::Gzip, gzip(&content)?)?;
        }
        if compression.brotli {
            add(Coding::Brotli, brotli(&content)?)?;
        }
        if compression.zstd {
            add(Coding::Zstd, zstd::bulk::compress(&content, 19)?)?;
        }
    }
    variants.sort_by_key(|(_, variant)| variant.bytes);
    Ok(Read {
        bytes: content.len() as u64,
        digest: Sha256::digest(&content).into(),
        media_type,
        made,
        variants,
    })
}

/// The size and the digest of a file.
fn sum(file: &mut std::fs::File) -> io::Result<(u64, [u8; 32])> {
    let mut hash = Sha256::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok((bytes, hash.finalize().into()));
        };
        hash.update(part);
        bytes += part.len() as u64;
    }
}

/// The content of an `.svgz` file. The registration of `image/svg+xml` asks for it to be sent as SVG with
/// `Content-Encoding: gzip`.
fn unpacked(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    let decoder = flate2::read::MultiGzDecoder::new(content);
    let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
    decoder
        .take(LARGE + 1)
        .read_to_end(&mut out)
        .map_err(|error| wrong(format!("an .svgz is SVG in gzip, and this is not: {error}")))?;
    if out.len() as u64 > LARGE {
        return Err(wrong(format!("it has more than {LARGE} bytes unpacked")));
    }
    Ok(out)
}

/// Whether a media type has content that is not compressed already.
fn compressible(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    essence.starts_with("text/")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
        || essence.starts_with("font/") && !essence.starts_with("font/woff")
        || [
            "application/javascript",
            "application/jsonl",
            "application/sql",
            "application/toml",
            "application/vnd.apple.mpegurl",
            "application/yaml",
            "model/stl",
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

/// Compresses to gzip (RFC 1952), without a time and a name, so that the result is always the same.
fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let level = flate2::Compression::best();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(content)?;
    encoder.finish()
}

/// Compresses to brotli (RFC 7932).
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

//! Web roots: turns files into resources of the pack.

mod build;
mod compress;
mod dates;
mod lines;
mod page;
mod paths;
mod redirects;
mod scan;
mod spool;
mod types;

use std::path::{Path, PathBuf};

pub(crate) use build::{Www, pack};
pub(crate) use spool::{Kept, Spool};

/// The folder of web roots in a site's folder.
const FOLDER: &str = "www";

/// A body of a pack.
pub(crate) struct Body {
    /// The offset in the section `bodies`.
    pub(crate) at: u64,
    pub(crate) source: Source,
}

/// The source of a body's bytes.
pub(crate) enum Source {
    /// A file, which must not change: its size and SHA-256.
    File {
        path: PathBuf,
        /// The path relative to the site's folder, for messages.
        shown: PathBuf,
        bytes: u64,
        digest: [u8; 32],
    },
    /// Content that was made from a file.
    Made(Kept),
}

impl Source {
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::File { bytes, .. } => *bytes,
            Self::Made(kept) => kept.bytes,
        }
    }
}

/// A path, percent-encoded for a URI (RFC 3986 section 3.3).
pub(crate) fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A path relative to the site's folder.
fn shown<'a>(site: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(site).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_paths() {
        assert_eq!(
            escape("/a b/ü%?#\"<>/é"),
            "/a%20b/%C3%BC%25%3F%23%22%3C%3E/%C3%A9"
        );
    }
}

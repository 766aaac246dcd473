//! Web roots: files in, resources of the pack out.

mod build;
mod compress;
mod page;
mod redirects;
mod scan;

use std::path::{Path, PathBuf};

pub(crate) use build::{Www, pack};

/// The folder of web roots in a site's folder.
const FOLDER: &str = "www";

/// A body of a pack.
pub(crate) struct Body {
    /// Where it is in the section `bodies`.
    pub(crate) at: u64,
    pub(crate) source: Source,
}

/// Where the octets of a body come from.
pub(crate) enum Source {
    /// A file, which has to be what it was: octets and SHA-256.
    File {
        path: PathBuf,
        /// From the site's folder on.
        shown: PathBuf,
        octets: u64,
        digest: [u8; 32],
    },
    /// A variant that was made.
    Made(Vec<u8>),
}

impl Source {
    pub(crate) fn octets(&self) -> u64 {
        match self {
            Self::File { octets, .. } => *octets,
            Self::Made(octets) => octets.len() as u64,
        }
    }
}

/// A path as a URI has it (RFC 3986 section 3.3).
pub(crate) fn escape(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    for octet in path.bytes() {
        if octet.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&octet) {
            out.push(char::from(octet));
        } else {
            out.push_str(&format!("%{octet:02X}"));
        }
    }
    out
}

/// Whether a folder's name is that of a host: labels of letters, digits, hyphens, at least two, the last one
/// not a number (RFC 1123 section 2.1).
pub(crate) fn is_host_name(name: &str) -> bool {
    let labels: Vec<&str> = name.split('.').collect();
    let label = |label: &&str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|octet| octet.is_ascii_alphanumeric() || octet == b'-')
    };
    labels.len() >= 2
        && name.len() <= 253
        && labels.iter().all(label)
        && !labels
            .last()
            .is_some_and(|last| last.bytes().all(|octet| octet.is_ascii_digit()))
}

/// A path from the site's folder on.
fn shown<'a>(site: &Path, path: &'a Path) -> &'a Path {
    path.strip_prefix(site).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for name in [
            "example.test",
            "a.b",
            "www.example.test",
            "1.a",
            "xn--a.b-c",
        ] {
            assert!(is_host_name(name), "{name}");
        }
        for name in [
            "a",
            "",
            ".",
            "a.",
            ".a",
            ".well-known",
            "v1.2",
            "a..b",
            "-a.b",
            "a-.b",
            "a_b.c",
            "10.0.0.1",
        ] {
            assert!(!is_host_name(name), "{name}");
        }
    }

    #[test]
    fn escaped_paths() {
        assert_eq!(
            escape("/a b/ü%?#\"<>/é"),
            "/a%20b/%C3%BC%25%3F%23%22%3C%3E/%C3%A9"
        );
    }
}

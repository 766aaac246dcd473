//! `mayfly.toml`: what a site's folder says beside its files.

mod read;
mod types;

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

pub(crate) use read::{Checked, Rule, read};
pub use types::{TypeRule, Types};

/// Its name in the site's folder.
pub const FILE: &str = "mayfly.toml";

/// All that `mayfly.toml` may say; every key may be left out.
///
/// ```toml
/// default_host = "www.example.test"     # who asks for another host gets this one
/// folders = ["v1.2"]                    # right below www/, with a dot, and yet no hosts
/// last_modified = true                  # dates of files are sent: always; never with `false`; else unless a tool seems to have set them
/// hidden = true                         # pack files whose name begins with a dot (`.well-known` always is)
///
/// [hosts."www.example.test"]
/// aliases = ["example.test"]
/// error_pages = { 404 = "/missing.html" }
///
/// [error_pages]                         # of every host that has the file
/// 404 = "/404.html"
///
/// [[cache]]                             # the last that fits counts
/// files = "/assets/**"                  # a glob over paths; `*` does not cross a slash
/// types = "image/*"                     # and, or instead, one over media types
/// control = "public, max-age=31536000, immutable"
///
/// [[headers]]                           # all that fit count
/// files = "/**"                         # one that ends in `/**` is also for what is not there below
/// set = { X-Content-Type-Options = "nosniff" }
///
/// [[redirects]]
/// host = "www.example.test"             # without it: of every host
/// from = "/old"
/// to = "/new"                           # or a whole URI
/// status = 308                          # 301 (default), 302, 307 or 308
///
/// [types]                               # by extension, whatever its case; or else:
/// wasm = "application/wasm"
///
/// [[types]]                             # the last that fits counts
/// files = "/.well-known/matrix/*"       # a glob over paths, or ...
/// type = "application/json"
///
/// [[types]]
/// extension = "wasm"                    # ... an extension
/// type = "application/wasm"
///
/// [compression]                         # which variants are made
/// gzip = true
/// brotli = true
/// zstd = true
///
/// [zones."example.test"]
/// transfer = true                       # everybody may have all of it (AXFR)
/// ```
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The host that is shown to who asks for another one.
    pub default_host: Option<Spanned<String>>,
    /// Folders right below `www/` that are not hosts although they have a dot.
    pub folders: Vec<String>,
    /// Whether files whose name begins with a dot are packed.
    pub hidden: bool,
    /// Whether the dates of files tell when their content changed. Not said: unless a tool seems to have set them.
    pub last_modified: Option<bool>,
    /// Hosts by their name.
    pub hosts: BTreeMap<Spanned<String>, Host>,
    /// Paths of pages by status, for every host that has such a file.
    pub error_pages: BTreeMap<Spanned<String>, Spanned<String>>,
    /// `Cache-Control`.
    pub cache: Vec<Spanned<Cache>>,
    /// Other header lines.
    pub headers: Vec<Spanned<Headers>>,
    /// Redirects.
    pub redirects: Vec<Spanned<Redirect>>,
    /// Media types by extension or path.
    pub types: Types,
    /// Which codings are made.
    pub compression: Compression,
    /// Zones by their name.
    pub zones: BTreeMap<Spanned<String>, Zone>,
}

/// A virtual host.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Other names of it.
    pub aliases: Vec<Spanned<String>>,
    /// Paths of pages by status.
    pub error_pages: BTreeMap<Spanned<String>, Spanned<String>>,
}

/// A rule for `Cache-Control`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// For paths that fit this glob.
    pub files: Option<Spanned<String>>,
    /// For media types that fit this glob.
    pub types: Option<Spanned<String>>,
    /// The value.
    pub control: Spanned<String>,
}

/// A rule for other header lines.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Headers {
    /// For paths that fit this glob.
    pub files: Option<Spanned<String>>,
    /// For media types that fit this glob.
    pub types: Option<Spanned<String>>,
    /// Names and values.
    pub set: BTreeMap<Spanned<String>, Spanned<String>>,
}

/// A redirect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Of this host; else of every one.
    pub host: Option<Spanned<String>>,
    /// The path, not percent-encoded.
    pub from: Spanned<String>,
    /// A path or a URI, percent-encoded.
    pub to: Spanned<String>,
    /// The status.
    #[serde(default = "moved_permanently")]
    pub status: u16,
}

fn moved_permanently() -> u16 {
    301
}

/// Which codings are made beside the identity.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Compression {
    /// RFC 1952.
    pub gzip: bool,
    /// RFC 7932.
    pub brotli: bool,
    /// RFC 8878.
    pub zstd: bool,
}

impl Default for Compression {
    fn default() -> Self {
        Self {
            gzip: true,
            brotli: true,
            zstd: true,
        }
    }
}

/// What is said of a zone.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Zone {
    /// Whether everybody may have all of it.
    pub transfer: bool,
}

/// The line of an offset.
pub fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|octet| **octet == b'\n').count()
}

//! `mayfly.toml`: the configuration of a site.

mod read;
mod types;

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

pub(crate) use read::{Checked, Rule, read};
pub use types::{TypeRule, Types};

/// The name of the file in the site's folder.
pub const FILE: &str = "mayfly.toml";

/// The content of `mayfly.toml`. Every key is optional.
///
/// ```toml
/// default_host = "www.example.test"     # the host for requests that name another one
/// folders = ["v1.2"]                    # directly below www/, with a dot, but not hosts
/// last_modified = true                  # send dates of files; default: unless a tool seems to have set them
/// hidden = true                         # pack files whose name begins with a dot (`.well-known` always is)
///
/// [hosts."www.example.test"]
/// aliases = ["example.test"]
/// error_pages = { 404 = "/missing.html" }
///
/// [error_pages]                         # for every host that has the file
/// 404 = "/404.html"
///
/// [[cache]]                             # the last match counts
/// files = "/assets/**"                  # a glob over paths; `*` does not cross a slash
/// types = "image/*"                     # and/or a glob over media types
/// control = "public, max-age=31536000, immutable"
///
/// [[headers]]                           # all matches count
/// files = "/**"                         # a glob that ends in `/**` also applies to missing files below
/// set = { X-Content-Type-Options = "nosniff" }
///
/// [[redirects]]
/// host = "www.example.test"             # default: every host
/// from = "/old"
/// to = "/new"                           # a path or a whole URI
/// status = 308                          # 301 (default), 302, 307 or 308
///
/// [types]                               # by extension, in any case; or as a list:
/// wasm = "application/wasm"
///
/// [[types]]                             # the last match counts
/// files = "/.well-known/matrix/*"       # a glob over paths, or ...
/// type = "application/json"
///
/// [[types]]
/// extension = "wasm"                    # ... an extension
/// type = "application/wasm"
///
/// [compression]                         # the variants to make
/// gzip = true
/// brotli = true
/// zstd = true
///
/// [zones."example.test"]
/// transfer = true                       # anyone may transfer the zone (AXFR)
/// ```
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The host that serves requests for an unknown host.
    pub default_host: Option<Spanned<String>>,
    /// Folders directly below `www/` that are not hosts although their name has a dot.
    pub folders: Vec<String>,
    /// Whether files whose name begins with a dot are packed.
    pub hidden: bool,
    /// Whether the modification times of files are sent. By default they are, unless a tool seems to have set them.
    pub last_modified: Option<bool>,
    /// Hosts by their name.
    pub hosts: BTreeMap<Spanned<String>, Host>,
    /// Paths of error pages by status, for every host that has such a file.
    pub error_pages: BTreeMap<Spanned<String>, Spanned<String>>,
    /// Rules for `Cache-Control`.
    pub cache: Vec<Spanned<Cache>>,
    /// Rules for other header fields.
    pub headers: Vec<Spanned<Headers>>,
    /// Redirects.
    pub redirects: Vec<Spanned<Redirect>>,
    /// Media types by extension or path.
    pub types: Types,
    /// The codings that are made.
    pub compression: Compression,
    /// Zones by their name.
    pub zones: BTreeMap<Spanned<String>, Zone>,
}

/// A virtual host.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// Other names of the host.
    pub aliases: Vec<Spanned<String>>,
    /// Paths of error pages by status.
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
    /// Names and values of the header fields.
    pub set: BTreeMap<Spanned<String>, Spanned<String>>,
}

/// A redirect.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// The host of the redirect; by default every host.
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

/// The codings that are made besides the identity.
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

/// The settings of a zone.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Zone {
    /// Whether anyone may transfer the whole zone (AXFR).
    pub transfer: bool,
}

/// The line of an offset, from 1 on.
pub fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

//! `mayfly.toml`: what a site's folder says beside its files.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;

use globset::{Glob, GlobMatcher};
use serde::Deserialize;
use toml::Spanned;

use super::files;
use super::problem::Findings;

/// Its name in the site's folder.
pub const FILE: &str = "mayfly.toml";

/// All that `mayfly.toml` may say; every key may be left out.
///
/// ```toml
/// default_host = "www.example.test"     # who asks for another host gets this one
/// folders = ["v1.2"]                    # right below www/, with a dot, and yet no hosts
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
/// files = "/**"
/// set = { X-Content-Type-Options = "nosniff" }
///
/// [[redirects]]
/// host = "www.example.test"             # without it: of every host
/// from = "/old"
/// to = "/new"                           # or a whole URI
/// status = 308                          # 301 (default), 302, 307 or 308
///
/// [types]                               # by extension
/// wasm = "application/wasm"
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
    /// Media types by extension.
    pub types: BTreeMap<String, Spanned<String>>,
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

/// A rule whose globs and lines were looked at.
pub(crate) struct Rule {
    files: Option<GlobMatcher>,
    types: Option<GlobMatcher>,
    pub(crate) lines: Vec<(String, String)>,
}

impl Rule {
    /// Whether it is for a file with this path and media type.
    pub(crate) fn fits(&self, path: &str, media_type: &str) -> bool {
        let essence = media_type.split(';').next().unwrap_or_default().trim();
        let files = self.files.as_ref().is_none_or(|glob| glob.is_match(path));
        files
            && self
                .types
                .as_ref()
                .is_none_or(|glob| glob.is_match(essence))
    }
}

/// The configuration, with what can be said of it without the files.
pub(crate) struct Checked {
    pub(crate) config: Config,
    pub(crate) cache: Vec<Rule>,
    pub(crate) headers: Vec<Rule>,
    text: String,
}

impl Checked {
    /// Where something stands.
    pub(crate) fn line<T>(&self, what: &Spanned<T>) -> Option<usize> {
        Some(line(&self.text, what.span().start))
    }
}

/// The line of an offset.
pub fn line(text: &str, at: usize) -> usize {
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|octet| **octet == b'\n').count()
}

/// Header fields that the server writes itself (RFC 9110, 9112).
const OURS: [&str; 16] = [
    "accept-ranges",
    "age",
    "cache-control",
    "connection",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "date",
    "etag",
    "keep-alive",
    "last-modified",
    "server",
    "trailer",
    "transfer-encoding",
    "vary",
];

/// Reads `mayfly.toml`, if it is there.
pub(crate) fn read(site: &Path, findings: &mut Findings) -> Checked {
    let file = Path::new(FILE);
    let text = text(site).unwrap_or_else(|what| {
        findings.error(file, None, what);
        String::new()
    });
    let config: Config = toml::from_str(&text).unwrap_or_else(|error| {
        let line = error.span().map(|span| line(&text, span.start));
        findings.error(file, line, error.message());
        Config::default()
    });
    let mut checked = Checked {
        cache: Vec::new(),
        headers: Vec::new(),
        config,
        text,
    };
    let mut wrong = |at: usize, what: String| {
        findings.error(file, Some(line(&checked.text, at)), what);
    };
    let mut glob = |text: &Option<Spanned<String>>| {
        let text = text.as_ref()?;
        let glob = globset::GlobBuilder::new(text.get_ref())
            .literal_separator(true)
            .build();
        let built: Result<Glob, _> = glob;
        built
            .map_err(|error| wrong(text.span().start, error.to_string()))
            .map(|glob| glob.compile_matcher())
            .ok()
    };
    for rule in &checked.config.cache {
        let rule = rule.get_ref();
        checked.cache.push(Rule {
            files: glob(&rule.files),
            types: glob(&rule.types),
            lines: vec![("Cache-Control".to_owned(), rule.control.get_ref().clone())],
        });
    }
    for rule in &checked.config.headers {
        let rule = rule.get_ref();
        let lines = rule.set.iter();
        checked.headers.push(Rule {
            files: glob(&rule.files),
            types: glob(&rule.types),
            lines: lines
                .map(|(name, value)| (name.get_ref().clone(), value.get_ref().clone()))
                .collect(),
        });
    }

    for rule in &checked.config.cache {
        let control = &rule.get_ref().control;
        if !is_field_value(control.get_ref()) {
            wrong(control.span().start, bad_value("Cache-Control"));
        }
    }
    for (name, value) in checked
        .config
        .headers
        .iter()
        .flat_map(|rule| &rule.get_ref().set)
    {
        let at = name.span().start;
        let name = name.get_ref();
        if !is_token(name) {
            wrong(at, format!("`{name}` is not the name of a header field"));
        } else if OURS.contains(&name.to_ascii_lowercase().as_str()) {
            wrong(at, format!("the server writes `{name}` itself"));
        }
        if !is_field_value(value.get_ref()) {
            wrong(value.span().start, bad_value(name));
        }
    }
    for value in checked.config.types.values() {
        let text = value.get_ref();
        if !is_field_value(text) || text.len() > 200 || !text.contains('/') {
            wrong(value.span().start, format!("`{text}` is not a media type"));
        }
    }
    checked
}

/// What the file says, which is nothing when it is not there.
fn text(site: &Path) -> Result<String, String> {
    let path = site.join(FILE);
    if path
        .symlink_metadata()
        .is_err_and(|error| error.kind() == ErrorKind::NotFound)
    {
        return Ok(String::new());
    }
    let unread = |error: io::Error| format!("cannot be read: {error}");
    let path = path.canonicalize().map_err(unread)?;
    if !path.starts_with(site) {
        return Err("is a symbolic link out of the site".to_owned());
    }
    let octets = files::read(&path).map_err(unread)?;
    let text = String::from_utf8(octets).map_err(|_| "is not UTF-8")?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

fn bad_value(name: &str) -> String {
    format!("the value of `{name}` has characters that a header line cannot hold, or too many")
}

/// RFC 9110 section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text
            .bytes()
            .all(|octet| octet.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&octet))
}

/// RFC 9110 section 5.5, without what is obsolete, and not without end.
fn is_field_value(text: &str) -> bool {
    text.len() <= 4000
        && text.trim() == text
        && text
            .bytes()
            .all(|octet| octet == b'\t' || matches!(octet, b' '..=b'~'))
}

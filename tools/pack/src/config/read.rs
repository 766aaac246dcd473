//! Reads and checks `mayfly.toml`.

use std::io::{self, ErrorKind};
use std::path::Path;

use globset::{GlobBuilder, GlobMatcher};
use toml::Spanned;

use super::super::files;
use super::super::host;
use super::super::problem::Findings;
use super::{Cache, Config, FILE, Headers, TypeRule, line};

/// A rule whose globs and lines have been checked.
pub(crate) struct Rule {
    files: Option<GlobMatcher>,
    types: Option<GlobMatcher>,
    /// The folder below which the rule applies to everything, with the final slash.
    pub(crate) folder: Option<String>,
    pub(crate) lines: Vec<(String, String)>,
}

impl Rule {
    /// Whether the rule applies to a file with this path and media type.
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

/// The configuration, checked as far as possible without the files.
pub(crate) struct Checked {
    pub(crate) config: Config,
    pub(crate) cache: Vec<Rule>,
    pub(crate) headers: Vec<Rule>,
    types: Vec<Type>,
    text: String,
}

impl Checked {
    /// The line of a value in the file.
    pub(crate) fn line<T>(&self, what: &Spanned<T>) -> Option<usize> {
        Some(line(&self.text, what.span().start))
    }
}

/// A media type whose glob has been checked.
struct Type {
    files: Option<GlobMatcher>,
    extension: Option<String>,
    media_type: String,
}

impl Checked {
    /// The media type that the site sets for a path, whose extension is in lower case.
    pub(crate) fn media_type(&self, path: &str, extension: Option<&str>) -> Option<&str> {
        let fits = |rule: &&Type| {
            let by_path = rule.files.as_ref().is_none_or(|glob| glob.is_match(path));
            let by_extension = rule.extension.is_none() || rule.extension.as_deref() == extension;
            by_path && by_extension
        };
        let found = self.types.iter().rev().find(fits);
        found.map(|rule| rule.media_type.as_str())
    }
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

/// Reads `mayfly.toml`, if it exists.
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
        config,
        cache: Vec::new(),
        headers: Vec::new(),
        types: Vec::new(),
        text,
    };
    let mut wrong = |at: usize, what: String| {
        findings.error(file, Some(line(&checked.text, at)), what);
    };
    hosts(&mut checked.config, &mut wrong);
    for rule in &checked.config.cache {
        checked.cache.push(cache(rule.get_ref(), &mut wrong));
    }
    for rule in &checked.config.headers {
        checked.headers.push(headers(rule.get_ref(), &mut wrong));
    }
    for rule in &checked.config.types.0 {
        checked.types.push(media_type(rule, &mut wrong));
    }
    checked
}

fn cache(rule: &Cache, wrong: &mut impl FnMut(usize, String)) -> Rule {
    let control = rule.control.get_ref().clone();
    if !is_field_value(&control) {
        wrong(rule.control.span().start, bad_value("Cache-Control"));
    }
    Rule {
        files: glob(rule.files.as_ref(), true, wrong),
        types: glob(rule.types.as_ref(), false, wrong),
        folder: None,
        lines: vec![("Cache-Control".to_owned(), control)],
    }
}

fn headers(rule: &Headers, wrong: &mut impl FnMut(usize, String)) -> Rule {
    for (name, value) in &rule.set {
        field(name, value, wrong);
    }
    let lines = rule.set.iter();
    let lines = lines.map(|(name, value)| (name.get_ref().clone(), value.get_ref().clone()));
    let files = rule.files.as_ref().map(|files| files.get_ref().as_str());
    Rule {
        files: glob(rule.files.as_ref(), true, wrong),
        types: glob(rule.types.as_ref(), false, wrong),
        folder: folder(files).filter(|_| rule.types.is_none()),
        lines: lines.collect(),
    }
}

fn media_type(rule: &TypeRule, wrong: &mut impl FnMut(usize, String)) -> Type {
    let text = rule.media_type.get_ref();
    let at = rule.media_type.span().start;
    if !is_media_type(text) {
        wrong(at, format!("`{text}` is not a media type"));
    }
    if rule.files.is_none() && rule.extension.is_none() {
        wrong(
            at,
            "expected `files` or `extension` beside `type`".to_owned(),
        );
    }
    let extension = rule.extension.as_ref().map(Spanned::get_ref);
    Type {
        files: glob(rule.files.as_ref(), true, wrong),
        extension: extension.map(|text| text.trim_start_matches('.').to_lowercase()),
        media_type: text.clone(),
    }
}

/// Converts the names of hosts to the form that clients send: letters beyond ASCII become A-labels (RFC 5891 section
/// 4.4).
fn hosts(config: &mut Config, wrong: &mut impl FnMut(usize, String)) {
    let mut ascii = |name: &mut Spanned<String>| match host::ascii(name.get_ref()) {
        Ok(ascii) => *name.get_mut() = ascii,
        Err(what) => wrong(name.span().start, what),
    };
    for (mut name, mut host) in std::mem::take(&mut config.hosts) {
        ascii(&mut name);
        host.aliases.iter_mut().for_each(&mut ascii);
        config.hosts.insert(name, host);
    }
    for redirect in &mut config.redirects {
        if let Some(host) = &mut redirect.get_mut().host {
            ascii(host);
        }
    }
    if let Some(host) = &mut config.default_host {
        ascii(host);
    }
}

/// A glob over paths or types, in which `*` does not cross a slash.
fn glob(
    text: Option<&Spanned<String>>,
    of_paths: bool,
    wrong: &mut impl FnMut(usize, String),
) -> Option<GlobMatcher> {
    let text = text?;
    let is_path = text.get_ref().starts_with(['/', '*', '?', '[', '{', '\\']);
    if of_paths && !is_path {
        let what = format!(
            "no path fits `{}`: paths begin with a slash",
            text.get_ref()
        );
        wrong(text.span().start, what);
    }
    let glob = GlobBuilder::new(text.get_ref())
        .literal_separator(true)
        .build();
    glob.map_err(|error| wrong(text.span().start, error.to_string()))
        .map(|glob| glob.compile_matcher())
        .ok()
}

/// The folder below which a glob matches everything, if there is one.
fn folder(glob: Option<&str>) -> Option<String> {
    let Some(glob) = glob else {
        return Some("/".to_owned());
    };
    let folder = match glob {
        "**" => "/",
        glob => glob.strip_suffix("**")?,
    };
    let literal = folder.ends_with('/') && !folder.contains(['*', '?', '[', ']', '{', '}', '\\']);
    (literal && folder.starts_with('/')).then(|| folder.to_owned())
}

/// Checks a header field.
fn field(name: &Spanned<String>, value: &Spanned<String>, wrong: &mut impl FnMut(usize, String)) {
    let at = name.span().start;
    let name = name.get_ref();
    if !is_token(name) {
        wrong(at, format!("`{name}` is not the name of a header field"));
    } else if name.eq_ignore_ascii_case("content-type") {
        wrong(
            at,
            format!("the server writes `{name}` itself: see `[[types]]`"),
        );
    } else if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        wrong(at, format!("the server writes `{name}` itself"));
    }
    if !is_field_value(value.get_ref()) {
        wrong(value.span().start, bad_value(name));
    }
}

/// The text of the file, which is empty when the file does not exist.
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
    let bytes = files::read(&path).map_err(unread)?;
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8")?;
    Ok(text.trim_start_matches('\u{feff}').to_owned())
}

fn bad_value(name: &str) -> String {
    format!("the value of `{name}` has characters that a header line cannot hold, or too many")
}

/// Whether a text is a token (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 100
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// Whether a text is a media type of limited length, with parameters or without (RFC 9110 section 8.3.1).
fn is_media_type(text: &str) -> bool {
    let (essence, rest) = text.split_at(text.find(';').unwrap_or(text.len()));
    let names = essence.trim_end().split_once('/');
    let mut parameters = rest.split(';').skip(1);
    names.is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype))
        && parameters.all(|parameter| parameter.trim().is_empty() || parameter.contains('='))
        && text.len() <= 200
        && is_field_value(text)
}

/// Whether a text is a field value (RFC 9110 section 5.5) without obsolete forms and of limited length.
fn is_field_value(text: &str) -> bool {
    text.len() <= 4000
        && text.trim() == text
        && text
            .bytes()
            .all(|byte| byte == b'\t' || matches!(byte, b' '..=b'~'))
}

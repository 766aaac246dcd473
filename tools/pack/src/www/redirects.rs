//! Redirects: of folders, and from `mayfly.toml`.

use std::collections::HashMap;
use std::path::Path;

use super::super::config::{self, Checked};
use super::super::problem::Findings;
use super::escape;
use super::paths::{Entry, Paths};
use super::scan::{Files, asked};

/// The name of the page of a folder.
const INDEX: &str = "index.html";

/// Serves the page of a folder at the folder's path with a slash, and redirects from the path without it.
pub(super) fn directories(paths: &mut Paths) {
    let pages: Vec<(Vec<u8>, Entry)> = paths
        .iter()
        .filter_map(|(path, entry)| {
            let folder = path.strip_suffix(INDEX.as_bytes())?;
            folder
                .ends_with(b"/")
                .then(|| (folder.to_vec(), entry.clone()))
        })
        .collect();
    for (folder, entry) in pages {
        if let [path @ .., b'/'] = &folder[..]
            && !path.is_empty()
        {
            let redirect = Entry::Redirect {
                status: 301,
                location: escape(&String::from_utf8_lossy(&folder)),
            };
            paths.entry(path.to_vec()).or_insert(redirect);
        }
        paths.insert(folder, entry);
    }
}

/// The reason for which no client can request the source path of a redirect, as an error; or a warning about a likely
/// mistake.
fn unasked(from: &str) -> Option<Result<String, String>> {
    if !from.starts_with('/') || from.chars().any(char::is_control) {
        return Some(Err(format!("`{from}` is not a path")));
    }
    let never = |what: &str| Some(Err(format!("no client can request `{from}`: {what}")));
    let segments: Vec<&str> = from[1..].split('/').collect();
    let (last, before) = segments.split_last()?;
    if from.contains('?') {
        return never("a query is not part of the path");
    }
    if from.contains('#') {
        return never("a fragment is never sent");
    }
    if before.contains(&"") {
        return never("empty segments are removed from a request's path");
    }
    if before
        .iter()
        .chain([last])
        .any(|segment| matches!(*segment, "." | ".."))
    {
        return never("dot segments are removed from a request's path");
    }
    if let Err(what) = asked(from) {
        return never(&what);
    }
    let decoded = unescape(from);
    if decoded != from {
        let slash = from.to_ascii_lowercase().contains("%2f") && !from.contains("%2F");
        if slash {
            return never("an escaped slash stays `%2F`");
        }
        let plain = unescape(&from.replace("%2F", "/")) == from.replace("%2F", "/");
        if !plain {
            return Some(Ok(format!(
                "`{from}` is compared with the path that is asked for without its escapes: write `{decoded}`"
            )));
        }
    }
    if from.contains('*') {
        return Some(Ok(format!(
            "`{from}` is one path: `*` stands for nothing else"
        )));
    }
    None
}

/// The redirects of `mayfly.toml`.
pub(super) fn redirects(
    hosts: &[(Option<String>, Files)],
    config: &Checked,
    paths: &mut [Paths],
    findings: &mut Findings,
) {
    let file = Path::new(config::FILE);
    let mut made: HashMap<(usize, String), String> = HashMap::new();
    for redirect in &config.config.redirects {
        let line = config.line(redirect);
        let redirect = redirect.get_ref();
        let (from, to) = (redirect.from.get_ref(), redirect.to.get_ref());
        match unasked(from) {
            None => {}
            Some(Ok(what)) => findings.warning(file, config.line(&redirect.from), what),
            Some(Err(what)) => {
                findings.error(file, config.line(&redirect.from), what);
                continue;
            }
        }
        if !is_reference(to) {
            let what = format!("`{to}` is neither a path nor a URI, percent-encoded");
            findings.error(file, config.line(&redirect.to), what);
            continue;
        }
        if !matches!(redirect.status, 301 | 302 | 307 | 308) {
            let what = format!("status {}: it may be 301, 302, 307 or 308", redirect.status);
            findings.error(file, line, what);
            continue;
        }
        let of = |name: &Option<String>| match &redirect.host {
            Some(host) => name.as_ref() == Some(host.get_ref()),
            None => true,
        };
        let mut some = false;
        for (number, (_, paths)) in hosts
            .iter()
            .zip(paths.iter_mut())
            .enumerate()
            .filter(|(_, ((name, _), _))| of(name))
        {
            some = true;
            // The redirect of a folder's path without its slash may be replaced.
            let taken = match paths.get(from.as_bytes()) {
                Some(Entry::Redirect { location, .. }) => *location != format!("{}/", escape(from)),
                other => other.is_some(),
            };
            if taken || made.contains_key(&(number, from.clone())) {
                let what = format!("there is something else at `{from}`");
                findings.error(file, config.line(&redirect.from), what);
                continue;
            }
            made.insert((number, from.clone()), to.clone());
            let entry = Entry::Redirect {
                status: redirect.status,
                location: to.clone(),
            };
            paths.insert(from.clone().into_bytes(), entry);
        }
        if !some && let Some(host) = &redirect.host {
            let what = format!("there is no folder www/{}", host.get_ref());
            findings.error(file, config.line(host), what);
        }
    }
    for redirect in &config.config.redirects {
        let from = redirect.get_ref().from.get_ref();
        let around = (0..hosts.len()).any(|host| leads_back(&made, host, from));
        if around {
            let what = format!("the redirect from `{from}` leads back to it");
            findings.error(file, config.line(redirect), what);
        }
    }
}

/// Whether the redirects of a host lead from a path back to it.
fn leads_back(made: &HashMap<(usize, String), String>, host: usize, from: &str) -> bool {
    let mut path = from.to_owned();
    for _ in 0..made.len() {
        let Some(to) = made.get(&(host, path)) else {
            return false;
        };
        let end = to.find(['?', '#']).unwrap_or(to.len());
        path = unescape(&to[..end]);
        if path == from {
            return true;
        }
    }
    false
}

/// Decodes percent-encoding.
fn unescape(path: &str) -> String {
    let mut out = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let escaped = tail
            .split_at_checked(2)
            .and_then(|(hex, tail)| Some((std::str::from_utf8(hex).ok()?, tail)))
            .and_then(|(hex, tail)| Some((u8::from_str_radix(hex, 16).ok()?, tail)));
        match escaped.filter(|_| byte == b'%') {
            Some((byte, tail)) => {
                out.push(byte);
                rest = tail;
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a text is an absolute path or a URI, with only characters that RFC 3986 allows.
fn is_reference(text: &str) -> bool {
    let scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    });
    (text.starts_with('/') || scheme)
        && text.len() <= 4000
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=%".contains(&byte))
}

//! Finds the files of a web root, with the host and path of each.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::{DirEntry, WalkDir};

use super::super::config::{self, Checked};
use super::super::host;
use super::super::problem::Findings;
use super::{FOLDER, escape, shown};

/// The longest path, in bytes.
const PATH_MAX: usize = 4000;
/// The folder of the guest's own pages, which take precedence over those of a site.
const OWN: &str = "/.mayfly/";
/// The longest path with escapes or with segments that begin with a dot, in bytes. The guest has to copy such a path.
const DECODED_MAX: usize = 1024;

/// A file of a web root.
#[derive(Clone)]
pub(super) struct Found {
    /// The path of the file.
    pub(super) file: PathBuf,
    /// The path relative to the site's folder, for messages.
    pub(super) shown: PathBuf,
    /// The path on its host.
    pub(super) path: String,
    pub(super) modified: Modified,
}

/// The modification time of a file, since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Modified {
    pub(super) seconds: u64,
    pub(super) nanoseconds: u32,
}

/// The files of a host by path.
pub(super) type Files = BTreeMap<String, Found>;

/// The files of the default host without a name, and of each host with one.
#[derive(Default)]
pub(super) struct Roots {
    pub(super) plain: Files,
    pub(super) hosts: BTreeMap<String, Files>,
}

/// Finds all files; `site` is canonical.
pub(super) fn scan(site: &Path, config: &Checked, findings: &mut Findings) -> Roots {
    let mut roots = Roots::default();
    let root = site.join(FOLDER);
    // A broken symbolic link is visited, and reported.
    if root.symlink_metadata().is_ok() {
        walk(site, &root, config, &mut roots, findings);
    }
    for host in config.config.hosts.keys() {
        let name = host.get_ref();
        if name.to_ascii_lowercase() != *name || name.is_empty() || name.contains(['/', '\0']) {
            let what = format!("`{name}` is not the name of a host in lower case");
            findings.error(Path::new(config::FILE), config.line(host), what);
        } else if !roots.hosts.contains_key(name) {
            let what = format!("there is no folder {FOLDER}/{name} with files in it");
            findings.error(Path::new(config::FILE), config.line(host), what);
        }
    }
    roots
}

fn walk(site: &Path, root: &Path, config: &Checked, roots: &mut Roots, findings: &mut Findings) {
    let mut walk = WalkDir::new(root)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter();
    while let Some(entry) = walk.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(root);
                let what = match error.io_error() {
                    Some(error) => format!("cannot be read: {error}"),
                    None => format!("cannot be read: {error}"),
                };
                findings.error(shown(site, path), None, what);
                continue;
            }
        };
        match look(site, &entry, config, findings) {
            Looked::Left if entry.file_type().is_dir() => walk.skip_current_dir(),
            Looked::Left | Looked::Folder => {}
            Looked::File(modified) => take(site, root, &entry, modified, config, roots, findings),
        }
    }
}

/// The kind of an entry below `www/`.
enum Looked {
    /// The entry is skipped, and that has been reported.
    Left,
    Folder,
    File(Modified),
}

fn look(site: &Path, entry: &DirEntry, config: &Checked, findings: &mut Findings) -> Looked {
    let file = shown(site, entry.path());
    let name = entry.file_name().to_string_lossy();
    if entry.depth() > 0 && name.starts_with('.') && name != ".well-known" && !config.config.hidden
    {
        let what = "is left out, because its name begins with a dot (`hidden = true` packs it)";
        findings.warning(file, None, what);
        return Looked::Left;
    }
    let wrong = if entry.path_is_symlink() {
        match entry.path().canonicalize() {
            Ok(path) if path.starts_with(site) => None,
            Ok(_) => Some("is a symbolic link out of the site".to_owned()),
            Err(error) => Some(format!("cannot be read: {error}")),
        }
    } else {
        None
    };
    if let Some(what) = wrong {
        findings.error(file, None, what);
        return Looked::Left;
    }
    if entry.file_type().is_dir() {
        return Looked::Folder;
    }
    if !entry.file_type().is_file() {
        findings.error(file, None, "is neither a file nor a folder");
        return Looked::Left;
    }
    match entry.metadata() {
        Ok(metadata) => {
            let time = metadata.modified().ok();
            let time = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            Looked::File(time.map_or_else(Modified::default, |time| Modified {
                seconds: time.as_secs(),
                nanoseconds: time.subsec_nanos(),
            }))
        }
        Err(error) => {
            findings.error(file, None, format!("cannot be read: {error}"));
            Looked::Left
        }
    }
}

/// Adds a file at the path at which it is served.
fn take(
    site: &Path,
    root: &Path,
    entry: &DirEntry,
    modified: Modified,
    config: &Checked,
    roots: &mut Roots,
    findings: &mut Findings,
) {
    let file = shown(site, entry.path());
    let inside = entry.path().strip_prefix(root).unwrap_or(entry.path());
    let (host, path) = match place(inside, config) {
        Ok(place) => place,
        Err(what) => return findings.error(file, None, what),
    };
    if let Err(what) = asked(&path) {
        return findings.error(file, None, what);
    }
    if path.starts_with(OWN) {
        let what = format!("a page of the guest's own may be at its path, below {OWN}");
        findings.warning(file, None, what);
    }
    let found = Found {
        file: entry.path().to_owned(),
        shown: file.to_owned(),
        path: path.clone(),
        modified,
    };
    let files = match host {
        Some(host) => roots.hosts.entry(host).or_default(),
        None => &mut roots.plain,
    };
    match files.entry(path) {
        Entry::Vacant(place) => drop(place.insert(found)),
        Entry::Occupied(other) => {
            let what = format!("is at the path of {}", other.get().shown.display());
            findings.error(file, None, what);
        }
    }
}

/// Checks that clients can request a path, which is not escaped.
///
/// # Errors
///
/// The reason for which they cannot.
pub(super) fn asked(path: &str) -> Result<(), String> {
    if path.len() > PATH_MAX {
        return Err(format!("its path is longer than {PATH_MAX} bytes"));
    }
    let copied = escape(path).len() != path.len() || path.contains("/.");
    if copied && path.len() > DECODED_MAX {
        return Err(format!(
            "its path is longer than {DECODED_MAX} bytes, the most for one with escapes or a dot at the start of a segment"
        ));
    }
    Ok(())
}

/// The host and the path of a file.
fn place(inside: &Path, config: &Checked) -> Result<(Option<String>, String), &'static str> {
    let mut segments = Vec::new();
    for segment in inside.iter() {
        let segment = segment.to_str().ok_or("its name is not UTF-8")?;
        if segment.chars().any(char::is_control) {
            return Err("its name has a control character");
        }
        // Servers leave `%2F` escaped, because it is not a separator, so no request could name such a file.
        if segment.to_ascii_lowercase().contains("%2f") {
            return Err("its name has %2F, which a path cannot hold");
        }
        segments.push(segment);
    }
    let folder = segments.first().filter(|_| segments.len() > 1);
    let name = folder.and_then(|folder| host::ascii(folder).ok());
    let host = name.filter(|name| {
        let hosts = &config.config.hosts;
        let named = || hosts.keys().any(|host| host.get_ref() == name);
        let excepted = |other: &String| Some(other.as_str()) == folder.copied();
        host::is_name(name) && !config.config.folders.iter().any(excepted) || named()
    });
    let segments = segments
        .get(usize::from(host.is_some())..)
        .unwrap_or_default();
    let path = format!("/{}", segments.join("/"));
    Ok((host.map(|host| host.to_ascii_lowercase()), path))
}

//! Which files there are, and which host and path each is for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use walkdir::WalkDir;

use super::super::config::{self, Checked};
use super::super::problem::Findings;
use super::{FOLDER, is_host_name, shown};

/// Octets of the longest path.
const PATH_MAX: usize = 4000;

/// A file of a web root.
#[derive(Clone)]
pub(super) struct Found {
    /// Where it is.
    pub(super) file: PathBuf,
    /// From the site's folder on.
    pub(super) shown: PathBuf,
    /// Seconds since 1970.
    pub(super) modified: u64,
}

/// The files of a host by path.
pub(super) type Files = BTreeMap<String, Found>;

/// The files of the default host without a name, and of each host with one.
pub(super) struct Roots {
    pub(super) plain: Files,
    pub(super) hosts: BTreeMap<String, Files>,
}

/// Finds all files; `site` is canonical.
pub(super) fn scan(site: &Path, config: &Checked, findings: &mut Findings) -> Roots {
    let mut roots = Roots {
        plain: Files::new(),
        hosts: BTreeMap::new(),
    };
    let root = site.join(FOLDER);
    if !root.exists() {
        return roots;
    }
    let hidden = |name: &std::ffi::OsStr| {
        let name = name.to_string_lossy();
        name.starts_with('.') && name != ".well-known" && !config.config.hidden
    };
    let mut walk = WalkDir::new(&root)
        .follow_links(true)
        .sort_by_file_name()
        .into_iter();
    while let Some(entry) = walk.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) => {
                let path = error.path().unwrap_or(&root);
                let what = match error.io_error() {
                    Some(error) => format!("cannot be read: {error}"),
                    None => format!("cannot be read: {error}"),
                };
                findings.error(shown(site, path), None, what);
                continue;
            }
        };
        let file = shown(site, entry.path()).to_owned();
        if entry.depth() > 0 && hidden(entry.file_name()) {
            let what = "is left out, as its name begins with a dot (`hidden = true` packs it)";
            findings.warning(&file, None, what);
            if entry.file_type().is_dir() {
                walk.skip_current_dir();
            }
            continue;
        }
        if entry.path_is_symlink() {
            match entry.path().canonicalize() {
                Ok(path) if path.starts_with(site) => {}
                Ok(_) => {
                    findings.error(&file, None, "is a symbolic link out of the site");
                    if entry.file_type().is_dir() {
                        walk.skip_current_dir();
                    }
                    continue;
                }
                Err(error) => {
                    findings.error(&file, None, format!("cannot be read: {error}"));
                    continue;
                }
            }
        }
        if entry.file_type().is_dir() {
            continue;
        }
        if !entry.file_type().is_file() {
            findings.error(&file, None, "is neither a file nor a folder");
            continue;
        }
        let modified = match entry.metadata() {
            Ok(metadata) => metadata
                .modified()
                .ok()
                .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
                .map_or(0, |time| time.as_secs()),
            Err(error) => {
                findings.error(&file, None, format!("cannot be read: {error}"));
                continue;
            }
        };
        let inside = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        let (host, path) = match place(inside, config) {
            Ok(place) => place,
            Err(what) => {
                findings.error(&file, None, what);
                continue;
            }
        };
        let found = Found {
            file: entry.path().to_owned(),
            shown: file,
            modified,
        };
        match host {
            Some(host) => roots.hosts.entry(host).or_default().insert(path, found),
            None => roots.plain.insert(path, found),
        };
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

/// The host and the path of a file.
fn place(inside: &Path, config: &Checked) -> Result<(Option<String>, String), &'static str> {
    let mut segments = Vec::new();
    for segment in inside.iter() {
        let segment = segment.to_str().ok_or("its name is not UTF-8")?;
        if segment.chars().any(char::is_control) {
            return Err("its name has a control character");
        }
        // Servers leave this one escaped, as it is no separator; there is no other way to ask for it.
        if segment.to_ascii_lowercase().contains("%2f") {
            return Err("its name has %2F, which a path cannot hold");
        }
        segments.push(segment);
    }
    let folder = segments.first().filter(|_| segments.len() > 1);
    let host = folder.filter(|folder| {
        let named = || {
            config
                .config
                .hosts
                .keys()
                .any(|host| host.get_ref() == **folder)
        };
        let excepted = || config.config.folders.iter().any(|name| name == **folder);
        is_host_name(folder) && !excepted() || named()
    });
    let segments = segments
        .get(usize::from(host.is_some())..)
        .unwrap_or_default();
    let path = format!("/{}", segments.join("/"));
    if path.len() > PATH_MAX {
        return Err("its path is longer than 4000 bytes");
    }
    Ok((host.map(|host| host.to_ascii_lowercase()), path))
}

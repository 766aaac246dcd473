//! Finds the zone files of a site, and files that look like zone files.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use walkdir::WalkDir;

use super::super::files;
use super::super::problem::Findings;
use super::scan::{Entry, Scanner};

/// The folder of zones in a site's folder.
const FOLDER: &str = "zones";
/// The number of bytes of a file that are checked for whether it looks like a zone.
const LOOKED_AT: u64 = 64 << 10;

/// The zone files in the order of their names, relative to the site's folder.
pub(super) fn files(site: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let folder = Path::new(FOLDER);
    let entries = match std::fs::read_dir(site.join(folder)) {
        Ok(entries) => entries,
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && !site.join(folder).is_symlink() =>
        {
            return Vec::new();
        }
        Err(error) => {
            findings.error(folder, None, format!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(folder.join(entry.file_name())),
            Err(error) => findings.error(folder, None, format!("cannot be read: {error}")),
        }
    }
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "zone")
    });
    files.sort();
    files.retain(|file| {
        let hidden = is_hidden(file);
        if hidden {
            findings.warning(
                file,
                None,
                "is left out, because its name begins with a dot",
            );
        }
        !hidden
    });
    files
}

fn is_hidden(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default();
    name.as_encoded_bytes().starts_with(b".")
}

/// Reports files that look like zones and were neither packed nor included.
pub(super) fn others(site: &Path, included: &BTreeSet<PathBuf>, findings: &mut Findings) {
    let below = |folder: &Path, depth| {
        let walk = WalkDir::new(folder).max_depth(depth).sort_by_file_name();
        walk.into_iter().filter_map(Result::ok)
    };
    let folder = site.join(FOLDER);
    // A zone file beside the folder may have been put there by mistake.
    for entry in below(&folder, 16).chain(below(site, 1)) {
        let path = entry.path();
        let taken = path.parent() == Some(&folder)
            && path
                .extension()
                .is_some_and(|extension| extension == "zone");
        let known = || {
            path.canonicalize()
                .is_ok_and(|path| included.contains(&path))
        };
        if !entry.file_type().is_file() || taken || known() || !looks_like_zone(path) {
            continue;
        }
        let shown = path.strip_prefix(site).unwrap_or(path);
        let what = "looks like a zone and is not packed: zones are files zones/NAME.zone";
        findings.warning(shown, None, what);
    }
}

/// Whether a file has a SOA record, or a directive of master files at the start of a line.
fn looks_like_zone(path: &Path) -> bool {
    let Ok(file) = files::open(path) else {
        return false;
    };
    let mut text = Vec::new();
    if file.take(LOOKED_AT).read_to_end(&mut text).is_err() {
        return false;
    }
    let mut scanner = Scanner::new(&text);
    let mut entry = Entry::default();
    // An unreadable end may be due to the limit on the size.
    while scanner.next(&mut entry).unwrap_or(false) {
        let mut tokens = entry.tokens.iter();
        let is_directive = tokens.clone().next().is_some_and(|first| {
            ["$TTL", "$ORIGIN", "$INCLUDE", "$GENERATE"]
                .iter()
                .any(|directive| !entry.indented && first.is(directive))
        });
        let mut head = tokens.by_ref().take(4);
        let at = head.position(|token| token.is("SOA"));
        if is_directive || at.is_some() && entry.tokens.len() >= 7 {
            return true;
        }
    }
    false
}

//! The site's own header lines (`[[headers]]`).

use std::collections::BTreeMap;

use super::super::config::{Checked, Rule};

/// The header lines of rules. A later line replaces an earlier one of the same name.
fn all<'r>(rules: impl Iterator<Item = &'r Rule>) -> String {
    let mut own: Vec<&(String, String)> = Vec::new();
    for line in rules.flat_map(|rule| &rule.lines) {
        own.retain(|(name, _)| !name.eq_ignore_ascii_case(&line.0));
        own.push(line);
    }
    let lines = own.iter();
    let lines = lines.map(|(name, value)| format!("{name}: {value}\r\n"));
    lines.collect()
}

/// The header lines for the file at a path.
pub(super) fn at(path: &str, media_type: &str, config: &Checked) -> String {
    let rules = config.headers.iter();
    all(rules.filter(|rule| rule.fits(path, media_type)))
}

/// The header lines for missing files, by folder. If a folder is listed, so is the one above it.
pub(super) fn below(config: &Checked) -> BTreeMap<String, String> {
    let mut folders = BTreeMap::new();
    for folder in config
        .headers
        .iter()
        .filter_map(|rule| rule.folder.as_ref())
    {
        for (at, _) in folder.match_indices('/') {
            folders.insert(folder[..=at].to_owned(), String::new());
        }
    }
    for (folder, lines) in &mut folders {
        let above = |other: &String| folder.starts_with(other);
        let rules = config.headers.iter();
        *lines = all(rules.filter(|rule| rule.folder.as_ref().is_some_and(above)));
    }
    folders
}

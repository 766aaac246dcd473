//! Limits the length of files. The exceptions are in `tests/long-files.txt`, one `path: reason` a line.

use std::collections::BTreeMap;

use super::Source;

pub(super) const ALLOWLIST: &str = "tests/long-files.txt";
/// The greatest number of lines of a file.
const MOST: usize = 500;

/// Reports each file that is too long and not listed, and each entry without a long file.
pub(super) fn check(
    sources: &[Source],
    mut allowed: BTreeMap<&str, &str>,
    wrong: &mut Vec<String>,
) {
    for Source { path, text } in sources {
        let lines = text.lines().count();
        if lines > MOST && allowed.remove(path.as_str()).is_none() {
            wrong.push(format!(
                "{path} has {lines} lines: split it, or give the reason in {ALLOWLIST}"
            ));
        }
    }
    wrong.extend(allowed.keys().map(|path| {
        format!("{path} is in {ALLOWLIST} and has at most {MOST} lines: remove the line")
    }));
}

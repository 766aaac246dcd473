//! No file is longer than a reader takes in: the exceptions are in `tests/long-files.txt`, one `path: reason` in a line.

use std::collections::BTreeMap;

use super::Source;

pub(super) const ALLOWLIST: &str = "tests/long-files.txt";
/// Lines that a file may have.
const MOST: usize = 500;

/// Names each file that is too long and not listed, and each entry that no long file calls for.
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

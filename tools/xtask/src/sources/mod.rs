//! Rules for the sources that neither rustc nor clippy checks.

mod circles;
mod functions;
mod length;
mod seeds;
mod unsafe_files;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use walkdir::WalkDir;

/// A file of Rust or assembly.
struct Source {
    /// The path relative to the workspace.
    path: String,
    text: String,
}

impl Source {
    fn is_rust(&self) -> bool {
        Path::new(&self.path)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }
}

/// Checks the sources under `root`.
///
/// # Errors
/// All violations, one line each.
pub(crate) fn check(root: &Path) -> Result<()> {
    let sources = read(root)?;
    let mut wrong = Vec::new();
    let allowed = |name: &str| {
        let text = fs::read_to_string(root.join(name));
        text.with_context(|| format!("cannot read {name}"))
    };
    let text = allowed(unsafe_files::ALLOWLIST)?;
    let listed = entries(&text, unsafe_files::ALLOWLIST)?;
    unsafe_files::check(&sources, listed, &mut wrong)?;
    let text = allowed(length::ALLOWLIST)?;
    let listed = entries(&text, length::ALLOWLIST)?;
    length::check(&sources, listed, &mut wrong);
    let text = allowed(functions::ALLOWLIST)?;
    let listed = entries(&text, functions::ALLOWLIST)?;
    functions::check(&sources, listed, &mut wrong)?;
    let text = allowed(circles::ALLOWLIST)?;
    circles::check(&sources, &entries(&text, circles::ALLOWLIST)?, &mut wrong)?;
    seeds::check(&sources, &mut wrong)?;
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// All sources in the order of their paths, without build results.
fn read(root: &Path) -> Result<Vec<Source>> {
    let visible = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name == "target" || name.starts_with('.'))
    };
    let mut sources = Vec::new();
    let files = WalkDir::new(root).sort_by_file_name().into_iter();
    for entry in files.filter_entry(visible) {
        let entry = entry?;
        let extension = entry.path().extension().and_then(|e| e.to_str());
        if matches!(extension, Some("rs" | "s" | "S")) {
            let path = entry.path().strip_prefix(root)?;
            let path = path.to_string_lossy().into_owned();
            let text = fs::read_to_string(entry.path());
            let text = text.with_context(|| format!("cannot read {path}"))?;
            sources.push(Source { path, text });
        }
    }
    Ok(sources)
}

/// Path and reason of each line of an allow-list; `#` begins a comment.
fn entries<'t>(text: &'t str, list: &str) -> Result<BTreeMap<&'t str, &'t str>> {
    let mut allowed = BTreeMap::new();
    for line in text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.split_once(": ") {
            Some((path, reason)) if !reason.trim().is_empty() => {
                ensure!(
                    allowed.insert(path, reason).is_none(),
                    "{path} is in {list} twice"
                );
            }
            _ => bail!("{list}: a line is `path: reason`, and not {line:?}"),
        }
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_and_stale_files_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let said = || match check(root.path()) {
            Ok(()) => String::new(),
            Err(e) => format!("{e:#}"),
        };
        let long = "fn f() {}\n".repeat(501);
        write(
            unsafe_files::ALLOWLIST,
            "# why\na.rs: it must\nb.s: entry\n",
        );
        write(length::ALLOWLIST, "c.rs: a table\n");
        write(functions::ALLOWLIST, "");
        write(circles::ALLOWLIST, "");
        write("a.rs", "unsafe fn f() {}");
        write("b.s", "ret");
        write("c.rs", &long);
        write("target/d.rs", "unsafe fn f() {}");
        assert_eq!(said(), "");
        write("d/e.rs", "unsafe fn f() {}");
        assert!(said().contains("d/e.rs holds unsafe code"));
        write("d/e.rs", &long);
        assert!(said().contains("d/e.rs has 501 lines"));
        write("d/e.rs", "proptest! { fn f(x: u8) {} }");
        assert!(said().contains("d/e.rs has a property test"));
        write("d/e.rs", "fn f() {}");
        write("a.rs", "fn f() {}");
        write("c.rs", "fn f() {}");
        let text = said();
        assert!(text.contains("a.rs is in tests/unsafe"), "{text}");
        assert!(text.contains("c.rs is in tests/long"), "{text}");
        write(unsafe_files::ALLOWLIST, "a.rs\n");
        assert!(said().contains("a line is `path: reason`"));
    }
}

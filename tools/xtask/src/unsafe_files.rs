//! The files that may hold `unsafe` or assembly: `tests/unsafe-allowlist.txt`, one `path: reason` in a line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use proc_macro2::{TokenStream, TokenTree};
use walkdir::WalkDir;

const ALLOWLIST: &str = "tests/unsafe-allowlist.txt";
/// Words that leave safe Rust. As tokens they are found in macros too, and not in comments, strings or the names of lints.
const WORDS: [&str; 4] = ["unsafe", "asm", "global_asm", "naked_asm"];

/// Compares the sources under `root` with the allowlist.
///
/// Fails on a file that is not listed, and on an entry that nothing calls for any more.
pub(crate) fn check(root: &Path) -> Result<()> {
    let text = fs::read_to_string(root.join(ALLOWLIST))
        .with_context(|| format!("cannot read {ALLOWLIST}"))?;
    let mut allowed = parse(&text)?;
    let mut wrong = Vec::new();
    let visible = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name == "target" || name.starts_with('.'))
    };
    for entry in WalkDir::new(root)
        .sort_by_file_name()
        .into_iter()
        .filter_entry(visible)
    {
        let entry = entry?;
        let path = entry
            .path()
            .strip_prefix(root)?
            .to_string_lossy()
            .into_owned();
        let leaves_safe_rust = match entry.path().extension().and_then(|e| e.to_str()) {
            Some("s" | "S") => true,
            Some("rs") => {
                let source = fs::read_to_string(entry.path())?;
                holds_unsafe(&source).with_context(|| format!("{path} is not Rust"))?
            }
            _ => false,
        };
        if leaves_safe_rust && allowed.remove(path.as_str()).is_none() {
            wrong.push(format!(
                "{path} holds unsafe code and is not in {ALLOWLIST}"
            ));
        }
    }
    wrong.extend(
        allowed.keys().map(|path| {
            format!("{path} is in {ALLOWLIST} and holds no unsafe code: remove the line")
        }),
    );
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Path and reason of each line; `#` begins a comment.
fn parse(text: &str) -> Result<BTreeMap<&str, &str>> {
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
                    "{path} is in {ALLOWLIST} twice"
                );
            }
            _ => bail!("{ALLOWLIST}: a line is `path: reason`, and not {line:?}"),
        }
    }
    Ok(allowed)
}

fn holds_unsafe(source: &str) -> Result<bool> {
    let tokens = TokenStream::from_str(source).map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(any(tokens))
}

fn any(tokens: TokenStream) -> bool {
    tokens.into_iter().any(|token| match token {
        TokenTree::Group(group) => any(group.stream()),
        TokenTree::Ident(ident) => WORDS.iter().any(|word| ident == word),
        TokenTree::Punct(_) | TokenTree::Literal(_) => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_is_found_wherever_it_is_code() {
        for source in [
            "fn f() { unsafe { g() } }",
            "unsafe fn f() {}",
            "unsafe impl Send for X {}",
            "unsafe extern \"C\" { fn f(); }",
            "#[unsafe(no_mangle)] fn f() {}",
            "core::arch::global_asm!(\"nop\");",
            "macro_rules! m { () => { unsafe { f() } } }",
            "type F = unsafe fn();",
        ] {
            assert!(holds_unsafe(source).unwrap(), "{source}");
        }
        for source in [
            "#![forbid(unsafe_code)]",
            "// unsafe\nfn f() {}",
            "/// unsafe { }\nfn f() { let x = \"unsafe\"; }",
            "fn unsafe_looking() {}",
        ] {
            assert!(!holds_unsafe(source).unwrap(), "{source}");
        }
        assert!(holds_unsafe("fn f() {").is_err());
    }

    #[test]
    fn new_and_stale_files_are_told_apart() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(ALLOWLIST, "# why\na.rs: it must\nb.s: entry\n");
        write("a.rs", "unsafe fn f() {}");
        write("b.s", "ret");
        write("target/c.rs", "unsafe fn f() {}");
        check(root.path()).unwrap();
        write("d/e.rs", "unsafe fn f() {}");
        assert!(
            format!("{:#}", check(root.path()).unwrap_err()).contains("d/e.rs holds unsafe code")
        );
        write("d/e.rs", "fn f() {}");
        write("a.rs", "fn f() {}");
        assert!(format!("{:#}", check(root.path()).unwrap_err()).contains("a.rs is in"));
        write(ALLOWLIST, "a.rs\n");
        assert!(check(root.path()).is_err());
    }
}

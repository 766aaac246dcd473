//! Checks the files that contain `unsafe` or assembly against `tests/unsafe-allowlist.txt`, one `path: reason` a line.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};

use super::Source;

pub(super) const ALLOWLIST: &str = "tests/unsafe-allowlist.txt";
/// Words that leave safe Rust. They are searched as tokens, so they are found in macros, but not in comments, strings
/// or the names of lints.
const WORDS: [&str; 4] = ["unsafe", "asm", "global_asm", "naked_asm"];

/// Reports each file that contains unsafe code and is not listed, and each entry that is no longer needed.
pub(super) fn check(
    sources: &[Source],
    mut allowed: BTreeMap<&str, &str>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    for source in sources {
        let Source { path, text } = source;
        // Assembly is unsafe as a whole.
        let leaves_safe_rust = !source.is_rust()
            || holds_unsafe(text).with_context(|| format!("{path} is not Rust"))?;
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
    Ok(())
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
}

//! Limits the length of functions. The exceptions are in `tests/long-functions.txt`, one `path function: reason` a
//! line. Tests may be longer.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use syn::visit::{self, Visit};
use syn::{Block, ImplItemFn, ItemFn, Signature, TraitItemFn};

use super::Source;

pub(super) const ALLOWLIST: &str = "tests/long-functions.txt";
/// The greatest number of lines of a function, from its signature to its last brace.
const MOST: usize = 80;

/// Reports each function that is too long and not listed, and each entry without a long function.
pub(super) fn check(
    sources: &[Source],
    mut allowed: BTreeMap<&str, &str>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let is_test = |path: &str| path.split('/').any(|part| part.starts_with("tests"));
    for Source { path, text } in sources
        .iter()
        .filter(|source| source.is_rust() && !is_test(&source.path))
    {
        let syntax = syn::parse_file(text).with_context(|| format!("{path} is not Rust"))?;
        let mut reader = Reader::default();
        reader.visit_file(&syntax);
        for (name, lines) in reader.long {
            if allowed.remove(format!("{path} {name}").as_str()).is_none() {
                wrong.push(format!(
                    "{path}: the function {name} has {lines} lines: split it, or give the reason in {ALLOWLIST}"
                ));
            }
        }
    }
    wrong.extend(allowed.keys().map(|entry| {
        format!("{entry} is in {ALLOWLIST} and has at most {MOST} lines: remove the line")
    }));
    Ok(())
}

#[derive(Default)]
struct Reader {
    /// Name and lines of the functions that are too long.
    long: Vec<(String, usize)>,
}

impl Reader {
    fn measure(&mut self, signature: &Signature, body: &Block) {
        let end = body.brace_token.span.close().end();
        let lines = end.line - signature.fn_token.span.start().line + 1;
        if lines > MOST {
            self.long.push((signature.ident.to_string(), lines));
        }
    }
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.measure(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(body) = &item.default {
            self.measure(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_functions_are_told_and_listed() {
        let body = "    f();\n".repeat(78);
        let source = |body: &str| Source {
            path: "x/src/lib.rs".to_owned(),
            text: format!("struct S;\nimpl S {{\nfn long() {{\n{body}}}\n}}\n"),
        };
        let said = |source: Source, allowed: &str| {
            let mut wrong = Vec::new();
            let listed = super::super::entries(allowed, ALLOWLIST).unwrap();
            check(&[source], listed, &mut wrong).unwrap();
            wrong
        };
        assert!(said(source(&body), "").is_empty(), "80 lines");
        let long = format!("{body}    f();\n");
        assert!(said(source(&long), "")[0].contains("the function long has 81 lines"));
        let listed = "x/src/lib.rs long: a table\n";
        assert!(said(source(&long), listed).is_empty());
        assert!(said(source(&body), listed)[0].contains("remove the line"));
    }
}

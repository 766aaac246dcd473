//! Finds circles between the files of a crate. The exceptions are in `tests/circles.txt`, one `from -> to: reason` a
//! line.
//!
//! A file needs another file if a path in it, in a `use` or elsewhere, leads to a module of the same crate. A
//! re-exported name leads to the module that defines it. A re-export itself is no need, so `mod.rs` may re-export the
//! items of its children. A module may need the modules that contain it. Tests are left out.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

use super::Source;

pub(super) const ALLOWLIST: &str = "tests/circles.txt";

/// The greatest number of re-exports that are followed for one name.
const HOPS: usize = 8;

/// The names of a module's path from the crate's root.
type Module = Vec<String>;
/// Needs between files, by their paths.
type Graph<'s> = BTreeMap<&'s str, BTreeSet<&'s str>>;

/// Reports each circle that remains without the listed needs, and each listed need that is in no circle.
pub(super) fn check(
    sources: &[Source],
    allowed: &BTreeMap<&str, &str>,
    wrong: &mut Vec<String>,
) -> Result<()> {
    let mut crates: BTreeMap<&str, Vec<&Source>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.is_rust()) {
        if let Some((root, _)) = source.path.split_once("src/")
            && !is_test(&source.path)
        {
            crates.entry(root).or_default().push(source);
        }
    }
    let mut needless: BTreeSet<&str> = allowed.keys().copied().collect();
    for (root, files) in crates {
        let mut graph = needs(root, &files)?;
        for (entry, (from, to)) in allowed
            .keys()
            .filter_map(|entry| Some((entry, entry.split_once(" -> ")?)))
        {
            if leads(&graph, from, to) && path(&graph, to, from).is_some() {
                needless.remove(entry);
            }
        }
        for (from, to) in allowed.keys().filter_map(|entry| entry.split_once(" -> ")) {
            if let Some(needed) = graph.get_mut(from) {
                needed.remove(to);
            }
        }
        while let Some(circle) = circle(&graph) {
            wrong.push(format!(
                "a circle between files: {}: move what both need, or give the reason for one arrow in {ALLOWLIST}",
                circle.join(" -> ")
            ));
            // The circle's last arrow is removed, so that the next search finds another circle.
            if let [.., from, to] = circle.as_slice()
                && let Some(needed) = graph.get_mut(from)
            {
                needed.remove(to);
            }
        }
    }
    wrong.extend(
        needless
            .iter()
            .map(|entry| format!("{entry} is in {ALLOWLIST} and in no circle: remove the line")),
    );
    Ok(())
}

fn is_test(path: &str) -> bool {
    path.split('/')
        .any(|part| part == "tests" || part == "tests.rs")
}

fn leads(graph: &Graph<'_>, from: &str, to: &str) -> bool {
    graph.get(from).is_some_and(|needed| needed.contains(to))
}

/// A path from one file to another, both included.
fn path<'s>(graph: &Graph<'s>, from: &str, to: &str) -> Option<Vec<&'s str>> {
    let (from, _) = graph.get_key_value(from)?;
    let mut came_from: BTreeMap<&str, &str> = BTreeMap::new();
    let mut next = vec![*from];
    let mut seen = BTreeSet::from([*from]);
    while let Some(at) = next.pop() {
        if at == to {
            let mut way = vec![at];
            while let Some(before) = came_from.get(way.last()?) {
                way.push(before);
            }
            way.reverse();
            return Some(way);
        }
        for needed in graph.get(at).into_iter().flatten() {
            if seen.insert(needed) {
                came_from.insert(needed, at);
                next.push(needed);
            }
        }
    }
    None
}

/// A circle, if there is one. Its first file is also its last.
fn circle<'s>(graph: &Graph<'s>) -> Option<Vec<&'s str>> {
    graph.iter().find_map(|(file, needed)| {
        needed.iter().find_map(|next| {
            let mut way = path(graph, next, file)?;
            way.insert(0, *file);
            Some(way)
        })
    })
}

/// The needs of each file of a crate.
fn needs<'s>(root: &str, files: &[&'s Source]) -> Result<Graph<'s>> {
    let mut modules = BTreeMap::new();
    for source in files {
        let syntax = syn::parse_file(&source.text)
            .with_context(|| format!("{} is not Rust", source.path))?;
        let module = module_of(&source.path, root);
        let mut reader = Reader::default();
        reader.visit_file(&syntax);
        modules.insert(module, (source.path.as_str(), reader));
    }
    let mut graph = Graph::new();
    for (module, (file, reader)) in &modules {
        let needed: BTreeSet<&str> = reader
            .paths
            .iter()
            .filter_map(|path| {
                let path = absolute(module, path, &modules)?;
                resolve(path, &modules, HOPS)
            })
            .filter(|needed| needed != file && !is_around(&module_of(needed, root), module))
            .collect();
        graph.insert(file, needed);
    }
    Ok(graph)
}

/// Whether one module contains the other.
fn is_around(outer: &Module, inner: &Module) -> bool {
    outer.len() < inner.len() && inner.starts_with(outer)
}

type Modules<'s> = BTreeMap<Module, (&'s str, Reader)>;

/// The module of a file: `src/a/b.rs` and `src/a/b/mod.rs` are `a::b`, `src/lib.rs` is the root.
fn module_of(path: &str, root: &str) -> Module {
    let inside = path.strip_prefix(root).unwrap_or(path);
    let inside = inside.strip_prefix("src/").unwrap_or(inside);
    let inside = inside.strip_suffix(".rs").unwrap_or(inside);
    let mut module: Module = inside.split('/').map(str::to_owned).collect();
    if matches!(
        module.last().map(String::as_str),
        Some("mod" | "lib" | "main")
    ) {
        module.pop();
    }
    module
}

/// A path from the crate's root, if it leads to a module of the crate.
fn absolute(module: &Module, path: &[String], modules: &Modules<'_>) -> Option<Module> {
    let mut base = module.clone();
    let mut rest = path;
    match path.first().map(String::as_str)? {
        "crate" => {
            base.clear();
            rest = rest.get(1..)?;
        }
        "self" => rest = rest.get(1..)?,
        "super" => {
            while rest.first().is_some_and(|word| word == "super") {
                base.pop()?;
                rest = rest.get(1..)?;
            }
        }
        child => {
            let mut module = base.clone();
            module.push(child.to_owned());
            modules.get(&module)?;
        }
    }
    base.extend(rest.iter().cloned());
    Some(base)
}

/// The file that a path leads to.
fn resolve<'s>(path: Module, modules: &Modules<'s>, hops: usize) -> Option<&'s str> {
    let depth = (0..=path.len()).rev().find(|depth| {
        path.get(..*depth)
            .is_some_and(|part| modules.contains_key(part))
    })?;
    let (file, reader) = modules.get(path.get(..depth)?)?;
    let offered = path.get(depth).and_then(|name| reader.offers.get(name));
    match (offered, hops.checked_sub(1)) {
        (Some(from), Some(hops)) => {
            let module = path.get(..depth)?.to_vec();
            match absolute(&module, from, modules) {
                Some(path) => resolve(path, modules, hops),
                // The name comes from another crate.
                None => Some(file),
            }
        }
        _ => Some(file),
    }
}

/// The paths that a file names.
#[derive(Default)]
struct Reader {
    /// The number of inline modules around the present item.
    depth: usize,
    /// The paths as they are written, relative to the file's module.
    paths: Vec<Vec<String>>,
    /// The names that the file re-exports, with their paths.
    offers: BTreeMap<String, Vec<String>>,
}

impl Reader {
    /// Records a path. Inside of an inline module, the first `super`s lead out of that.
    fn note(&mut self, mut path: Vec<String>) {
        for _ in 0..self.depth {
            match path.first().map(String::as_str) {
                Some("super") => drop(path.remove(0)),
                Some("crate") => break,
                _ => return,
            }
        }
        if self.depth > 0
            && path
                .first()
                .is_none_or(|word| word != "super" && word != "crate")
        {
            path.insert(0, "self".to_owned());
        }
        self.paths.push(path);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Meta>()
                .is_ok_and(|meta| meta.path().is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_for_tests(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.depth += 1;
        visit::visit_item_mod(self, item);
        self.depth -= 1;
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let is_offer = self.depth == 0 && !matches!(item.vis, Visibility::Inherited);
        let mut leaves = Vec::new();
        leaves_of(&item.tree, &mut Vec::new(), &mut leaves);
        for (path, name) in leaves {
            if is_offer {
                self.offers.insert(name, path);
            } else {
                self.note(path);
            }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let words: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if words.len() > 1 {
            self.note(words);
        }
        visit::visit_path(self, path);
    }
}

/// Each path of a `use`, and the name that it gives.
fn leaves_of(tree: &UseTree, before: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, String)>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            leaves_of(&path.tree, before, leaves);
            before.pop();
        }
        UseTree::Group(group) => {
            for tree in &group.items {
                leaves_of(tree, before, leaves);
            }
        }
        UseTree::Name(name) if name.ident == "self" => {
            let given = before.last().cloned().unwrap_or_default();
            leaves.push((before.clone(), given));
        }
        UseTree::Name(name) => {
            let mut path = before.clone();
            path.push(name.ident.to_string());
            leaves.push((path, name.ident.to_string()));
        }
        UseTree::Rename(rename) => {
            let mut path = before.clone();
            path.push(rename.ident.to_string());
            leaves.push((path, rename.rename.to_string()));
        }
        UseTree::Glob(_) => leaves.push((before.clone(), "*".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(files: &[(&str, &str)], allowed: &str) -> Vec<String> {
        let sources: Vec<_> = files
            .iter()
            .map(|(path, text)| Source {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        let listed = super::super::entries(allowed, ALLOWLIST).unwrap();
        let mut wrong = Vec::new();
        check(&sources, &listed, &mut wrong).unwrap();
        wrong
    }

    #[test]
    fn a_circle_is_found_and_listed() {
        let files = [
            ("x/src/lib.rs", "mod a; mod b;"),
            ("x/src/a.rs", "use crate::b::B; pub struct A;"),
            (
                "x/src/b.rs",
                "pub struct B; fn f() { let _ = super::a::A; }",
            ),
        ];
        let wrong = said(&files, "");
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].contains("x/src/a.rs -> x/src/b.rs -> x/src/a.rs"));
        let listed = "x/src/b.rs -> x/src/a.rs: both are one thing\n";
        assert!(said(&files, listed).is_empty());
        let stale = said(&files[..2], listed);
        assert!(stale[0].contains("in no circle"), "{stale:?}");
    }

    #[test]
    fn a_child_may_need_its_parent_and_no_other_child_that_needs_it() {
        let files = [
            ("x/src/lib.rs", "mod a;"),
            ("x/src/a/mod.rs", "mod b; mod c; use b::B; pub struct A(B);"),
            (
                "x/src/a/b.rs",
                "use super::A; use super::c::C; pub struct B;",
            ),
            ("x/src/a/c.rs", "use super::A; pub struct C;"),
        ];
        assert_eq!(said(&files, ""), [""; 0]);
        let mut files = files;
        files[3].1 = "pub struct C(super::b::B);";
        assert_eq!(said(&files, "").len(), 1);
    }

    #[test]
    fn what_is_offered_again_or_is_for_tests_is_no_circle() {
        let files = [
            ("x/src/lib.rs", "mod a; pub use a::{A, c::C};"),
            ("x/src/a/mod.rs", "mod b; pub mod c; pub use b::A;"),
            (
                "x/src/a/b.rs",
                "use super::C2; use crate::C; pub struct A; #[cfg(test)] mod tests { use super::super::c::D; }",
            ),
            (
                "x/src/a/c.rs",
                "pub struct C; #[cfg(test)] use super::A; mod inner { use super::C; }",
            ),
            ("x/src/a/tests.rs", "use crate::A;"),
        ];
        assert_eq!(said(&files, ""), [""; 0]);
    }
}

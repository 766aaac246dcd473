//! Maps addresses to functions of the guest.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use mayfly_lab::workspace;
use object::Object;

/// The number of functions that are shown.
const SHOWN: usize = 25;

/// A table of the sampled functions, the most frequent first.
///
/// # Errors
/// The guest with symbols is missing; building the guest leaves it beside the guest.
pub(super) fn table(title: &str, samples: &[(u64, u64)]) -> Result<String> {
    let path = workspace().join("target/guest/mayfly.debug");
    let data = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*data)?;
    let symbols = file.symbol_map();
    let mut functions: BTreeMap<String, u64> = BTreeMap::new();
    let mut total = 0;
    let asleep: u64 = samples
        .iter()
        .filter(|(address, _)| *address == 0)
        .map(|(_, count)| count)
        .sum();
    for &(address, count) in samples.iter().filter(|(address, _)| *address != 0) {
        let name = symbols.containing(address).map_or_else(
            || format!("{address:#x}"),
            |symbol| demangled(symbol.name()),
        );
        *functions.entry(name).or_default() += count;
        total += count;
    }
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let mut out = format!(
        "{title}: mayfly was seen asleep {asleep} times and at work {total} times, of which in parts of a hundred\n"
    );
    for (name, count) in functions.iter().take(SHOWN) {
        let tenths = count * 1000 / total.max(1);
        writeln!(out, "{:>4}.{}  {name}", tenths / 10, tenths % 10)?;
    }
    Ok(out)
}

fn demangled(name: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(name))
}

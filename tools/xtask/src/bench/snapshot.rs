//! The recorded figures in `tests/snapshots`.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use mayfly_lab::workspace;

/// The greatest growth of a figure, in percent. Figures change by one or two percent when dom0's initramfs changes.
const MARGIN: u64 = 3;

/// The growth of a number of exits that is allowed. Coincidence of dom0's notifications changes it by two when anything
/// in dom0's initramfs changes, which is more than 3 % of so small a number.
const EXITS: u64 = 4;

/// The removal of a vif waits several times for the kernel's ticks (4 ms, `CONFIG_HZ=250`), so its time varies by one
/// or two of them.
const TICKS: u64 = 8_000_000;

/// The allowed growth of a short time, in which the wake of a sleeper or a tick may fall.
const WAKE: u64 = 30_000;

/// Figures by name.
type Figures = BTreeMap<String, u64>;

/// The figures of `bench boot`.
pub(crate) const BOOT: &str = "boot";
/// The figures of `bench summon`.
pub(crate) const SUMMON: &str = "summon";
/// The figures of `bench serve --counted`, for the documents: no test compares with them.
pub(crate) const SERVE: &str = "serve";

fn path(name: &str) -> PathBuf {
    workspace().join(format!("tests/snapshots/{name}.json"))
}

/// The recorded figures.
///
/// # Errors
/// There is no record, or it is malformed.
pub(crate) fn read(name: &str) -> Result<Figures> {
    let path = path(name);
    let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not figures by name", path.display()))
}

/// Records figures.
///
/// # Errors
/// The file cannot be written.
pub(crate) fn write(name: &str, figures: &Figures) -> Result<()> {
    let path = path(name);
    fs::create_dir_all(path.parent().context("no folder")?)?;
    let text = serde_json::to_string_pretty(figures)? + "\n";
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("recorded in {}", path.display());
    Ok(())
}

/// Compares figures with the recorded ones.
///
/// # Errors
/// No record, or a malformed one; and each figure that has grown, old and new.
pub(crate) fn compare(name: &str, figures: &Figures) -> Result<()> {
    let grown = grown(&read(name)?, figures);
    if !grown.is_empty() {
        bail!(
            "it costs more than recorded (`cargo xtask bench {name} --counted --record` records anew):\n{}",
            grown.join("\n")
        );
    }
    Ok(())
}

/// The allowed growth of a birth from the pool. It is so short that the kernel's work for the previous guest may fall
/// into it: 1.68 to 2.55 ms were seen in one run.
const POOL: u64 = 600_000;

/// The allowed growth of a figure. `name` may have a maker as its prefix: `hatch: VM exits to first HTTP byte`.
fn slack(name: &str, before: u64) -> u64 {
    let (whose, name) = name.split_once(": ").unwrap_or(("", name));
    let margin = before * MARGIN / 100;
    if name.starts_with("VM exits") {
        margin.max(EXITS)
    } else if name.ends_with("until nothing is left") {
        margin.max(TICKS)
    } else if name.starts_with("SYN to SYN-ACK") || name.starts_with("SYN-ACK to") {
        margin.max(WAKE)
    } else if whose == "pool" && name.starts_with("create") {
        margin.max(POOL)
    } else {
        margin
    }
}

/// One line for each figure that has grown by more than the margin, or that only one of the two has.
fn grown(old: &Figures, new: &Figures) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, before) in old {
        match new.get(name) {
            Some(now) if *now > before + slack(name, *before) => {
                lines.push(format!(
                    "{name} grew by more than it may ({}): it was {before} and is {now}",
                    slack(name, *before)
                ));
            }
            Some(_) => {}
            None => lines.push(format!("{name} was {before} and was not measured")),
        }
    }
    lines.extend(
        new.keys()
            .filter(|name| !old.contains_key(*name))
            .map(|name| format!("{name} is not recorded")),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(figures: &[(&str, u64)]) -> Figures {
        figures
            .iter()
            .map(|(name, figure)| ((*name).to_owned(), *figure))
            .collect()
    }

    #[test]
    fn growth_over_the_margin_is_named() {
        let old = figures(&[("exits", 100), ("hypercalls", 10), ("time", 1000)]);
        assert!(
            grown(
                &old,
                &figures(&[("exits", 103), ("hypercalls", 10), ("time", 500)])
            )
            .is_empty()
        );
        let lines = grown(
            &old,
            &figures(&[("exits", 104), ("hypercalls", 11), ("time", 1000)]),
        );
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].starts_with("exits") && lines[0].contains("100") && lines[0].contains("104")
        );
    }

    #[test]
    fn a_few_vm_exits_are_no_growth() {
        let old = figures(&[("VM exits to ready", 29)]);
        assert!(grown(&old, &figures(&[("VM exits to ready", 33)])).is_empty());
        assert_eq!(grown(&old, &figures(&[("VM exits to ready", 34)])).len(), 1);
        let old = figures(&[("hatch: VM exits to ready", 15)]);
        assert!(grown(&old, &figures(&[("hatch: VM exits to ready", 19)])).is_empty());
        assert_eq!(
            grown(&old, &figures(&[("hatch: VM exits to ready", 20)])).len(),
            1
        );
    }

    #[test]
    fn a_tick_is_no_growth() {
        let old = figures(&[("hatch: destroy, until nothing is left", 36_000_000)]);
        let new = |figure| figures(&[("hatch: destroy, until nothing is left", figure)]);
        assert!(grown(&old, &new(40_000_000)).is_empty());
        assert_eq!(grown(&old, &new(45_000_000)).len(), 1);
    }

    #[test]
    fn a_wake_is_no_growth() {
        let old = figures(&[("SYN to SYN-ACK, running", 200_000)]);
        let new = |ticks| figures(&[("SYN to SYN-ACK, running", ticks)]);
        assert!(grown(&old, &new(230_000)).is_empty());
        assert_eq!(grown(&old, &new(230_001)).len(), 1);
    }

    #[test]
    fn a_figure_that_comes_or_goes_is_named() {
        let lines = grown(&figures(&[("a", 1)]), &figures(&[("b", 1)]));
        assert_eq!(lines, ["a was 1 and was not measured", "b is not recorded"]);
    }
}

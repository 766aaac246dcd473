//! `cargo xtask documents`: writes the tables in the documents from the figures in `tests/snapshots`.
//!
//! A table stands between two comments, `<!-- figures: NAME -->` and `<!-- end -->`. `cargo xtask check` fails when a
//! table differs from `tests/snapshots`, so that all figures in the documents have the same age.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result, ensure};
use mayfly_lab::workspace;

use crate::bench::figures::AROUND;
use crate::bench::snapshot::{BOOT, SERVE, SUMMON, read};
use crate::size;

const README: &str = "README.md";
const MEASUREMENTS: &str = "docs/measurements.md";
const END: &str = "<!-- end -->";

/// Writes one table.
type Table = fn(&Recorded) -> Result<String>;

/// Every table: its document, its name there, and the function that writes it.
const TABLES: [(&str, &str, Table); 5] = [
    (README, "summary", summary),
    (MEASUREMENTS, "boot", boot),
    (MEASUREMENTS, "wake", wake),
    (MEASUREMENTS, "serve", serve),
    (MEASUREMENTS, "size", image),
];

/// The recorded figures, by name.
struct Recorded {
    boot: BTreeMap<String, u64>,
    wake: BTreeMap<String, u64>,
    serve: BTreeMap<String, u64>,
    image: BTreeMap<String, u64>,
}

impl Recorded {
    fn read() -> Result<Self> {
        Ok(Self {
            boot: read(BOOT)?,
            wake: read(SUMMON)?,
            serve: read(SERVE)?,
            image: size::recorded()?,
        })
    }
}

/// Writes every table.
///
/// # Errors
/// A document or snapshot cannot be read; a figure is missing; a document lacks the comments.
pub(crate) fn write() -> Result<()> {
    let recorded = Recorded::read()?;
    for (document, name, table) in TABLES {
        let path = workspace().join(document);
        let before = fs::read_to_string(&path).with_context(|| document.to_owned())?;
        let after =
            replaced(&before, name, &table(&recorded)?).with_context(|| document.to_owned())?;
        if before != after {
            fs::write(&path, after).with_context(|| document.to_owned())?;
            println!("{document}: {name}");
        }
    }
    Ok(())
}

/// Compares every table with the recorded figures.
///
/// # Errors
/// The errors of [`write()`]; a table that differs.
pub(crate) fn check() -> Result<()> {
    let recorded = Recorded::read()?;
    for (document, name, table) in TABLES {
        let text =
            fs::read_to_string(workspace().join(document)).with_context(|| document.to_owned())?;
        let right =
            replaced(&text, name, &table(&recorded)?).with_context(|| document.to_owned())?;
        ensure!(
            text == right,
            "{document}: the table `{name}` does not say what tests/snapshots says: `cargo xtask documents` writes it anew"
        );
    }
    Ok(())
}

/// The document with a table replaced between its two comments.
fn replaced(document: &str, name: &str, table: &str) -> Result<String> {
    let begin = format!("<!-- figures: {name} -->");
    let (before, rest) = document
        .split_once(&begin)
        .with_context(|| format!("there is no {begin}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("there is no {END} behind {begin}"))?;
    Ok(format!("{before}{begin}\n\n{table}\n{END}{after}"))
}

fn figure(figures: &BTreeMap<String, u64>, name: &str) -> Result<u64> {
    let figure = figures.get(name).copied();
    figure.with_context(|| format!("tests/snapshots has no figure \"{name}\""))
}

/// Instructions as virtual milliseconds, rounded to three significant digits.
fn ms(instructions: u64) -> String {
    let decimals = match instructions {
        0..1_000_000 => 3,
        1_000_000..10_000_000 => 2,
        _ => 1,
    };
    let unit = 10_u64.pow(6 - decimals);
    let (rounded, scale) = ((instructions + unit / 2) / unit, 10_u64.pow(decimals));
    let decimals = usize::try_from(decimals).unwrap_or_default();
    format!("{}.{:0decimals$}", rounded / scale, rounded % scale)
}

fn kib(bytes: u64) -> String {
    format!("{} KiB", bytes.div_ceil(1024))
}

fn summary(recorded: &Recorded) -> Result<String> {
    let boot = |name: &str| figure(&recorded.boot, name);
    let wake = |name: &str| figure(&recorded.wake, name);
    let mut table = String::from("| | `xl` | `hatch` |\n|---|---|---|\n");
    for (what, name) in [
        ("create a guest, paused", "create"),
        (
            "from its start to the first HTTP byte",
            "unpause to first HTTP byte",
        ),
        (
            "create, to the first HTTP byte",
            "create, and to first HTTP byte",
        ),
    ] {
        let (xl, hatch) = (boot(name)?, boot(&format!("hatch: {name}"))?);
        writeln!(table, "| {what} | {} ms | {} ms |", ms(xl), ms(hatch))?;
    }
    let (cold, pool) = (wake("SYN to SYN-ACK, cold")?, wake("SYN to SYN-ACK, pool")?);
    writeln!(
        table,
        "| SYN to SYN-ACK, the guest does not exist yet | | {} ms |",
        ms(cold)
    )?;
    writeln!(
        table,
        "| SYN to SYN-ACK, a guest was made ahead | | {} ms |",
        ms(pool)
    )?;
    let image = kib(figure(&recorded.image, "loadable")?);
    writeln!(table, "| the image | {image} | {image} |")?;
    Ok(table)
}

/// The table of a birth, by maker.
fn boot(recorded: &Recorded) -> Result<String> {
    const ROWS: [(&str, bool); 11] = [
        ("create", true),
        (AROUND, true),
        ("unpause to first frame", true),
        ("unpause to SYN-ACK", true),
        ("unpause to first HTTP byte", true),
        ("create, and to first HTTP byte", true),
        ("destroy", true),
        ("destroy, until nothing is left", true),
        ("own instructions to first transmit request", false),
        ("VM exits to first HTTP byte", false),
        ("xenstore requests to first packet", false),
    ];
    let mut table = String::from("| | `xl` | `hatch` | hatch's pool |\n|---|---|---|---|\n");
    for (name, is_time) in ROWS {
        write!(table, "| {name}{} |", if is_time { ", ms" } else { "" })?;
        for by in ["", "hatch: ", "pool: "] {
            // Only hatch says how long its work took.
            if name == AROUND && by != "hatch: " {
                table.push_str(" |");
                continue;
            }
            let value = figure(&recorded.boot, &format!("{by}{name}"))?;
            let value = if is_time {
                ms(value)
            } else {
                value.to_string()
            };
            write!(table, " {value} |")?;
        }
        table.push('\n');
    }
    Ok(table)
}

fn wake(recorded: &Recorded) -> Result<String> {
    let mut table = String::from("| the service | SYN to SYN-ACK, ms |\n|---|---|\n");
    for (what, name) in [
        ("has no guest", "cold"),
        ("has a guest that was made ahead", "pool"),
        ("has a suspended guest", "suspended"),
        ("has a running guest", "running"),
        ("is on `hatch switch` and has no guest", "switch"),
        (
            "is on `hatch switch` and has no guest, 4 MiB",
            "switch-4-mib",
        ),
        (
            "is on `hatch switch` and has a guest that was made ahead, 4 MiB",
            "switch-pool",
        ),
        (
            "is on `hatch switch` and has a suspended guest",
            "switch-suspended",
        ),
        (
            "is on `hatch switch` and has a running guest",
            "switch-running",
        ),
    ] {
        let value = figure(&recorded.wake, &format!("SYN to SYN-ACK, {name}"))?;
        writeln!(table, "| {what} | {} |", ms(value))?;
    }
    Ok(table)
}

/// One row for each recorded load; [`crate::bench`] names the figures.
fn serve(recorded: &Recorded) -> Result<String> {
    let mut table = String::from(
        "| load | answers a virtual second: mayfly, Linux | ratio | guest's instructions for an answer, thousands: mayfly, Linux | ratio |\n|---|---|---|---|---|\n",
    );
    let mayfly = recorded.serve.iter().filter_map(|(name, rate)| {
        let load = name.strip_suffix(": mayfly, answers")?;
        Some((load, *rate))
    });
    for (load, rate) in mayfly {
        let of = |what: &str| figure(&recorded.serve, &format!("{load}: {what}"));
        let (linux, cost, dear) = (
            of("linux, answers")?,
            of("mayfly, instructions")?,
            of("linux, instructions")?,
        );
        writeln!(
            table,
            "| {load} | {rate}, {linux} | {} | {}, {} | {} |",
            ratio(rate, linux),
            tenths(cost),
            tenths(dear),
            ratio(dear, cost)
        )?;
    }
    Ok(table)
}

/// Thousands with one digit after the point.
fn tenths(count: u64) -> String {
    format!("{}.{}", (count + 50) / 1000, (count + 50) / 100 % 10)
}

fn ratio(a: u64, b: u64) -> String {
    let hundredths = (a * 100 + b / 2) / b.max(1);
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

fn image(recorded: &Recorded) -> Result<String> {
    let mut table = String::from("| | bytes |\n|---|---|\n");
    for (what, name) in [
        ("loadable segments", "loadable"),
        ("in the guest's memory", "memory"),
        ("the stripped file", "file"),
    ] {
        writeln!(table, "| {what} | {} |", figure(&recorded.image, name)?)?;
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_replaced_between_its_comments() {
        let document =
            "a\n<!-- figures: x -->\nold\n<!-- end -->\nb\n<!-- figures: y -->\n<!-- end -->\n";
        let once = replaced(document, "x", "new\n").unwrap();
        assert_eq!(
            once,
            "a\n<!-- figures: x -->\n\nnew\n\n<!-- end -->\nb\n<!-- figures: y -->\n<!-- end -->\n"
        );
        assert_eq!(replaced(&once, "x", "new\n").unwrap(), once);
        assert!(replaced(document, "z", "").is_err());
        assert!(replaced("<!-- figures: x -->", "x", "").is_err());
    }

    #[test]
    fn a_figure_has_three_digits() {
        assert_eq!(ms(196_732), "0.197");
        assert_eq!(ms(1_817_470), "1.82");
        assert_eq!(ms(20_413_754), "20.4");
        assert_eq!(ms(107_000_000), "107.0");
        assert_eq!(ratio(26_133, 19_571), "1.34");
        assert_eq!(tenths(5_230), "5.2");
    }
}

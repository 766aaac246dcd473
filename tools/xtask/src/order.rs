//! `cargo xtask order`: writes the lists in `tools/hatch/order.ld` anew, by which the linker places side by side what
//! `hatch create` and `hatch destroy` use.
//!
//! hatch is linked at addresses where no other program has code, and makes and removes guests in a counted lab. There
//! QEMU lists each piece of code at these addresses when it first runs. The linker's map tells in which section it is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::Range;

use anyhow::{Context, Result, ensure};
use mayfly_lab::{CODE_LOG, Lab, MAPPED_AT, Options, Placed, log_path, mapped_hatch, workspace};
use mayfly_stamp::{Neighbour, Report};

use crate::bench::job::{By, COMMAND, HATCH, Kind, Plan, RUN, Subject, forget};
use crate::progress::Progress;

const SCRIPT: &str = "tools/hatch/order.ld";
/// The lines between which a list stands: first that of functions, then that of constants.
const BEGIN: &str = "        /* Written by `cargo xtask order`: */\n";
const END: &str = "        /* End of what is written. */\n";

/// A section of an object file, as the linker's map names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Input {
    /// `/lib/libc.a(malloc.o)` or `/target/hatch.o`.
    file: String,
    /// `.text` or `.text.NAME`.
    section: String,
}

pub(crate) fn run() -> Result<()> {
    let progress = Progress::new();
    let report = |text: &str| progress.step(text);
    let folder = tempfile::tempdir()?;
    let map = folder.path().join("hatch.map");
    report("building hatch");
    let hatch = mapped_hatch(&map)?;
    let plan = Plan {
        subjects: [Kind::Mayfly, Kind::Null]
            .map(|kind| Subject {
                kind,
                by: By::Hatch,
            })
            .into(),
        counted: true,
        births: 1,
        traced: 0,
        neighbour: Neighbour::Warm,
    };
    let mut files = plan.files(&report)?;
    files.push(Placed {
        path: HATCH.into(),
        mode: 0o755,
        content: fs::read(hatch)?,
    });
    let name = format!("order-{}", std::process::id());
    let options = Options {
        files,
        code: Some(MAPPED_AT),
        ..Options::counted(&name, &COMMAND)
    };
    let lab = Lab::up(&options, &report)?;
    report("tracing");
    let output = lab.wait_off(RUN)?;
    Report::from_console(&output).map_err(|e| anyhow::anyhow!("in dom0: {e}"))?;
    let log = fs::read_to_string(log_path(&name)?.with_file_name(CODE_LOG))?;
    let map = fs::read_to_string(map).context("the linker has written no map")?;
    let path = workspace().join(SCRIPT);
    let script = fs::read_to_string(&path)?;
    let [functions, constants] = lists(&log, &map);
    ensure!(!functions.is_empty(), "hatch has not run");
    fs::write(path, written(&script, &[&functions, &constants])?)?;
    forget(&name)?;
    progress.finish();
    println!(
        "{SCRIPT}: {} functions, {} constants; see what it is worth: cargo xtask bench boot --counted --guest mayfly --by hatch",
        functions.len(),
        constants.len()
    );
    Ok(())
}

/// The patterns of the code in QEMU's log, in the order of its first use, and those of the constants of the same
/// functions.
fn lists(log: &str, map: &str) -> [Vec<String>; 2] {
    let inputs = inputs(map);
    let mut seen = BTreeSet::new();
    let mut functions = Vec::new();
    let mut names = BTreeSet::new();
    for address in log.lines().filter_map(address) {
        let Some((_, (range, input))) = inputs.range(..=address).next_back() else {
            continue;
        };
        if range.contains(&address) && input.section.starts_with(".text") && seen.insert(input) {
            names.extend(function(&input.section));
            push(&mut functions, pattern(input));
        }
    }
    let mut constants = Vec::new();
    for (_, input) in inputs.values() {
        let is_of_one_that_runs = function(&input.section).is_some_and(|name| names.contains(name));
        if input.section.starts_with(".rodata.") && is_of_one_that_runs && !is_placed(&input.file) {
            push(&mut constants, pattern(input));
        }
    }
    [functions, constants]
}

/// Whether the script has a pattern for all constants of a file.
fn is_placed(file: &str) -> bool {
    file.contains("/libmayfly_") || file.contains("/hatch-")
}

/// Two instances of a function in two crates have one pattern.
fn push(patterns: &mut Vec<String>, pattern: String) {
    if !patterns.contains(&pattern) {
        patterns.push(pattern);
    }
}

/// The address in a line of QEMU's log: `0x20001000:  55  pushq %rbp`.
fn address(line: &str) -> Option<u64> {
    let (address, _) = line.strip_prefix("0x")?.split_once(':')?;
    u64::from_str_radix(address, 16).ok()
}

/// The sections in LLD's map, by their first address. Its lines have the address in memory, the address in the file, the
/// size and the alignment, then the name: without space before it that of an output section, with eight spaces that of
/// an input section, with more that of a symbol.
fn inputs(map: &str) -> BTreeMap<u64, (Range<u64>, Input)> {
    let mut inputs = BTreeMap::new();
    for line in map.lines() {
        let mut rest = line;
        let mut numbers = [0; 4];
        let mut is_line = true;
        for (at, number) in numbers.iter_mut().enumerate() {
            let trimmed = rest.trim_start();
            let (word, after) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
            let radix = if at == 3 { 10 } else { 16 };
            match u64::from_str_radix(word, radix) {
                Ok(value) => *number = value,
                Err(_) => is_line = false,
            }
            rest = after;
        }
        let Some(name) = rest.strip_prefix("        ").filter(|_| is_line) else {
            continue;
        };
        if let Some((file, section)) = name.rsplit_once(":(")
            && !name.starts_with(' ')
            && let Some(section) = section.strip_suffix(')')
        {
            let [start, _, size, _] = numbers;
            let (file, section) = (file.to_owned(), section.to_owned());
            if size > 0 {
                inputs.insert(start, (start..start + size, Input { file, section }));
            }
        }
    }
    inputs
}

/// The mangled name of the function whose section this is.
fn function(section: &str) -> Option<&str> {
    section.find("._R").and_then(|at| section.get(at + 1..))
}

/// The pattern in the linker script for a section. What differs from one build to another is `*`.
fn pattern(input: &Input) -> String {
    let Input { file, section } = input;
    if function(section).is_some() {
        return format!("*({})", without_hashes(section));
    }
    let name = file.rsplit('/').next().unwrap_or(file);
    match name.strip_suffix(')').and_then(|name| name.split_once('(')) {
        // A library of Rust's has hashes in both names.
        Some((archive, _)) if archive.ends_with(".rlib") => {
            let name = archive.split('-').next().unwrap_or(archive);
            format!("*{name}-*.rlib:*({section})")
        }
        Some((archive, member)) => format!("*{archive}:{member}({section})"),
        None if name.starts_with("hatch-") => format!("*/hatch-*.o({section})"),
        None => format!("*{name}({section})"),
    }
}

/// A section's name with `*` for the hashes of crates (`Cs9XKxTZ7hHb9_4core`: RFC 2603), and for that of a module of
/// LLVM's.
fn without_hashes(section: &str) -> String {
    let section = section
        .split_once(".llvm.")
        .map_or(section.to_owned(), |(name, _)| format!("{name}.llvm.*"));
    let mut pattern = String::new();
    let mut rest = section.as_str();
    while let Some((before, after)) = rest.split_once("Cs") {
        pattern.push_str(before);
        pattern.push_str("Cs");
        rest = after;
        let hash = after.find(|digit: char| !digit.is_ascii_alphanumeric());
        if let Some((_, name)) = hash.and_then(|end| after.split_at_checked(end))
            && name.starts_with('_')
        {
            pattern.push('*');
            rest = name;
        }
    }
    pattern + rest
}

/// The script with these lists in the places of the old ones.
fn written(script: &str, lists: &[&[String]]) -> Result<String> {
    let mut new = String::new();
    let mut rest = script;
    for list in lists {
        let (before, after) = rest
            .split_once(BEGIN)
            .with_context(|| format!("{SCRIPT} has no place for a list"))?;
        let (_, after) = after
            .split_once(END)
            .with_context(|| format!("a list in {SCRIPT} has no end"))?;
        new.push_str(before);
        new.push_str(BEGIN);
        for pattern in *list {
            new.push_str(&format!("        {pattern}\n"));
        }
        new.push_str(END);
        rest = after;
    }
    new.push_str(rest);
    Ok(new)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
             VMA              LMA     Size Align Out     In      Symbol
        20001000         20001000      2f0    16 .text.first
        20001000         20001000       26    16         /usr/lib/crt1.o:(.text)
        20001000         20001000        0     1                 _start
        20001030         20001030       80    16         /usr/lib/libc.a(malloc.o):(.text)
        200010b0         200010b0       10    16         /d/libcore-1f.rlib(core.1f.o):(.text._RNvCs1aB_4core3add)
        200010c0         200010c0       10    16         /d/libcore-1f.rlib(core.1f.o):(.text._RNvCs1aB_4core4less)
        200010d0         200010d0       10    16         /d/hatch-2e.x.o:(.text.main)
        20002000         20002000       10    16         /d/libcore-1f.rlib(core.1f.o):(.rodata..Lswitch.table._RNvCs1aB_4core3add)
        20002010         20002010       10    16         /d/libcore-1f.rlib(core.1f.o):(.rodata._RNvCs1aB_4core4less)
";

    #[test]
    fn what_runs_is_listed_once_in_the_order_of_its_first_use() {
        let log = "----------------\nIN: \n0x200010d2:  55  pushq  %rbp\n0x20001000:  c3  retq\n\
            \n----------------\nIN: \n0x20001004:  c3  retq\n0x200010b0:  c3  retq\n0x20001050:  c3  retq\n0x200010e0:  c3  retq\n";
        let [functions, constants] = lists(log, MAP);
        assert_eq!(
            functions,
            [
                "*/hatch-*.o(.text.main)",
                "*crt1.o(.text)",
                "*(.text._RNvCs*_4core3add)",
                "*libc.a:malloc.o(.text)",
            ]
        );
        assert_eq!(constants, ["*(.rodata..Lswitch.table._RNvCs*_4core3add)"]);
    }

    #[test]
    fn the_hash_of_a_crate_is_left_out() {
        for (name, pattern) in [
            (".text._RNvCs1aB_4core3add", ".text._RNvCs*_4core3add"),
            (".text._RNvC4core3add", ".text._RNvC4core3add"),
            (
                ".text._RINvCs1_4core3addNtCs22_5hatch1AECs3_5other.llvm.99",
                ".text._RINvCs*_4core3addNtCs*_5hatch1AECs*_5other.llvm.*",
            ),
        ] {
            assert_eq!(without_hashes(name), pattern);
        }
    }

    #[test]
    fn the_rest_of_the_script_stays() {
        let script = fs::read_to_string(workspace().join(SCRIPT)).unwrap();
        let lists: [&[String]; 2] = [&["*(.text.a)".into()], &["*(.rodata.b)".into()]];
        let new = written(&script, &lists).unwrap();
        let around = |script: &str| {
            let mut parts = script.split(BEGIN).map(|part| {
                part.split_once(END)
                    .map_or(part, |(_, after)| after)
                    .to_owned()
            });
            parts.by_ref().collect::<Vec<_>>()
        };
        assert_eq!(around(&new), around(&script));
        assert!(new.contains("        *(.text.a)\n") && new.contains("        *(.rodata.b)\n"));
        assert!(written("SECTIONS {}", &lists).is_err());
    }
}

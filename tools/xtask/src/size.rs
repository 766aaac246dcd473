//! `cargo xtask size`: the parts of the guest's image, and their growth.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mayfly_lab::workspace;
use object::elf::{FileHeader64, PF_W, PF_X, PT_LOAD};
use object::read::elf::{ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSection};
use serde::{Deserialize, Serialize};

use crate::guest;

const SNAPSHOT: &str = "tests/snapshots/size.json";
/// The greatest size of the loadable segments in the file, in bytes.
const LIMIT: u64 = 352 * 1024;

#[derive(Args)]
pub(crate) struct Size {
    /// Record these sizes, for later comparison
    #[arg(long)]
    record: bool,
}

/// Sizes in bytes.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sizes {
    /// The stripped file.
    file: u64,
    /// The loadable segments in the file, which a domain builder copies.
    loadable: u64,
    /// The loadable segments in the guest's memory, with .bss.
    memory: u64,
    sections: BTreeMap<String, u64>,
}

pub(crate) fn run(size: &Size) -> Result<()> {
    let path = guest::build(guest::MAYFLY)?;
    let now = measure(&fs::read(&path)?)?;
    let snapshot = workspace().join(SNAPSHOT);
    let before: Sizes = fs::read(&snapshot)
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok())
        .unwrap_or_default();
    print!("{}", table(&now, &before));
    if size.record {
        let mut text = serde_json::to_string_pretty(&now)?;
        text.push('\n');
        fs::write(&snapshot, text).with_context(|| format!("cannot write {SNAPSHOT}"))?;
    }
    Ok(())
}

/// Fails when the image is too large, or can be both written and executed.
pub(crate) fn check(path: &Path) -> Result<()> {
    let sizes = measure(&fs::read(path)?)?;
    ensure!(
        sizes.loadable <= LIMIT,
        "the guest's loadable segments have {} bytes, of at most {LIMIT}",
        sizes.loadable
    );
    Ok(())
}

/// The recorded sizes in bytes, by name.
///
/// # Errors
/// There is no record, or it is malformed.
pub(crate) fn recorded() -> Result<BTreeMap<String, u64>> {
    let text = fs::read(workspace().join(SNAPSHOT)).with_context(|| SNAPSHOT.to_owned())?;
    let sizes: Sizes = serde_json::from_slice(&text).with_context(|| SNAPSHOT.to_owned())?;
    let by_name = [
        ("file", sizes.file),
        ("loadable", sizes.loadable),
        ("memory", sizes.memory),
    ];
    Ok(by_name.map(|(name, size)| (name.to_owned(), size)).into())
}

/// The sizes of an ELF file. A segment that is both writable and executable is an error.
fn measure(data: &[u8]) -> Result<Sizes> {
    let mut sizes = Sizes {
        file: u64::try_from(data.len())?,
        ..Sizes::default()
    };
    let header = FileHeader64::<LittleEndian>::parse(data)?;
    let endian = header.endian()?;
    for segment in header
        .program_headers(endian, data)?
        .iter()
        .filter(|s| s.p_type(endian) == PT_LOAD)
    {
        let flags = segment.p_flags(endian);
        ensure!(
            !(flags.contains(PF_W) && flags.contains(PF_X)),
            "the segment at {:#x} is writable and executable",
            segment.p_vaddr(endian)
        );
        sizes.loadable += segment.p_filesz(endian);
        sizes.memory += segment.p_memsz(endian);
    }
    for section in ElfFile64::<LittleEndian>::parse(data)?
        .sections()
        .filter(|s| s.address() != 0)
    {
        sizes
            .sections
            .insert(section.name()?.to_owned(), section.size());
    }
    Ok(sizes)
}

fn table(now: &Sizes, before: &Sizes) -> String {
    let mut rows: Vec<(&str, u64, u64)> = Vec::new();
    let names = now.sections.keys().chain(
        before
            .sections
            .keys()
            .filter(|name| !now.sections.contains_key(*name)),
    );
    for name in names {
        let of = |sizes: &Sizes| sizes.sections.get(name).copied().unwrap_or_default();
        rows.push((name, of(now), of(before)));
    }
    rows.push(("loadable", now.loadable, before.loadable));
    rows.push(("in memory", now.memory, before.memory));
    rows.push(("stripped file", now.file, before.file));
    let mut text = format!("{:<16} {:>10} {:>10}\n", "bytes", "now", "change");
    for (name, now, before) in rows {
        let change = if now >= before {
            format!("+{}", now - before)
        } else {
            format!("-{}", before - now)
        };
        text.push_str(&format!("{name:<16} {now:>10} {change:>10}\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_have_a_sign() {
        let sizes = |text, file| Sizes {
            file,
            sections: [(".text".to_owned(), text)].into(),
            ..Sizes::default()
        };
        let table = table(&sizes(10, 5), &sizes(12, 1));
        assert!(table.contains("-2") && table.contains("+4"), "{table}");
    }

    #[test]
    fn this_program_is_an_elf_file_with_sections() {
        let sizes = measure(&fs::read("/proc/self/exe").unwrap()).unwrap();
        assert!(sizes.sections[".text"] > 0 && sizes.memory >= sizes.loadable);
        assert!(measure(b"\x7fELF").is_err());
    }
}

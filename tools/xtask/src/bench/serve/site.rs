//! The sites to be served, which are the same in each run.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The numbers of names of the small and of the large zone.
pub(in super::super) const SMALL: u32 = 1_000;
pub(in super::super) const LARGE: u32 = 1_000_000;
/// The number of questions in dnsperf's file, which it repeats; the names are spread over the zone.
const QUESTIONS: u32 = 10_000;

/// A file of the site, and its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) size: usize,
}

pub(super) const FILES: [File; 3] = [
    File {
        name: "1k.bin",
        size: 1 << 10,
    },
    File {
        name: "64k.bin",
        size: 64 << 10,
    },
    File {
        name: "10m.bin",
        size: 10 << 20,
    },
];

/// Writes the folder of a site with one zone of `names` names and, if asked for, the files.
pub(in super::super) fn write(
    folder: &Path,
    origin: &str,
    names: u32,
    files: bool,
) -> Result<PathBuf> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder.join("zones"))?;
    fs::create_dir_all(folder.join("www"))?;
    fs::write(
        folder.join("zones").join(format!("{origin}.zone")),
        zone(names)?,
    )?;
    fs::write(
        folder.join("www/index.html"),
        "<!doctype html><title>bench</title><p>A page.\n",
    )?;
    for file in FILES.iter().filter(|_| files) {
        fs::write(folder.join("www").join(file.name), content(file.size))?;
    }
    Ok(folder.to_owned())
}

fn zone(names: u32) -> Result<String> {
    let mut text = String::from(
        "$TTL 3600\n@ SOA ns1 hostmaster 1 7200 3600 1209600 300\n@ NS ns1\nns1 A 192.0.2.1\n",
    );
    for number in 0..names {
        let [_, b, c, d] = number.to_be_bytes();
        writeln!(text, "n{number:06} A 10.{b}.{c}.{d}")?;
    }
    Ok(text)
}

/// Questions for dnsperf: existing names, and one in ten that does not exist.
pub(super) fn questions(origin: &str, names: u32) -> Result<String> {
    let mut text = String::new();
    for number in 0..QUESTIONS {
        // A step without a common factor with the number of names goes through all of them.
        let name = u64::from(number) * 387_413 % u64::from(names);
        let prefix = if number % 10 == 9 { "m" } else { "n" };
        writeln!(text, "{prefix}{name:06}.{origin} A")?;
    }
    Ok(text)
}

/// Bytes that cannot be compressed: multiplication and a xor shift.
fn content(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(size);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(size);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_about_the_zone() {
        let text = questions("small.test", SMALL).unwrap();
        assert_eq!(text.lines().count(), 10_000);
        assert_eq!(text.lines().filter(|l| l.starts_with('m')).count(), 1_000);
        let zone = zone(SMALL).unwrap();
        for line in text.lines().filter(|l| l.starts_with('n')).take(100) {
            let name = line.split('.').next().unwrap();
            assert!(zone.contains(&format!("\n{name} A 10.")), "{line}");
        }
    }
}

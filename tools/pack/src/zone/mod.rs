//! Zones: turns master files (RFC 1035 section 5) into nodes of the pack.
//!
//! | file | purpose |
//! |---|---|
//! | `scan`, `cursor` | splits text into entries of tokens; reads tokens one after another |
//! | `read`, `head`, `generate`, `records` | directives, owners; TTLs, classes and types; records and their places |
//! | `types`, `kinds`, `fields` | the fields of each type; each kind of field between text and wire form |
//! | `rdata` | conversion of a record's data by that table |
//! | `build`, `sets`, `chain` | turns records into nodes, and checks them |

mod bitmap;
mod build;
mod chain;
mod cursor;
mod encoded;
mod fields;
mod folder;
mod gateway;
mod generate;
mod head;
mod kinds;
mod location;
mod mnemonics;
mod name;
mod plain;
mod prefixes;
pub(crate) mod rdata;
mod read;
mod records;
mod scan;
mod service;
mod sets;
mod text;
mod time;
pub(crate) mod types;

use std::collections::BTreeSet;
use std::path::Path;

pub(crate) use build::{Zone, Zones};
pub(crate) use name::presentation;
use records::Records;

use super::config::Checked;
use super::host;
use super::problem::Findings;

/// Reads and checks all `zones/*.zone`.
pub(crate) fn pack(site: &Path, config: &Checked, findings: &mut Findings) -> Zones {
    let mut zones = Zones::default();
    let mut included = BTreeSet::new();
    for file in folder::files(site, findings) {
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        let Some(stem) = stem else {
            findings.error(&file, None, "its name is not UTF-8");
            continue;
        };
        let origin = match absolute(stem) {
            Ok(origin) => origin,
            Err(error) => {
                let what = format!("its name without `.zone` is not a domain name: {error}");
                findings.error(&file, None, what);
                continue;
            }
        };
        let mut records = Records::default();
        let before = findings.errors.count();
        read::file(site, &file, &origin, &mut records, &mut included, findings);
        let whole = findings.errors.count() == before;
        zones.add(&file, records, &origin, whole, findings);
    }
    folder::others(site, &included, findings);
    zones.check_names(findings);

    for (spanned, zone) in &config.config.zones {
        let name = absolute(spanned.get_ref()).map(|name| name.to_ascii_lowercase());
        if !name.is_ok_and(|name| zones.configure(&name, zone.transfer)) {
            let what = format!("there is no zone `{}`", spanned.get_ref());
            findings.error(Path::new(super::config::FILE), config.line(spanned), what);
        }
    }
    zones
}

/// A name in wire form, with or without a dot at its end.
fn absolute(text: &str) -> Result<Vec<u8>, String> {
    let mut name = Vec::new();
    if text == "@" {
        return Err("`@` stands for another".to_owned());
    }
    // Like host names, file names are what people type.
    let text = host::ascii(text)?;
    name::scan(text.as_bytes(), b"\0", &mut name)?;
    Ok(name)
}

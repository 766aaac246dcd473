//! Zones: master files (RFC 1035 section 5) in, nodes of the pack out.

mod build;
mod read;
mod units;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;

use bytes::Bytes;
use domain::base::Name;

pub(crate) use build::{Zone, Zones};
use read::Records;

use super::config::Checked;
use super::problem::Findings;

/// The folder of zones in a site's folder.
const FOLDER: &str = "zones";

/// Reads and checks all `zones/*.zone`.
pub(crate) fn pack(site: &Path, config: &Checked, findings: &mut Findings) -> Zones {
    let mut zones = Zones::default();
    for file in files(site, findings) {
        let stem = file.file_stem().and_then(|stem| stem.to_str());
        let Some(stem) = stem else {
            findings.error(&file, None, "its name is not UTF-8");
            continue;
        };
        let origin = match Name::<Bytes>::from_str(stem) {
            Ok(origin) => origin,
            Err(error) => {
                let what = format!("its name without `.zone` is not a domain name: {error}");
                findings.error(&file, None, what);
                continue;
            }
        };
        let mut records = Records::default();
        let before = findings.errors.count();
        read::file(site, &file, &origin, &mut records, findings);
        let whole = findings.errors.count() == before;
        zones.add(&file, records, origin.as_slice(), whole, findings);
    }
    zones.check_names(findings);

    for (spanned, zone) in &config.config.zones {
        let name = Name::<Bytes>::from_str(spanned.get_ref());
        let name = name.map(|name| name.as_slice().to_ascii_lowercase());
        if !name.is_ok_and(|name| zones.configure(&name, zone.transfer)) {
            let what = format!("there is no zone `{}`", spanned.get_ref());
            findings.error(Path::new(super::config::FILE), config.line(spanned), what);
        }
    }
    zones
}

/// The zone files, by name, from the site's folder on.
fn files(site: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let folder = Path::new(FOLDER);
    let entries = match std::fs::read_dir(site.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Vec::new(),
        Err(error) => {
            findings.error(folder, None, format!("cannot be read: {error}"));
            return Vec::new();
        }
    };
    let mut files = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) => files.push(folder.join(entry.file_name())),
            Err(error) => findings.error(folder, None, format!("cannot be read: {error}")),
        }
    }
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "zone")
    });
    files.sort();
    files
}

/// A name as a master file has it, from its wire form.
pub(crate) fn presentation(name: &[u8]) -> String {
    let mut text = String::new();
    let mut rest = name;
    while let Some((&length, tail)) = rest.split_first() {
        let Some((label, tail)) = tail.split_at_checked(length.into()) else {
            break;
        };
        if length == 0 {
            break;
        }
        for &octet in label {
            match octet {
                b'.' | b'\\' | b'"' | b';' | b'(' | b')' | b'@' | b'$' => {
                    text.push('\\');
                    text.push(char::from(octet));
                }
                b'!'..=b'~' => text.push(char::from(octet)),
                _ => {
                    let _ = write!(text, "\\{octet:03}");
                }
            }
        }
        text.push('.');
        rest = tail;
    }
    if text.is_empty() {
        text.push('.');
    }
    text
}

/// A type as a master file has it.
pub(crate) fn type_name(rtype: u16) -> String {
    domain::base::iana::Rtype::from_int(rtype).to_string()
}

//! Packs a site's folder: `zones/*.zone`, `www/` and `mayfly.toml` into one file.
//!
//! | path in the folder | content |
//! |---|---|
//! | `zones/NAME.zone` | a master file (RFC 1035 section 5), whose origin is `NAME` until `$ORIGIN` changes it |
//! | `www/HOST/` | the web root of the virtual host `HOST`: a host name with a dot, or named in `mayfly.toml` |
//! | `www/`, all else | the web root of requests for any other host |
//! | `mayfly.toml` | see [`config::Config`] |
//!
//! All errors are found before a pack is written, and the same folder always gives the same bytes. Modification times
//! are the only input besides the content of files, and only those that tell when the content changed: not those that a
//! tool has set, that are in the future, or that are after `SOURCE_DATE_EPOCH`.
//!
//! ```no_run
//! use std::path::Path;
//!
//! let options = mayfly_pack::Options::default();
//! let packed = mayfly_pack::pack_dir(Path::new("site"), &options)?;
//! eprintln!("{}", packed.summary);
//! packed.save(Path::new("site.mfs"))?; // or `packed.to_vec()?`, or `packed.write(&mut anything)?`
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The pack goes to the guest as its PVH module: `ramdisk=` of xl, `<initrd>` of libvirt. Its format is
//! documented with its reader, [`mayfly_site::pack`].
#![forbid(unsafe_code)]

mod check;
pub mod config;
mod files;
mod host;
mod list;
mod print;
mod problem;
mod table;
mod write;
mod www;
mod zone;

use std::num::NonZero;
use std::path::Path;

pub use check::{Checked, check};
pub use list::{Listing, list};
pub use print::print_records;
pub use problem::{Problem, Problems};
pub use write::{Packed, Summary};

use problem::Findings;

/// Options of packing.
#[derive(Clone, Debug)]
pub struct Options {
    /// The number of files that are compressed at a time.
    pub threads: usize,
    /// The latest modification time that is sent, in seconds since 1970.
    pub epoch: Option<u64>,
}

impl Default for Options {
    /// One thread for each CPU, and the time in `SOURCE_DATE_EPOCH`, if it is set.
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, NonZero::get),
            epoch: std::env::var("SOURCE_DATE_EPOCH")
                .ok()
                .and_then(|epoch| epoch.parse().ok()),
        }
    }
}

/// Reads a site's folder and checks all of it.
///
/// # Errors
///
/// All errors of the site.
pub fn pack_dir(site: &Path, options: &Options) -> Result<Packed, Problems> {
    let mut findings = Findings::default();
    let packed = read(site, options, &mut findings);
    match packed {
        Some(packed) if findings.errors.count() == 0 => Ok(Packed {
            warnings: findings.warnings,
            ..packed
        }),
        _ => Err(findings.into_errors()),
    }
}

fn read(site: &Path, options: &Options, findings: &mut Findings) -> Option<Packed> {
    let site = match site.canonicalize() {
        Ok(site) if site.is_dir() => site,
        Ok(_) => {
            findings.error(site, None, "is not a folder");
            return None;
        }
        Err(error) => {
            findings.error(site, None, format!("cannot be read: {error}"));
            return None;
        }
    };
    let config = config::read(&site, findings);
    let zones = zone::pack(&site, &config, findings);
    let www = www::pack(&site, &config, options.threads, options.epoch, findings);
    if findings.errors.count() > 0 {
        return None;
    }
    let mut summary = Summary {
        zones: zones.list.len(),
        names: zones.indexed.len(),
        rrsets: zones.rrsets,
        records: zones.records,
        hosts: www.names,
        files: www.files,
        variants: www.variants,
        redirects: www.redirects,
        bytes: 0,
    };
    if summary.zones == 0 && summary.files == 0 && summary.redirects == 0 {
        let what = "holds neither zones/*.zone nor files below www/";
        findings.error(&site, None, what);
        return None;
    }
    match write::Plan::new(zones, www) {
        Ok(plan) => {
            summary.bytes = plan.bytes();
            Some(Packed {
                summary,
                warnings: Problems::default(),
                plan,
            })
        }
        Err(what) => {
            findings.error(&site, None, what);
            None
        }
    }
}

/// A record type as a master file writes it: its mnemonic, or `TYPE` and its number (RFC 3597 section 5).
#[must_use]
pub fn type_name(rtype: u16) -> String {
    zone::types::name(rtype)
}

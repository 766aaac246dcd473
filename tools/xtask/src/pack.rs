//! Packing a site with the project's own tool.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mayfly_lab::hatch_programs;
use serde::Deserialize;

/// The name of the packed site.
const NAME: &str = "site.mfs";

/// Packs a site folder. Returns the pack.
///
/// # Errors
/// The errors of `hatch pack` for the site.
pub(crate) fn pack(site: &Path) -> Result<Vec<u8>> {
    let scratch = tempfile::tempdir()?;
    pack_to(&hatch()?, site, &scratch.path().join(NAME))
}

/// Packs a site folder. Returns the pack and the names of its zones.
///
/// # Errors
/// The errors of `hatch pack` for the site.
pub(crate) fn pack_with_zones(site: &Path) -> Result<(Vec<u8>, Vec<String>)> {
    #[derive(Deserialize)]
    struct Listing {
        zones: Vec<Zone>,
    }
    #[derive(Deserialize)]
    struct Zone {
        name: String,
    }
    let (hatch, scratch) = (hatch()?, tempfile::tempdir()?);
    let to = scratch.path().join(NAME);
    let pack = pack_to(&hatch, site, &to)?;
    let output = Command::new(hatch)
        .args(["pack", "--json", "--list"])
        .arg(&to)
        .output()
        .context("cannot run hatch")?;
    let listing: Listing =
        serde_json::from_slice(&output.stdout).context("`hatch pack --list` gives no list")?;
    let zones = listing.zones.into_iter().map(|zone| zone.name);
    Ok((pack, zones.collect()))
}

fn pack_to(hatch: &Path, site: &Path, to: &Path) -> Result<Vec<u8>> {
    eprintln!("packing {}", site.display());
    let status = Command::new(hatch)
        .arg("pack")
        .arg(site)
        .arg("-o")
        .arg(to)
        .status()
        .context("cannot run hatch")?;
    ensure!(status.success(), "`hatch pack {}` failed", site.display());
    fs::read(to).with_context(|| format!("cannot read {}", to.display()))
}

/// Builds `hatch` for dom0. It runs here as well, and is optimized: a large site is compressed while it is packed.
fn hatch() -> Result<PathBuf> {
    let programs = hatch_programs(false)?;
    programs.into_iter().next().context("there is no hatch")
}

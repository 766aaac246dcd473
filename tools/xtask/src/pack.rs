//! Packing a site with the project's own tool.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mayfly_lab::hatch_programs;
use serde::Deserialize;

/// Packs a site folder. Returns the pack.
///
/// # Errors
/// The errors of `hatch pack` for the site.
pub(crate) fn pack(site: &Path) -> Result<Vec<u8>> {
    let scratch = tempfile::tempdir()?;
    let to = scratch.path().join("site.mfs");
    pack_to(site, &to)?;
    fs::read(&to).with_context(|| format!("cannot read {}", to.display()))
}

/// Packs a site folder. Returns the names of its zones.
///
/// # Errors
/// The errors of `hatch pack` for the site.
pub(crate) fn zones(site: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Listing {
        zones: Vec<Zone>,
    }
    #[derive(Deserialize)]
    struct Zone {
        name: String,
    }
    let scratch = tempfile::tempdir()?;
    let to = scratch.path().join("site.mfs");
    pack_to(site, &to)?;
    let output = hatch()?
        .args(["pack", "--json", "--list"])
        .arg(&to)
        .output()
        .context("cannot run hatch")?;
    let listing: Listing =
        serde_json::from_slice(&output.stdout).context("`hatch pack --list` gives no list")?;
    Ok(listing.zones.into_iter().map(|zone| zone.name).collect())
}

fn pack_to(site: &Path, to: &Path) -> Result<()> {
    eprintln!("packing {}", site.display());
    let status = hatch()?
        .arg("pack")
        .arg(site)
        .arg("-o")
        .arg(to)
        .status()
        .context("cannot run hatch")?;
    ensure!(status.success(), "`hatch pack {}` failed", site.display());
    Ok(())
}

fn hatch() -> Result<Command> {
    // The program for dom0 runs here as well, and is optimized: a large site is compressed while it is packed.
    let programs = hatch_programs(false)?;
    let hatch = programs.first().context("there is no hatch")?;
    Ok(Command::new(hatch))
}

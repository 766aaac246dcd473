//! Packing a site with the project's own tool.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mayfly_lab::hatch_programs;

/// Packs a site folder, and gives the pack.
///
/// # Errors
/// What is wrong with the site, as `hatch pack` says it.
pub(crate) fn pack(site: &Path) -> Result<Vec<u8>> {
    let scratch = tempfile::tempdir()?;
    let to = scratch.path().join("site.mfs");
    // The one for dom0 runs here as well, and is built for speed: a large site is compressed while it is packed.
    let programs = hatch_programs(false)?;
    let hatch = programs.first().context("there is no hatch")?;
    eprintln!("packing {}", site.display());
    let status = Command::new(hatch)
        .arg("pack")
        .arg(site)
        .arg("-o")
        .arg(&to)
        .status()
        .with_context(|| format!("cannot run {}", hatch.display()))?;
    ensure!(status.success(), "`hatch pack {}` failed", site.display());
    fs::read(&to).with_context(|| format!("cannot read {}", to.display()))
}

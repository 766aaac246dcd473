//! Packing a site with the project's own tool.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use mayfly_lab::workspace;

/// Packs a site folder, and gives the pack.
///
/// # Errors
/// What is wrong with the site, as `hatch pack` says it.
pub(crate) fn pack(site: &Path) -> Result<Vec<u8>> {
    let scratch = tempfile::tempdir()?;
    let to = scratch.path().join("site.mfs");
    // Built for speed: a large site is compressed while it is packed.
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "hatch",
            "--manifest-path",
        ])
        .arg(workspace().join("Cargo.toml"))
        .args(["--", "pack"])
        .arg(site)
        .arg("-o")
        .arg(&to)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "`hatch pack {}` failed", site.display());
    fs::read(&to).with_context(|| format!("cannot read {}", to.display()))
}

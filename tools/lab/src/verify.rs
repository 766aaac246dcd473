//! Debian's checker of saved guests, a program in Python that needs no Xen.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{Report, Set, unpacked};

/// Has `verify-stream-v2` of xen-utils read a file of `xl save`, with the host's Python.
///
/// # Errors
/// It refuses the file; or Python is missing.
pub fn verify_saved(file: &Path, report: Report<'_>) -> Result<()> {
    let root = unpacked(Set::Dom0, report)?;
    let xen = root.join("usr/lib/xen-4.17");
    let output = Command::new("python3")
        .env("PYTHONPATH", xen.join("lib/python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(xen.join("bin/verify-stream-v2"))
        .args(["--format", "xl", "--in"])
        .arg(file)
        .output()
        .context("cannot run python3, which runs Debian's verify-stream-v2")?;
    ensure!(
        output.status.success(),
        "verify-stream-v2: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

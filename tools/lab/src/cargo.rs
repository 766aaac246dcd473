//! Static programs for dom0, built with Cargo in a target folder of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// The only target the project assumes.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Builds the program `bin` of the workspace's `package` as one static file that runs in dom0, and gives its path.
///
/// # Errors
/// Those of Cargo, with what it printed.
pub fn static_program(package: &str, bin: &str) -> Result<PathBuf> {
    static_program_with(package, bin, "")
}

/// The same with features of the package, in one word. Who wants it both with and without reads the file before the other is built.
///
/// # Errors
/// Those of Cargo, with what it printed.
pub fn static_program_with(package: &str, bin: &str, features: &str) -> Result<PathBuf> {
    let target = workspace().join("target/dom0");
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args([
            "build",
            "--quiet",
            "--profile",
            "dom0",
            "--package",
            package,
            "--bin",
            bin,
            "--features",
            features,
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target)
        // A program that can lie anywhere relocates itself at each start: a million instructions of hatch's.
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static",
        )
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "cannot build {bin}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(target.join(TARGET).join("dom0").join(bin))
}

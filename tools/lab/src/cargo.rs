//! Static programs for dom0, built with Cargo in a target folder of their own.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// The only target the project assumes.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// hatch and the programs behind it: package and program.
const HATCH: [(&str, &str); 3] = [
    ("hatch", "hatch"),
    ("mayfly-pack", "hatch-pack"),
    ("mayfly-summon", "hatch-summon"),
];

/// Builds the program `bin` of the workspace's `package` as one static file that runs in dom0, and gives its path.
///
/// # Errors
/// Those of Cargo, with what it printed.
pub fn static_program(package: &str, bin: &str) -> Result<PathBuf> {
    let folder = build(&[(package, bin)], "")?;
    Ok(folder.join(bin))
}

/// Builds hatch and the programs behind it, which have to lie in one folder, as static files that run in dom0; gives their paths, `hatch` first.
/// With `faults` they fail where a test wants it. Who wants both kinds reads the files of one before the other is built.
///
/// # Errors
/// Those of Cargo, with what it printed.
pub fn hatch_programs(faults: bool) -> Result<Vec<PathBuf>> {
    let features = match faults {
        true => "hatch/faults,mayfly-summon/faults",
        false => "",
    };
    let folder = build(&HATCH, features)?;
    Ok(HATCH.map(|(_, bin)| folder.join(bin)).to_vec())
}

/// Builds programs with features of their packages, and gives the folder that they are in.
fn build(programs: &[(&str, &str)], features: &str) -> Result<PathBuf> {
    let target = workspace().join("target/dom0");
    let names: Vec<&str> = programs.iter().map(|(_, bin)| *bin).collect();
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .current_dir(workspace())
        .args([
            "build",
            "--quiet",
            "--profile",
            "dom0",
            "--features",
            features,
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(&target)
        .args(
            programs
                .iter()
                .flat_map(|(package, bin)| ["--package", package, "--bin", bin]),
        )
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
        "cannot build {}:\n{}",
        names.join(", "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(target.join(TARGET).join("dom0"))
}

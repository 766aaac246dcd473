//! What the host must have.

use std::io::{IsTerminal, stdin};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Makes sure that the emulator is installed: as root at once, otherwise by sudo after asking, unless `yes`.
pub(crate) fn ensure_qemu(yes: bool) -> Result<()> {
    const PACKAGE: &str = "qemu-system-x86";
    if mayfly_lab::qemu_installed() {
        return Ok(());
    }
    let install = [
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
        PACKAGE,
    ];
    let remedy = || format!("install it yourself: sudo {}", install.join(" "));
    ensure!(
        Command::new("apt-get").arg("--version").output().is_ok(),
        "no QEMU and no apt-get here: install QEMU 7.2 or later"
    );
    let root = rustix::process::geteuid().is_root();
    let mut words: Vec<&str> = Vec::new();
    if !root {
        if !yes {
            ensure!(
                stdin().is_terminal(),
                "{PACKAGE} is not installed, and nobody can be asked: say --yes, or {}",
                remedy()
            );
            eprint!(
                "{PACKAGE} is not installed. Run `sudo {}`? [y/N] ",
                install.join(" ")
            );
            let mut answer = String::new();
            stdin().read_line(&mut answer)?;
            if !answer.trim().eq_ignore_ascii_case("y") {
                bail!("{PACKAGE} is needed; {}", remedy());
            }
        }
        words.push("sudo");
    }
    let run = |more: &[&str]| -> Result<bool> {
        let all: Vec<&str> = words.iter().chain(more).copied().collect();
        let (program, arguments) = all.split_first().context("nothing to run")?;
        eprintln!("running: {}", all.join(" "));
        let status = Command::new(program)
            .args(arguments)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .status();
        Ok(status
            .with_context(|| format!("cannot run {program}; {}", remedy()))?
            .success())
    };
    // The index is fetched only when it lacks the package.
    if !run(&install)? {
        ensure!(
            run(&["apt-get", "update"])? && run(&install)?,
            "cannot install {PACKAGE}: is there a network? Or {}",
            remedy()
        );
    }
    ensure!(
        mayfly_lab::qemu_installed(),
        "{PACKAGE} is installed, and yet there is no qemu-system-x86_64"
    );
    Ok(())
}

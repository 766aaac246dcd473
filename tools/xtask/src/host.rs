//! Finds and installs the programs that the host must have: QEMU, and a browser for the tests of pictures.

use std::io::{IsTerminal, stdin};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

/// Makes sure that the emulator is installed.
pub(crate) fn ensure_qemu(yes: bool) -> Result<()> {
    ensure_package("qemu-system-x86", mayfly_lab::qemu_installed, yes)
}

/// Makes sure that the browser is installed.
pub(crate) fn ensure_browser(yes: bool) -> Result<()> {
    let installed = || {
        let version = Command::new("chromium").arg("--version").output();
        version.is_ok_and(|output| output.status.success())
    };
    ensure_package("chromium", installed, yes)
}

/// Makes sure that a package is installed: by apt, as root at once, otherwise by sudo after asking, unless `yes`.
fn ensure_package(package: &str, installed: fn() -> bool, yes: bool) -> Result<()> {
    if installed() {
        return Ok(());
    }
    let install = [
        "apt-get",
        "install",
        "--yes",
        "--no-install-recommends",
        package,
    ];
    let remedy = || format!("install it yourself: sudo {}", install.join(" "));
    ensure!(
        Command::new("apt-get").arg("--version").output().is_ok(),
        "no {package} and no apt-get here: install it (QEMU: 7.2 or later)"
    );
    let root = rustix::process::geteuid().is_root();
    let mut words: Vec<&str> = Vec::new();
    if !root {
        if !yes {
            ensure!(
                stdin().is_terminal(),
                "{package} is not installed, and there is no terminal to ask on: give --yes, or {}",
                remedy()
            );
            eprint!(
                "{package} is not installed. Run `sudo {}`? [y/N] ",
                install.join(" ")
            );
            let mut answer = String::new();
            stdin().read_line(&mut answer)?;
            if !answer.trim().eq_ignore_ascii_case("y") {
                bail!("{package} is needed; {}", remedy());
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
            "cannot install {package}: is there a network? Or {}",
            remedy()
        );
    }
    ensure!(
        installed(),
        "{package} is installed, and yet it does not run"
    );
    Ok(())
}

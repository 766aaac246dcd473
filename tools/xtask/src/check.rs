//! `cargo xtask check` and `cargo xtask test`.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mayfly_lab::workspace;

use crate::progress::Progress;
use crate::{bench, documents, guest, host, size, sources};

#[derive(Args)]
pub(crate) struct Test {
    /// Births in a row, for each xenstored
    #[arg(long, default_value_t = 5)]
    cycles: u32,
    /// Floods and slow clients at full scale: ten times as many, six times as long
    #[arg(long)]
    full_abuse: bool,
    /// Only the daemon's page, in Chromium, which is installed if it is missing
    #[arg(long, conflicts_with = "filter")]
    browser: bool,
    /// Run all cases that are not about another xenstored with `hatch xenstored`
    #[arg(long)]
    hatch_xenstored: bool,
    /// Do not ask before sudo
    #[arg(long)]
    yes: bool,
    /// Only end-to-end tests with this text in their title; without it, all tests
    filter: Option<String>,
}

/// Checks formatting, lints and the rules for sources, and runs the tests that need no lab.
pub(crate) fn check() -> Result<()> {
    let progress = Progress::new();
    progress.say("formatting");
    cargo(&["fmt", "--all", "--check"])?;
    progress.say("sources: unsafe code, lengths, circles, seeds");
    sources::check(workspace())?;
    progress.say("figures in documents");
    documents::check()?;
    progress.say("lints");
    let lints = |arguments: &[&str]| {
        let mut all = vec!["clippy", "--quiet"];
        all.extend(arguments);
        all.extend(["--", "-D", "warnings"]);
        cargo(&all)
    };
    lints(&[
        "--workspace",
        "--exclude",
        "mayfly",
        "--exclude",
        "mayfly-boot",
        "--exclude",
        "liar-guest",
        "--all-features",
        "--all-targets",
    ])?;
    // These are checked separately, because the tests turn on features that need std, which the guest cannot be linked
    // with.
    lints(&[
        "--package",
        "mayfly",
        "--package",
        "mayfly-boot",
        "--package",
        "liar-guest",
        "--all-features",
        "--all-targets",
    ])?;
    progress.say("unit tests");
    cargo(&["test", "--quiet", "--workspace"])?;
    progress.say("checked");
    Ok(())
}

/// Runs the checks, the build and the end-to-end tests.
pub(crate) fn test(test: &Test) -> Result<()> {
    if test.browser {
        return browser(test);
    }
    // An unattended run asks nothing: root installs missing packages, and prints that.
    host::ensure_qemu(test.yes)?;
    if test.filter.is_none() {
        check()?;
    }
    let progress = Progress::new();
    progress.say("building the guests");
    let path = guest::build(guest::MAYFLY)?;
    guest::build(guest::NULL)?;
    guest::build(guest::LIAR)?;
    if test.filter.is_none() {
        size::check(&path)?;
        progress.say("building the guest again in another folder");
        guest::verify(&path)?;
        progress.say("20,000 questions to mayfly's DNS and to NSD");
        cargo(&[
            "test",
            "--quiet",
            "--package",
            "mayfly-reference",
            "--features",
            "nsd",
            "--test",
            "host",
            "--test",
            "zones",
        ])?;
    }
    progress.say("end-to-end tests");
    let mut arguments = vec![
        "test",
        "--quiet",
        "--package",
        "mayfly-e2e",
        "--features",
        "lab",
        "--test",
        "lab",
        "--",
    ];
    arguments.extend(test.filter.as_deref());
    let mut command = command(&arguments);
    command.env("MAYFLY_CYCLES", test.cycles.to_string());
    if test.full_abuse {
        command.env("MAYFLY_ABUSE", "full");
    }
    if test.hatch_xenstored {
        command.env("MAYFLY_XENSTORED", "hatch");
    }
    run(&mut command)?;
    if test.filter.is_none() {
        progress.say("counting the instructions of a boot, and of a service that is woken, twice");
        bench::gate(&|step| progress.step(step))?;
    }
    progress.finish();
    progress.say("tested");
    Ok(())
}

/// Tests the page of `hatch summon` in a real browser.
fn browser(test: &Test) -> Result<()> {
    host::ensure_browser(test.yes)?;
    cargo(&[
        "test",
        "--quiet",
        "--package",
        "mayfly-e2e",
        "--features",
        "browser",
        "--test",
        "browser",
        "--",
        // Run one browser at a time.
        "--test-threads=1",
    ])
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace()).args(arguments);
    command
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(&mut command(arguments))
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().context("cannot run cargo")?;
    let line: Vec<_> = command.get_args().map(|a| a.to_string_lossy()).collect();
    ensure!(status.success(), "`cargo {}` failed", line.join(" "));
    Ok(())
}

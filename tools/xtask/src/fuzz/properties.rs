//! Property tests from a seed: those of every package that depends on `tests/seeds`.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::workspace;
use serde::Deserialize;

use crate::progress::Progress;

/// The package that hands out seeds.
const SEEDS: &str = "mayfly-seeds";
/// Features without which a package's random tests are not built.
const FEATURES: [(&str, &str); 1] = [("mayfly-reference", "nsd")];

/// The result of the tests of one package.
#[derive(Debug)]
pub(super) struct Run {
    package: String,
    passed: u32,
    failed: u32,
    took: Duration,
    /// The log of the tests.
    log: PathBuf,
    is_success: bool,
    /// The commands that repeat the failed tests.
    repeat: Vec<String>,
}

/// The parts of `cargo metadata` that are used.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
}

/// The packages with random tests, in the order of their names.
pub(super) fn packages() -> Result<Vec<String>> {
    let output = cargo()
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "`cargo metadata` failed:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let draws = |package: &Package| package.dependencies.iter().any(|d| d.name == SEEDS);
    let mut names: Vec<_> = metadata
        .packages
        .into_iter()
        .filter(draws)
        .map(|package| package.name)
        .collect();
    names.sort();
    Ok(names)
}

/// Runs the tests of these packages with `scale` times as many cases.
pub(super) fn all(
    packages: &[String],
    seed: u32,
    scale: u32,
    progress: &Progress,
) -> Result<Vec<Run>> {
    let folder = workspace().join("target/fuzz");
    fs::create_dir_all(&folder)?;
    let mut runs = Vec::new();
    for package in packages {
        progress.say(&format!(
            "{package}: building its tests, and {scale} times as many cases"
        ));
        let mut command = cargo();
        command.args(["test", "--no-fail-fast", "--package", package]);
        for (_, features) in FEATURES.iter().filter(|(name, _)| name == package) {
            command.args(["--features", features]);
        }
        command
            .env("MAYFLY_SEED", seed.to_string())
            .env("MAYFLY_SCALE", scale.to_string());
        let start = Instant::now();
        let output = command.output().context("cannot run cargo")?;
        let text = [output.stderr, output.stdout].concat();
        let log = folder.join(format!("{package}.log"));
        fs::write(&log, &text).with_context(|| format!("cannot write {}", log.display()))?;
        let text = String::from_utf8_lossy(&text);
        let (passed, failed) = counts(&text);
        runs.push(Run {
            package: package.clone(),
            passed,
            failed,
            took: start.elapsed(),
            log,
            is_success: output.status.success(),
            repeat: repeats(&text),
        });
    }
    Ok(runs)
}

impl Run {
    /// The finding, and the commands that repeat it.
    pub(super) fn finding(&self) -> Option<String> {
        if self.is_success {
            return None;
        }
        let (package, log) = (&self.package, self.log.display());
        let mut text = if self.failed == 0 {
            format!("{package}: its tests were not built, or did not end; their output is in {log}")
        } else {
            format!(
                "{package}: {} tests failed; their output is in {log}",
                self.failed
            )
        };
        for command in &self.repeat {
            let _ = write!(text, "\n  {command}");
        }
        Some(text)
    }
}

/// Tests that passed and failed, by the last line of each program.
fn counts(text: &str) -> (u32, u32) {
    let (mut passed, mut failed) = (0, 0);
    for line in text
        .lines()
        .filter_map(|line| line.strip_prefix("test result: "))
    {
        let before = |word: &str| {
            let words: Vec<_> = line
                .split([' ', '.', ';'])
                .filter(|w| !w.is_empty())
                .collect();
            let at = words.iter().position(|w| *w == word)?;
            words.get(at.checked_sub(1)?)?.parse::<u32>().ok()
        };
        passed += before("passed").unwrap_or(0);
        failed += before("failed").unwrap_or(0);
    }
    (passed, failed)
}

/// The commands that failed tests have printed; the harness shows no output of the others.
fn repeats(text: &str) -> Vec<String> {
    let commands = text.lines().filter_map(|line| line.split_once("repeat: "));
    let mut commands: Vec<_> = commands.map(|(_, command)| command.to_owned()).collect();
    commands.sort();
    commands.dedup();
    commands
}

pub(super) fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "{:<20} {:>7} {:>7} {:>8}\n",
        "property tests of", "passed", "failed", "seconds"
    );
    for run in runs {
        let seconds = run.took.as_secs();
        let (package, passed) = (&run.package, run.passed);
        let failed = if run.is_success || run.failed > 0 {
            run.failed.to_string()
        } else {
            "all".to_owned()
        };
        let _ = writeln!(text, "{package:<20} {passed:>7} {failed:>7} {seconds:>8}");
    }
    text
}

fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "running 2 tests
---- tests::a stdout ----
400 cases; repeat: MAYFLY_SEED=7 cargo test --package x tests::a
test result: FAILED. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.1s
test result: ok. 5 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s
";

    #[test]
    fn reads_what_the_harness_says() {
        assert_eq!(counts(SAID), (17, 1));
        assert_eq!(
            repeats(SAID),
            ["MAYFLY_SEED=7 cargo test --package x tests::a"]
        );
    }

    #[test]
    fn packages_with_random_tests_are_found() {
        let all = packages().unwrap();
        for package in ["mayfly-drivers", "mayfly-guest-tests", "mayfly-reference"] {
            assert!(all.contains(&package.to_owned()), "{all:?}");
        }
        assert!(!all.contains(&"xtask".to_owned()), "{all:?}");
    }
}

//! The fuzzers of `tests/fuzz` under libFuzzer, with the nightly toolchain.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::workspace;

use crate::progress::Progress;

const FOLDER: &str = "tests/fuzz";
/// The time limit of one input, in seconds: a slower one counts as an endless loop.
const INPUT_SECONDS: u32 = 10;
/// The interval between progress lines of a fuzzer.
const STEP: Duration = Duration::from_secs(5);
/// The tests that write the seeds: package, and the rest of the command.
const SEEDS: [&[&str]; 5] = [
    &[
        "mayfly-dns",
        "--lib",
        "--",
        "--ignored",
        "--exact",
        "tests::hostile::write_seeds",
    ],
    &[
        "mayfly-http-tests",
        "--test",
        "table",
        "--",
        "--ignored",
        "--exact",
        "write_seeds",
    ],
    &["mayfly-pack", "--test", "hostile", "--", "--exact", "seeds"],
    &["mayfly-savefile", "--lib", "--", "--exact", "tests::seeds"],
    &[
        "mayfly-store",
        "--lib",
        "--",
        "--exact",
        "core::handover::tests::seeds",
    ],
];

/// The figures of a fuzzer.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    executions: u64,
    per_second: u64,
    /// The numbers of reached edges and features.
    coverage: u64,
    features: u64,
    /// The number of kept inputs.
    corpus: u64,
    /// The input that ended it.
    crash: Option<String>,
}

/// The result of one run.
pub(super) struct Run {
    target: String,
    figures: Figures,
    log: PathBuf,
    is_success: bool,
}

/// Writes the fuzzers' initial inputs, by running the tests that generate them.
pub(super) fn write_seeds(progress: &Progress) -> Result<()> {
    progress.say("writing the inputs that fuzzers begin with");
    for test in SEEDS {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(workspace())
            .args(["test", "--quiet", "--package"])
            .args(test);
        let output = command.output().context("cannot run cargo")?;
        let text = String::from_utf8_lossy(&output.stdout);
        // A renamed test would not run, so the output must show that it did.
        ensure!(
            output.status.success() && text.contains("1 passed"),
            "`cargo test --package {}` has written no inputs:\n{text}{}",
            test.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(())
}

/// Runs these fuzzers, each for `seconds` seconds.
pub(super) fn all(
    targets: &[String],
    seconds: u32,
    seed: u32,
    progress: &Progress,
) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for target in targets {
        progress.say(&format!(
            "{target}: building, a minute or two the first time"
        ));
        let built = cargo_fuzz("build", target).stdout(Stdio::null()).output();
        let built = built.context("cannot run cargo fuzz")?;
        ensure!(
            built.status.success(),
            "cannot build {target}:\n{}",
            String::from_utf8_lossy(&built.stderr)
        );
        progress.say(&format!("{target}: fuzzing for {seconds} s"));
        runs.push(one(target, seconds, seed, &|line| {
            progress.step(&format!("{target}: {line}"));
        })?);
    }
    Ok(runs)
}

impl Run {
    /// The finding, and the command that repeats it.
    pub(super) fn finding(&self) -> Option<String> {
        let Self { target, log, .. } = self;
        let what = match &self.figures.crash {
            _ if self.is_success => return None,
            Some(input) => format!(
                "{input} ends it; repeat: cargo +nightly fuzz run --fuzz-dir {FOLDER} {target} {input}"
            ),
            None => "it failed without an input".to_owned(),
        };
        Some(format!(
            "{target}: {what}\n{target}: its whole output is in {}",
            log.display()
        ))
    }
}

/// Checks for the tools that fuzzing needs and the guest does not.
pub(super) fn ensure_tools() -> Result<()> {
    let works = |words: &[&str]| {
        let mut command = Command::new("rustup");
        let output = command
            .args(["run", "nightly", "cargo"])
            .args(words)
            .output();
        output.is_ok_and(|output| output.status.success())
    };
    ensure!(
        works(&["--version"]),
        "fuzzing needs the nightly toolchain: get it with `rustup toolchain install nightly --profile minimal`; `cargo xtask fuzz properties` goes without"
    );
    ensure!(
        works(&["fuzz", "--version"]),
        "fuzzing needs cargo-fuzz: get it with `cargo install cargo-fuzz`; `cargo xtask fuzz properties` goes without"
    );
    Ok(())
}

/// The names of all fuzzers.
pub(super) fn targets() -> Result<Vec<String>> {
    let folder = workspace().join(FOLDER).join("fuzz_targets");
    let mut names = Vec::new();
    let entries = fs::read_dir(&folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "rs")
            && let Some(name) = path.file_stem()
        {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// `cargo fuzz` with the nightly toolchain, instead of the pinned one that runs this program.
fn cargo_fuzz(task: &str, target: &str) -> Command {
    let mut command = Command::new("rustup");
    command
        .current_dir(workspace())
        .args(["run", "nightly", "cargo", "fuzz", task])
        .args(["--fuzz-dir", FOLDER, "--target-dir", "target/fuzz", target])
        .env_remove("CARGO")
        .env_remove("RUSTC");
    command
}

/// Runs one fuzzer from its seeds and the inputs kept by earlier runs.
fn one(target: &str, seconds: u32, seed: u32, step: &dyn Fn(&str)) -> Result<Run> {
    let folder = workspace().join(FOLDER);
    let corpus = folder.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    let mut command = cargo_fuzz("run", target);
    command
        .arg(&corpus)
        .arg(folder.join("seeds").join(target))
        .args(["--", "-print_final_stats=1"])
        .arg(format!("-seed={seed}"))
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={INPUT_SECONDS}"));
    let words = folder.join(format!("{target}.dict"));
    if words.exists() {
        command.arg(format!("-dict={}", words.display()));
    }
    let log = workspace().join(format!("target/fuzz/{target}.log"));
    let mut kept = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo fuzz")?;
    let (mut figures, mut last) = (Figures::default(), None);
    let said = child.stderr.take().context("no output")?;
    for line in BufReader::new(said).split(b'\n') {
        // The fuzzed code may print anything.
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        writeln!(kept, "{line}")?;
        if figures.take(&line) && last.is_none_or(|last: Instant| last.elapsed() >= STEP) {
            step(line.trim());
            last = Some(Instant::now());
        }
    }
    let is_success = child.wait()?.success();
    Ok(Run {
        target: target.to_owned(),
        figures,
        log,
        is_success,
    })
}

impl Figures {
    /// Parses a line of libFuzzer. Returns whether it is about progress.
    fn take(&mut self, line: &str) -> bool {
        if let Some((_, path)) = line.split_once("Test unit written to ") {
            self.crash = Some(path.trim().to_owned());
        }
        for (name, figure) in [
            ("stat::number_of_executed_units:", &mut self.executions),
            ("stat::average_exec_per_sec:", &mut self.per_second),
        ] {
            if let Some(value) = line.strip_prefix(name).and_then(|v| v.trim().parse().ok()) {
                *figure = value;
            }
        }
        if !line.starts_with('#') {
            return false;
        }
        let words: Vec<_> = line.split_whitespace().collect();
        let after = |name: &str| {
            let at = words.iter().position(|word| *word == name)?;
            // The corpus is printed as the number of inputs and their size.
            words.get(at + 1)?.split('/').next()?.parse().ok()
        };
        let (Some(coverage), Some(features)) = (after("cov:"), after("ft:")) else {
            return false;
        };
        (self.coverage, self.features) = (coverage, features);
        self.corpus = after("corp:").unwrap_or(self.corpus);
        true
    }
}

pub(super) fn table(runs: &[Run]) -> String {
    let mut text = format!(
        "{:<10} {:>12} {:>8} {:>7} {:>7} {:>7}  {}\n",
        "fuzzer", "executions", "a second", "edges", "feats", "corpus", "crash"
    );
    for run in runs {
        let Figures {
            executions,
            per_second,
            coverage,
            features,
            corpus,
            ..
        } = run.figures;
        let crash = if run.is_success { "none" } else { "YES" };
        let _ = writeln!(
            text,
            "{:<10} {executions:>12} {per_second:>8} {coverage:>7} {features:>7} {corpus:>7}  {crash}",
            run.target
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "INFO: seed corpus: files: 4
#5	INITED cov: 410 ft: 411 corp: 4/13Kb exec/s: 0 rss: 46Mb
#12\tREDUCE cov: 412 ft: 420 corp: 6/14Kb lim: 4096 exec/s: 0 rss: 47Mb L: 3/4 MS: 1 EraseBytes-
Done 100 runs in 2 second(s)
stat::number_of_executed_units: 100
stat::average_exec_per_sec:     50
";

    #[test]
    fn reads_what_libfuzzer_says() {
        let mut figures = Figures::default();
        let steps = SAID.lines().filter(|line| figures.take(line)).count();
        assert_eq!(steps, 2);
        let expected = Figures {
            executions: 100,
            per_second: 50,
            coverage: 412,
            features: 420,
            corpus: 6,
            crash: None,
        };
        assert_eq!(figures, expected);
        figures.take("artifact_prefix='./a/'; Test unit written to ./a/crash-12");
        assert_eq!(figures.crash.as_deref(), Some("./a/crash-12"));
    }

    #[test]
    fn each_fuzzer_has_seeds() {
        let folder = workspace().join(FOLDER);
        let all = targets().unwrap();
        let expected = [
            "dns",
            "dns_tcp",
            "http",
            "pack",
            "savefile",
            "store",
            "store_state",
            "switch",
        ];
        assert_eq!(all, expected);
        for target in all {
            assert!(
                fs::read_dir(folder.join("seeds").join(target))
                    .unwrap()
                    .count()
                    > 0
            );
        }
    }
}

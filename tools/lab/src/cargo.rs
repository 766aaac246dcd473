//! Static programs for dom0, built with Cargo in a target folder of their own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// The only target the project assumes.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Seconds between two lines about one build.
const EACH: u64 = 10;

/// hatch and the programs behind it: package and program.
const HATCH: [(&str, &str); 4] = [
    ("hatch", "hatch"),
    ("mayfly-pack", "hatch-pack"),
    ("mayfly-summon", "hatch-summon"),
    ("mayfly-switch", "hatch-switch"),
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
/// With `faults` they fail where a test wants it, and lie in a folder of their own.
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

/// Builds programs with features of their packages, and gives the folder that they are in: one for each choice of features, since
/// Cargo puts all of them in one place, and others may be building at the same time.
fn build(programs: &[(&str, &str)], features: &str) -> Result<PathBuf> {
    let target = workspace().join("target/dom0");
    fs::create_dir_all(&target).with_context(|| format!("cannot create {}", target.display()))?;
    let lock = File::create(target.join("lock"))?;
    lock.lock()
        .context("cannot lock the folder of dom0's programs")?;
    let names: Vec<&str> = programs.iter().map(|(_, bin)| *bin).collect();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace())
        .args([
            "build",
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
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    watched(command, names.first().unwrap_or(&"nothing"), "two minutes")?;
    let built = target.join(TARGET).join("dom0");
    let folder = match features {
        "" => target.join("programs"),
        _ => target.join("programs-with-faults"),
    };
    fs::create_dir_all(&folder)?;
    for name in names {
        replace(&built.join(name), &folder.join(name))?;
    }
    Ok(folder)
}

/// Puts a program where somebody may be running or reading the last one.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let beside = to.with_extension("new");
    fs::copy(from, &beside)?;
    fs::rename(&beside, to).with_context(|| format!("cannot write {}", to.display()))
}

/// Runs a `cargo build` and, if there is something to build, says on standard error what, how long that takes the `first` time,
/// and now and then how far it is.
///
/// # Errors
/// No Cargo; a build that fails, with what the compiler printed.
pub fn watched(mut command: Command, what: &str, first: &str) -> Result<()> {
    command.args(["--quiet", "--message-format", "json-render-diagnostics"]);
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let errors = child.stderr.take().context("no output")?;
    // What the compiler prints must be taken while the messages are.
    let errors = thread::spawn(move || std::io::read_to_string(errors).unwrap_or_default());
    let (mut built, mut said) = (0, None);
    let messages = child.stdout.take().context("no output")?;
    for line in BufReader::new(messages).lines() {
        let line = line?;
        if !(line.contains("\"compiler-artifact\"") && line.contains("\"fresh\":false")) {
            continue;
        }
        built += 1;
        let elapsed = start.elapsed().as_secs();
        match said {
            None => eprintln!("building {what}, about {first} the first time"),
            Some(last) if elapsed < last + EACH => continue,
            Some(_) => eprintln!("building {what}: {built} crates in {elapsed} s"),
        }
        said = Some(elapsed);
    }
    let status = child.wait()?;
    let errors = errors.join().unwrap_or_default();
    ensure!(status.success(), "cannot build {what}:\n{errors}");
    Ok(())
}

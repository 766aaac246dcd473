//! Static programs for dom0, built with Cargo in a target folder of their own.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::workspace;

/// The only target that the project supports on hosts.
pub const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The time between two progress lines of a build, in seconds.
const EACH: u64 = 10;

/// hatch and the programs behind it, each as package and program.
const HATCH: [(&str, &str); 5] = [
    ("hatch", "hatch"),
    ("mayfly-pack", "hatch-pack"),
    ("mayfly-summon", "hatch-summon"),
    ("mayfly-switch", "hatch-switch"),
    ("mayfly-store", "hatch-xenstored"),
];

/// Builds the program `bin` of the workspace's `package` as a static file that runs in dom0. Returns its path.
///
/// # Errors
/// The errors of Cargo, with its output.
pub fn static_program(package: &str, bin: &str) -> Result<PathBuf> {
    let folder = build(&[(package, bin)], &Variant::default())?;
    Ok(folder.join(bin))
}

/// Builds hatch and the programs behind it, which must lie in one folder, as static files that run in dom0. Returns
/// their paths, `hatch` first. With `faults`, the programs have the fault injection of tests, and lie in a folder of
/// their own.
///
/// # Errors
/// The errors of Cargo, with its output.
pub fn hatch_programs(faults: bool) -> Result<Vec<PathBuf>> {
    let variant = match faults {
        true => Variant {
            features: "hatch/faults,mayfly-summon/faults",
            folder: "programs-with-faults",
            ..Variant::default()
        },
        false => Variant::default(),
    };
    let folder = build(&HATCH, &variant)?;
    Ok(HATCH.map(|(_, bin)| folder.join(bin)).to_vec())
}

/// The addresses of the code of [`mapped_hatch`]: no other program in dom0 has code there.
pub const MAPPED_AT: Range<u64> = 0x2000_0000..0x2100_0000;

/// Builds `hatch` as [`hatch_programs`] does, but linked at [`MAPPED_AT`], and writes the linker's map to the file
/// `map`. Returns the program's path.
///
/// # Errors
/// The errors of Cargo, with its output.
pub fn mapped_hatch(map: &Path) -> Result<PathBuf> {
    let variant = Variant {
        folder: "programs-mapped",
        map: Some(map),
        ..Variant::default()
    };
    // All programs are built, because their needs decide the features of the libraries that they share.
    Ok(build(&HATCH, &variant)?.join("hatch"))
}

/// A way to build programs.
struct Variant<'a> {
    /// Features of their packages, as Cargo's command line has them.
    features: &'a str,
    /// The folder of the programs, below the target folder. Each variant has its own, since Cargo writes all of them to
    /// one place, and others may build at the same time.
    folder: &'a str,
    /// Where the linker writes hatch's map.
    map: Option<&'a Path>,
}

impl Default for Variant<'_> {
    fn default() -> Self {
        Self {
            features: "",
            folder: "programs",
            map: None,
        }
    }
}

/// Builds programs. Returns their folder.
fn build(programs: &[(&str, &str)], variant: &Variant<'_>) -> Result<PathBuf> {
    let target = workspace().join("target/dom0");
    let _lock = locked(&target)?;
    let names: Vec<&str> = programs.iter().map(|(_, bin)| *bin).collect();
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(workspace())
        .args([
            "build",
            "--profile",
            "dom0",
            "--features",
            variant.features,
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
        // A position-independent program relocates itself at each start, which costs hatch a million instructions.
        .env(
            "RUSTFLAGS",
            "-C target-feature=+crt-static -C relocation-model=static -C symbol-mangling-version=v0",
        )
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    if let Some(map) = variant.map {
        command.env("HATCH_MAP", map);
    }
    watched(command, names.first().unwrap_or(&"nothing"), "two minutes")?;
    let built = target.join(TARGET).join("dom0");
    let folder = target.join(variant.folder);
    fs::create_dir_all(&folder)?;
    for name in names {
        replace(&built.join(name), &folder.join(name))?;
    }
    Ok(folder)
}

/// Creates the `folder` if it is missing, and keeps other builds out of it as long as the result lives.
///
/// # Errors
/// The folder can't be created or locked.
pub fn locked(folder: &Path) -> Result<File> {
    let name = || format!("cannot lock the folder {}", folder.display());
    fs::create_dir_all(folder).with_context(name)?;
    let lock = File::create(folder.join("lock")).with_context(name)?;
    lock.lock().with_context(name)?;
    Ok(lock)
}

/// Replaces a program that others may run or read at this moment: they see the whole old file or the whole new one. The
/// caller holds the folder of `to` [locked].
///
/// # Errors
/// A file that can't be read or written.
pub fn replace(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    let beside = to.with_extension("new");
    fs::copy(from, &beside)?;
    fs::rename(&beside, to).with_context(|| format!("cannot write {}", to.display()))
}

/// Runs a `cargo build`. If there is something to build, prints to standard error what it is, how long that takes the
/// `first` time, and now and then the progress.
///
/// # Errors
/// No Cargo; a build that fails, with the output of the compiler.
pub fn watched(mut command: Command, what: &str, first: &str) -> Result<()> {
    command.args(["--quiet", "--message-format", "json-render-diagnostics"]);
    let start = Instant::now();
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run cargo")?;
    let errors = child.stderr.take().context("no output")?;
    // The compiler's output must be read in parallel with the messages.
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

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_reader_of_a_replaced_program_gets_the_whole_old_one() {
        let folder = tempfile::tempdir().unwrap();
        let [built, program] = ["built", "program"].map(|name| folder.path().join(name));
        fs::write(&built, "old").unwrap();
        replace(&built, &program).unwrap();
        let mut reader = File::open(&program).unwrap();
        fs::write(&built, "new and longer").unwrap();
        replace(&built, &program).unwrap();
        let mut read = String::new();
        reader.read_to_string(&mut read).unwrap();
        assert_eq!(read, "old");
        assert_eq!(fs::read_to_string(&program).unwrap(), "new and longer");
    }
}

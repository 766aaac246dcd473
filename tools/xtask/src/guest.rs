//! Building the guest.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mayfly_lab::{TARGET, hatch_programs, locked, replace, watched, workspace};

use crate::progress::Progress;

/// A guest binary of the workspace.
#[derive(Clone, Copy)]
pub(crate) struct Guest {
    /// Cargo package, binary and name of the result.
    pub(crate) name: &'static str,
    /// Cargo features; a binary that only links as a guest hides behind one.
    features: &'static str,
}

/// The unikernel.
pub(crate) const MAYFLY: Guest = Guest {
    name: "mayfly",
    features: "guest",
};
/// The guest that does nothing, which the bench compares with.
pub(crate) const NULL: Guest = Guest {
    name: "null-guest",
    features: "",
};
/// The guest that lies to its network's back end.
pub(crate) const LIAR: Guest = Guest {
    name: "liar-guest",
    features: "guest",
};

#[derive(Args)]
pub(crate) struct Build {
    /// Build twice in different folders and compare the bits
    #[arg(long)]
    verify: bool,
    /// Build hatch and the programs behind it for dom0 as static files, and print their paths too
    #[arg(long)]
    hatch: bool,
}

pub(crate) fn run(build: &Build) -> Result<()> {
    let path = self::build(MAYFLY)?;
    println!("{}", path.display());
    if build.verify {
        verify(&path)?;
    }
    if build.hatch {
        for program in hatch_programs(false)? {
            println!("{}", program.display());
        }
    }
    Ok(())
}

/// Builds a guest. Returns the path of the stripped file; beside it, with `.debug` appended, is the file with symbols.
pub(crate) fn build(guest: Guest) -> Result<PathBuf> {
    build_in(workspace(), guest)
}

fn build_in(folder: &Path, guest: Guest) -> Result<PathBuf> {
    let target = folder.join("target/guest");
    // Two counted labs prepare themselves at the same time, and one must not read what the other has half written.
    let _lock = locked(&target)?;
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .current_dir(folder)
        .args([
            "build",
            "--locked",
            "--profile",
            "guest",
            "--target",
            TARGET,
        ])
        .args([
            "--package",
            guest.name,
            "--bin",
            guest.name,
            "--features",
            guest.features,
            "--target-dir",
        ])
        .arg(&target)
        // Cargo passes these to the guest's crates only, and not to build scripts, because a target is named.
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(folder)?);
    watched(command, &format!("the guest {}", guest.name), "a minute")?;
    let built = target.join(TARGET).join("guest").join(guest.name);
    let stripped = target.join(guest.name);
    let fresh = target.join(format!("{}.stripped", guest.name));
    let status = Command::new("strip")
        .args(["--strip-all", "-o"])
        .arg(&fresh)
        .arg(&built)
        .status();
    ensure!(
        status
            .context("cannot run strip, of binutils, which rustc's linker comes with")?
            .success(),
        "cannot strip {}",
        built.display()
    );
    replace(&fresh, &stripped)?;
    replace(&built, &target.join(format!("{}.debug", guest.name)))?;
    Ok(stripped)
}

/// Flags of the guest's crates, in Cargo's encoding.
fn rustflags(folder: &Path) -> Result<OsString> {
    let mut flags: Vec<OsString> = [
        // No relocations, because nothing would apply them.
        "-Crelocation-model=static",
        // xen-sys's hypercalls are `call`s in asm that claims `nostack`: their return addresses would overwrite the red zone.
        "-Cno-redzone=yes",
        "-Ctarget-cpu=x86-64",
    ]
    .map(OsString::from)
    .to_vec();
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| Path::new(&home).join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    // The bits must not depend on the sources' folder.
    for (from, to) in [
        (home.join("registry/src"), "/registry"),
        (folder.to_owned(), "/mayfly"),
    ] {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push(format!("={to}"));
        flags.push(flag);
    }
    Ok(flags.join("\u{1f}".as_ref()))
}

/// Builds the guest in another folder, and compares both.
pub(crate) fn verify(path: &Path) -> Result<()> {
    let progress = Progress::new();
    let first = fs::read(path)?;
    let scratch = tempfile::tempdir()?;
    let folder = scratch.path().join("another/folder");
    progress.step(&format!("building in {}", folder.display()));
    copy_tree(workspace(), &folder)?;
    let other = fs::read(build_in(&folder, MAYFLY)?)?;
    if let Some(at) = difference(&first, &other) {
        bail!(
            "the guest built in {} differs from byte {at:#x} on",
            folder.display()
        );
    }
    progress.finish();
    println!(
        "two builds in two folders are identical, {} bytes",
        first.len()
    );
    Ok(())
}

/// Offset of the first difference.
fn difference(a: &[u8], b: &[u8]) -> Option<usize> {
    if a.len() != b.len() {
        return Some(a.len().min(b.len()));
    }
    a.iter().zip(b).position(|(a, b)| a != b)
}

/// Copies the sources, without `target` and `.git`.
fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let wanted = |entry: &walkdir::DirEntry| {
        let name = entry.file_name().to_string_lossy();
        entry.depth() == 0 || !(name == "target" || name == ".git")
    };
    for entry in walkdir::WalkDir::new(from).into_iter().filter_entry(wanted) {
        let entry = entry?;
        let path = to.join(entry.path().strip_prefix(from)?);
        if entry.file_type().is_dir() {
            fs::create_dir_all(&path)?;
        } else if entry.file_type().is_file() {
            fs::copy(entry.path(), &path)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::difference;

    #[test]
    fn differences_are_found() {
        assert_eq!(difference(b"abc", b"abc"), None);
        assert_eq!(difference(b"abc", b"abd"), Some(2));
        assert_eq!(difference(b"abc", b"ab"), Some(2));
    }
}

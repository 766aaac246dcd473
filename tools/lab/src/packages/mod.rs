//! Debian's packages, downloaded, verified and unpacked into the build folder; nothing is installed.

mod apt;
mod sets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use apt::{Apt, deb, run};
pub use sets::Set;

use crate::{Report, cache};
/// One downloaded package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Package {
    name: String,
    version: String,
    sha256: String,
}

/// Returns the folder with the unpacked set, and downloads the set if it is missing.
///
/// # Errors
/// No apt; no network; too little free space; an index without the packages; or a package whose SHA-256 differs from
/// the index.
pub fn unpacked(set: Set, report: Report<'_>) -> Result<PathBuf> {
    let base = cache()?.join("packages").join(set.folder());
    let root = base.join("root");
    let manifest = base.join("manifest.json");
    fs::create_dir_all(&base)?;
    // A second process waits here and then finds the unpacked set. Closing the file releases the lock.
    let lock = fs::File::create(base.join("lock"))?;
    lock.lock().context("cannot lock the packages")?;
    if complete(set, &manifest) && root.is_dir() {
        return Ok(root);
    }
    let room = rustix::fs::statvfs(&base).context("cannot tell the free space")?;
    let (free, needed) = (room.f_bavail.saturating_mul(room.f_frsize), set.room());
    ensure!(
        free >= needed,
        "{} MiB free in {}, and the packages with what they unpack to need {}: make room there",
        free >> 20,
        base.display(),
        needed >> 20
    );
    let apt = Apt::new()?;
    report("looking up Debian packages");
    let debs = base.join("debs");
    let fetch = || {
        apt.look_up(set)
            .and_then(|packages| apt.download(&packages, &debs, report).map(|()| packages))
    };
    let packages = fetch().or_else(|e| {
        report(&format!("fetching a package index of our own ({e:#})"));
        // A hook of this machine's apt may fail without root after all has been fetched, so only the index decides.
        let updated = apt.update();
        fetch().map_err(|e| updated.err().unwrap_or(e))
    })?;
    let part = base.join("root.part");
    for stale in [&part, &root] {
        if stale.exists() {
            fs::remove_dir_all(stale)?;
        }
    }
    for package in &packages {
        report(&format!("unpacking {}", package.name));
        run(Command::new("dpkg")
            .arg("-x")
            .arg(deb(&debs, package)?)
            .arg(&part))?;
    }
    fs::rename(&part, &root)?;
    fs::write(&manifest, serde_json::to_vec_pretty(&packages)?)?;
    // The downloaded files are not needed once they are unpacked.
    fs::remove_dir_all(&debs)?;
    Ok(root)
}

/// A command that runs a program of an unpacked set on the host, with the set's own libraries; `path` is relative to
/// the set's root.
///
/// # Errors
/// The errors of [`unpacked`], and a missing program.
pub fn host_command(set: Set, path: &str, report: Report<'_>) -> Result<Command> {
    let root = unpacked(set, report)?;
    let program = root.join(path);
    ensure!(program.is_file(), "{} is not there", program.display());
    let libraries = std::env::join_paths([
        root.join("usr/lib/x86_64-linux-gnu"),
        root.join("lib/x86_64-linux-gnu"),
    ])?;
    let loader = root.join("lib64/ld-linux-x86-64.so.2");
    if loader.exists() {
        // A libc works only with the loader that it came with.
        let mut command = Command::new(loader);
        command.arg("--library-path").arg(libraries).arg(program);
        return Ok(command);
    }
    let mut command = Command::new(program);
    command.env("LD_LIBRARY_PATH", libraries);
    Ok(command)
}

/// Whether the manifest on disk is that of this set of packages.
fn complete(set: Set, manifest: &Path) -> bool {
    let Ok(packages) = fs::read(manifest)
        .map_err(anyhow::Error::from)
        .and_then(|text| {
            serde_json::from_slice::<Vec<Package>>(&text).map_err(anyhow::Error::from)
        })
    else {
        return false;
    };
    packages.len() == set.packages().len() + usize::from(set.kernel().is_some())
        && set
            .packages()
            .iter()
            .all(|name| packages.iter().any(|p| p.name == *name))
}
#[cfg(test)]
mod tests {
    use super::apt::stanzas;
    use super::*;

    #[test]
    fn reads_stanzas() {
        let text = "Package: a\nVersion: 1:2-3\nDescription: x\n more: text\nSHA256: 00\n\nPackage: b\nDepends: linux-image-6 (= 1), c\n\n";
        let stanzas = stanzas(text);
        assert_eq!(stanzas.len(), 2);
        assert_eq!(stanzas[0]["Version"], "1:2-3");
        assert!(!stanzas[0].contains_key(" more"));
        assert_eq!(stanzas[1]["Depends"], "linux-image-6 (= 1), c");
    }

    #[test]
    fn a_manifest_of_other_packages_is_not_complete() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = folder.path().join("manifest.json");
        assert!(!complete(Set::LinuxGuest, &manifest));
        let package = |name: &str| Package {
            name: name.into(),
            version: String::new(),
            sha256: String::new(),
        };
        fs::write(
            &manifest,
            serde_json::to_vec(&[package("linux-image-1-cloud-amd64")]).unwrap(),
        )
        .unwrap();
        assert!(complete(Set::LinuxGuest, &manifest));
        assert!(!complete(Set::Dom0, &manifest));
        fs::write(&manifest, "[{").unwrap();
        assert!(!complete(Set::LinuxGuest, &manifest));
    }

    #[test]
    fn no_set_names_a_package_twice() {
        for set in [Set::Dom0, Set::Servers, Set::Load, Set::Clients] {
            assert!(
                set.packages().is_sorted_by(|a, b| a < b),
                "{}",
                set.folder()
            );
        }
    }
}

//! apt and dpkg, without root.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use super::{Package, Set};
use crate::{Report, cache};

/// apt, without root. It looks in the machine's own index first, and in an index under the build folder if that lacks a
/// package.
pub(super) struct Apt {
    folder: PathBuf,
}

impl Apt {
    pub(super) fn new() -> Result<Self> {
        let found = Command::new("apt-get").arg("--version").output();
        ensure!(
            found.is_ok_and(|o| o.status.success()),
            "no apt-get here: the lab takes Xen, its tools and kernels from Debian 12's packages, so run it on Debian 12"
        );
        Ok(Self {
            folder: cache()?.join("apt"),
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("LC_ALL", "C.UTF-8");
        // As root apt would switch to a user that may not read this folder.
        command.args(["-o", "APT::Sandbox::User=root", "-q"]);
        if self.folder.join("lists").is_dir() {
            command
                .arg("-o")
                .arg(option("Dir::State::lists=", &self.folder.join("lists")));
            command
                .arg("-o")
                .arg(option("Dir::Cache=", &self.folder.join("cache")));
        }
        command
    }

    pub(super) fn update(&self) -> Result<()> {
        fs::create_dir_all(self.folder.join("lists/partial"))?;
        fs::create_dir_all(self.folder.join("cache/archives/partial"))?;
        run(self.command("apt-get").arg("update"))
            .context("cannot fetch the package index: is there a network, and does /etc/apt/sources.list name a Debian 12 mirror?")
    }

    pub(super) fn look_up(&self, set: Set) -> Result<Vec<Package>> {
        let kernel = set.kernel().map(|meta| self.kernel(meta)).transpose()?;
        let mut names = set.packages().to_vec();
        names.extend(kernel.as_deref());
        let stanzas = self.show(&names)?;
        let one = |name: &&str| {
            // The newest version comes first. A version that is installed but in no index has no checksum.
            stanzas
                .iter()
                .filter(|stanza| stanza.get("Package").is_some_and(|p| p == name))
                .find_map(|stanza| {
                    Some(Package {
                        name: (*name).to_owned(),
                        version: stanza.get("Version")?.clone(),
                        sha256: stanza.get("SHA256")?.clone(),
                    })
                })
                .with_context(|| {
                    format!("the package index has no {name}: the lab takes Debian 12's packages")
                })
        };
        names.iter().map(one).collect()
    }

    /// The package of the kernel that the package `meta` depends on.
    fn kernel(&self, meta: &str) -> Result<String> {
        let stanzas = self.show(&[meta])?;
        let kernel = stanzas
            .first()
            .and_then(|stanza| stanza.get("Depends"))
            .and_then(|depends| {
                depends
                    .split([' ', ','])
                    .find(|word| word.starts_with("linux-image-"))
            });
        Ok(kernel
            .with_context(|| format!("{meta} names no kernel"))?
            .to_owned())
    }

    /// The stanzas that `apt-cache show` prints, as maps from field to value.
    fn show(&self, names: &[&str]) -> Result<Vec<BTreeMap<String, String>>> {
        let output = self
            .command("apt-cache")
            .arg("show")
            .args(names)
            .output()
            .context("cannot run apt-cache")?;
        Ok(stanzas(&String::from_utf8_lossy(&output.stdout)))
    }

    pub(super) fn download(
        &self,
        packages: &[Package],
        debs: &Path,
        report: Report<'_>,
    ) -> Result<()> {
        fs::create_dir_all(debs)?;
        let mut command = self.command("apt-get");
        command.arg("download").current_dir(debs);
        for package in packages.iter().filter(|p| deb(debs, p).is_err()) {
            command.arg(format!("{}={}", package.name, package.version));
        }
        report(&format!("downloading {} Debian packages", packages.len()));
        run(&mut command).context("cannot download Debian packages: is there a network?")?;
        for package in packages {
            let path = deb(debs, package)?;
            let hash: String = Sha256::digest(fs::read(&path)?)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
            if hash != package.sha256 {
                fs::remove_file(&path)?;
                bail!(
                    "{} has SHA-256 {hash}, and the index says {}: download it again",
                    path.display(),
                    package.sha256
                );
            }
        }
        Ok(())
    }
}

fn option(name: &str, path: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from(name);
    text.push(path);
    text
}

/// The downloaded file of a package.
pub(super) fn deb(debs: &Path, package: &Package) -> Result<PathBuf> {
    let stem = format!("{}_{}_", package.name, package.version.replace(':', "%3a"));
    fs::read_dir(debs)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .find(|path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.starts_with(&stem) && name.ends_with(".deb")
        })
        .with_context(|| format!("{} was not downloaded", package.name))
}

pub(super) fn stanzas(text: &str) -> Vec<BTreeMap<String, String>> {
    text.split("\n\n")
        .map(|stanza| {
            stanza
                .lines()
                .filter(|line| !line.starts_with(' '))
                .filter_map(|line| line.split_once(": "))
                .map(|(field, value)| (field.to_owned(), value.to_owned()))
                .collect()
        })
        .filter(|stanza: &BTreeMap<_, _>| !stanza.is_empty())
        .collect()
}

/// Runs a program, quietly unless it fails.
pub(super) fn run(command: &mut Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot run {name}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.starts_with("W:"))
        .collect();
    let tail = lines
        .get(lines.len().saturating_sub(5)..)
        .unwrap_or_default()
        .join("; ");
    bail!("{name}: {}: {tail}", output.status)
}

//! Debian's packages, downloaded, verified and unpacked into the build folder; nothing is installed.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Report, cache};

/// What dom0 is made of. libgcc_s is loaded by name when libxl cancels a thread; bash runs Xen's stock hotplug scripts.
const DOM0: &[&str] = &[
    "bash",
    "busybox-static",
    "libc6",
    "libgcc-s1",
    "liblzma5",
    "libtinfo6",
    "libuuid1",
    "libxencall1",
    "libxendevicemodel1",
    "libxenevtchn1",
    "libxenforeignmemory1",
    "libxengnttab1",
    "libxenhypfs1",
    "libxenmisc4.17",
    "libxenstore4",
    "libxentoolcore1",
    "libxentoollog1",
    "libyajl2",
    "libzstd1",
    "xen-hypervisor-4.17-amd64",
    "xen-utils-4.17",
    "xen-utils-common",
    "xenstore-utils",
    "zlib1g",
];

/// The servers that mayfly is compared with, and what they are linked with.
const SERVERS: &[&str] = &[
    "libc6",
    "libcap2",
    "libcrypt1",
    "libevent-2.1-7",
    "libfstrm0",
    "libgcrypt20",
    "libgpg-error0",
    "liblz4-1",
    "liblzma5",
    "libpcre2-8-0",
    "libprotobuf-c1",
    "libssl3",
    "libsystemd0",
    "libzstd1",
    "nginx",
    "nginx-common",
    "nsd",
    "zlib1g",
];

/// What loads a server, from dom0.
const LOAD: &[&str] = &[
    "dnsperf",
    "libc6",
    "libgcc-s1",
    "libldns3",
    "libluajit2-5.1-2",
    "libnghttp2-14",
    "libssl3",
    "wrk",
];

/// What a person asks a server with, run on the host; the host's own libraries serve where the package is not named.
const CLIENTS: &[&str] = &[
    "bind9-dnsutils",
    "bind9-libs",
    "curl",
    "knot-dnsutils",
    "ldnsutils",
    "libbpf1",
    "libbrotli1",
    "libcom-err2",
    "libcurl4",
    "libdnssec9",
    "libedit2",
    "libelf1",
    "libffi8",
    "libfstrm0",
    "libgmp10",
    "libgnutls30",
    "libgssapi-krb5-2",
    "libhogweed6",
    "libicu72",
    "libidn2-0",
    "libjemalloc2",
    "libjson-c5",
    "libk5crypto3",
    "libkeyutils1",
    "libknot13",
    "libkrb5-3",
    "libkrb5support0",
    "libldap-2.5-0",
    "libldns3",
    "liblmdb0",
    "libmaxminddb0",
    "libnettle8",
    "libnghttp2-14",
    "libp11-kit0",
    "libprotobuf-c1",
    "libpsl5",
    "librtmp1",
    "libsasl2-2",
    "libssh2-1",
    "libssl3",
    "libtasn1-6",
    "libunistring2",
    "libuv1",
    "libxdp1",
    "libxml2",
    "libzscanner4",
];

/// systemd, with all that it is linked with.
const SYSTEMD: &[&str] = &[
    "libacl1",
    "libapparmor1",
    "libaudit1",
    "libblkid1",
    "libc6",
    "libcap-ng0",
    "libcap2",
    "libcrypt1",
    "libgcrypt20",
    "libgpg-error0",
    "libip4tc2",
    "libkmod2",
    "liblz4-1",
    "liblzma5",
    "libmount1",
    "libpam0g",
    "libpcre2-8-0",
    "libseccomp2",
    "libselinux1",
    "libssl3",
    "libsystemd-shared",
    "libsystemd0",
    "libzstd1",
    "systemd",
];

/// A set of packages that is unpacked into one folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Set {
    /// Xen, its tools and dom0's kernel.
    Dom0,
    /// A kernel for a Linux guest.
    LinuxGuest,
    /// NSD and nginx, with all they are linked with.
    Servers,
    /// dnsperf and wrk, with all they are linked with.
    Load,
    /// systemd, for dom0.
    Systemd,
    /// curl, dig, delv, kdig and ldns-signzone, to be run on the host with [`host_command`].
    Clients,
}

impl Set {
    fn folder(self) -> &'static str {
        match self {
            Self::Dom0 => "dom0",
            Self::LinuxGuest => "linux-guest",
            Self::Servers => "servers",
            Self::Load => "load",
            Self::Systemd => "systemd",
            Self::Clients => "clients",
        }
    }

    fn packages(self) -> &'static [&'static str] {
        match self {
            Self::Dom0 => DOM0,
            Self::LinuxGuest => &[],
            Self::Servers => SERVERS,
            Self::Load => LOAD,
            Self::Systemd => SYSTEMD,
            Self::Clients => CLIENTS,
        }
    }

    /// Free space that downloading and unpacking take, with a margin of about a half, in bytes.
    fn room(self) -> u64 {
        match self {
            Self::Dom0 => 900 << 20,
            Self::LinuxGuest | Self::Servers | Self::Load | Self::Systemd | Self::Clients => {
                300 << 20
            }
        }
    }

    /// The package that depends on the current kernel: the `-cloud-` flavour cannot be dom0.
    fn kernel(self) -> Option<&'static str> {
        match self {
            Self::Dom0 => Some("linux-image-amd64"),
            Self::LinuxGuest => Some("linux-image-cloud-amd64"),
            Self::Servers | Self::Load | Self::Systemd | Self::Clients => None,
        }
    }
}

/// One downloaded package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Package {
    name: String,
    version: String,
    sha256: String,
}

/// Gives the folder with the unpacked set, downloading it when it is not there.
///
/// # Errors
/// No apt, no network, no room, an index without the packages, or a package whose SHA-256 is not the index's.
pub fn unpacked(set: Set, report: Report<'_>) -> Result<PathBuf> {
    let base = cache()?.join("packages").join(set.folder());
    let root = base.join("root");
    let manifest = base.join("manifest.json");
    fs::create_dir_all(&base)?;
    // Who comes second finds what the first has unpacked. Closing the file ends the lock.
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
        // A hook of this machine's apt may fail for want of root after all has been fetched: what counts is the index.
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
    // What is unpacked is not needed twice.
    fs::remove_dir_all(&debs)?;
    Ok(root)
}

/// A program of an unpacked set, to be run on the host with the set's own libraries; `path` is below the set's root.
///
/// # Errors
/// Those of [`unpacked`], and a program that is not there.
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

/// Whether the manifest on disk is one of this set of packages.
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

/// apt, without root: it looks in the machine's own index first, and in one under the build folder when that lacks something.
struct Apt {
    folder: PathBuf,
}

impl Apt {
    fn new() -> Result<Self> {
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

    fn update(&self) -> Result<()> {
        fs::create_dir_all(self.folder.join("lists/partial"))?;
        fs::create_dir_all(self.folder.join("cache/archives/partial"))?;
        run(self.command("apt-get").arg("update"))
            .context("cannot fetch the package index: is there a network, and does /etc/apt/sources.list name a Debian 12 mirror?")
    }

    fn look_up(&self, set: Set) -> Result<Vec<Package>> {
        let kernel = set.kernel().map(|meta| self.kernel(meta)).transpose()?;
        let mut names = set.packages().to_vec();
        names.extend(kernel.as_deref());
        let stanzas = self.show(&names)?;
        let one = |name: &&str| {
            // The newest comes first; a version that is installed and in no index has no checksum.
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

    /// The kernel's own package, which the package `meta` depends on.
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

    fn download(&self, packages: &[Package], debs: &Path, report: Report<'_>) -> Result<()> {
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
fn deb(debs: &Path, package: &Package) -> Result<PathBuf> {
    let stem = format!("{}_{}_", package.name, package.version.replace(':', "%3a"));
    fs::read_dir(debs)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .find(|path| {
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            name.starts_with(&stem) && name.ends_with(".deb")
        })
        .with_context(|| format!("{} was not downloaded", package.name))
}

fn stanzas(text: &str) -> Vec<BTreeMap<String, String>> {
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
fn run(command: &mut Command) -> Result<()> {
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

#[cfg(test)]
mod tests {
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

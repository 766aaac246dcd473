//! dom0's initramfs. The same inputs give the same bytes, since a counted lab must repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use cpio::newc;
use object::elf::FileHeader64;
use object::read::elf::{Dyn, ElfFile64, FileHeader, ProgramHeader};
use object::{LittleEndian, Object, ObjectSection};
use walkdir::WalkDir;

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER: u32 = 0o020_000;

/// Programs of Xen's private folder that the lab uses.
const XEN_PROGRAMS: &[&str] = &[
    "libxl-save-helper",
    "lsevtchn",
    "oxenstored",
    "xen-diag",
    "xen-init-dom0",
    "xenconsole",
    "xenconsoled",
    "xenctx",
    "xenperf",
    "xenpm",
    "xenstore-control",
    "xenstored",
    "xentrace",
    "xl",
];
const XEN_FOLDER: &str = "usr/lib/xen-4.17/bin";
const LIBRARIES: &str = "lib/x86_64-linux-gnu";

/// The modules that dom0 loads. Their dependencies are found and put before them.
pub(crate) const DOM0_MODULES: &[&str] = &[
    "xen_evtchn",
    "xen_gntdev",
    "xen_gntalloc",
    "xen_privcmd",
    "xenfs",
    "bridge",
    "tun",
    "xen_netback",
    "virtio_pci",
    "virtio_net",
    // The modules that hatch's guard needs: here the kernel cannot load them by itself.
    "sch_ingress",
    "cls_bpf",
];

enum Content {
    Bytes(Vec<u8>),
    Source(PathBuf),
    Link(String),
    Directory,
    Character(u32, u32),
}

/// The content of a file system, sorted by path.
#[derive(Default)]
pub(crate) struct Image {
    entries: BTreeMap<String, (u32, Content)>,
}

impl Image {
    /// Adds a file with these bytes.
    pub(crate) fn bytes(&mut self, path: &str, mode: u32, bytes: impl Into<Vec<u8>>) {
        self.insert(path, REGULAR | mode, Content::Bytes(bytes.into()));
    }

    /// Adds a copy of a file of the host.
    pub(crate) fn file(&mut self, path: &str, mode: u32, source: &Path) {
        self.insert(path, REGULAR | mode, Content::Source(source.to_owned()));
    }

    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.insert(path, SYMLINK | 0o777, Content::Link(target.to_owned()));
    }

    pub(crate) fn directory(&mut self, path: &str) {
        self.insert(path, DIRECTORY | 0o755, Content::Directory);
    }

    /// Adds the console device, which the kernel opens before any program can mount /dev.
    pub(crate) fn console(&mut self) {
        self.insert("dev/console", CHARACTER | 0o600, Content::Character(5, 1));
    }

    fn insert(&mut self, path: &str, mode: u32, content: Content) {
        let path = path.trim_start_matches('/');
        let mut parent = Path::new(path).parent();
        while let Some(folder) = parent
            .and_then(Path::to_str)
            .filter(|folder| !folder.is_empty())
        {
            self.entries
                .entry(folder.to_owned())
                .or_insert((DIRECTORY | 0o755, Content::Directory));
            parent = Path::new(folder).parent();
        }
        self.entries.insert(path.to_owned(), (mode, content));
    }

    /// Writes the archive in the kernel's `newc` format.
    pub(crate) fn write(&self, mut out: impl Write) -> Result<()> {
        for (inode, (path, (mode, content))) in (1u32..).zip(&self.entries) {
            let mut builder = newc::Builder::new(path).ino(inode).mode(*mode).mtime(0);
            let bytes = match content {
                Content::Bytes(bytes) => bytes.clone(),
                Content::Source(source) => {
                    fs::read(source).with_context(|| format!("cannot read {}", source.display()))?
                }
                Content::Link(target) => target.clone().into_bytes(),
                Content::Directory => Vec::new(),
                Content::Character(major, minor) => {
                    builder = builder.rdev_major(*major).rdev_minor(*minor);
                    Vec::new()
                }
            };
            let length =
                u32::try_from(bytes.len()).with_context(|| format!("{path} is too large"))?;
            let mut writer = builder.write(&mut out, length);
            io::copy(&mut bytes.as_slice(), &mut writer)?;
            writer.finish()?;
        }
        newc::trailer(&mut out)?;
        out.flush()?;
        Ok(())
    }

    /// Adds a program of an unpacked package, with all libraries that it needs.
    pub(crate) fn program(&mut self, root: &Path, path: &str) -> Result<()> {
        self.file(path, 0o755, &find(root, path)?);
        let mut todo = needed(&find(root, path)?)?;
        while let Some(name) = todo.pop_first() {
            let path = if name.starts_with("ld-linux") {
                format!("lib64/{name}")
            } else {
                format!("{LIBRARIES}/{name}")
            };
            if self.entries.contains_key(&path) {
                continue;
            }
            let source = library(root, &name)?;
            todo.extend(needed(&source)?);
            self.file(&path, 0o755, &source);
        }
        Ok(())
    }

    /// Adds kernel modules with their dependencies. Returns their paths in loading order.
    pub(crate) fn modules(&mut self, root: &Path, names: &[&str]) -> Result<Vec<String>> {
        let mut files = BTreeMap::new();
        for entry in WalkDir::new(root.join("lib/modules")).sort_by_file_name() {
            let path = entry?.into_path();
            if let Some(stem) = path
                .file_name()
                .and_then(|n| n.to_str())
                .and_then(|n| n.strip_suffix(".ko"))
            {
                files.insert(stem.replace('-', "_"), path);
            }
        }
        let mut order = Vec::new();
        for name in names {
            load_order(name, &files, &mut order)?;
        }
        order
            .iter()
            .map(|name| {
                let path = format!("lib/modules/{name}.ko");
                self.file(
                    &path,
                    0o644,
                    files
                        .get(name)
                        .with_context(|| format!("no module {name}"))?,
                );
                Ok(format!("/{path}"))
            })
            .collect()
    }
}

/// Appends `name` to `order`, after all its dependencies.
fn load_order(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    order: &mut Vec<String>,
) -> Result<()> {
    if order.iter().any(|n| n == name) {
        return Ok(());
    }
    let path = files
        .get(name)
        .with_context(|| format!("the kernel package has no module {name}"))?;
    let data = fs::read(path)?;
    let elf = ElfFile64::<LittleEndian>::parse(&*data)
        .with_context(|| format!("{} is no module", path.display()))?;
    let info = elf
        .section_by_name(".modinfo")
        .with_context(|| format!("{} has no .modinfo", path.display()))?;
    for field in info.data()?.split(|b| *b == 0) {
        let depends = std::str::from_utf8(field)
            .ok()
            .and_then(|f| f.strip_prefix("depends="));
        for dependency in depends
            .into_iter()
            .flat_map(|d| d.split(','))
            .filter(|d| !d.is_empty())
        {
            load_order(&dependency.replace('-', "_"), files, order)?;
        }
    }
    order.push(name.to_owned());
    Ok(())
}

/// A path in the unpacked packages; Debian 12's still install into both `/lib` and `/usr/lib`.
pub(crate) fn find(root: &Path, path: &str) -> Result<PathBuf> {
    [path.to_owned(), format!("usr/{path}")]
        .iter()
        .map(|path| root.join(path))
        .find(|path| path.exists())
        .with_context(|| format!("the packages have no {path}"))
}

fn library(root: &Path, name: &str) -> Result<PathBuf> {
    find(root, &format!("{LIBRARIES}/{name}"))
        .or_else(|_| find(root, &format!("{LIBRARIES}/systemd/{name}")))
        .or_else(|_| find(root, &format!("lib64/{name}")))
}

/// The libraries an ELF file names (`DT_NEEDED`), and its loader (`PT_INTERP`).
fn needed(path: &Path) -> Result<BTreeSet<String>> {
    let data = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let parse = || -> object::Result<BTreeSet<String>> {
        let mut names = BTreeSet::new();
        let header = FileHeader64::<LittleEndian>::parse(&*data)?;
        let endian = header.endian()?;
        for segment in header.program_headers(endian, &*data)? {
            if let Some(loader) = segment.interpreter(endian, &*data)? {
                let loader = String::from_utf8_lossy(loader);
                names.extend(loader.rsplit('/').next().map(str::to_owned));
            }
        }
        let sections = header.sections(endian, &*data)?;
        if let Some((entries, strings)) = sections.dynamic(endian, &*data)? {
            let strings = sections.strings(endian, &*data, strings)?;
            for entry in entries
                .iter()
                .filter(|e| e.tag(endian) == object::elf::DT_NEEDED)
            {
                let name = entry.string(endian, strings)?;
                names.insert(String::from_utf8_lossy(name).into_owned());
            }
        }
        Ok(names)
    };
    parse().with_context(|| format!("{} is not a sound ELF file", path.display()))
}

/// dom0's file system from the packages, without the agent and its configuration.
pub(crate) fn dom0(root: &Path) -> Result<Image> {
    let mut image = Image::default();
    image.console();
    for folder in [
        "proc",
        "sys",
        "root",
        "var/log/xen",
        "var/lib/xen",
        "var/lock",
    ] {
        image.directory(folder);
    }
    image.link("var/run", "/run");
    image.file("bin/busybox", 0o755, &find(root, "bin/busybox")?);
    image.link("bin/sh", "busybox");
    image.program(root, "bin/bash")?;
    for name in XEN_PROGRAMS {
        image.program(root, &format!("{XEN_FOLDER}/{name}"))?;
    }
    for entry in fs::read_dir(root.join("usr/bin"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with("xenstore-")
            && !image.entries.contains_key(&format!("{XEN_FOLDER}/{name}"))
        {
            image.program(root, &format!("usr/bin/{name}"))?;
        }
    }
    image.program(root, &format!("{LIBRARIES}/libgcc_s.so.1"))?;
    for entry in WalkDir::new(root.join("etc/xen")).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            let path = entry
                .path()
                .strip_prefix(root)?
                .to_str()
                .context("a path that is not text")?;
            let mode = entry.metadata()?.permissions().mode() & 0o777;
            image.file(path, mode, entry.path());
        }
    }
    image.bytes(
        "etc/xen/scripts/vif-mayfly",
        0o755,
        include_bytes!("../dom0/vif-mayfly").as_slice(),
    );
    let modules = image.modules(root, DOM0_MODULES)?;
    image.bytes(mayfly_agent::MODULES_PATH, 0o644, modules.join("\n"));
    Ok(image)
}

/// Adds dnsperf and wrk.
pub(crate) fn load(image: &mut Image, root: &Path) -> Result<()> {
    for name in ["dnsperf", "wrk"] {
        image.program(root, &format!("usr/bin/{name}"))?;
    }
    Ok(())
}

/// Adds systemd with its journal, and only the units that these need. The caller adds the units to be started.
pub(crate) fn systemd(image: &mut Image, root: &Path) -> Result<()> {
    const UNITS: &str = "lib/systemd/system";
    for program in [
        "lib/systemd/systemd",
        "lib/systemd/systemd-journald",
        "bin/systemctl",
        "bin/journalctl",
    ] {
        image.program(root, program)?;
    }
    let units = fs::read_dir(find(root, UNITS)?)?;
    for unit in units {
        let (name, path) = unit.map(|unit| (unit.file_name(), unit.path()))?;
        let name = name.to_str().context("a unit that is not text")?;
        let is_plain = fs::symlink_metadata(&path)?.is_file();
        if is_plain && (name.ends_with(".target") || name.starts_with("systemd-journald")) {
            image.file(&format!("{UNITS}/{name}"), 0o644, &path);
        }
    }
    for socket in ["systemd-journald.socket", "systemd-journald-dev-log.socket"] {
        let wanted = format!("{UNITS}/sockets.target.wants/{socket}");
        image.link(&wanted, &format!("../{socket}"));
    }
    image.bytes("etc/passwd", 0o644, "root:x:0:0::/root:/bin/sh\n");
    image.bytes("etc/group", 0o644, "root:x:0:\nsystemd-journal:x:1:\n");
    image.bytes(
        "etc/machine-id",
        0o444,
        "6d6179666c796d6179666c796d617966\n",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_content_gives_the_same_bytes() {
        let build = |reverse: bool| {
            let mut image = Image::default();
            let mut names = vec!["b/c", "a", "b/a"];
            if reverse {
                names.reverse();
            }
            for name in names {
                image.bytes(name, 0o644, name.as_bytes());
            }
            image.console();
            let mut out = Vec::new();
            image.write(&mut out).unwrap();
            out
        };
        assert_eq!(build(false), build(true));
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut image = Image::default();
        image.bytes("/x/y/z", 0o755, "1");
        let mut out = Vec::new();
        image.write(&mut out).unwrap();
        let mut reader = out.as_slice();
        let mut names = Vec::new();
        loop {
            let entry = newc::Reader::new(reader).unwrap();
            if entry.entry().is_trailer() {
                break;
            }
            names.push(entry.entry().name().to_owned());
            reader = entry.finish().unwrap();
        }
        assert_eq!(names, ["x", "x/y", "x/y/z"]);
    }
}

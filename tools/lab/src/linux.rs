//! The peer: a Debian cloud kernel with busybox's web server as a PVH guest.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::image::{Image, find};
use crate::{Report, Set, unpacked};

/// What `xl` needs to create the Linux guest.
#[derive(Clone, Debug)]
pub struct LinuxGuest {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The initramfs, an uncompressed `newc` archive.
    pub ramdisk: Vec<u8>,
}

/// Kernel and initramfs of the Linux guest: it takes the address 10.0.2.80/24 and serves one page on port 80.
///
/// # Errors
/// Those of [`unpacked`].
pub fn guest(report: Report<'_>) -> Result<LinuxGuest> {
    let dom0 = unpacked(Set::Dom0, report)?;
    let root = unpacked(Set::LinuxGuest, report)?;
    let mut image = Image::default();
    image.console();
    for folder in ["proc", "sys", "dev", "www"] {
        image.directory(folder);
    }
    image.file("bin/busybox", 0o755, &find(&dom0, "bin/busybox")?);
    image.link("bin/sh", "busybox");
    image.bytes("init", 0o755, include_bytes!("../guest/init").as_slice());
    image.bytes(
        "www/index.html",
        0o644,
        "<!doctype html><title>linux</title><p>A Linux guest answers.\n",
    );
    finish(image, &root)
}

/// The same kernel with another process 1 and nothing else; `/modules` holds the paths of the modules to load, a line each.
///
/// # Errors
/// Those of [`unpacked`].
pub fn with_init(init: Vec<u8>, report: Report<'_>) -> Result<LinuxGuest> {
    let mut image = Image::default();
    image.console();
    image.bytes("init", 0o755, init);
    finish(image, &unpacked(Set::LinuxGuest, report)?)
}

/// Adds the network driver.
fn finish(mut image: Image, root: &Path) -> Result<LinuxGuest> {
    let modules = image.modules(root, &["xen_netfront"])?;
    image.bytes("modules", 0o644, modules.join("\n") + "\n");
    let mut ramdisk = Vec::new();
    image.write(&mut ramdisk)?;
    Ok(LinuxGuest {
        kernel: kernel(root)?,
        ramdisk,
    })
}

/// The one kernel in an unpacked set.
pub(crate) fn kernel(root: &Path) -> Result<PathBuf> {
    let boot = root.join("boot");
    let mut kernels: Vec<_> = fs::read_dir(&boot)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| {
            path.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-"))
        })
        .collect();
    kernels.sort();
    kernels
        .pop()
        .ok_or_else(|| anyhow::anyhow!("no kernel in {}", boot.display()))
}

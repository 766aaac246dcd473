//! Linux guests to compare with: a Debian cloud kernel as a PVH guest, with busybox's web server or with NSD and nginx.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use lz4_flex::block;
use walkdir::WalkDir;

use crate::image::{Image, find, load};
use crate::{Report, Set, unpacked};

/// The files that `xl` needs to create the Linux guest.
#[derive(Clone, Debug)]
pub struct LinuxGuest {
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// The initramfs, an uncompressed `newc` archive.
    pub ramdisk: Vec<u8>,
}

/// Kernel and initramfs of a Linux guest that takes the address 10.0.2.80/24 and serves one page on port 80.
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

/// The same kernel with another process 1 and nothing else. `/modules` lists the paths of the modules to load, one a
/// line.
///
/// # Errors
/// Those of [`unpacked`].
pub fn with_init(init: Vec<u8>, report: Report<'_>) -> Result<LinuxGuest> {
    let mut image = Image::default();
    image.console();
    image.bytes("init", 0o755, init);
    finish(image, &unpacked(Set::LinuxGuest, report)?)
}

/// A guest with NSD and nginx in Debian's configuration, which serves the site in a folder: every `zones/*.zone`, whose
/// name is its origin, and `www/`. The guest takes the address that its command line gives as `address=10.0.2.82/24`.
///
/// Differences from Debian's configuration: NSD keeps its zones in memory only, has no rate limit, has cookies and an
/// NSID, and allows all clients to transfer `transfers`; nginx writes no access log, and takes more connections than
/// 768.
///
/// # Errors
/// Those of [`unpacked`], an unreadable folder, and a Debian configuration that is not as expected.
pub fn server(site: &Path, transfers: &[&str], report: Report<'_>) -> Result<LinuxGuest> {
    let dom0 = unpacked(Set::Dom0, report)?;
    let root = unpacked(Set::LinuxGuest, report)?;
    let servers = unpacked(Set::Servers, report)?;
    let mut image = Image::default();
    image.console();
    for folder in ["proc", "sys", "dev"] {
        image.directory(folder);
    }
    image.file("bin/busybox", 0o755, &find(&dom0, "bin/busybox")?);
    image.link("bin/sh", "busybox");
    image.bytes("init", 0o755, include_bytes!("../guest/server").as_slice());
    image.program(&servers, "usr/sbin/nsd")?;
    image.program(&servers, "usr/sbin/nginx")?;
    image.bytes(
        "etc/passwd",
        0o644,
        "root:x:0:0::/:/bin/sh\nwww-data:x:33:33::/:/bin/sh\nnsd:x:100:100::/:/bin/sh\n",
    );
    image.bytes(
        "etc/group",
        0o644,
        "root:x:0:\nwww-data:x:33:\nnsd:x:100:\n",
    );
    let zones = zones(site)?;
    let configuration = nsd_configuration("/etc/nsd/zones", &zones, transfers, "user=nsd");
    image.bytes("etc/nsd/nsd.conf", 0o644, configuration);
    for (origin, path) in &zones {
        image.file(&format!("etc/nsd/zones/{origin}.zone"), 0o644, path);
    }
    for name in ["mime.types", "sites-available/default"] {
        image.file(
            &format!("etc/nginx/{name}"),
            0o644,
            &servers.join("etc/nginx").join(name),
        );
    }
    image.link(
        "etc/nginx/sites-enabled/default",
        "../sites-available/default",
    );
    image.bytes(
        "etc/nginx/nginx.conf",
        0o644,
        nginx_configuration(&servers)?,
    );
    for (name, path) in files(&site.join("www"))? {
        image.file(&format!("var/www/html/{name}"), 0o644, &path);
    }
    finish(image, &root)
}

/// A guest with dnsperf and wrk, which runs what is posted to `/cgi-bin/run` in its shell, and answers with what that
/// prints. It can also send frames as fast as its kernel can (pktgen). It takes the address that its command line gives
/// as `address=10.0.2.90/24`. `files` are further files, by their paths.
///
/// # Errors
/// Those of [`unpacked`].
pub fn client(files: &[(&str, Vec<u8>)], report: Report<'_>) -> Result<LinuxGuest> {
    let dom0 = unpacked(Set::Dom0, report)?;
    let root = unpacked(Set::LinuxGuest, report)?;
    let mut image = Image::default();
    image.console();
    for folder in ["proc", "sys", "dev", "run"] {
        image.directory(folder);
    }
    image.file("bin/busybox", 0o755, &find(&dom0, "bin/busybox")?);
    image.link("bin/sh", "busybox");
    image.bytes("init", 0o755, include_bytes!("../guest/client").as_slice());
    image.bytes(
        "www/cgi-bin/run",
        0o755,
        "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\nexec sh 2>&1\n",
    );
    load(&mut image, &unpacked(Set::Load, report)?)?;
    for (path, content) in files {
        image.bytes(path, 0o644, content.clone());
    }
    finish_with(image, &root, &["xen_netfront", "pktgen"])
}

/// nginx's configuration, from Debian's.
fn nginx_configuration(servers: &Path) -> Result<String> {
    let mut text = fs::read_to_string(servers.join("etc/nginx/nginx.conf"))?;
    for (from, to) in [
        ("access_log /var/log/nginx/access.log;", "access_log off;"),
        ("worker_connections 768;", "worker_connections 8192;"),
        (
            "worker_processes auto;",
            "worker_processes auto;\nworker_rlimit_nofile 16384;",
        ),
    ] {
        ensure!(text.contains(from), "Debian's nginx.conf has no {from:?}");
        text = text.replace(from, to);
    }
    Ok(text)
}

/// The origin and path of every zone of a site, sorted.
///
/// # Errors
/// An unreadable folder.
pub fn zones(site: &Path) -> Result<Vec<(String, PathBuf)>> {
    let all = files(&site.join("zones"))?.into_iter();
    Ok(all
        .filter_map(|(name, path)| Some((name.strip_suffix(".zone")?.to_owned(), path)))
        .collect())
}

/// The relative and the full path of every file below a folder, sorted; empty if there is no folder.
fn files(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut all = Vec::new();
    if !folder.is_dir() {
        return Ok(all);
    }
    for entry in WalkDir::new(folder).follow_links(true).sort_by_file_name() {
        let entry = entry?;
        if entry.file_type().is_file() {
            let name = entry.path().strip_prefix(folder)?.to_str();
            let name = name.context("a path that is not text")?.to_owned();
            all.push((name, entry.into_path()));
        }
    }
    Ok(all)
}

/// NSD's configuration: `zones` from the folder `zonesdir`, of which all clients may transfer `transfers`. `place` is
/// where NSD runs: `user=NAME` as a daemon of that user, or `port=NUMBER` on the host's loopback.
pub(crate) fn nsd_configuration(
    zonesdir: &str,
    zones: &[(String, PathBuf)],
    transfers: &[&str],
    place: &str,
) -> String {
    // The cookie's secret is public, because only tests query this server.
    let mut text = format!(
        "server:
    zonesdir: \"{zonesdir}\"
    database: \"\"
    rrl-ratelimit: 0
    answer-cookie: yes
    cookie-secret: \"000102030405060708090a0b0c0d0e0f\"
    nsid: \"ascii_reference\"
"
    );
    match place.split_once('=') {
        Some(("port", port)) => {
            let _ = write!(
                text,
                "    ip-address: 127.0.0.1
    port: {port}
    username: \"\"
    chroot: \"\"
    pidfile: \"\"
    xfrdfile: \"\"
    zonelistfile: \"\"
remote-control:
    control-enable: no
"
            );
        }
        _ => text.push_str("    username: nsd\n    logfile: /dev/console\nremote-control:\n    control-enable: no\n"),
    }
    for (origin, _) in zones {
        let _ = write!(
            text,
            "zone:\n    name: {origin}\n    zonefile: {origin}.zone\n"
        );
        if transfers.contains(&origin.as_str()) {
            text.push_str("    provide-xfr: 0.0.0.0/0 NOKEY\n");
        }
    }
    text
}

/// Adds the network driver.
fn finish(image: Image, root: &Path) -> Result<LinuxGuest> {
    finish_with(image, root, &["xen_netfront"])
}

/// Adds these modules.
fn finish_with(mut image: Image, root: &Path, modules: &[&str]) -> Result<LinuxGuest> {
    let modules = image.modules(root, modules)?;
    image.bytes("modules", 0o644, modules.join("\n") + "\n");
    let mut ramdisk = Vec::new();
    image.write(&mut ramdisk)?;
    Ok(LinuxGuest {
        kernel: kernel(root)?,
        ramdisk,
    })
}

/// The longest block of LZ4's legacy format without compression, in bytes (lz4 doc/lz4_Frame_format.md).
const BLOCK_MAX: usize = 8 << 20;

/// The ELF file in a kernel whose payload is compressed by LZ4, as that of Debian's cloud kernel is (Linux
/// Documentation/arch/x86/boot.rst: `setup_sects`, `payload_offset`, `payload_length`). hatch takes it in place of the
/// bzImage.
///
/// # Errors
/// It is no such kernel.
pub fn vmlinux(bz_image: &[u8]) -> Result<Vec<u8>> {
    let field = |at: usize| {
        let bytes = bz_image.get(at..at + 4).context("the kernel is cut")?;
        Ok::<_, anyhow::Error>(u32::from_le_bytes(bytes.try_into()?) as usize)
    };
    let sectors = usize::from(*bz_image.get(0x1f1).context("the kernel is cut")?);
    let mut at = (sectors + 1) * 512 + field(0x248)?;
    // The size without compression is the last word of the payload.
    let end = at + field(0x24c)?.saturating_sub(4);
    ensure!(
        field(at)? == 0x184c_2102,
        "the kernel is not in LZ4's legacy format"
    );
    at += 4;
    let mut elf = Vec::new();
    while at < end {
        let length = field(at)?;
        let bytes = bz_image.get(at + 4..at + 4 + length);
        elf.extend(block::decompress(
            bytes.context("the kernel is cut")?,
            BLOCK_MAX,
        )?);
        at += 4 + length;
    }
    ensure!(
        elf.starts_with(b"\x7fELF"),
        "the kernel has no ELF file in it"
    );
    Ok(elf)
}

/// The only kernel in an unpacked set.
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

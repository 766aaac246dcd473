//! Starts a lab, until its dom0 answers.

use std::fs::{self, File};
use std::io::Read;
use std::net::SocketAddrV4;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use mayfly_agent::{CONFIG_PATH, Config, FAILED, UP, Xenstored};

use super::{Lab, State, TICK};
use crate::image::Image;
use crate::packages::{Set, unpacked};
use crate::qemu::{self, Forward, Machine, Protocol};
use crate::{GUEST, Options, Report, cache, cargo, image, linux};

/// The number of lines of the serial log that an error shows.
const TAIL: usize = 25;

impl Lab {
    /// Starts a lab and waits, at most [`Options::bound`], until dom0 is ready. A counted lab is only started: see
    /// [`Lab::wait_off`].
    ///
    /// # Errors
    /// The errors of [`unpacked`]; a lab of that name that already runs; no QEMU; a dom0 that does not come up in time,
    /// with the last lines of the serial log.
    pub fn up(options: &Options, report: Report<'_>) -> Result<Self> {
        let name = &options.name;
        ensure!(
            !name.is_empty()
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !["packages", "apt"].contains(&name.as_str()),
            "a lab's name is letters, digits and hyphens, and not {name:?}"
        );
        ensure!(
            Self::attach(name).is_err(),
            "lab {name:?} is already up: `cargo xtask lab down --name {name}` takes it down"
        );
        let lock = File::create(cache()?.join("lock"))?;
        if lock.try_lock().is_err() {
            report("waiting for another lab's preparations");
            lock.lock().context("cannot lock the lab's folder")?;
        }
        let folder = cache()?.join(name);
        fs::create_dir_all(&folder)?;
        let token = (!options.counted).then(token).transpose()?;
        Self::prepare(options, token.clone(), &folder, report)?;

        report("starting Xen");
        // Another process may take a port between its choice and QEMU's start. Then choose again.
        for _ in 0..3 {
            let agent_port = qemu::free_port(0)?;
            let forwards = forwards(options)?;
            let machine = Machine {
                options,
                folder: &folder,
                agent_port,
                forwards: &forwards,
            };
            let child = machine.start()?;
            let state = State {
                pid: child.id(),
                agent_port,
                token: token.clone().unwrap_or_default(),
                forwards,
            };
            write_private(
                &folder.join("state.json"),
                &serde_json::to_vec_pretty(&state)?,
            )?;
            let mut lab = Self {
                folder: folder.clone(),
                state,
                child: Some(child),
                owned: true,
            };
            if options.counted {
                return Ok(lab);
            }
            match lab.wait_up(options.bound, report) {
                Ok(()) => return Ok(lab),
                Err(_) if lab.qemu_log().contains("host forwarding rule") => {
                    // QEMU has ended; the next try needs the folder's files.
                    lab.detach();
                }
                Err(e) => return Err(lab.explain(e)),
            }
        }
        bail!("no free ports for the lab: others take them as fast as they are chosen; try again")
    }

    fn wait_up(&mut self, bound: Duration, report: Report<'_>) -> Result<()> {
        let start = Instant::now();
        let mut linux = false;
        loop {
            let log = self.serial()?;
            if let Some(line) = log.lines().find(|line| line.contains(FAILED)) {
                bail!("{line}");
            }
            if log.lines().any(|line| line == UP) {
                break;
            }
            if !linux && log.contains("*** Serial input to DOM0") {
                linux = true;
                report("starting dom0");
            }
            if let Some(child) = self.child.as_mut()
                && let Some(status) = child.try_wait()?
            {
                bail!("QEMU ended ({status}): {}", self.qemu_log().trim());
            }
            ensure!(
                start.elapsed() < bound,
                "dom0 was not up within {} s",
                bound.as_secs()
            );
            thread::sleep(TICK);
        }
        self.client().ping(
            bound
                .saturating_sub(start.elapsed())
                .max(Duration::from_secs(5)),
        )
    }

    /// Writes dom0's initramfs, its kernel and Xen into the lab's folder.
    fn prepare(
        options: &Options,
        token: Option<String>,
        folder: &Path,
        report: Report<'_>,
    ) -> Result<()> {
        let root = unpacked(Set::Dom0, report)?;
        report("building dom0's agent");
        let agent = cargo::static_program("mayfly-agent", "mayfly-agent")?;
        report("assembling dom0");
        let mut image = image::dom0(&root)?;
        if options.load {
            image::load(&mut image, &unpacked(Set::Load, report)?)?;
        }
        if options.systemd {
            image::systemd(&mut image, &unpacked(Set::Systemd, report)?)?;
        }
        if options.xenstored == Xenstored::Hatch {
            let program = cargo::static_program("mayfly-store", "hatch-xenstored")?;
            image.file("usr/sbin/hatch-xenstored", 0o755, &program);
        }
        assemble(image, options, &agent, token, &folder.join("initramfs"))?;
        unzip(
            &image::find(&root, "boot/xen-4.17-amd64.gz")?,
            &folder.join("xen"),
        )?;
        let _ = fs::remove_file(folder.join("vmlinuz"));
        symlink(linux::kernel(&root)?, folder.join("vmlinuz"))?;
        Ok(())
    }

    /// Adds the end of the logs to an error.
    pub(super) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = self.serial().unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines
            .get(lines.len().saturating_sub(TAIL)..)
            .unwrap_or_default()
            .join("\n  ");
        error.context(format!(
            "the lab did not come up. The last lines of {}:\n  {tail}\n\
             Try again, when the machine is less busy. A log that is empty means that QEMU could not load Xen: see {}",
            self.folder.join("serial.log").display(),
            self.folder.join("qemu.log").display()
        ))
    }
}

fn forwards(options: &Options) -> Result<Vec<Forward>> {
    if options.counted {
        return Ok(Vec::new());
    }
    let http = qemu::free_port(8080)?;
    let dns = qemu::free_port(5300)?;
    let mut forwards = vec![
        Forward {
            protocol: Protocol::Tcp,
            host: http,
            to: SocketAddrV4::new(GUEST, 80),
        },
        Forward {
            protocol: Protocol::Udp,
            host: dns,
            to: SocketAddrV4::new(GUEST, 53),
        },
        Forward {
            protocol: Protocol::Tcp,
            host: dns,
            to: SocketAddrV4::new(GUEST, 53),
        },
    ];
    for &(protocol, to) in &options.forwards {
        forwards.push(Forward {
            protocol,
            host: qemu::free_port(0)?,
            to,
        });
    }
    Ok(forwards)
}

fn assemble(
    mut image: Image,
    options: &Options,
    agent: &Path,
    token: Option<String>,
    to: &Path,
) -> Result<()> {
    image.file("init", 0o755, agent);
    let config = Config {
        xenstored: options.xenstored,
        xenconsoled: options.xenconsoled,
        token,
        autorun: options.autorun.clone(),
    };
    image.bytes(CONFIG_PATH, 0o600, serde_json::to_vec(&config)?);
    for file in &options.files {
        image.bytes(&file.path, file.mode, file.content.clone());
    }
    let mut bytes = Vec::new();
    image.write(&mut bytes)?;
    write_private(to, &bytes)
}

/// Unpacks Xen: QEMU wants the ELF file with its multiboot header, not compressed.
fn unzip(from: &Path, to: &Path) -> Result<()> {
    let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    std::io::copy(&mut GzDecoder::new(file), &mut File::create(to)?)
        .with_context(|| format!("{} is damaged", from.display()))?;
    Ok(())
}

/// A secret that no other user of the host can know.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Writes a file that only this user can read.
fn write_private(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write;
    let _ = fs::remove_file(path);
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(file.write_all(content)?)
}

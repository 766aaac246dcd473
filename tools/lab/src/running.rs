//! A lab that is up.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use mayfly_agent::{CONFIG_PATH, Config, FAILED, UP};
use pcap_file::PcapError;
use pcap_file::pcap::PcapReader;
use serde::{Deserialize, Serialize};

use crate::client::{Chunk, Client, Output};
use crate::image::Image;
use crate::packages::{Set, unpacked};
use crate::qemu::{self, Forward, Machine, Protocol};
use crate::{GUEST, Options, Report, cache, cargo, image, linux};

/// How long a command in dom0 may take unless another bound is given.
const COMMAND: Duration = Duration::from_secs(120);
/// How often a file or a process is looked at; nothing in the emulated machine runs for it.
const TICK: Duration = Duration::from_millis(50);
/// How many lines of the serial log an error shows.
const TAIL: usize = 25;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    pid: u32,
    agent_port: u16,
    token: String,
    forwards: Vec<Forward>,
}

/// A running lab; dropping it takes it down.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    state: State,
    child: Option<Child>,
    owned: bool,
}

/// Names of the labs that run.
///
/// # Errors
/// An unreadable build folder.
pub fn list() -> Result<Vec<String>> {
    let mut names: Vec<_> = fs::read_dir(cache()?)?
        .filter_map(|entry| {
            entry
                .ok()
                .map(|e| e.file_name().to_string_lossy().into_owned())
        })
        .filter(|name| Lab::attach(name).is_ok())
        .collect();
    names.sort();
    Ok(names)
}

/// Where the serial log of the lab of this name is, also when it is down.
///
/// # Errors
/// An unwritable build folder.
pub fn log_path(name: &str) -> Result<PathBuf> {
    Ok(cache()?.join(name).join("serial.log"))
}

impl Lab {
    /// Starts a lab and waits, at most [`Options::bound`], until dom0 is ready. A counted lab is only started: see [`Lab::wait_off`].
    ///
    /// # Errors
    /// What [`unpacked`] says; a lab of that name that already runs; no QEMU; and a dom0 that does not come up in time, with the
    /// last lines of the serial log.
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
        let root = unpacked(Set::Dom0, report)?;
        report("building dom0's agent");
        let agent = cargo::static_program("mayfly-agent", "mayfly-agent")?;
        report("assembling dom0");
        let folder = cache()?.join(name);
        fs::create_dir_all(&folder)?;
        let token = (!options.counted).then(token).transpose()?;
        let initramfs = folder.join("initramfs");
        let mut image = image::dom0(&root)?;
        if options.load {
            image::load(&mut image, &unpacked(Set::Load, report)?)?;
        }
        if options.systemd {
            image::systemd(&mut image, &unpacked(Set::Systemd, report)?)?;
        }
        assemble(image, options, &agent, token.clone(), &initramfs)?;
        unzip(
            &image::find(&root, "boot/xen-4.17-amd64.gz")?,
            &folder.join("xen"),
        )?;
        let _ = fs::remove_file(folder.join("vmlinuz"));
        symlink(linux::kernel(&root)?, folder.join("vmlinuz"))?;

        report("starting Xen");
        // Another process may take a port between its choice and QEMU's start: then choose again.
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
                Err(_) if lab.qemu_log().contains("host forwarding rule") => {}
                Err(e) => return Err(lab.explain(e)),
            }
        }
        bail!("no free ports for the lab: others take them as fast as they are chosen; try again")
    }

    /// The running lab of this name; dropping what this gives leaves it up.
    ///
    /// # Errors
    /// No such lab runs.
    pub fn attach(name: &str) -> Result<Self> {
        let folder = cache()?.join(name);
        let none =
            || format!("no lab {name:?} is up: `cargo xtask lab up --name {name}` starts one");
        let state: State =
            serde_json::from_slice(&fs::read(folder.join("state.json")).with_context(none)?)
                .with_context(none)?;
        ensure!(qemu::is_running(state.pid, &folder), none());
        Ok(Self {
            folder,
            state,
            child: None,
            owned: false,
        })
    }

    /// Leaves the lab running when this is dropped.
    pub fn detach(&mut self) {
        self.owned = false;
    }

    /// Takes the lab down.
    ///
    /// # Errors
    /// QEMU does not end.
    pub fn down(mut self) -> Result<()> {
        self.take_down()
    }

    fn take_down(&mut self) -> Result<()> {
        self.owned = false;
        qemu::stop(self.state.pid, &self.folder, self.child.as_mut())?;
        for gone in ["state.json", "serial.sock", "initramfs", "vmlinuz", "xen"] {
            let _ = fs::remove_file(self.folder.join(gone));
        }
        Ok(())
    }

    /// Whether the machine is on.
    #[must_use]
    pub fn is_running(&self) -> bool {
        qemu::is_running(self.state.pid, &self.folder)
    }

    /// The lab's folder: `serial.log`, `qemu.log`, `serial.sock`.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the host reaches TCP port 80 of 10.0.2.80.
    ///
    /// # Errors
    /// A counted lab has no ports.
    pub fn http(&self) -> Result<SocketAddr> {
        self.forward(Protocol::Tcp, SocketAddrV4::new(GUEST, 80))
    }

    /// Where the host reaches port 53 of 10.0.2.80, by TCP and UDP.
    ///
    /// # Errors
    /// A counted lab has no ports.
    pub fn dns(&self) -> Result<SocketAddr> {
        self.forward(Protocol::Udp, SocketAddrV4::new(GUEST, 53))
    }

    /// Where the host reaches this address of the lab.
    ///
    /// # Errors
    /// It was not in [`Options::forwards`].
    pub fn forward(&self, protocol: Protocol, to: SocketAddrV4) -> Result<SocketAddr> {
        let found = self
            .state
            .forwards
            .iter()
            .find(|f| f.protocol == protocol && f.to == to);
        let forward = found.with_context(|| format!("no port of the host leads to {to}"))?;
        Ok((Ipv4Addr::LOCALHOST, forward.host).into())
    }

    /// Runs a program in dom0 to its end, at most two minutes. A failed program is no error: see [`Output::code`].
    ///
    /// # Errors
    /// No such program, no end in time, or no way in.
    pub fn exec<S: AsRef<str>>(&self, argv: &[S]) -> Result<Output> {
        self.exec_with(argv, &[], COMMAND)
    }

    /// [`Lab::exec`] with standard input and a bound.
    ///
    /// # Errors
    /// As [`Lab::exec`].
    pub fn exec_with<S: AsRef<str>>(
        &self,
        argv: &[S],
        stdin: &[u8],
        bound: Duration,
    ) -> Result<Output> {
        let mut output = Output::default();
        let code = self.stream(argv, stdin, bound, &mut |chunk| {
            match chunk {
                Chunk::Stdout(d) => output.stdout.extend_from_slice(d),
                Chunk::Stderr(d) => output.stderr.extend_from_slice(d),
            }
            ControlFlow::Continue(())
        })?;
        output.code = code.unwrap_or_default();
        Ok(output)
    }

    /// Runs a program in dom0 and gives its output as it comes; `each` may break off, which kills the program and gives `None`.
    ///
    /// # Errors
    /// As [`Lab::exec`].
    pub fn stream<S: AsRef<str>>(
        &self,
        argv: &[S],
        stdin: &[u8],
        bound: Duration,
        each: &mut dyn FnMut(Chunk<'_>) -> ControlFlow<()>,
    ) -> Result<Option<i32>> {
        let argv: Vec<String> = argv.iter().map(|s| s.as_ref().to_owned()).collect();
        let line = argv.join(" ");
        self.client()
            .exec(argv, stdin, bound, each)
            .with_context(|| format!("in dom0: {line}"))
    }

    /// Runs a program in dom0 that must succeed, and gives its standard output.
    ///
    /// # Errors
    /// As [`Lab::exec`], and an exit code other than 0.
    pub fn run<S: AsRef<str>>(&self, argv: &[S]) -> Result<String> {
        let output = self.exec(argv)?;
        let line = || argv.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" ");
        ensure!(
            output.success(),
            "in dom0: {}: exit code {}: {}",
            line(),
            output.code,
            output.error_text().trim()
        );
        Ok(output.text())
    }

    /// [`Lab::run`] of a shell script.
    ///
    /// # Errors
    /// As [`Lab::run`].
    pub fn shell(&self, script: &str) -> Result<String> {
        self.run(&["sh", "-c", script])
    }

    /// Writes a file in dom0, creating its folder.
    ///
    /// # Errors
    /// What dom0 or the way in says.
    pub fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.client()
            .put(path, mode, content, COMMAND)
            .with_context(|| format!("writing {path} in dom0"))
    }

    /// Writes programs of this machine into a folder of dom0.
    ///
    /// # Errors
    /// They can't be read; what dom0 or the way in says.
    pub fn put_programs(&self, folder: &str, programs: &[PathBuf]) -> Result<()> {
        for program in programs {
            let name = program.file_name().context("a program has a name")?;
            let path = format!("{folder}/{}", name.to_string_lossy());
            let content = fs::read(program);
            let content = content.with_context(|| format!("cannot read {}", program.display()))?;
            self.put(&path, 0o755, &content)?;
        }
        Ok(())
    }

    /// Reads a file of dom0.
    ///
    /// # Errors
    /// What dom0 or the way in says.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        self.client()
            .get(path, COMMAND)
            .with_context(|| format!("reading {path} in dom0"))
    }

    /// Waits until a xenstore path has a value, and gives it. It sleeps on a watch.
    ///
    /// # Errors
    /// No value within `bound`, and those of [`Lab::exec`].
    pub fn xenstore_wait(&self, path: &str, bound: Duration) -> Result<String> {
        let mut found = Ok(None);
        let watched = self.stream(&["xenstore-watch", path], &[], bound, &mut |chunk| {
            if matches!(chunk, Chunk::Stderr(_)) {
                return ControlFlow::Continue(());
            }
            found = self
                .exec(&["xenstore-read", path])
                .map(|o| o.success().then(|| o.text().trim_end().to_owned()));
            if matches!(found, Ok(None)) {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        });
        match (found?, watched) {
            (Some(value), _) => Ok(value),
            (None, Err(e)) => Err(e).with_context(|| format!("waiting for {path}")),
            (None, Ok(_)) => bail!("the watch on {path} ended"),
        }
    }

    /// The serial log so far: Xen, dom0's kernel, and lines `(dN) ...` that guests wrote to port 0xe9.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn serial(&self) -> Result<String> {
        self.serial_from(0)
    }

    /// Length of the serial log now, for [`Lab::serial_from`].
    ///
    /// # Errors
    /// An unreadable file.
    pub fn serial_mark(&self) -> Result<u64> {
        Ok(fs::metadata(self.folder.join("serial.log"))?.len())
    }

    /// The serial log from a mark on.
    ///
    /// # Errors
    /// An unreadable file.
    pub fn serial_from(&self, mark: u64) -> Result<String> {
        let mut file =
            File::open(self.folder.join("serial.log")).context("cannot read the serial log")?;
        file.seek(SeekFrom::Start(mark))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).replace('\r', ""))
    }

    /// The frames that have passed the network card on the bridge so far, in both directions.
    ///
    /// # Errors
    /// The lab was not started with [`Options::capture`], or the file is not readable.
    pub fn captured(&self) -> Result<Vec<Vec<u8>>> {
        let path = self.folder.join(qemu::CAPTURE);
        let file = File::open(&path).with_context(|| format!("no capture {}", path.display()))?;
        let mut packets = PcapReader::new(file)?;
        let mut frames = Vec::new();
        while let Some(packet) = packets.next_packet() {
            match packet {
                Ok(packet) => frames.push(packet.data.into_owned()),
                // The last one may still be incomplete.
                Err(PcapError::IncompleteBuffer) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(frames)
    }

    /// Waits until a line of the serial log after `mark` contains `text`, and gives the line.
    ///
    /// # Errors
    /// No such line within `bound`, or the machine has gone.
    pub fn serial_wait(&self, mark: u64, text: &str, bound: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            let gone = !self.is_running();
            let log = self.serial_from(mark)?;
            // The last line may still be incomplete.
            let complete = log
                .rfind('\n')
                .and_then(|end| log.get(..end))
                .unwrap_or_default();
            if let Some(line) = complete.lines().find(|line| line.contains(text)) {
                return Ok(line.to_owned());
            }
            ensure!(
                !gone,
                "the machine is off, and {text:?} was not in its serial log"
            );
            ensure!(
                start.elapsed() < bound,
                "{text:?} was not in the serial log within {} s",
                bound.as_secs()
            );
            thread::sleep(TICK);
        }
    }

    /// Waits until the machine is off, takes down what is left, and gives the serial log.
    ///
    /// # Errors
    /// It is not off within `bound`; the error has the last lines of the serial log.
    pub fn wait_off(mut self, bound: Duration) -> Result<String> {
        let start = Instant::now();
        loop {
            let off = match self.child.as_mut() {
                Some(child) => child.try_wait()?.is_some(),
                None => !self.is_running(),
            };
            if off {
                break;
            }
            if start.elapsed() > bound {
                let late = anyhow::anyhow!("the machine is not off within {} s", bound.as_secs());
                return Err(self.explain(late));
            }
            thread::sleep(TICK);
        }
        let log = self.serial()?;
        self.take_down()?;
        Ok(log)
    }

    /// Switches the machine off in order.
    ///
    /// # Errors
    /// The agent does not answer.
    pub fn power_off(&self) -> Result<()> {
        self.client().power_off(COMMAND)
    }

    fn client(&self) -> Client {
        Client {
            port: self.state.agent_port,
            token: self.state.token.clone(),
        }
    }

    fn qemu_log(&self) -> String {
        fs::read_to_string(self.folder.join("qemu.log")).unwrap_or_default()
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

    /// Adds to an error what helps to understand it.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
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

impl Drop for Lab {
    fn drop(&mut self) {
        if self.owned
            && let Err(e) = self.take_down()
        {
            eprintln!("{e:#}");
        }
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

/// QEMU wants Xen as the ELF file with its multiboot header, not compressed.
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

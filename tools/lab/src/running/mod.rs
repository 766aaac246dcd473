//! A running lab.

mod log;
mod start;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::client::{Chunk, Client, Output};
use crate::qemu::{self, Forward, Protocol};
use crate::{GUEST, cache};

/// The default time limit of a command in dom0.
const COMMAND: Duration = Duration::from_secs(120);
/// The interval at which a file or a process is polled; polling costs the emulated machine nothing.
const TICK: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    pid: u32,
    agent_port: u16,
    token: String,
    forwards: Vec<Forward>,
}

/// A running lab. Dropping it takes the lab down.
#[derive(Debug)]
pub struct Lab {
    folder: PathBuf,
    state: State,
    child: Option<Child>,
    owned: bool,
}

/// The names of the running labs.
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

/// The path of the serial log of the lab of this name, which remains when the lab is down.
///
/// # Errors
/// An unwritable build folder.
pub fn log_path(name: &str) -> Result<PathBuf> {
    Ok(cache()?.join(name).join("serial.log"))
}

impl Lab {
    /// The running lab of this name. Dropping the result leaves the lab up.
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

    /// The host's address that leads to TCP port 80 of 10.0.2.80.
    ///
    /// # Errors
    /// A counted lab has no ports.
    pub fn http(&self) -> Result<SocketAddr> {
        self.forward(Protocol::Tcp, SocketAddrV4::new(GUEST, 80))
    }

    /// The host's address that leads to port 53 of 10.0.2.80, by TCP and UDP.
    ///
    /// # Errors
    /// A counted lab has no ports.
    pub fn dns(&self) -> Result<SocketAddr> {
        self.forward(Protocol::Udp, SocketAddrV4::new(GUEST, 53))
    }

    /// The host's address that leads to this address of the lab.
    ///
    /// # Errors
    /// The address was not in [`Options::forwards`](crate::Options::forwards).
    pub fn forward(&self, protocol: Protocol, to: SocketAddrV4) -> Result<SocketAddr> {
        let found = self
            .state
            .forwards
            .iter()
            .find(|f| f.protocol == protocol && f.to == to);
        let forward = found.with_context(|| format!("no port of the host leads to {to}"))?;
        Ok((Ipv4Addr::LOCALHOST, forward.host).into())
    }

    /// Runs a program in dom0 to its end, for two minutes at most. A failed program is not an error: see
    /// [`Output::code`].
    ///
    /// # Errors
    /// No such program; no end in time; no connection to the agent.
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

    /// Runs a program in dom0 and passes its output on as it comes. `each` may break off, which kills the program and
    /// returns `None`.
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

    /// Runs a program in dom0 that must succeed. Returns its standard output.
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
    /// An error of dom0 or of the connection.
    pub fn put(&self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.client()
            .put(path, mode, content, COMMAND)
            .with_context(|| format!("writing {path} in dom0"))
    }

    /// Writes programs of this machine into a folder of dom0.
    ///
    /// # Errors
    /// The programs cannot be read; an error of dom0 or of the connection.
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
    /// An error of dom0 or of the connection.
    pub fn get(&self, path: &str) -> Result<Vec<u8>> {
        self.client()
            .get(path, COMMAND)
            .with_context(|| format!("reading {path} in dom0"))
    }

    /// Waits until a xenstore path has a value, and returns it. It sleeps on a watch.
    ///
    /// # Errors
    /// No value within `bound`, and the errors of [`Lab::exec`].
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

    /// Waits until the machine is off, takes the lab down, and returns the serial log.
    ///
    /// # Errors
    /// The machine is not off within `bound`; the error has the last lines of the serial log.
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

//! Bounded waits on file descriptors. Nothing spins, because on one CPU that would cost the guest time.

use std::fs;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_xenstore::{Client, Store as _};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// The output of programs that run beside the measurement.
pub(crate) const LOG: &str = "/run/summon.log";

/// Starts a program that runs beside the measurement.
pub(crate) fn started(words: &[String]) -> Result<Child> {
    let (program, words) = words.split_first().context("no program")?;
    let log = fs::File::options().create(true).append(true).open(LOG)?;
    Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot run {program}"))
}

/// The time limit of a single wait.
#[derive(Clone, Copy)]
pub(crate) struct Bound(pub(crate) Duration);

impl Bound {
    pub(crate) fn readable(self, fd: impl AsFd, what: &str) -> Result<()> {
        self.on(fd.as_fd(), PollFlags::IN, what)
    }

    /// Takes one watch event.
    pub(crate) fn event(self, xenstore: &mut Client, what: &str) -> Result<()> {
        match xenstore.event(self.0)? {
            Some(_) => Ok(()),
            None => bail!("{what}: nothing within {} s", self.0.as_secs()),
        }
    }

    pub(crate) fn writable(self, fd: impl AsFd, what: &str) -> Result<()> {
        self.on(fd.as_fd(), PollFlags::OUT, what)
    }

    fn on(self, fd: BorrowedFd<'_>, flags: PollFlags, what: &str) -> Result<()> {
        let end = Instant::now() + self.0;
        loop {
            let left = Timespec::try_from(end.saturating_duration_since(Instant::now()))?;
            match poll(&mut [PollFd::from_borrowed_fd(fd, flags)], Some(&left)) {
                Ok(0) => bail!("{what}: nothing within {} s", self.0.as_secs()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context(what.to_owned()),
            }
        }
    }

    /// Waits for a program's end, and kills the program if it takes too long.
    pub(crate) fn exit(self, child: &mut Child, what: &str) -> Result<()> {
        let process = pidfd_open(pid(child)?, PidfdFlags::empty())?;
        let ended = self.readable(&process, what);
        if ended.is_err() {
            let _ = child.kill();
        }
        let status = child.wait()?;
        ended?;
        ensure!(status.success(), "{what}: {status}");
        Ok(())
    }

    /// Runs a program, which must succeed. Returns its output.
    pub(crate) fn run(self, argv: &[&str]) -> Result<String> {
        const OUTPUT: &str = "/run/stamp-output";
        const ERRORS: &str = "/run/stamp-errors";
        let what = argv.join(" ");
        let (program, arguments) = argv.split_first().context("no program")?;
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(OUTPUT)?)
            .stderr(fs::File::create(ERRORS)?)
            .spawn()
            .with_context(|| format!("cannot run {what}"))?;
        self.exit(&mut child, &what)
            .map_err(|e| e.context(fs::read_to_string(ERRORS).unwrap_or_default()))?;
        Ok(fs::read_to_string(OUTPUT)?)
    }
}

/// Asks a program to end, as Ctrl-C does.
pub(crate) fn interrupt(child: &Child) -> Result<()> {
    Ok(kill_process(pid(child)?, Signal::INT)?)
}

fn pid(child: &Child) -> Result<Pid> {
    i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")
}

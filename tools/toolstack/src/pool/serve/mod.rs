//! The process that keeps a pool.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{GivenGuest, PoolOrder, PoolReply, PoolStatus, WantedGuest};
use crate::builder::{GuestConfig, Image, Ramdisk, Shell, Toolstack, ToolstackError};
use crate::line::{listen, receive, send};
use crate::readable::readable;

/// The time that a client has to send its request, or to receive the reply.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause between the taking of a guest and the filling of the pool, in which the guest has the machine to itself.
/// There is none if the pool is empty.
const REST: Duration = Duration::from_millis(50);
/// The delay before the next shell is made after one failed. It doubles after each failure, up to the second value.
const BACK_OFF: Duration = Duration::from_millis(100);
const BACK_OFF_MAX: Duration = Duration::from_secs(30);

/// The limits of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolLimits {
    /// The number of shells to keep.
    pub size: usize,
    /// The memory of the host that the pool leaves free, in MiB.
    pub spare: u64,
}

/// The error that ends a pool.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The socket cannot be made.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Socket(PathBuf, io::Error),
    /// Another pool listens on the socket.
    #[error("{path}: another pool has it", path = .0.display())]
    InUse(PathBuf),
    /// Shells cannot be made from the template or the image.
    #[error("{0}")]
    Template(&'static str),
}

/// A pool.
pub struct PoolServer {
    builder: Toolstack,
    template: GuestConfig,
    kernel: PathBuf,
    image: Image,
    limits: PoolLimits,
    shells: VecDeque<Shell>,
    taken: u64,
    trouble: Option<String>,
    retry: Instant,
    back_off: Duration,
}

impl PoolServer {
    /// An empty pool of guests like `template`; its name and MAC address are not used.
    ///
    /// # Errors
    /// The template has no network interface, or the image can't take one that is connected.
    pub fn new(
        builder: Toolstack,
        template: GuestConfig,
        kernel: PathBuf,
        image: Image,
        limits: PoolLimits,
    ) -> Result<Self, PoolError> {
        if template.vif.is_none() {
            return Err(PoolError::Template(
                "a guest of a pool has a network interface",
            ));
        }
        if !image.takes_preconnected() {
            return Err(PoolError::Template(
                "the image does not take a network that is connected beforehand, and so has nothing to gain from a pool",
            ));
        }
        Ok(Self {
            builder,
            template,
            kernel,
            image,
            limits,
            shells: VecDeque::new(),
            taken: 0,
            trouble: None,
            retry: Instant::now(),
            back_off: BACK_OFF,
        })
    }

    /// Serves requests and fills the pool, until something can be read from `stop`. Then the shells are removed.
    /// `report` is called when an error occurs and when it is over.
    ///
    /// # Errors
    /// The socket can't be made.
    pub fn serve(
        &mut self,
        socket: &Path,
        stop: BorrowedFd<'_>,
        report: &mut dyn FnMut(&str),
    ) -> Result<(), PoolError> {
        let listener = listen(socket)
            .map_err(|error| PoolError::Socket(socket.into(), error))?
            .ok_or_else(|| PoolError::InUse(socket.into()))?;
        loop {
            // Requests first: a shell is made only while no client waits.
            let wait = if self.wants_more() {
                Some(self.retry.saturating_duration_since(Instant::now()))
            } else {
                None
            };
            match readable(&[listener.as_fd(), stop], wait) {
                Ok([_, true]) => break,
                Ok([true, _]) => {
                    if let Err(error) = listener
                        .accept()
                        .and_then(|(stream, _)| self.answer(&stream, report))
                    {
                        report(&format!("an order: {error}"));
                    }
                }
                Ok(_) if self.wants_more() => {
                    self.renew(report);
                    self.fill(report);
                }
                Ok(_) => {}
                Err(error) => return Err(PoolError::Socket(socket.into(), error)),
            }
        }
        // The socket is closed and removed first: a client that comes now is told that there is no pool.
        drop(listener);
        let _ = std::fs::remove_file(socket);
        self.clear_out(report);
        Ok(())
    }

    /// Removes the shells.
    fn clear_out(&mut self, report: &mut dyn FnMut(&str)) {
        while let Some(shell) = self.shells.pop_front() {
            if let Err(error) = self.builder.discard(&shell) {
                report(&error.to_string());
            }
        }
    }

    /// Checks whether another image is at the path by now. If so, the shells are removed, as they are of the old one.
    /// While the new file cannot be read or is not an image, there are no shells.
    fn renew(&mut self, report: &mut dyn FnMut(&str)) {
        if self.image.is_current() {
            return;
        }
        self.clear_out(report);
        match Image::open(&self.kernel) {
            Ok(image) if image.takes_preconnected() => {
                self.image = image;
                report("the image is another by now: shells are made anew");
            }
            Ok(_) => self.fails(
                "the image does not take a network that is connected beforehand".to_owned(),
                report,
            ),
            Err(error) => self.fails(format!("{}: {error}", self.kernel.display()), report),
        }
    }

    /// Schedules the next attempt, and reports the reason if it is new.
    fn fails(&mut self, trouble: String, report: &mut dyn FnMut(&str)) {
        self.retry = Instant::now() + self.back_off;
        self.back_off = (self.back_off * 2).min(BACK_OFF_MAX);
        if self.trouble.as_ref() != Some(&trouble) {
            report(&trouble);
        }
        self.trouble = Some(trouble);
    }

    fn wants_more(&self) -> bool {
        self.shells.len() < self.limits.size
    }

    /// Makes one shell.
    fn fill(&mut self, report: &mut dyn FnMut(&str)) {
        if Instant::now() < self.retry {
            return;
        }
        let need = self.template.memory + self.limits.spare;
        let made = match self.builder.xen().free_memory() {
            Ok(free) if free < need => Err(format!(
                "{free} MiB of memory are free, and a shell needs {need} with what is to be spared"
            )),
            Ok(_) => self
                .builder
                .shell(&self.template, &self.image)
                .map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match made {
            Ok(shell) => {
                self.shells.push_back(shell);
                self.back_off = BACK_OFF;
                if self.trouble.take().is_some() {
                    report("shells can be made again");
                }
            }
            Err(trouble) => self.fails(trouble, report),
        }
    }

    fn answer(&mut self, stream: &UnixStream, report: &mut dyn FnMut(&str)) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reply = match receive(stream)? {
            PoolOrder::Create(wanted) => {
                self.renew(report);
                self.create(&wanted)
            }
            PoolOrder::Status => PoolReply::Status(PoolStatus {
                ready: self.shells.len(),
                size: self.limits.size,
                taken: self.taken,
                trouble: self.trouble.clone(),
            }),
        };
        send(stream, &reply)
    }

    fn create(&mut self, wanted: &WantedGuest) -> PoolReply {
        if let Some(other) = self.other(wanted) {
            return PoolReply::Other(other);
        }
        let failed = |taken, message| PoolReply::Failed { taken, message };
        let ramdisk = wanted.ramdisk.as_ref().map(|path| {
            Ramdisk::open(path).map_err(|error| format!("{}: {error}", path.display()))
        });
        let ramdisk = match ramdisk.transpose() {
            Ok(ramdisk) => ramdisk,
            Err(message) => return failed(false, message),
        };
        let Some(shell) = self.shells.pop_front() else {
            return PoolReply::Empty;
        };
        match self
            .builder
            .give(shell, &wanted.config, ramdisk.as_ref(), wanted.unpause)
        {
            Ok(created) => {
                self.taken += 1;
                if !self.shells.is_empty() {
                    self.retry = self.retry.max(Instant::now() + REST);
                }
                PoolReply::Made(GivenGuest {
                    domid: created.domid,
                    uuid: created.uuid,
                    total_ns: created.timeline.total_ns,
                    timeline: serde_json::to_value(&created.timeline).unwrap_or_default(),
                })
            }
            Err(error) => {
                let taken = matches!(error.failure.cause, ToolstackError::Taken(_));
                failed(taken, error.to_string())
            }
        }
    }

    /// The reason why a guest cannot be made from this pool's shells, if there is one.
    fn other(&self, wanted: &WantedGuest) -> Option<String> {
        let (ours, theirs) = (&self.template, &wanted.config);
        let vifs = (ours.vif.as_ref()?, theirs.vif.as_ref());
        let (ours_vif, Some(theirs_vif)) = vifs else {
            return Some("its guests have a network interface".into());
        };
        let differences = [
            ("memory", ours.memory != theirs.memory),
            ("kernel", !self.image.is_at(&wanted.kernel)),
            ("console", ours.console != theirs.console),
            ("tsc_mode", ours.tsc != theirs.tsc),
            ("uuid", wanted.has_uuid),
            ("mtu", ours_vif.mtu != theirs_vif.mtu),
            ("rate", ours_vif.rate != theirs_vif.rate),
        ];
        let names: Vec<_> = differences
            .iter()
            .filter(|(_, differs)| *differs)
            .map(|(name, _)| *name)
            .collect();
        (!names.is_empty()).then(|| format!("its guests have another {}", names.join(", another ")))
    }
}

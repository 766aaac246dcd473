//! The process that keeps a pool.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::shells::{BackOff, ShellKind, ShellLimits, ShellPool};
use super::{GivenGuest, PoolOrder, PoolReply, PoolStatus, WantedGuest};
use crate::builder::{GuestConfig, Image, Ramdisk, Toolstack, ToolstackError};
use crate::line::{listen, receive, send};
use crate::readable::readable;

/// The time that a client has to send its request, or to receive the reply.
const PATIENCE: Duration = Duration::from_secs(1);
/// The pause between the taking of a guest and the filling of the pool, in which the guest has the machine to itself.
/// There is none if the pool is empty.
const REST: Duration = Duration::from_millis(50);
/// The delay before the next shell is made after one failed.
const BACK_OFF: BackOff = BackOff {
    first: Duration::from_millis(100),
    most: Duration::from_secs(30),
};

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

/// A pool of shells of one kind, and its socket.
pub struct PoolServer {
    toolstack: Toolstack,
    kind: ShellKind,
    image: Image,
    shells: ShellPool,
    taken: u64,
}

impl PoolServer {
    /// An empty pool of guests like `template`; its name and MAC address are not used. `kernel` is the path of the image.
    ///
    /// # Errors
    /// The template has no network interface, or the image can't take one that is connected.
    pub fn new(
        toolstack: Toolstack,
        template: GuestConfig,
        kernel: &Path,
        image: Image,
        limits: ShellLimits,
    ) -> Result<Self, PoolError> {
        if template.vif.is_none() {
            return Err(PoolError::Template(
                "a guest of a pool has a network interface",
            ));
        }
        if !image.takes_preconnected() {
            return Err(PoolError::Template(
                "the image does not take a network that is connected beforehand, so a pool is of no use to it",
            ));
        }
        let kind = ShellKind::of(kernel, &template);
        let mut shells = ShellPool::new(limits, BACK_OFF, Instant::now());
        shells.keep(BTreeMap::from([(kind.clone(), template)]));
        Ok(Self {
            toolstack,
            kind,
            image,
            shells,
            taken: 0,
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
            let next = self.shells.lacking().map(|(_, at)| at);
            let wait = next.map(|at| at.saturating_duration_since(Instant::now()));
            match readable(&[listener.as_fd(), stop], wait) {
                Ok([_, true]) => break,
                Ok([true, _]) => {
                    if let Err(error) = listener
                        .accept()
                        .and_then(|(stream, _)| self.answer(&stream, report))
                    {
                        report(&format!("a request: {error}"));
                    }
                }
                Ok(_) if next.is_some() => {
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

    /// Removes all shells.
    fn clear_out(&mut self, report: &mut dyn FnMut(&str)) {
        for shell in self.shells.take_image(&self.kind.image) {
            if let Err(error) = self.toolstack.discard(shell) {
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
        match Image::open_and_keep(&self.kind.image) {
            Ok(image) if image.takes_preconnected() => {
                self.image = image;
                report("the image was replaced: shells are made from the new one");
            }
            Ok(_) => self.failed(
                "the image does not take a network that is connected beforehand",
                report,
            ),
            Err(error) => {
                let image = self.kind.image.display();
                self.failed(&format!("{image}: {error}"), report);
            }
        }
    }

    /// Reports why no shell could be made, if the reason is new.
    fn failed(&mut self, trouble: &str, report: &mut dyn FnMut(&str)) {
        if self.shells.failed(Instant::now(), trouble) {
            report(trouble);
        }
    }

    /// Makes one shell, if it is time for one.
    fn fill(&mut self, report: &mut dyn FnMut(&str)) {
        let due = self.shells.lacking().map(|(_, at)| at);
        if due.is_none_or(|at| Instant::now() < at) {
            return;
        }
        let Self {
            shells,
            kind,
            toolstack,
            image,
            ..
        } = self;
        match shells.fill(kind, (toolstack, &mut None), image) {
            Ok(Some(_)) => report("shells can be made again"),
            Ok(None) => {}
            Err(error) => self.failed(&error.to_string(), report),
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
                ready: self.shells.count(),
                size: self.shells.limits.size,
                taken: self.taken,
                trouble: self.shells.trouble().map(str::to_owned),
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
        let Some(shell) = self.shells.take(&self.kind) else {
            return PoolReply::Empty;
        };
        match self
            .toolstack
            .give(shell, &wanted.config, ramdisk.as_ref(), wanted.unpause)
        {
            Ok(created) => {
                self.taken += 1;
                if self.shells.count() > 0 {
                    self.shells.rest(Instant::now() + REST);
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
        if wanted.config.vif.is_none() {
            return Some("its guests have a network interface".into());
        }
        let mut names = Vec::new();
        if !self.image.is_at(&wanted.kernel) {
            names.push("kernel");
        }
        if wanted.has_uuid {
            names.push("uuid");
        }
        let kind = ShellKind::of(&wanted.kernel, &wanted.config);
        names.extend(self.kind.differences(&kind));
        (!names.is_empty()).then(|| format!("its guests have another {}", names.join(", another ")))
    }
}

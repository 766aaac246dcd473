//! The way to services that sleep: a port of the daemon's own on each bridge.
//!
//! ```text
//!               asleep, being born            running
//!  client ─► bridge ─► our port ─► held     client ─► bridge ─► vif ─► guest
//!                         ▲ replayed │
//!                         └──────────┘
//! ```
//!
//! The bridge itself decides, for each frame once, whether it goes to our port or to a vif: its forwarding database has an entry for each
//! service's MAC address, and moving that from our port to the vif is one request to the kernel. So no frame comes both ways,
//! and none is lost at the seam. What was held is then written back to our port, and the
//! bridge forwards it as it does everything else; a frame that still came to our port is written back likewise. All that can
//! happen is that a frame which comes in these microseconds overtakes one that was held.
//!
//! What was weighed: packet sockets on the bridge would see the traffic of guests that run as well, which costs it a copy each, and
//! would have to tell what the bridge has forwarded by itself from what it has not. As our port offers no offloading, the kernel
//! completes the checksums of what dom0 itself sends before it is read there.

pub use mayfly_switch::frame;
mod sys;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use mayfly_links::{Bridge, Error, Link, Links, Offers, Tap};
pub use sys::packet_socket;

/// The largest frame that is read: what is longer is cut, and so is no IP packet.
pub const FRAME_MAX: usize = 64 * 1024;

/// A port of the daemon's own on a bridge.
pub struct Port {
    frames: OwnedFd,
    link: Link,
}

impl Port {
    /// Makes it. Its name has the bridge's number in it, so that two daemons on one bridge notice each other.
    ///
    /// # Errors
    /// There is no such bridge, or the kernel can't make ports (`tun`), or another daemon has it.
    pub fn open(links: &mut Links, bridge: &str) -> Result<Self, Error> {
        let to: Bridge = links.bridge(bridge)?;
        let port = format!("summon{}", to.index);
        let tap = Tap::open(&port, Offers::Nothing).map_err(|source| {
            let hint = match Errno::from_io_error(&source) {
                Some(Errno::BUSY) => "; another daemon has it",
                Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => "; is the kernel's tun there?",
                _ => "",
            };
            Error::Refused {
                what: format!("cannot make the port {port} of {bridge}{hint}"),
                source,
            }
        })?;
        let mut link = links.find(&port)?;
        links.attach_own(&mut link, &to)?;
        let frames = tap.as_fd().try_clone_to_owned();
        let frames = frames.map_err(|source| Error::Refused {
            what: format!("cannot keep the port {port}"),
            source,
        })?;
        Ok(Self::of(frames, link))
    }

    /// One that was made already: its frames, and its link.
    #[must_use]
    pub fn of(frames: OwnedFd, link: Link) -> Self {
        Self { frames, link }
    }

    /// Its link.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Its frames, for another process.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub fn frames(&self) -> io::Result<OwnedFd> {
        self.frames.try_clone()
    }
}

/// Frames of a port: one for each read and write. It does not block.
pub struct Wire {
    fd: OwnedFd,
}

impl From<OwnedFd> for Wire {
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl Wire {
    /// Reads a frame, if there is one.
    ///
    /// # Errors
    /// The port is not there any more, or was set down.
    pub fn read<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        match rustix::io::read(&self.fd, &mut *buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a frame to the bridge.
    ///
    /// # Errors
    /// The port is not there any more, or was set down.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.fd, frame)?;
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A look at what goes through a vif, in both directions, until a new guest has answered.
pub struct Witness {
    wire: Wire,
}

impl Witness {
    /// Opens it.
    ///
    /// # Errors
    /// The kernel has no packet sockets, or forbids them.
    pub fn open(vif: &Link) -> io::Result<Self> {
        let wire = packet_socket(vif.index)?.into();
        Ok(Self { wire })
    }

    /// Reads the start of a frame, if there is one.
    ///
    /// # Errors
    /// The vif is gone.
    pub fn read<'b>(&self, buffer: &'b mut [u8]) -> io::Result<Option<&'b [u8]>> {
        self.wire.read(buffer)
    }
}

impl AsFd for Witness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wire.as_fd()
    }
}

//! The path to sleeping services: a port of the daemon on each bridge.
//!
//! ```text
//!               asleep, being born            running
//!  client ─► bridge ─► our port ─► held     client ─► bridge ─► vif ─► guest
//!                         ▲ replayed │
//!                         └──────────┘
//! ```
//!
//! The bridge decides once for each frame whether it goes to our port or to a vif: its forwarding database has an entry
//! for each service's MAC address, and one request to the kernel moves that from our port to the vif. So no frame goes
//! both ways, and none is lost in between. The held frames are then written back to our port, and the bridge forwards
//! them like any other; a frame that still arrives at our port is written back as well. At worst, a frame that arrives
//! in these microseconds overtakes a held one.
//!
//! The alternative, packet sockets on the bridge, would also see the traffic of running guests, at the cost of a copy
//! of each frame, and could not tell which frames the bridge has forwarded. Our port offers no offloading, so the
//! kernel completes the checksums of dom0's own packets before they are read there.

pub use mayfly_switch::frame;
mod sys;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use mayfly_links::{Bridge, Link, Links, Offers, Tap};
pub use sys::packet_socket;

/// The longest frame that is read, in bytes. A longer one is cut, so it holds no valid IP packet.
pub const FRAME_MAX: usize = 64 * 1024;

/// A port of the daemon on a bridge.
pub struct BridgePort {
    frames: OwnedFd,
    link: Link,
}

impl BridgePort {
    /// Makes the port. Its name has the bridge's number in it, so that two daemons on one bridge notice each other.
    ///
    /// # Errors
    /// There is no such bridge, the kernel cannot make ports (`tun`), or another daemon has the port.
    pub fn open(links: &mut Links, bridge: &str) -> Result<Self, mayfly_links::Error> {
        let to: Bridge = links.bridge(bridge)?;
        let port = format!("summon{}", to.index);
        let tap = Tap::open(&port, Offers::Nothing).map_err(|source| {
            let hint = match Errno::from_io_error(&source) {
                Some(Errno::BUSY) => "; another daemon has it",
                Some(Errno::NOENT | Errno::NODEV | Errno::NXIO) => "; is the kernel's tun there?",
                _ => "",
            };
            mayfly_links::Error::Refused {
                what: format!("cannot make the port {port} of {bridge}{hint}"),
                source,
            }
        })?;
        let mut link = links.find(&port)?;
        links.attach_own(&mut link, &to)?;
        let frames = tap.as_fd().try_clone_to_owned();
        let frames = frames.map_err(|source| mayfly_links::Error::Refused {
            what: format!("cannot keep the port {port}"),
            source,
        })?;
        Ok(Self::of(frames, link))
    }

    /// A port that was made before, from the descriptor of its frames and its link.
    #[must_use]
    pub fn of(frames: OwnedFd, link: Link) -> Self {
        Self { frames, link }
    }

    /// The link of the port.
    #[must_use]
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The descriptor of the port's frames, for another process.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn frames(&self) -> io::Result<OwnedFd> {
        self.frames.try_clone()
    }
}

/// The frames of a port: one for each read or write, which do not block.
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

/// Sees the frames that a guest sends, until a new guest has answered. Frames to the guest are left out: where dom0 has one CPU,
/// reading them would delay the answer.
pub struct Witness {
    wire: Wire,
}

impl Witness {
    /// Opens a packet socket that gets nothing yet.
    ///
    /// # Errors
    /// The kernel has no packet sockets, or forbids them.
    pub fn new() -> io::Result<Self> {
        let socket = sys::unbound()?;
        sys::ignore_outgoing(&socket);
        Ok(Self {
            wire: socket.into(),
        })
    }

    /// Receives the frames of a vif from now on.
    ///
    /// # Errors
    /// The vif is gone.
    pub fn look_at(&self, vif: &Link) -> io::Result<()> {
        sys::bind(&self.wire.fd, vif.index)
    }

    /// Opens a packet socket at the vif.
    ///
    /// # Errors
    /// Those of [`Self::new`] and [`Self::look_at`].
    pub fn open(vif: &Link) -> io::Result<Self> {
        let witness = Self::new()?;
        witness.look_at(vif)?;
        Ok(witness)
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

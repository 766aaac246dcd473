//! The traits of [`crate::xen`], over dom0's devices.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use mayfly_drivers::SharedPage;
use mayfly_links::{Batch, Piece, Tap};
use mayfly_xen::{Evtchn, Gntdev, GrantCopy, GrantMapping};

use crate::xen::{Access, Direction, Pages, Segment, Wire, Xen};

/// Segments that are copied in one call: what the kernel batches by itself.
const COPIES: usize = 64;

/// Grants and event channels of dom0.
pub struct Devices {
    grants: Gntdev,
    events: Evtchn,
}

impl Devices {
    /// Opens both devices, and has the kernel make room for grants, which takes 65 ms when it is first needed after dom0's boot.
    ///
    /// # Errors
    /// One is not there, or not for us.
    pub fn open() -> io::Result<Self> {
        let this = Self {
            grants: Gntdev::open()?,
            events: Evtchn::open()?,
        };
        // A grant that nobody has given: the room is made before Xen refuses.
        let _ = this.grants.map(0, &[0], true);
        Ok(this)
    }

    /// Calls `each` with every port of ours that an event has come by.
    ///
    /// # Errors
    /// Events were lost.
    pub fn events(&self, each: impl FnMut(u32)) -> io::Result<()> {
        self.events.take(each)
    }
}

impl AsFd for Devices {
    /// It can be read from when an event has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }
}

impl Pages for GrantMapping {
    fn page(&self, index: usize) -> Option<&SharedPage> {
        Self::page(self, index)
    }
}

impl Xen for Devices {
    type Mapping = GrantMapping;

    fn map(&self, domain: u16, references: &[u32], access: Access) -> io::Result<GrantMapping> {
        self.grants.map(domain, references, access == Access::Write)
    }

    fn copy(
        &self,
        domain: u16,
        direction: Direction,
        segments: &mut [Segment],
        buffer: &mut [u8],
    ) -> io::Result<()> {
        for some in segments.chunks_mut(COPIES) {
            let parts: Vec<GrantCopy> = some
                .iter()
                .map(|segment| GrantCopy {
                    reference: segment.reference,
                    offset: segment.offset,
                    length: segment.length,
                    at: segment.at,
                })
                .collect();
            let done = |index: usize, is_done| {
                if let Some(segment) = some.get_mut(index) {
                    segment.is_done = is_done;
                }
            };
            match direction {
                Direction::FromGuest => self.grants.copy_from(domain, &parts, buffer, done)?,
                Direction::ToGuest => self.grants.copy_to(domain, &parts, buffer, done)?,
            }
        }
        Ok(())
    }

    fn bind(&self, domain: u16, port: u32) -> io::Result<u32> {
        self.events.bind(domain, port)
    }

    fn unbind(&self, port: u32) {
        // It is gone in any case.
        let _ = self.events.unbind(port);
    }

    fn notify(&self, port: u32) {
        // Whose other end is gone hears nothing.
        let _ = self.events.notify(port);
    }

    fn unmask(&self, ports: &[u32]) {
        // The kernel ignores ports that are none.
        let _ = self.events.unmask(ports);
    }
}

/// A port on a bridge.
pub struct BridgePort {
    /// Frames are written one by one without it.
    batch: Option<Batch>,
    tap: Tap,
}

impl BridgePort {
    /// The port with this link. Returns also why many frames cannot be written in one system call, if they cannot.
    #[must_use]
    pub fn of(tap: Tap) -> (Self, Option<io::Error>) {
        let (batch, error) = match Batch::of(&tap) {
            Ok(batch) => (Some(batch), None),
            Err(error) => (None, Some(error)),
        };
        (Self { batch, tap }, error)
    }
}

impl AsFd for BridgePort {
    /// It can be read from when there is a frame.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

impl Wire for BridgePort {
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        self.tap.read(buffer)
    }

    fn write(&mut self, frames: &[&[Piece<'_>]], done: &mut dyn FnMut(usize, bool)) {
        let mut written = 0;
        if frames.len() > 1
            && let Some(batch) = &mut self.batch
        {
            written = batch.write(frames, &mut *done);
            if written != frames.len() {
                self.batch = None;
            }
        }
        for (index, frame) in frames.iter().enumerate().skip(written) {
            done(index, self.tap.write_pieces(frame).is_ok());
        }
    }
}

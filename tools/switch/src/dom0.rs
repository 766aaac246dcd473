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
    /// Frames are written and read one by one without it.
    batch: Option<Batch>,
    tap: Tap,
    bursts: Bursts,
}

/// The number of bursts by which the next one is estimated.
const BURSTS: usize = 8;

/// The number of single frames in a row, after the first [`BURSTS`], after which it is looked for another one.
const SINGLES: u32 = 8;

/// An estimate of the number of frames that wait: the shortest of the last bursts. The kernel does not tell the number,
/// and a read for which there is no frame costs more than half of a system call.
#[derive(Debug, Default)]
struct Bursts {
    /// The number of frames since there was none.
    length: usize,
    /// The lengths of the last bursts.
    last: [usize; BURSTS],
    /// The place for the next one.
    next: usize,
    /// The number of frames that were taken for the only one since that was last checked.
    singles: u32,
}

impl Bursts {
    /// Notes frames that were read.
    fn add(&mut self, count: usize) {
        self.length += count;
    }

    /// The number of frames that probably wait.
    fn left(&self) -> usize {
        let shortest = self.last.iter().copied().min();
        shortest.unwrap_or(0).saturating_sub(self.length)
    }

    /// Whether the frame that was read is probably the only one. If it is not, the next poll says so.
    fn is_single(&mut self) -> bool {
        let is_single = self.length == 1 && self.last == [1; BURSTS] && self.singles < SINGLES;
        self.singles = if is_single { self.singles + 1 } else { 0 };
        is_single
    }

    /// Notes that no frames are left.
    fn end(&mut self) {
        if self.length != 0
            && let Some(place) = self.last.get_mut(self.next)
        {
            *place = std::mem::take(&mut self.length);
            self.next = (self.next + 1) % BURSTS;
        }
    }
}

impl BridgePort {
    /// The port with this link. Returns also why many frames cannot be written in one system call, if they cannot.
    #[must_use]
    pub fn of(tap: Tap) -> (Self, Option<io::Error>) {
        let (batch, error) = match Batch::of(&tap) {
            Ok(batch) => (Some(batch), None),
            Err(error) => (None, Some(error)),
        };
        let bursts = Bursts::default();
        let this = Self { batch, tap, bursts };
        (this, error)
    }
}

impl AsFd for BridgePort {
    /// It can be read from when there is a frame.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tap.as_fd()
    }
}

impl Wire for BridgePort {
    fn read(
        &mut self,
        buffers: &mut [&mut [u8]],
        done: &mut dyn FnMut(usize, usize),
    ) -> io::Result<bool> {
        let mut at = 0;
        while let Some(buffer) = buffers.get_mut(at) {
            let Some(length) = self.tap.read(buffer)? else {
                self.bursts.end();
                return Ok(false);
            };
            done(at, length);
            at += 1;
            self.bursts.add(1);
            if self.bursts.is_single() {
                self.bursts.end();
                return Ok(false);
            }
            let wanted = self.bursts.left().min(buffers.len() - at);
            if wanted > 1
                && let Some(batch) = &mut self.batch
                && let Some(buffers) = buffers.get_mut(at..at + wanted)
            {
                let mut count = 0;
                let is_usable = batch.read(buffers, |index, length| {
                    count += 1;
                    done(at + index, length);
                })?;
                if !is_usable {
                    self.batch = None;
                }
                self.bursts.add(count);
                if count < wanted {
                    self.bursts.end();
                    return Ok(false);
                }
                at += wanted;
            }
        }
        Ok(true)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A burst of this many frames; returns the estimate after its first frame.
    fn burst(bursts: &mut Bursts, length: usize) -> usize {
        bursts.add(1);
        let left = bursts.left();
        bursts.add(length - 1);
        bursts.end();
        left
    }

    #[test]
    fn as_many_frames_are_expected_as_there_always_were() {
        let mut bursts = Bursts::default();
        for _ in 0..BURSTS {
            assert_eq!(burst(&mut bursts, 64), 0);
            // It was looked for frames, and there were none.
            bursts.end();
        }
        assert_eq!(burst(&mut bursts, 64), 63);
        assert_eq!(burst(&mut bursts, 10), 63);
        for _ in 0..BURSTS {
            assert_eq!(burst(&mut bursts, 100), 9);
        }
        assert_eq!(burst(&mut bursts, 1), 99);
        assert_eq!(burst(&mut bursts, 1), 0);
    }

    #[test]
    fn after_single_frames_it_is_not_looked_for_another_one_each_time() {
        let mut bursts = Bursts::default();
        for _ in 0..BURSTS {
            bursts.add(1);
            assert!(!bursts.is_single());
            bursts.end();
        }
        for _ in 0..3 {
            for _ in 0..SINGLES {
                bursts.add(1);
                assert!(bursts.is_single());
                bursts.end();
            }
            // It is looked this time.
            bursts.add(1);
            assert!(!bursts.is_single());
            bursts.end();
        }
        // There were two.
        for _ in 0..SINGLES + 1 {
            bursts.add(1);
            let _ = bursts.is_single();
            bursts.end();
        }
        burst(&mut bursts, 2);
        bursts.add(1);
        assert!(!bursts.is_single());
    }
}

//! A bounded record of one guest's traffic, as a pcap file (the classic format, with microseconds and Ethernet).

use serde::{Deserialize, Serialize};

use super::{Refusal, Switch};
use crate::xen::{Wire, Xen};

/// `LINKTYPE_ETHERNET`.
const ETHERNET: u32 = 1;
const MAGIC: u32 = 0xa1b2_c3d4;

/// The limits of a record. It ends at the first that is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DumpBounds {
    /// Frames.
    pub frames: usize,
    /// Bytes of each frame.
    pub snap: usize,
    /// Bytes of the file.
    pub bytes: usize,
}

impl Default for DumpBounds {
    fn default() -> Self {
        Self {
            frames: 1000,
            snap: 256,
            bytes: 1 << 20,
        }
    }
}

impl DumpBounds {
    /// The largest limits that a client may ask for.
    pub const MAX: Self = Self {
        frames: 100_000,
        snap: 65_535,
        bytes: 16 << 20,
    };

    /// These limits, bounded by [`Self::MAX`].
    #[must_use]
    pub fn clamped(self) -> Self {
        Self {
            frames: self.frames.min(Self::MAX.frames),
            snap: self.snap.min(Self::MAX.snap),
            bytes: self.bytes.min(Self::MAX.bytes),
        }
    }
}

/// A record that is being made.
#[derive(Debug)]
pub(super) struct Dump {
    bounds: DumpBounds,
    frames: usize,
    file: Vec<u8>,
    is_full: bool,
}

fn word(value: usize) -> [u8; 4] {
    u32::try_from(value).unwrap_or(u32::MAX).to_le_bytes()
}

impl<X: Xen, W: Wire> Switch<X, W> {
    /// Records a guest's traffic from now on. An earlier record of it is dropped.
    ///
    /// # Errors
    /// There is no guest of this name.
    pub fn dump(&mut self, name: &str, bounds: DumpBounds) -> Result<(), Refusal> {
        let live = self.find(name).and_then(|at| self.guests.get_mut(at));
        let live = live.and_then(Option::as_mut).ok_or(Refusal::Unknown)?;
        live.dump = Some(Dump::new(bounds));
        Ok(())
    }

    /// Ends a record, and returns the pcap file.
    ///
    /// # Errors
    /// There is no guest of this name, or it is not recorded.
    pub fn dumped(&mut self, name: &str) -> Result<Vec<u8>, Refusal> {
        let live = self.find(name).and_then(|at| self.guests.get_mut(at));
        let dump = live.and_then(|live| live.as_mut()?.dump.take());
        dump.map(Dump::into_file).ok_or(Refusal::Unknown)
    }
}

impl Dump {
    pub(super) fn new(bounds: DumpBounds) -> Self {
        let bounds = bounds.clamped();
        let mut file = Vec::new();
        file.extend(MAGIC.to_le_bytes());
        // Version 2.4; no correction of the time.
        file.extend([2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        file.extend(word(bounds.snap));
        file.extend(ETHERNET.to_le_bytes());
        Self {
            bounds,
            frames: 0,
            file,
            is_full: bounds.frames == 0,
        }
    }

    /// Records a frame with its time, in ns since 1970 or since the host's start.
    pub(super) fn record(&mut self, frame: &[u8], time: u64) {
        let kept = frame.get(..self.bounds.snap).unwrap_or(frame);
        if self.is_full || self.file.len() + 16 + kept.len() > self.bounds.bytes {
            self.is_full = true;
            return;
        }
        let seconds = u32::try_from(time / 1_000_000_000).unwrap_or(u32::MAX);
        let micros = u32::try_from(time % 1_000_000_000 / 1000).unwrap_or(0);
        self.file.extend(seconds.to_le_bytes());
        self.file.extend(micros.to_le_bytes());
        self.file.extend(word(kept.len()));
        self.file.extend(word(frame.len()));
        self.file.extend_from_slice(kept);
        self.frames += 1;
        self.is_full = self.frames >= self.bounds.frames;
    }

    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }

    pub(super) fn into_file(self) -> Vec<u8> {
        self.file
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_within_bounds() {
        let bounds = DumpBounds {
            frames: 2,
            snap: 4,
            bytes: 1000,
        };
        let mut dump = Dump::new(bounds);
        dump.record(b"abcdef", 3_000_002_000);
        dump.record(b"xy", 4_000_000_000);
        assert!(dump.is_full());
        dump.record(b"no more", 5_000_000_000);
        let file = dump.into_file();
        assert_eq!(file.len(), 24 + 16 + 4 + 16 + 2);
        assert_eq!(
            &file[24..44],
            b"\x03\0\0\0\x02\0\0\0\x04\0\0\0\x06\0\0\0abcd"
        );
        let mut small = Dump::new(DumpBounds {
            bytes: 30,
            ..bounds
        });
        small.record(b"abc", 0);
        assert!(small.is_full());
        assert_eq!(small.into_file().len(), 24);
    }
}

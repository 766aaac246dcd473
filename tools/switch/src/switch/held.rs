//! Frames held for a guest that is being created: in order, and bounded.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::offload::Offload;

/// The most that is held for one guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bounds {
    /// Frames.
    pub frames: usize,
    /// Bytes of frames.
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            frames: 64,
            bytes: 128 * 1024,
        }
    }
}

/// The frames held for a guest, and the number that was dropped.
#[derive(Debug, Default)]
pub(super) struct Held {
    frames: VecDeque<(Vec<u8>, Offload)>,
    bytes: usize,
    /// The number of frames that were not held.
    pub(super) dropped: u64,
}

impl Held {
    /// Holds a frame if there is room. The earliest frames are kept.
    pub(super) fn push(&mut self, frame: &[u8], offload: Offload, bounds: Bounds) -> bool {
        let bytes = self.bytes + frame.len();
        if self.frames.len() >= bounds.frames || bytes > bounds.bytes {
            self.dropped += 1;
            return false;
        }
        self.bytes = bytes;
        self.frames.push_back((frame.to_vec(), offload));
        true
    }

    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// Takes the first frame.
    pub(super) fn pop(&mut self) -> Option<(Vec<u8>, Offload)> {
        let first = self.frames.pop_front()?;
        self.bytes -= first.0.len();
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_their_order_and_within_bounds() {
        let bounds = Bounds {
            frames: 3,
            bytes: 10,
        };
        let mut held = Held::default();
        for frame in [&b"one"[..], b"two", b"12345", b"3", b"4"] {
            held.push(frame, Offload::NONE, bounds);
        }
        let all: Vec<_> = std::iter::from_fn(|| held.pop())
            .map(|(frame, _)| frame)
            .collect();
        assert_eq!(all, [&b"one"[..], b"two", b"3"]);
        assert_eq!((held.dropped, held.len()), (2, 0));
        assert!(held.push(&[0; 10], Offload::NONE, bounds));
    }
}

//! Frames held for a guest that is being created, in their order and within bounds: here, and in `hatch summon`.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

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

/// The frames held for a guest, each with `T`, what is known of it.
#[derive(Debug)]
pub struct Held<T> {
    frames: VecDeque<(Vec<u8>, T)>,
    bytes: usize,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self {
            frames: VecDeque::new(),
            bytes: 0,
        }
    }
}

impl<T> Held<T> {
    /// Holds a frame if there is room, and returns whether there was. The earliest frames are kept.
    pub fn push(&mut self, frame: &[u8], known: T, bounds: Bounds) -> bool {
        let bytes = self.bytes + frame.len();
        if self.frames.len() >= bounds.frames || bytes > bounds.bytes {
            return false;
        }
        self.bytes = bytes;
        self.frames.push_back((frame.to_vec(), known));
        true
    }

    /// The number of held frames.
    #[must_use]
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether no frame is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Takes the first frame.
    pub fn pop(&mut self) -> Option<(Vec<u8>, T)> {
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
        let pushed = [&b"one"[..], b"two", b"12345", b"3", b"4"];
        let pushed = pushed.map(|frame| held.push(frame, (), bounds));
        assert_eq!(pushed, [true, true, false, true, false]);
        let all: Vec<_> = std::iter::from_fn(|| held.pop())
            .map(|(frame, _)| frame)
            .collect();
        assert_eq!(all, [&b"one"[..], b"two", b"3"]);
        assert!(held.is_empty());
        assert!(held.push(&[0; 10], (), bounds));
    }
}

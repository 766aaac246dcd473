//! Frames held for a guest that is being created: in order, and bounded.

use std::collections::VecDeque;

use super::status::Frames;

/// The bounds of what is held for one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Frames.
    pub frames: usize,
    /// The bytes of these frames.
    pub octets: usize,
}

/// The held frames of a service.
#[derive(Debug, Default)]
pub struct Held {
    frames: VecDeque<Vec<u8>>,
    octets: usize,
    /// The counters of held, replayed and dropped frames.
    pub counts: Frames,
}

impl Held {
    /// Holds a frame. Drops it if there is no room: earlier frames take precedence.
    pub fn push(&mut self, frame: &[u8], bounds: Bounds) {
        let octets = self.octets + frame.len();
        if self.frames.len() >= bounds.frames || octets > bounds.octets {
            self.counts.dropped += 1;
            return;
        }
        self.counts.held += 1;
        self.octets = octets;
        self.frames.push_back(frame.to_vec());
    }

    /// Takes all frames, in their order.
    pub fn replay(&mut self) -> impl Iterator<Item = Vec<u8>> {
        self.counts.replayed += self.frames.len() as u64;
        self.octets = 0;
        std::mem::take(&mut self.frames).into_iter()
    }

    /// Drops all frames, because there will be no guest.
    pub fn drop_all(&mut self) {
        self.counts.dropped += self.frames.len() as u64;
        self.octets = 0;
        self.frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        frames: 3,
        octets: 10,
    };

    fn counts(held: &Held) -> (u64, u64, u64) {
        (held.counts.held, held.counts.replayed, held.counts.dropped)
    }

    #[test]
    fn in_their_order_and_within_bounds() {
        let mut held = Held::default();
        for frame in [&b"one"[..], b"two", b"12345", b"3", b"4"] {
            held.push(frame, BOUNDS);
        }
        let replayed: Vec<_> = held.replay().collect();
        assert_eq!(replayed, [&b"one"[..], b"two", b"3"]);
        assert_eq!(counts(&held), (3, 3, 2));
        held.push(&[0; 10], BOUNDS);
        held.drop_all();
        held.push(b"5", BOUNDS);
        assert_eq!(held.replay().count(), 1);
        assert_eq!(counts(&held), (5, 4, 3));
    }
}

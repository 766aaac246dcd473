//! Frames held for a guest that is being created, and their counters.

use mayfly_switch::held;

use super::status::FrameCounts;
pub use held::Bounds;

/// The held frames of a service.
#[derive(Debug, Default)]
pub struct HeldFrames {
    frames: held::Held<()>,
    /// The counters of held, replayed and dropped frames.
    pub counts: FrameCounts,
}

impl HeldFrames {
    /// Holds a frame. Drops it if there is no room: earlier frames take precedence.
    pub fn push(&mut self, frame: &[u8], bounds: Bounds) {
        match self.frames.push(frame, (), bounds) {
            true => self.counts.held += 1,
            false => self.counts.dropped += 1,
        }
    }

    /// Takes all frames, in their order.
    pub fn replay(&mut self) -> impl Iterator<Item = Vec<u8>> {
        let mut frames = std::mem::take(&mut self.frames);
        self.counts.replayed += frames.len() as u64;
        std::iter::from_fn(move || frames.pop()).map(|(frame, ())| frame)
    }

    /// Drops all frames, because there will be no guest.
    pub fn drop_all(&mut self) {
        let frames = std::mem::take(&mut self.frames);
        self.counts.dropped += frames.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        frames: 3,
        bytes: 10,
    };

    fn counts(held: &HeldFrames) -> (u64, u64, u64) {
        (held.counts.held, held.counts.replayed, held.counts.dropped)
    }

    #[test]
    fn in_their_order_and_within_bounds() {
        let mut held = HeldFrames::default();
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

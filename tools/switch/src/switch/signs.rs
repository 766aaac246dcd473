//! The signs of life of a new guest: its first frames.

use serde::{Deserialize, Serialize};

pub use crate::frame::Sign;

/// The time, in ns, from a guest's first frame until its signs are told, if it has not answered a client by then. They
/// are not told at once: the process that is told would run before the client that waits for the first answer.
const LATEST: u64 = 2_000_000;

/// The signs of one guest.
pub(super) struct Signs {
    /// When each was first seen, in ns.
    seen: Vec<(Sign, u64)>,
    attached: u64,
    /// The number of frames that were held for it.
    held: usize,
    is_over: bool,
}

/// The signs of a guest as they are told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Each, and how long ago it was, in ns.
    pub signs: Vec<(Sign, u64)>,
    /// How long ago the guest was attached, in ns.
    pub attached: u64,
    /// The number of frames that were held for it.
    pub held: usize,
}

impl Signs {
    pub(super) fn new(now: u64, held: usize) -> Self {
        Self {
            seen: Vec::new(),
            attached: now,
            held,
            is_over: false,
        }
    }

    /// Takes note of a frame that was held for it.
    pub(super) fn hold(&mut self) {
        self.held += 1;
    }

    /// Takes note of a frame that the guest has sent.
    pub(super) fn note(&mut self, frame: &[u8], mac: [u8; 6], now: u64) {
        if let Some(sign) = crate::frame::sign(frame, mac)
            && !self.seen.iter().any(|(seen, _)| *seen == sign)
        {
            self.seen.push((sign, now));
            self.is_over |= sign == Sign::Answer;
        }
    }

    /// When they are to be told, in ns, if there are any yet.
    pub(super) fn due(&self) -> Option<u64> {
        let (_, first) = self.seen.first()?;
        Some(match self.is_over {
            true => 0,
            false => first + LATEST,
        })
    }

    pub(super) fn told(self, now: u64) -> Life {
        let ago = |at: u64| now.saturating_sub(at);
        Life {
            signs: self
                .seen
                .into_iter()
                .map(|(sign, at)| (sign, ago(at)))
                .collect(),
            attached: ago(self.attached),
            held: self.held,
        }
    }
}

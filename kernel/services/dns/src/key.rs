//! The form of a name for look-ups.

use super::wire::{NAME_MAX, label_before, to_lower};

/// A name in lower case.
#[derive(Debug)]
pub(super) struct Key {
    bytes: [u8; NAME_MAX],
    len: usize,
}

impl Key {
    pub(super) fn new(name: &[u8]) -> Self {
        let mut bytes = [0; NAME_MAX];
        to_lower(name, &mut bytes);
        Self {
            bytes,
            len: name.len().min(NAME_MAX),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The part that begins at an offset, at which a label begins.
    pub(super) fn from(&self, at: usize) -> &[u8] {
        self.bytes.get(at..self.len).unwrap_or_default()
    }

    /// The offset of the label before the one at `at`.
    pub(super) fn before(&self, at: usize) -> Option<usize> {
        label_before(self.from(0), at)
    }

    /// Calls `look` with the name of the wildcard right below the name at `at`, which is not 0.
    pub(super) fn with_wildcard<T>(
        &mut self,
        at: usize,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        // The label before it has at least two bytes, which lend their place to `*`.
        let start = at.checked_sub(2)?;
        let place: &mut [u8; 2] = self.bytes.get_mut(start..at)?.try_into().ok()?;
        let kept = core::mem::replace(place, *b"\x01*");
        let result = look(self.from(start));
        if let Some(place) = self.bytes.get_mut(start..at) {
            place.copy_from_slice(&kept);
        }
        Some(result)
    }
}

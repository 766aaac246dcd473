//! The number of network buffers of a guest, which follows from its free memory.
//!
//! A toolstack that connects the network beforehand grants and posts the receive buffers, so it must compute the same
//! number as the guest.

/// Slots of the receive ring: the most buffers that can be posted (`NET_RX_RING_SIZE` of Linux' xen-netback, from
/// `__RING_SIZE` of public/io/ring.h for one page).
pub const RX_BUFFERS_MAX: usize = 256;

/// The number of network buffers, of a page each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// Receive buffers.
    pub rx: usize,
    /// Transmit buffers: pages that frames are composed in.
    pub tx: usize,
}

impl Buffers {
    /// Buffers for a guest with `free` bytes of RAM that neither its image nor its modules occupy: a quarter of it
    /// receives, an eighth transmits, 8 to 256 pages each.
    #[must_use]
    pub fn for_memory(free: u64) -> Self {
        const PAGE: usize = 4096;
        let free = usize::try_from(free).unwrap_or(usize::MAX);
        Self {
            rx: (free / 4 / PAGE).clamp(8, RX_BUFFERS_MAX),
            tx: (free / 8 / PAGE).clamp(8, 256),
        }
    }

    /// The number of receive buffers that a toolstack posts: the largest power of two in `rx`.
    #[must_use]
    pub fn posted(self) -> u32 {
        1 << self.rx.clamp(1, RX_BUFFERS_MAX).ilog2()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_follow_memory_within_bounds() {
        for (free, rx, tx, posted) in [
            (0, 8, 8, 8),
            (4096 * 32 - 1, 8, 8, 8),
            (4096 * 36, 9, 8, 8),
            (4096 * 127, 31, 15, 16),
            (4096 * 128, 32, 16, 32),
            (4096 * 1024, 256, 128, 256),
            (4096 * 2048, 256, 256, 256),
            (u64::MAX, 256, 256, 256),
        ] {
            let buffers = Buffers::for_memory(free);
            assert_eq!(
                (buffers, buffers.posted()),
                (Buffers { rx, tx }, posted),
                "{free}"
            );
        }
    }
}

//! The memory use of a guest, for all sizes of its memory.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use mayfly::stack::{LARGE, Sizing};
use proptest::prelude::*;

const PAGE: usize = 4096;
/// The free memory of a guest with `memory=4`, above the image, in bytes.
const SMALLEST: u64 = 5 << 19;

/// The size of the socket buffers when every connection is in use, in bytes.
fn sockets(sizing: &Sizing) -> usize {
    let one = |count: usize, tx: usize, large: usize| {
        count * (sizing.tcp_rx + tx) + count.min(LARGE) * (large - tx)
    };
    one(sizing.http, sizing.http_tx, sizing.http_tx_large)
        + one(sizing.dns_tcp, sizing.dns_tx, sizing.dns_tx_large)
}

proptest! {
    #![proptest_config(mayfly_seeds::cases(4096))]

    /// The memory suffices for everything at once: no frame and no connection fails for lack of memory.
    #[test]
    fn everything_in_use_at_once_fits(pages in SMALLEST / 4096..1 << 20) {
        let free = pages * 4096;
        let sizing = Sizing::for_memory(free);
        let taken = sizing.heap + (sizing.rx_pages + sizing.tx_pages) * PAGE + sockets(&sizing);
        prop_assert!(taken as u64 <= free, "{taken} of {free} bytes: {sizing:?}");
    }

    /// More memory never means fewer ring buffers or a smaller window, and all sizes stay within their bounds.
    #[test]
    fn more_memory_is_no_loss(free: u64, more: u64) {
        let (less, more) = (free.min(more), free.max(more));
        let (less, more) = (Sizing::for_memory(less), Sizing::for_memory(more));
        for (less, more, bounds) in [
            (less.rx_pages, more.rx_pages, 8..=256),
            (less.tx_pages, more.tx_pages, 8..=256),
            (less.tcp_rx, more.tcp_rx, 2048..=4096),
            (less.http_tx, more.http_tx, 8 << 10..=64 << 10),
            (less.http_tx_large, more.http_tx_large, 8 << 10..=256 << 10),
            (less.dns_tx, more.dns_tx, 4 << 10..=32 << 10),
            (less.dns_tx_large, more.dns_tx_large, 4 << 10..=128 << 10),
        ] {
            prop_assert!(less <= more, "{less} {more}");
            prop_assert!(bounds.contains(&less) && bounds.contains(&more), "{less} {more} {bounds:?}");
        }
        for sizing in [less, more] {
            prop_assert!((4..=1200).contains(&sizing.http), "{sizing:?}");
            prop_assert!((2..=128).contains(&sizing.dns_tcp), "{sizing:?}");
        }
    }
}

/// Checks all memory sizes near each step at which the stack's sizes change.
#[test]
fn everything_fits_at_each_step() {
    for step in [SMALLEST, 4 << 20, 32 << 20, 96 << 20] {
        for free in (step - 64 * 4096..step + 64 * 4096).step_by(4096) {
            let free = free.max(SMALLEST);
            let sizing = Sizing::for_memory(free);
            let taken = sizing.heap + (sizing.rx_pages + sizing.tx_pages) * PAGE + sockets(&sizing);
            assert!(taken as u64 <= free, "{taken} of {free} bytes: {sizing:?}");
        }
    }
}

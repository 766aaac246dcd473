//! The guest's own pages: `/.mayfly/boot`, `/.mayfly/metrics`, `/.mayfly/healthz`, and `/.mayfly/payload/N` for load
//! tests.
//!
//! [`Report`] has the figures, `json` and `metrics` print them, and `pages` serves them in front of the site's pages.

mod json;
mod metrics;
mod pages;

use core::cell::{Cell, RefCell};

use smoltcp::time::Instant;

use crate::stack::Snapshot;
use crate::timeline::{OneLine, Timeline};
pub use pages::WithReport;

/// Figures of the boot path, taken when the first frame was queued or sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// TSC ticks spent in `SCHEDOP_poll` until the first frame was queued.
    pub slept_tsc: u64,
    /// Hypercalls until the first frame was queued.
    pub hypercalls_to_first_tx: u32,
    /// xenstore requests until the first frame was queued.
    pub xenstore_requests: u32,
    /// Bursts of these requests for whose answer the guest had to sleep.
    pub xenstore_round_trips: u32,
}

/// The guest's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM without the image and the pack: free when the guest started.
    pub ram: u64,
    /// The part of `ram` that is still free.
    pub ram_free: u64,
    /// The size of the heap.
    pub heap: u64,
    /// The free part of the heap.
    pub heap_free: u64,
    /// The size of the packed site.
    pub pack: u64,
}

/// The figures of the guest.
pub struct Report<'a> {
    /// The boot timeline.
    pub timeline: &'a Timeline,
    tsc_khz: u64,
    memory: &'a dyn Fn() -> Memory,
    /// The time at which the guest started, on the clock of [`Snapshot::now`].
    pub began: Cell<Instant>,
    /// The figures of the boot path, which sets them.
    pub facts: Cell<Facts>,
    /// Bytes that the console ring had no room for.
    pub console_dropped: Cell<u64>,
    snapshot: &'a RefCell<Snapshot>,
}

impl<'a> Report<'a> {
    /// A report on a boot timeline with a TSC of `tsc_khz`, on memory, and on the stack's counters.
    #[must_use]
    pub fn new(
        timeline: &'a Timeline,
        tsc_khz: u64,
        memory: &'a dyn Fn() -> Memory,
        snapshot: &'a RefCell<Snapshot>,
    ) -> Self {
        Self {
            timeline,
            tsc_khz,
            memory,
            snapshot,
            began: Cell::new(Instant::ZERO),
            facts: Cell::new(Facts::default()),
            console_dropped: Cell::new(0),
        }
    }

    /// The boot timeline as one line.
    #[must_use]
    pub fn line(&self) -> OneLine<'a> {
        OneLine {
            timeline: self.timeline,
            tsc_khz: self.tsc_khz,
        }
    }

    /// The numbers of frames, requests and bytes dropped since boot, by cause.
    fn drops(&self) -> [(&'static str, u64); 19] {
        let Snapshot {
            stack,
            dns,
            http,
            front,
            bad_checksums,
            ..
        } = &*self.snapshot.borrow();
        [
            ("rx_error", front.rx_errors),
            ("rx_bad_id", front.rx_bad_id),
            ("rx_bad_size", front.rx_bad_size),
            ("rx_chain", front.rx_chains),
            ("rx_bad_checksum", *bad_checksums),
            ("rx_ignored", stack.ignored),
            ("address_conflict", stack.conflicts),
            ("tx_error", front.tx_errors),
            ("tx_bad_id", front.tx_bad_id),
            ("link_broken", front.broken),
            ("dns_dropped", dns.dropped.into()),
            ("dns_limited", dns.limited.into()),
            ("dns_aborted", dns.aborted.into()),
            ("http_expired", http.expired),
            ("tcp_evicted", stack.evicted),
            ("tcp_half_open", stack.half_open_evicted),
            ("tcp_refused", stack.refused),
            ("tcp_no_service", stack.nobody),
            ("console_bytes", self.console_dropped.get()),
        ]
    }
}

//! What the guest tells of its own boot: `GET /.mayfly/boot`.

use core::cell::Cell;
use core::fmt;

use crate::services::site::{Body, Page, Pages};
use crate::timeline::{JsonMembers, OneLine, Timeline};

/// Figures of the boot path, taken when the first frame was queued or sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    /// TSC ticks asleep in `SCHEDOP_poll` until the first frame was queued.
    pub slept_tsc: u64,
    /// Hypercalls until the first frame was queued.
    pub hypercalls_to_first_tx: u32,
    /// xenstore requests until the first frame was queued.
    pub xenstore_requests: u32,
    /// Bursts of them whose answer was waited for.
    pub xenstore_round_trips: u32,
}

/// Causes for which something was dropped, in the order of [`Report::drops`].
pub const DROPS: [&str; 14] = [
    "rx_error",
    "rx_bad_id",
    "rx_bad_size",
    "rx_chain",
    "rx_bad_checksum",
    "tx_error",
    "tx_bad_id",
    "link_broken",
    "dns_dropped",
    "dns_udp_full",
    "dns_udp_stuck",
    "http_expired",
    "tcp_evicted",
    "console_bytes",
];

/// The boot report: a timeline, and the figures beside it.
pub struct Report<'a> {
    timeline: &'a Timeline,
    tsc_khz: u64,
    /// The figures; the boot path fills them in.
    pub facts: Cell<Facts>,
    /// How often something was dropped since boot, by cause.
    pub drops: Cell<[u64; DROPS.len()]>,
}

impl<'a> Report<'a> {
    /// A report on `timeline`, whose TSC runs at `tsc_khz`.
    #[must_use]
    pub fn new(timeline: &'a Timeline, tsc_khz: u64) -> Self {
        Self {
            timeline,
            tsc_khz,
            facts: Cell::new(Facts::default()),
            drops: Cell::default(),
        }
    }

    /// The timeline as one line.
    #[must_use]
    pub fn line(&self) -> OneLine<'a> {
        OneLine {
            timeline: self.timeline,
            tsc_khz: self.tsc_khz,
        }
    }
}

impl fmt::Display for Report<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = self.facts.get();
        write!(
            f,
            "{{{},\"counters\":{{\"slept_tsc\":{},\"hypercalls_to_first_tx\":{},\
             \"xenstore_requests\":{},\"xenstore_round_trips\":{}}},\"dropped\":{{",
            JsonMembers(self.line()),
            facts.slept_tsc,
            facts.hypercalls_to_first_tx,
            facts.xenstore_requests,
            facts.xenstore_round_trips,
        )?;
        for (i, (cause, count)) in DROPS.iter().zip(self.drops.get()).enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}\"{cause}\":{count}")?;
        }
        f.write_str("}}\n")
    }
}

/// A site with the guest's own pages before it.
pub struct WithReport<'a, P> {
    /// The site.
    pub site: P,
    /// Served at `/.mayfly/boot`.
    pub report: &'a Report<'a>,
}

impl<P: Pages> Pages for WithReport<'_, P> {
    fn page(&self, path: &[u8]) -> Option<Page<'_>> {
        if path == b"/.mayfly/boot" {
            return Some(Page {
                content_type: "application/json",
                body: Body::Rendered(self.report),
            });
        }
        self.site.page(path)
    }
}

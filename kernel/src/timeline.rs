//! The boot timeline: typed events, stamped with the TSC, in place of boot printing.
//!
//! A stamp is two stores and a counter read, so the boot path can afford one at
//! every step. The ring is read afterwards: as JSON by `GET /.mayfly/boot`,
//! as one line on Xen's debug port.

use core::cell::Cell;
use core::fmt;

/// An event of the boot. [`BootPhase::name`] is its name in the JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum BootPhase {
    /// First instruction.
    Entry,
    /// First 64-bit instruction.
    LongMode,
    /// Xen has filled the hypercall page.
    HypercallPage,
    /// `shared_info` is mapped.
    SharedInfo,
    /// The grant table's first frame is mapped.
    GrantTable,
    /// The guest has taken over the rings that the toolstack has connected. Then the phases from here to `RingsPosted`
    /// do not occur.
    Preconnected,
    /// The first burst of xenstore requests was sent.
    XenstoreSent,
    /// The last answer to that burst has come.
    XenstoreAnswered,
    /// Both netif rings are granted, receive buffers are posted.
    RingsPosted,
    /// The first frame is on the transmit ring.
    FirstTxQueued,
    /// The back end has shown a sign of life on the rings.
    BackendConnected,
    /// The first frame was received.
    FirstRx,
    /// The first DNS answer was queued.
    FirstDns,
    /// The first bytes of an HTTP answer were queued.
    FirstHttp,
}

impl BootPhase {
    /// The phase's name in the JSON and on the debug port.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::LongMode => "long_mode",
            Self::HypercallPage => "hypercall_page",
            Self::SharedInfo => "shared_info",
            Self::GrantTable => "grant_table",
            Self::Preconnected => "preconnected",
            Self::XenstoreSent => "xenstore_sent",
            Self::XenstoreAnswered => "xenstore_answered",
            Self::RingsPosted => "rings_posted",
            Self::FirstTxQueued => "first_tx_queued",
            Self::BackendConnected => "backend_connected",
            Self::FirstRx => "first_rx",
            Self::FirstDns => "first_dns",
            Self::FirstHttp => "first_http",
        }
    }
}

/// The number of events kept. A further event overwrites the oldest.
const RING: usize = 32;

/// The ring of events.
pub struct Timeline {
    tsc: fn() -> u64,
    events: [Cell<Option<(BootPhase, u64)>>; RING],
    next: Cell<usize>,
    seen: Cell<u32>,
}

impl Timeline {
    /// An empty timeline that reads its clock from `tsc`.
    #[must_use]
    pub fn new(tsc: fn() -> u64) -> Self {
        Self {
            tsc,
            events: [const { Cell::new(None) }; RING],
            next: Cell::new(0),
            seen: Cell::new(0),
        }
    }

    /// Records an event that happened at `tsc`.
    pub fn stamp_at(&self, phase: BootPhase, tsc: u64) {
        let next = self.next.get();
        if let Some(slot) = self.events.get(next % RING) {
            slot.set(Some((phase, tsc)));
        }
        self.next.set(next.wrapping_add(1));
        self.seen.set(self.seen.get() | 1 << phase as u8);
    }

    /// Records an event that happens now.
    pub fn stamp(&self, phase: BootPhase) {
        self.stamp_at(phase, (self.tsc)());
    }

    /// Records an event unless one of its kind was recorded before.
    #[inline]
    pub fn first(&self, phase: BootPhase) {
        if !self.has(phase) {
            self.stamp(phase);
        }
    }

    /// Whether an event of this kind was recorded.
    #[inline]
    #[must_use]
    pub fn has(&self, phase: BootPhase) -> bool {
        self.seen.get() & 1 << phase as u8 != 0
    }

    /// The events that are still in the ring, oldest first.
    pub fn events(&self) -> impl Iterator<Item = (BootPhase, u64)> + '_ {
        let next = self.next.get();
        (next.saturating_sub(RING)..next)
            .filter_map(|i| self.events.get(i % RING).and_then(Cell::get))
    }

    /// The stamp of the oldest event in the ring, from which time is counted.
    #[must_use]
    pub fn start(&self) -> u64 {
        self.events().next().map_or(0, |(_, tsc)| tsc)
    }
}

/// Nanoseconds of `ticks` at `tsc_khz`; 0 when the frequency is not known.
#[must_use]
pub fn ticks_to_ns(ticks: u64, tsc_khz: u64) -> u64 {
    let ns = u128::from(ticks) * 1_000_000 / u128::from(tsc_khz.max(1));
    if tsc_khz == 0 {
        0
    } else {
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// The timeline as one line: `boot us: shared_info 23 xenstore_sent 39 ...`, since entry.
///
/// Xen breaks what a guest writes to its debug port after 200 characters, so the
/// first, short phases are left to the JSON.
pub struct OneLine<'a> {
    /// What to show.
    pub timeline: &'a Timeline,
    /// The TSC's frequency.
    pub tsc_khz: u64,
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let start = self.timeline.start();
        f.write_str("boot us:")?;
        for (phase, tsc) in self.timeline.events() {
            if phase as u8 >= BootPhase::SharedInfo as u8 && phase != BootPhase::GrantTable {
                let us = ticks_to_ns(tsc.saturating_sub(start), self.tsc_khz) / 1000;
                write!(f, " {} {us}", phase.name())?;
            }
        }
        Ok(())
    }
}

/// The timeline as JSON: `{"tsc_khz":..,"entry_tsc":..,"events":[{"phase":..,"tsc":..,"ns":..}]`,
/// left open so that the caller can add members and the closing brace.
pub struct JsonMembers<'a>(pub OneLine<'a>);

impl fmt::Display for JsonMembers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let OneLine { timeline, tsc_khz } = self.0;
        let start = timeline.start();
        write!(
            f,
            "\"tsc_khz\":{tsc_khz},\"entry_tsc\":{start},\"events\":["
        )?;
        for (i, (phase, tsc)) in timeline.events().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            let ns = ticks_to_ns(tsc.saturating_sub(start), tsc_khz);
            let name = phase.name();
            write!(
                f,
                "{comma}{{\"phase\":\"{name}\",\"tsc\":{tsc},\"ns\":{ns}}}"
            )?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::string::ToString;

    #[test]
    fn the_json_has_each_event_with_ns_since_the_first() {
        let timeline = Timeline::new(|| 5_000);
        timeline.stamp_at(BootPhase::Entry, 1_000);
        timeline.stamp_at(BootPhase::LongMode, 3_000);
        timeline.first(BootPhase::FirstRx);
        timeline.first(BootPhase::FirstRx);
        let line = OneLine {
            timeline: &timeline,
            tsc_khz: 2_000_000,
        };
        assert_eq!(line.to_string(), "boot us: first_rx 2");
        assert_eq!(
            JsonMembers(line).to_string(),
            "\"tsc_khz\":2000000,\"entry_tsc\":1000,\"events\":[\
             {\"phase\":\"entry\",\"tsc\":1000,\"ns\":0},\
             {\"phase\":\"long_mode\",\"tsc\":3000,\"ns\":1000},\
             {\"phase\":\"first_rx\",\"tsc\":5000,\"ns\":2000}]"
        );
    }

    #[test]
    fn the_ring_keeps_the_newest() {
        let timeline = Timeline::new(|| 0);
        for tsc in 0..100 {
            timeline.stamp_at(BootPhase::BackendConnected, tsc);
        }
        assert_eq!(timeline.events().count(), RING);
        assert_eq!(timeline.start(), 100 - RING as u64);
        assert!(timeline.has(BootPhase::BackendConnected) && !timeline.has(BootPhase::Entry));
    }

    #[test]
    fn no_frequency_and_no_overflow() {
        assert_eq!(ticks_to_ns(5, 0), 0);
        assert_eq!(ticks_to_ns(u64::MAX, 1), u64::MAX);
        assert_eq!(ticks_to_ns(3_000_000, 3_000_000), 1_000_000);
    }
}

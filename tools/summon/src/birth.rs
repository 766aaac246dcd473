//! One birth, from the packet that caused it to the first byte of an answer.

use std::time::{Duration, Instant};

use super::cause::WakeCause;
use super::maker::MadeGuest;
use mayfly_toolstack::builder::report::Timeline;

/// A step of a birth: a time span or a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BirthSpan {
    /// The name of the step.
    pub what: String,
    /// The beginning, in microseconds since the packet that caused the birth.
    pub from_us: u64,
    /// The end, likewise.
    pub to_us: u64,
}

/// A birth.
#[derive(Clone, Debug)]
pub struct Birth {
    cause: WakeCause,
    woken: Instant,
    /// The time at which the making of the guest began.
    began: Instant,
    spans: Vec<BirthSpan>,
    is_from_pool: bool,
}

impl Birth {
    /// A birth with this cause that begins now. `woken` is the time at which the causing packet was read.
    #[must_use]
    pub fn new(cause: WakeCause, woken: Instant) -> Self {
        let what = match cause {
            WakeCause::Dns => "query",
            WakeCause::Arp => "ARP request",
            WakeCause::Nd => "neighbour solicitation",
            WakeCause::Syn => "SYN",
            WakeCause::Udp => "datagram",
            WakeCause::Command => "command",
        };
        let mut birth = Self {
            cause,
            woken,
            began: woken,
            spans: Vec::new(),
            is_from_pool: false,
        };
        birth.event(what, woken);
        birth
    }

    /// The cause of the birth.
    #[must_use]
    pub fn cause(&self) -> WakeCause {
        self.cause
    }

    /// The time at which the packet that caused it was read.
    #[must_use]
    pub fn woken(&self) -> Instant {
        self.woken
    }

    /// Whether the guest was made ahead.
    #[must_use]
    pub fn is_from_pool(&self) -> bool {
        self.is_from_pool
    }

    /// All steps, in the order in which they began.
    #[must_use]
    pub fn spans(&self) -> Vec<BirthSpan> {
        let mut spans = self.spans.clone();
        spans.sort_by_key(|span| (span.from_us, span.to_us));
        spans
    }

    /// Records a step from one time to another.
    pub fn span(&mut self, what: &str, from: Instant, to: Instant) {
        let us = |at: Instant| micros(at.saturating_duration_since(self.woken));
        let span = BirthSpan {
            what: what.to_owned(),
            from_us: us(from),
            to_us: us(to),
        };
        self.spans.push(span);
    }

    /// Records a step, if no step of this name was recorded before.
    pub fn span_once(&mut self, what: &str, from: Instant, to: Instant) {
        if !self.spans.iter().any(|span| span.what == what) {
            self.span(what, from, to);
        }
    }

    /// Records a moment.
    pub fn event(&mut self, what: &str, at: Instant) {
        self.span(what, at, at);
    }

    /// Records a moment, if none of this name was recorded before.
    pub fn once(&mut self, what: &str, at: Instant) {
        self.span_once(what, at, at);
    }

    /// Records that the guest was made and is about to run.
    pub(super) fn made(&mut self, made: &MadeGuest) {
        self.is_from_pool = made.is_from_pool;
        self.began = made.began;
        self.span("wait", self.woken, made.began);
    }

    /// Records that the guest runs, with the timeline of its making.
    pub(super) fn runs(&mut self, making: &Timeline) {
        let began = self.began;
        for span in &making.spans {
            let at = |ns| began + Duration::from_nanos(ns);
            let what = match span.who {
                "hatch" => span.what.to_owned(),
                who => format!("{} ({who})", span.what),
            };
            self.span(&what, at(span.start_ns), at(span.end_ns));
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

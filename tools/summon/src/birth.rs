//! One birth, from the packet that caused it to the first octet of an answer.

use std::time::{Duration, Instant};

use super::cause::Cause;
use super::maker::Made;
use mayfly_toolstack::builder::report::Timeline;

/// Something that took time, or happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// What.
    pub what: String,
    /// From, in microseconds since the packet that caused it.
    pub from_us: u64,
    /// To.
    pub to_us: u64,
}

/// A birth.
#[derive(Clone, Debug)]
pub struct Birth {
    cause: Cause,
    woken: Instant,
    /// When its making was begun.
    began: Instant,
    spans: Vec<Span>,
    is_from_pool: bool,
}

impl Birth {
    /// One that this caused, now.
    #[must_use]
    pub fn new(cause: Cause, woken: Instant) -> Self {
        let what = match cause {
            Cause::Dns => "query",
            Cause::Arp => "ARP request",
            Cause::Nd => "neighbour solicitation",
            Cause::Syn => "SYN",
            Cause::Udp => "datagram",
            Cause::Command => "command",
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

    /// What caused it.
    #[must_use]
    pub fn cause(&self) -> Cause {
        self.cause
    }

    /// When the packet that caused it was read.
    #[must_use]
    pub fn woken(&self) -> Instant {
        self.woken
    }

    /// Whether the guest was made ahead.
    #[must_use]
    pub fn is_from_pool(&self) -> bool {
        self.is_from_pool
    }

    /// Everything, in the order in which it began.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        let mut spans = self.spans.clone();
        spans.sort_by_key(|span| (span.from_us, span.to_us));
        spans
    }

    /// Something took from here to there.
    pub fn span(&mut self, what: &str, from: Instant, to: Instant) {
        let us = |at: Instant| micros(at.saturating_duration_since(self.woken));
        let span = Span {
            what: what.to_owned(),
            from_us: us(from),
            to_us: us(to),
        };
        self.spans.push(span);
    }

    /// Something took from here to there, and only its first time counts.
    pub fn span_once(&mut self, what: &str, from: Instant, to: Instant) {
        if !self.spans.iter().any(|span| span.what == what) {
            self.span(what, from, to);
        }
    }

    /// Something happened.
    pub fn event(&mut self, what: &str, at: Instant) {
        self.span(what, at, at);
    }

    /// Something happened, and only its first time counts.
    pub fn once(&mut self, what: &str, at: Instant) {
        self.span_once(what, at, at);
    }

    /// The guest is about to run.
    pub(super) fn made(&mut self, made: &Made) {
        self.is_from_pool = made.is_from_pool;
        self.began = made.began;
        self.span("wait", self.woken, made.began);
    }

    /// It runs, and this was its making.
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

//! What the guest tells of itself: `/.mayfly/boot`, `/.mayfly/metrics`, `/.mayfly/healthz`, and
//! `/.mayfly/payload/N` for load tests.

use core::cell::{Cell, RefCell};
use core::fmt;

use mayfly_drivers::netfront;
use smoltcp::time::Instant;

use crate::cmdline::Endpoints;
use crate::stack;
use crate::timeline::{JsonMembers, OneLine, Timeline, ticks_to_ns};
use mayfly_dns as dns;
use mayfly_http as http;
use mayfly_site::{Broken, File, Pages, Resource};

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

/// The guest's memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// RAM that was free when the guest had been loaded: without its image and its pack.
    pub ram: u64,
    /// Of that, what has not been given out yet.
    pub ram_free: u64,
    /// The heap.
    pub heap: u64,
    /// Of that, what is free.
    pub heap_free: u64,
    /// The packed site, which lies where Xen has put it.
    pub pack: u64,
}

/// Everything that is counted, at one time.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    /// When.
    pub now: Instant,
    /// Connections.
    pub stack: stack::Stats,
    /// DNS.
    pub dns: dns::Stats,
    /// HTTP.
    pub http: http::Stats,
    /// Frames with a wrong checksum.
    pub bad_checksums: u64,
    /// The network interface.
    pub front: netfront::Counters,
}

impl Default for Snapshot {
    fn default() -> Self {
        Self {
            now: Instant::ZERO,
            stack: stack::Stats::default(),
            dns: dns::Stats::default(),
            http: http::Stats::default(),
            bad_checksums: 0,
            front: netfront::Counters::default(),
        }
    }
}

/// What is known of the guest.
pub struct Report<'a> {
    timeline: &'a Timeline,
    tsc_khz: u64,
    memory: &'a dyn Fn() -> Memory,
    /// When the guest began, on the clock of [`Snapshot::now`].
    pub began: Cell<Instant>,
    /// The figures of the boot path, which fills them in.
    pub facts: Cell<Facts>,
    /// Bytes that the console had no room for.
    pub console_dropped: Cell<u64>,
    snapshot: RefCell<Snapshot>,
}

impl<'a> Report<'a> {
    /// A report on `timeline`, whose TSC runs at `tsc_khz`, and on memory.
    #[must_use]
    pub fn new(timeline: &'a Timeline, tsc_khz: u64, memory: &'a dyn Fn() -> Memory) -> Self {
        Self {
            timeline,
            tsc_khz,
            memory,
            began: Cell::new(Instant::ZERO),
            facts: Cell::new(Facts::default()),
            console_dropped: Cell::new(0),
            snapshot: RefCell::default(),
        }
    }

    /// The timeline.
    #[must_use]
    pub fn timeline(&self) -> &'a Timeline {
        self.timeline
    }

    /// The timeline as one line.
    #[must_use]
    pub fn line(&self) -> OneLine<'a> {
        OneLine {
            timeline: self.timeline,
            tsc_khz: self.tsc_khz,
        }
    }

    /// Takes note of the counters as they are now.
    pub fn publish(&self, snapshot: Snapshot) {
        *self.snapshot.borrow_mut() = snapshot;
    }

    /// How often something was dropped since boot, by cause.
    fn drops(&self) -> [(&'static str, u64); 18] {
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

/// `/.mayfly/boot`.
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
        for (i, (cause, count)) in self.drops().into_iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}\"{cause}\":{count}")?;
        }
        f.write_str("}}\n")
    }
}

/// `/.mayfly/metrics`: Prometheus' text format, version 0.0.4.
struct Metrics<'a>(&'a Report<'a>);

/// Response codes by number (IANA "DNS RCODEs"); the last is for all from 15 on.
const RCODES: [&str; 16] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE", "11", "12", "13", "14", "extended",
];

/// One metric: its type line, then a line for each label.
fn metric<'v>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    kind: &str,
    label: &str,
    values: impl IntoIterator<Item = (&'v str, u64)>,
) -> fmt::Result {
    writeln!(f, "# TYPE mayfly_{name} {kind}")?;
    for (value, count) in values {
        if label.is_empty() {
            writeln!(f, "mayfly_{name} {count}")?;
        } else {
            writeln!(f, "mayfly_{name}{{{label}=\"{value}\"}} {count}")?;
        }
    }
    Ok(())
}

impl fmt::Display for Metrics<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GAUGE: &str = "gauge";
        const COUNTER: &str = "counter";
        let Self(report) = self;
        let start = report.timeline.start();
        f.write_str("# TYPE mayfly_boot_phase_nanoseconds gauge\n")?;
        for (phase, tsc) in report.timeline.events() {
            let ns = ticks_to_ns(tsc.saturating_sub(start), report.tsc_khz);
            let phase = phase.name();
            writeln!(f, "mayfly_boot_phase_nanoseconds{{phase=\"{phase}\"}} {ns}")?;
        }
        let snapshot = report.snapshot.borrow();
        let Snapshot {
            now,
            stack,
            dns,
            http,
            front,
            ..
        } = &*snapshot;
        let uptime = (*now - report.began.get()).total_millis();
        metric(f, "uptime_milliseconds", GAUGE, "", [("", uptime)])?;

        let queries = [("udp", dns.udp.into()), ("tcp", dns.tcp.into())];
        metric(f, "dns_answers_total", COUNTER, "transport", queries)?;
        let types = dns::COUNTED_TYPES.iter().zip(dns.types);
        let types = types.map(|((_, name), count)| (*name, u64::from(count)));
        let types = types.chain([("other", dns.other_types.into())]);
        metric(f, "dns_questions_total", COUNTER, "type", types)?;
        let rcodes = RCODES.into_iter().zip(dns.rcodes.map(u64::from));
        metric(f, "dns_responses_total", COUNTER, "rcode", rcodes)?;
        let events = [
            ("truncated", dns.truncated.into()),
            ("slipped", dns.slipped.into()),
            ("good_cookie", dns.cookies.into()),
            ("transfer", dns.transfers.into()),
            ("broken_zone", dns.broken.into()),
        ];
        metric(f, "dns_events_total", COUNTER, "event", events)?;

        metric(f, "http_requests_total", COUNTER, "method", http.methods())?;
        metric(
            f,
            "http_responses_total",
            COUNTER,
            "status",
            http.statuses(),
        )?;
        metric(
            f,
            "http_content_bytes_total",
            COUNTER,
            "",
            [("", http.content)],
        )?;
        let events = [
            ("aborted", http.aborted),
            ("incomplete", http.incomplete),
            ("broken_site", http.broken),
        ];
        metric(f, "http_events_total", COUNTER, "event", events)?;

        let [half_open, open, closing] = stack.connections.map(|count| count as u64);
        let states = [
            ("half_open", half_open),
            ("open", open),
            ("closing", closing),
        ];
        metric(f, "tcp_connections", GAUGE, "state", states)?;
        let cookies = [("sent", stack.cookies_sent), ("taken", stack.cookies_taken)];
        metric(f, "tcp_syn_cookies_total", COUNTER, "event", cookies)?;
        let frames = [("received", front.rx_frames), ("sent", front.tx_frames)];
        metric(f, "network_frames_total", COUNTER, "direction", frames)?;
        let bytes = [("received", front.rx_bytes), ("sent", front.tx_bytes)];
        metric(f, "network_bytes_total", COUNTER, "direction", bytes)?;
        let notifications = [("", front.notifications)];
        metric(f, "network_notifications_total", COUNTER, "", notifications)?;
        metric(f, "dropped_total", COUNTER, "cause", report.drops())?;

        let memory = (report.memory)();
        let kinds = [
            ("ram", memory.ram),
            ("ram_free", memory.ram_free),
            ("heap", memory.heap),
            ("heap_free", memory.heap_free),
            ("pack", memory.pack),
        ];
        metric(f, "memory_bytes", GAUGE, "kind", kinds)
    }
}

/// Octets of the longest payload that is made up.
const PAYLOAD_MAX: u64 = 1 << 32;

/// A site with the guest's own pages before it.
pub struct WithReport<'a, P> {
    site: P,
    report: &'a Report<'a>,
    metrics: Metrics<'a>,
    endpoints: Endpoints,
}

impl<'a, P> WithReport<'a, P> {
    /// The site with those of the guest's own pages that are wanted.
    pub fn new(site: P, report: &'a Report<'a>, endpoints: Endpoints) -> Self {
        Self {
            site,
            report,
            metrics: Metrics(report),
            endpoints,
        }
    }

    fn own(&self, name: &[u8]) -> Option<Resource<'_>> {
        let rendered = |content_type, text| Some(Resource::Rendered { content_type, text });
        match name {
            b"boot" if self.endpoints.boot => rendered("application/json", self.report),
            b"metrics" if self.endpoints.metrics => {
                rendered("text/plain; version=0.0.4; charset=utf-8", &self.metrics)
            }
            b"healthz" if self.endpoints.healthz => rendered("text/plain", &"ok\n"),
            _ if self.endpoints.payload => {
                let number = name.strip_prefix(b"payload/")?;
                let is_plain = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
                let octets = core::str::from_utf8(number).ok()?.parse().ok()?;
                (is_plain && octets <= PAYLOAD_MAX).then_some(Resource::Payload(octets))
            }
            _ => None,
        }
    }
}

impl<P: Pages> Pages for WithReport<'_, P> {
    fn resource(&self, host: &[u8], path: &[u8]) -> Result<Option<Resource<'_>>, Broken> {
        let own = path
            .strip_prefix(b"/.mayfly/")
            .and_then(|name| self.own(name));
        match own {
            Some(own) => Ok(Some(own)),
            None => self.site.resource(host, path),
        }
    }

    fn error_page(&self, host: &[u8], status: u16) -> Result<Option<File<'_>>, Broken> {
        self.site.error_page(host, status)
    }
}

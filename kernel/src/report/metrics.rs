//! `/.mayfly/metrics`: Prometheus' text format, version 0.0.4.

use core::fmt;

use mayfly_dns as dns;

use super::Report;
use crate::stack::Snapshot;
use crate::timeline::ticks_to_ns;

const GAUGE: &str = "gauge";
const COUNTER: &str = "counter";

/// The page `/.mayfly/metrics`.
pub(super) struct Metrics<'a>(pub(super) &'a Report<'a>);

/// Response codes by number (IANA "DNS RCODEs"); the last is for all from 15 on.
const RCODES: [&str; 16] = [
    "NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "YXDOMAIN", "YXRRSET",
    "NXRRSET", "NOTAUTH", "NOTZONE", "11", "12", "13", "14", "extended",
];

/// Writes one metric: its type line, then a line for each label.
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
        let snapshot = self.0.snapshot.borrow();
        self.boot(f)?;
        let uptime = (snapshot.now - self.0.began.get()).total_millis();
        metric(f, "uptime_milliseconds", GAUGE, "", [("", uptime)])?;
        dns_metrics(f, &snapshot)?;
        http_metrics(f, &snapshot)?;
        network_metrics(f, &snapshot)?;
        metric(f, "dropped_total", COUNTER, "cause", self.0.drops())?;
        self.memory(f)
    }
}

impl Metrics<'_> {
    fn boot(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(report) = self;
        let start = report.timeline.start();
        f.write_str("# TYPE mayfly_boot_phase_nanoseconds gauge\n")?;
        for (phase, tsc) in report.timeline.events() {
            let ns = ticks_to_ns(tsc.saturating_sub(start), report.tsc_khz);
            let phase = phase.name();
            writeln!(f, "mayfly_boot_phase_nanoseconds{{phase=\"{phase}\"}} {ns}")?;
        }
        Ok(())
    }

    fn memory(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = (self.0.memory)();
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

fn dns_metrics(f: &mut fmt::Formatter<'_>, Snapshot { dns, .. }: &Snapshot) -> fmt::Result {
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
    metric(f, "dns_events_total", COUNTER, "event", events)
}

fn http_metrics(f: &mut fmt::Formatter<'_>, Snapshot { http, .. }: &Snapshot) -> fmt::Result {
    metric(f, "http_requests_total", COUNTER, "method", http.methods())?;
    let statuses = http.statuses();
    metric(f, "http_responses_total", COUNTER, "status", statuses)?;
    let content = [("", http.content)];
    metric(f, "http_content_bytes_total", COUNTER, "", content)?;
    let events = [
        ("aborted", http.aborted),
        ("incomplete", http.incomplete),
        ("broken_site", http.broken),
    ];
    metric(f, "http_events_total", COUNTER, "event", events)
}

fn network_metrics(f: &mut fmt::Formatter<'_>, snapshot: &Snapshot) -> fmt::Result {
    let [half_open, open, closing] = snapshot.stack.connections.map(|count| count as u64);
    let states = [
        ("half_open", half_open),
        ("open", open),
        ("closing", closing),
    ];
    metric(f, "tcp_connections", GAUGE, "state", states)?;
    let cookies = [
        ("sent", snapshot.stack.cookies_sent),
        ("taken", snapshot.stack.cookies_taken),
    ];
    metric(f, "tcp_syn_cookies_total", COUNTER, "event", cookies)?;
    let front = &snapshot.front;
    let frames = [("received", front.rx_frames), ("sent", front.tx_frames)];
    metric(f, "network_frames_total", COUNTER, "direction", frames)?;
    let bytes = [("received", front.rx_bytes), ("sent", front.tx_bytes)];
    metric(f, "network_bytes_total", COUNTER, "direction", bytes)?;
    let notifications = [("", front.notifications)];
    metric(f, "network_notifications_total", COUNTER, "", notifications)?;
    let quarantined = [("", snapshot.quarantined as u64)];
    metric(f, "network_quarantined_pages", GAUGE, "", quarantined)
}

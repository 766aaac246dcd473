//! Turns births into figures: medians without the first birth, and targets.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use mayfly_stamp::{Birth, Counts, Report};
use serde_json::Value;

use super::job::{By, Kind, Subject};

/// Median, least and greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) median: u64,
    pub(super) min: u64,
    pub(super) max: u64,
}

impl Spread {
    pub(crate) fn median(&self) -> u64 {
        self.median
    }

    /// The least sample: a cost without the work of others (a tick, a notification that comes twice) that may fall into
    /// it.
    pub(crate) fn least(&self) -> u64 {
        self.min
    }

    /// `None` without samples. Of an even number the lower middle one is the median.
    pub(crate) fn of(samples: impl IntoIterator<Item = u64>) -> Option<Self> {
        let mut samples: Vec<_> = samples.into_iter().collect();
        samples.sort_unstable();
        let median = *samples.get(samples.len().checked_sub(1)? / 2)?;
        Some(Self {
            median,
            min: *samples.first()?,
            max: *samples.last()?,
        })
    }
}

/// Computes a span of a birth in ticks. The second argument is the number of ticks in a second.
type Span = fn(&Birth, u64) -> Option<u64>;

const SPANS: [(&str, Span); 8] = [
    (CREATE, |b, _| Some(b.created - b.create)),
    (AROUND, around),
    (FIRST_FRAME, |b, _| Some(b.first_frame? - b.unpause)),
    ("unpause to SYN-ACK", |b, _| Some(b.syn_ack? - b.unpause)),
    (READY, |b, _| Some(b.ready - b.unpause)),
    (WHOLE, |b, _| Some(b.whole())),
    (DESTROY, |b, _| Some(b.destroyed - b.destroy)),
    ("destroy, until nothing is left", |b, _| {
        Some(b.gone - b.destroy)
    }),
];
const CREATE: &str = "create";
/// The part of `hatch create` that does not depend on the guest.
pub(crate) const AROUND: &str = "create, start and end of the program";
const FIRST_FRAME: &str = "unpause to first frame";
const WHOLE: &str = "create, and to first HTTP byte";
const DESTROY: &str = "destroy";
/// The time until a guest serves. For a guest that serves nothing, the time until dom0 knows of its shutdown.
const READY: &str = "unpause to first HTTP byte";

/// The time of `hatch create` without that of its timeline: from the start of the program until it checks the guest's
/// settings, and from the guest's last key until the parent has waited for the program. Only hatch prints a timeline.
fn around(birth: &Birth, tsc_hz: u64) -> Option<u64> {
    let making = birth.making.as_ref()?;
    // A guest out of a pool comes from a program that is running already. Its answer has no such key.
    making.get("preconnected")?;
    let ns = u128::from(making["timeline"]["total_ns"].as_u64()?);
    let ticks = u64::try_from(ns * u128::from(tsc_hz) / 1_000_000_000).ok()?;
    (birth.created - birth.create).checked_sub(ticks)
}

/// Targets of counted figures by maker: figure, limit.
const TARGETS: [(By, &[(&str, u64)]); 3] = [
    (
        By::Xl,
        &[
            (READY, 4_300_000),
            (INSTRUCTIONS, 150_000),
            (HYPERCALLS, 25),
            (REQUESTS, 10),
            (ROUND_TRIPS, 2),
            (EXITS, 100),
        ],
    ),
    (
        By::Hatch,
        &[
            (CREATE, 10_000_000),
            (AROUND, 2_500_000),
            (FIRST_FRAME, 400_000),
            (READY, 1_000_000),
            (WHOLE, 12_000_000),
            (DESTROY, 5_000_000),
            (REQUESTS, 0),
            (EXITS, 30),
        ],
    ),
    (By::Pool, &[(WHOLE, 1_600_000)]),
];
/// Targets of timed figures: the least ratio of `xl`'s time to the maker's.
const RATIOS: [(By, &str, u64); 3] = [
    (By::Hatch, CREATE, 10),
    (By::Hatch, WHOLE, 8),
    (By::Pool, WHOLE, 60),
];
const INSTRUCTIONS: &str = "own instructions to first transmit request";
const HYPERCALLS: &str = "hypercalls to first transmit request";
const REQUESTS: &str = "xenstore requests to first packet";
const ROUND_TRIPS: &str = "xenstore round trips to first transmit request";
const EXITS: &str = "VM exits to first HTTP byte";

/// The figures of one guest and maker.
pub(crate) struct Figures {
    pub(crate) subject: Subject,
    spans: Vec<(&'static str, Spread)>,
    counts: Vec<(&'static str, u64)>,
    /// The VM exits and hypercalls of the last traced birth until the guest serves.
    exits: Counts,
    /// The phases of the guest's boot, in ns since its entry.
    phases: Vec<(String, Spread)>,
}

impl Figures {
    /// Drops the first birth and takes the rest together.
    ///
    /// # Errors
    /// Fewer than two plain births, no traced one, or a timeline that is not as documented.
    pub(crate) fn new(subject: Subject, report: &Report) -> Result<Self> {
        let label = subject.label();
        let births = || report.births.iter().filter(|b| b.guest == label);
        let plain: Vec<_> = births().filter(|b| b.traced.is_none()).skip(1).collect();
        ensure!(!plain.is_empty(), "too few births of {label}");
        let birth = births()
            .rfind(|b| b.traced.is_some())
            .with_context(|| format!("no traced birth of {label}"))?;
        let traced = birth.traced.as_ref().context("no traced birth")?;
        let spans = SPANS
            .iter()
            .filter_map(|(name, span)| {
                Some((
                    *name,
                    Spread::of(plain.iter().filter_map(|b| span(b, report.tsc_hz)))?,
                ))
            })
            .collect();
        let mut counts = vec![(EXITS, traced.to_ready.exits)];
        // The guest's own count ends exactly with the first packet; dom0 sees the packet some requests later.
        let requests = match &birth.timeline {
            Some(timeline) => Some(counter(timeline, "xenstore_requests")?),
            None => traced.xenstore_to_first_frame,
        };
        counts.extend(requests.map(|n| (REQUESTS, n)));
        if let Some(to_transmit) = &traced.to_transmit {
            counts.push((INSTRUCTIONS, to_transmit.guest_ticks));
            counts.push((HYPERCALLS, to_transmit.hypercalls.values().sum()));
        }
        if let Some(timeline) = &birth.timeline {
            counts.push((ROUND_TRIPS, counter(timeline, "xenstore_round_trips")?));
        }
        let timelines: Vec<_> = plain.iter().filter_map(|b| b.timeline.as_ref()).collect();
        Ok(Self {
            subject,
            spans,
            counts,
            exits: traced.to_ready.clone(),
            phases: phases(&timelines)?,
        })
    }

    fn span(&self, name: &str) -> Option<Spread> {
        let mut spans = self.spans.iter();
        spans.find(|(known, _)| *known == name).map(|(_, s)| *s)
    }

    fn count(&self, name: &str) -> Option<u64> {
        let mut counts = self.counts.iter();
        counts.find(|(known, _)| *known == name).map(|(_, c)| *c)
    }

    /// The figures by name: one of each spread in ticks, and counts.
    fn by_name(&self, one: fn(&Spread) -> u64) -> BTreeMap<String, u64> {
        let spans = self.spans.iter().map(|(name, spread)| (*name, one(spread)));
        spans
            .chain(self.counts.iter().copied())
            .map(|(name, figure)| (name.to_owned(), figure))
            .collect()
    }
}

fn counter(timeline: &Value, name: &str) -> Result<u64> {
    timeline["counters"][name]
        .as_u64()
        .with_context(|| format!("the guest's timeline has no counter {name}"))
}

fn phases(timelines: &[&Value]) -> Result<Vec<(String, Spread)>> {
    let mut phases: Vec<(String, Vec<u64>)> = Vec::new();
    for event in timelines
        .iter()
        .flat_map(|t| t["events"].as_array().into_iter().flatten())
    {
        let name = event["phase"]
            .as_str()
            .context("an event of the guest's timeline has no phase")?;
        let ns = event["ns"]
            .as_u64()
            .context("an event of the guest's timeline has no ns")?;
        match phases.iter_mut().find(|(known, _)| known == name) {
            Some((_, samples)) => samples.push(ns),
            None => phases.push((name.to_owned(), vec![ns])),
        }
    }
    let mut phases: Vec<_> = phases
        .into_iter()
        .filter_map(|(name, samples)| Some((name, Spread::of(samples)?)))
        .collect();
    phases.sort_by_key(|(_, spread)| spread.median);
    Ok(phases)
}

/// All figures as text. `counted` says whether ticks are instructions.
pub(crate) fn table(all: &[Figures], tsc_hz: u64, counted: bool) -> Result<String> {
    let mut out = String::new();
    let ms = |ticks| ms(ticks, tsc_hz);
    let unit = if counted {
        "virtual ms, a million instructions each"
    } else {
        "ms in the lab"
    };
    writeln!(
        out,
        "median (least to greatest), {unit}; the first birth of each is dropped"
    )?;
    row(
        &mut out,
        "",
        SPANS.iter().map(|(name, _)| (*name).to_owned()),
    )?;
    for figures in all {
        let cells = SPANS.iter().map(|(name, _)| match figures.span(name) {
            Some(s) => format!("{:.3} ({:.3} to {:.3})", ms(s.median), ms(s.min), ms(s.max)),
            None => "-".into(),
        });
        row(&mut out, &figures.subject.label(), cells)?;
        let xl = all
            .iter()
            .find(|f| f.subject == Subject::by_xl(figures.subject.kind));
        if let (true, Some(xl)) = (figures.subject.by != By::Xl, xl) {
            let cells = SPANS
                .iter()
                .map(|(name, _)| match (figures.span(name), xl.span(name)) {
                    (Some(s), Some(xl)) => format!("{:.3}", ms(s.median) / ms(xl.median)),
                    _ => "-".into(),
                });
            row(&mut out, "  times the same by xl", cells)?;
        }
    }
    writeln!(
        out,
        "(the null guest serves nothing: until dom0 knows that it has shut down)\n"
    )?;
    // In a timed lab the guest's ticks are time, not instructions.
    let counts: Vec<_> = [EXITS, REQUESTS, HYPERCALLS, ROUND_TRIPS]
        .into_iter()
        .chain(counted.then_some(INSTRUCTIONS))
        .collect();
    row(&mut out, "", counts.iter().map(|name| (*name).to_owned()))?;
    for figures in all {
        let cells = counts
            .iter()
            .map(|name| figures.count(name).map_or("-".into(), |c| c.to_string()));
        row(&mut out, &figures.subject.label(), cells)?;
    }
    for figures in all {
        let reasons = list(&figures.exits.reasons, |code| {
            reason(code).unwrap_or_else(|| format!("{code:#x}"))
        });
        let hypercalls = list(&figures.exits.hypercalls, |n| {
            hypercall(n).map_or_else(|| n.to_string(), Into::into)
        });
        let label = figures.subject.label();
        writeln!(out, "\n{label}, until ready: VM exits: {reasons}")?;
        writeln!(out, "  hypercalls: {hypercalls}")?;
    }
    write_phases(&mut out, all)?;
    Ok(out)
}

/// Writes the phases of each guest's boot, as the guest reports them.
fn write_phases(out: &mut String, all: &[Figures]) -> Result<()> {
    for figures in all.iter().filter(|f| !f.phases.is_empty()) {
        writeln!(
            out,
            "\nwhere the time goes in {}, us since its entry",
            figures.subject.label()
        )?;
        let mut before = 0;
        for (phase, spread) in &figures.phases {
            let us = |ns: u64| f64::from(u32::try_from(ns).unwrap_or(u32::MAX)) / 1e3;
            writeln!(
                out,
                "{phase:24}{:12.1}{:+12.1}",
                us(spread.median),
                us(spread.median.saturating_sub(before))
            )?;
            before = spread.median;
        }
    }
    Ok(())
}

/// Ticks as milliseconds.
pub(super) fn ms(ticks: u64, tsc_hz: u64) -> f64 {
    number(ticks) * 1e3 / number(tsc_hz).max(1.0)
}

/// A count as a floating-point number, which is exact below 2^53.
#[allow(clippy::cast_precision_loss, reason = "below 2^53")]
pub(super) fn number(count: u64) -> f64 {
    count as f64
}

fn row(out: &mut String, name: &str, cells: impl Iterator<Item = String>) -> Result<()> {
    let cells: String = cells.map(|cell| format!("{cell:>36}")).collect();
    Ok(writeln!(out, "{name:26}{cells}")?)
}

fn list(counts: &BTreeMap<u32, u64>, name: impl Fn(u32) -> String) -> String {
    let mut counts: Vec<_> = counts.iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    counts
        .iter()
        .map(|(number, count)| format!("{} {count}", name(**number)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// SVM exit codes that guests here cause (AMD64 Architecture Programmer's Manual 2, appendix C).
fn reason(code: u32) -> Option<String> {
    Some(match code {
        0x00..=0x0f => format!("CR{code} read"),
        0x10..=0x1f => format!("CR{} write", code - 0x10),
        0x40..=0x5f => format!("exception {}", code - 0x40),
        0x60 => "interrupt".into(),
        0x61 => "NMI".into(),
        0x64 => "interrupt window".into(),
        0x6e => "RDTSC".into(),
        0x72 => "CPUID".into(),
        0x78 => "HLT".into(),
        0x7b => "port".into(),
        0x7c => "MSR".into(),
        0x81 => "VMMCALL".into(),
        0x400 => "nested page fault".into(),
        _ => return None,
    })
}

/// Hypercalls that guests here make (`public/xen.h`).
fn hypercall(number: u32) -> Option<&'static str> {
    Some(match number {
        12 => "memory_op",
        17 => "xen_version",
        18 => "console_io",
        20 => "grant_table_op",
        21 => "vm_assist",
        24 => "vcpu_op",
        29 => "sched_op",
        32 => "event_channel_op",
        33 => "physdev_op",
        34 => "hvm_op",
        _ => return None,
    })
}

/// The greatest cost of the large pack until the first answer, in percent of the small pack's.
const GROWN: u64 = 110;

/// Compares the cost of the large pack with that of the small one.
///
/// # Errors
/// A missing figure.
pub(crate) fn grown(small: &Figures, large: &Figures) -> Result<String> {
    let ready = |figures: &Figures| {
        let all = figures.by_name(Spread::median);
        all.get(READY)
            .copied()
            .context("no time to the first answer")
    };
    let hundredths = ready(large)? * 100 / ready(small)?.max(1);
    let verdict = if hundredths <= GROWN { "pass" } else { "MISS" };
    Ok(format!(
        "{READY}: with 1,000,000 names {}.{:02} times that with 1,000, at most {}.{:02}  {verdict}",
        hundredths / 100,
        hundredths % 100,
        GROWN / 100,
        GROWN % 100
    ))
}

/// The figures of several subjects by name, one of each spread. Those of guests by `xl` have no prefix with the
/// maker's name.
pub(crate) fn by_name(all: &[Figures], one: fn(&Spread) -> u64) -> BTreeMap<String, u64> {
    let named = |figures: &Figures| {
        let by = match figures.subject.by {
            By::Xl => String::new(),
            By::XlBridge => "xl, vif-bridge: ".into(),
            By::Hatch => "hatch: ".into(),
            By::Pool => "pool: ".into(),
        };
        let figures = figures.by_name(one).into_iter();
        figures.map(move |(name, figure)| (format!("{by}{name}"), figure))
    };
    all.iter()
        .filter(|figures| figures.subject.kind == Kind::Mayfly)
        .flat_map(named)
        .collect()
}

/// Compares mayfly's counted figures with the targets. Returns one line for each target.
///
/// # Errors
/// A figure that a target needs is missing.
pub(crate) fn targets(all: &[Figures]) -> Result<String> {
    let mut out = String::new();
    for (by, limits) in TARGETS {
        let subject = Subject {
            kind: Kind::Mayfly,
            by,
        };
        let Some(figures) = all.iter().find(|f| f.subject == subject) else {
            continue;
        };
        let seen = figures.by_name(Spread::median);
        let label = subject.label();
        writeln!(out, "{label:52}{:>12}{:>12}", "seen", "at most")?;
        for (name, limit) in limits {
            let seen = *seen
                .get(*name)
                .with_context(|| format!("no figure for {name:?}"))?;
            let verdict = if seen <= *limit { "pass" } else { "MISS" };
            writeln!(out, "{name:52}{seen:12}{limit:12}  {verdict}")?;
        }
    }
    Ok(out)
}

/// Compares mayfly's timed figures with the targets: how much faster than `xl`. Returns one line for each target.
pub(crate) fn ratios(all: &[Figures]) -> Result<String> {
    let of = |by| {
        let subject = Subject {
            kind: Kind::Mayfly,
            by,
        };
        all.iter().find(|f| f.subject == subject)
    };
    let mut out = String::new();
    for (by, name, least) in RATIOS {
        let span = |by| of(by).and_then(|f| f.span(name)).map(|s| s.median);
        if let (Some(xl), Some(other)) = (span(By::Xl), span(by)) {
            let tenths = xl * 10 / other.max(1);
            let verdict = if tenths >= least * 10 { "pass" } else { "MISS" };
            let label = Subject {
                kind: Kind::Mayfly,
                by,
            }
            .label();
            let (whole, tenth) = (tenths / 10, tenths % 10);
            writeln!(
                out,
                "{label}: {name}: xl takes {whole}.{tenth} times as long, at least {least}  {verdict}"
            )?;
        }
    }
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests;

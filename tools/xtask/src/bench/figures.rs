//! From births to figures: what is dropped, what is a median, what a target asks.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use mayfly_stamp::{Birth, Counts, Report};
use serde_json::Value;

use super::job::Kind;

/// Median, least and greatest of some samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread {
    pub(crate) median: u64,
    min: u64,
    max: u64,
}

impl Spread {
    /// `None` without samples. Of an even number the lower middle one is the median.
    fn of(samples: impl IntoIterator<Item = u64>) -> Option<Self> {
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

/// A span of a birth's life, in ticks.
type Span = fn(&Birth) -> Option<u64>;

const SPANS: [(&str, Span); 5] = [
    ("create", |b| Some(b.created - b.create)),
    ("unpause to first frame", |b| {
        Some(b.first_frame? - b.unpause)
    }),
    ("unpause to SYN-ACK", |b| Some(b.syn_ack? - b.unpause)),
    (READY, |b| Some(b.ready - b.unpause)),
    ("destroy", |b| Some(b.destroyed - b.destroy)),
];
/// For a guest that does not serve, until dom0 knows of its shutdown.
const READY: &str = "unpause to first HTTP byte";

/// The most that mayfly may cost: figure, limit.
const TARGETS: [(&str, u64); 6] = [
    (READY, 4_300_000),
    (INSTRUCTIONS, 150_000),
    (HYPERCALLS, 25),
    (REQUESTS, 10),
    (ROUND_TRIPS, 2),
    (EXITS, 100),
];
const INSTRUCTIONS: &str = "own instructions to first transmit request";
const HYPERCALLS: &str = "hypercalls to first transmit request";
const REQUESTS: &str = "xenstore requests to first packet";
const ROUND_TRIPS: &str = "xenstore round trips to first transmit request";
const EXITS: &str = "VM exits to first HTTP byte";

/// What one kind of guest costs.
pub(crate) struct Figures {
    pub(crate) kind: Kind,
    spans: Vec<(&'static str, Spread)>,
    counts: Vec<(&'static str, u64)>,
    /// Of the last traced birth.
    exits: Counts,
    /// Phase, and ns since the guest's entry.
    phases: Vec<(String, Spread)>,
}

impl Figures {
    /// Drops the first birth and takes the rest together.
    ///
    /// # Errors
    /// Fewer than two plain births, no traced one, or a timeline that is not as documented.
    pub(crate) fn new(kind: Kind, report: &Report) -> Result<Self> {
        let births = || report.births.iter().filter(|b| b.guest == kind.name());
        let plain: Vec<_> = births().filter(|b| b.traced.is_none()).skip(1).collect();
        ensure!(!plain.is_empty(), "too few births of {}", kind.name());
        let birth = births()
            .rfind(|b| b.traced.is_some())
            .with_context(|| format!("no traced birth of {}", kind.name()))?;
        let traced = birth.traced.as_ref().context("no traced birth")?;
        let spans = SPANS
            .iter()
            .filter_map(|(name, span)| {
                Some((*name, Spread::of(plain.iter().filter_map(|b| span(b)))?))
            })
            .collect();
        let mut counts = vec![(EXITS, traced.to_ready.exits)];
        // A guest that counts itself counts to the instant; dom0 sees the frame some requests later.
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
            kind,
            spans,
            counts,
            exits: traced.to_ready.clone(),
            phases: phases(&timelines)?,
        })
    }

    /// The figures by name: medians in ticks, and counts.
    pub(crate) fn by_name(&self) -> BTreeMap<String, u64> {
        let spans = self
            .spans
            .iter()
            .map(|(name, spread)| (*name, spread.median));
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

/// Everything that was measured, as text. `counted` says whether ticks are instructions.
pub(crate) fn table(all: &[Figures], tsc_hz: u64, counted: bool) -> Result<String> {
    let mut out = String::new();
    let ms =
        |ticks: u64| f64::from(u32::try_from(ticks / 10).unwrap_or(u32::MAX)) * 1e4 / hz(tsc_hz);
    let unit = if counted {
        "virtual ms, a million instructions each"
    } else {
        "ms in the lab"
    };
    writeln!(
        out,
        "median (least to greatest), {unit}; the first birth of each guest is dropped"
    )?;
    row(&mut out, "", all.iter().map(|f| f.kind.name().to_owned()))?;
    for (name, _) in SPANS {
        let spread = |f: &Figures| f.spans.iter().find(|(n, _)| *n == name).map(|(_, s)| *s);
        let cells = all.iter().map(|f| match spread(f) {
            Some(s) => format!("{:.3} ({:.3} to {:.3})", ms(s.median), ms(s.min), ms(s.max)),
            None => "-".into(),
        });
        row(&mut out, name, cells)?;
        let floor = all.iter().find(|f| f.kind == Kind::Null).and_then(spread);
        if let (false, Some(floor)) = (counted, floor) {
            let cells = all.iter().map(|f| match spread(f) {
                Some(s) => format!("{:.2}", ms(s.median) / ms(floor.median)),
                None => "-".into(),
            });
            row(&mut out, "  times the null guest's", cells)?;
        }
    }
    writeln!(
        out,
        "(the null guest serves nothing: until dom0 knows that it has shut down)\n"
    )?;
    // Timed, the guest's ticks are time.
    let instructions = counted.then_some(INSTRUCTIONS);
    for name in [EXITS, REQUESTS, HYPERCALLS, ROUND_TRIPS]
        .into_iter()
        .chain(instructions)
    {
        let count = |f: &Figures| {
            f.counts
                .iter()
                .find(|(n, _)| *n == name)
                .map_or("-".into(), |(_, c)| c.to_string())
        };
        row(&mut out, name, all.iter().map(count))?;
    }
    for figures in all {
        let reasons = list(&figures.exits.reasons, |code| {
            reason(code).unwrap_or_else(|| format!("{code:#x}"))
        });
        let hypercalls = list(&figures.exits.hypercalls, |n| {
            hypercall(n).map_or_else(|| n.to_string(), Into::into)
        });
        writeln!(
            out,
            "\n{} until ready: VM exits: {reasons}",
            figures.kind.name()
        )?;
        writeln!(out, "  hypercalls: {hypercalls}")?;
    }
    for figures in all.iter().filter(|f| !f.phases.is_empty()) {
        writeln!(
            out,
            "\nwhere {}'s time goes, us since its entry",
            figures.kind.name()
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
    Ok(out)
}

fn hz(tsc_hz: u64) -> f64 {
    f64::from(u32::try_from(tsc_hz / 1000).unwrap_or(u32::MAX)) * 1e3
}

fn row(out: &mut String, name: &str, cells: impl Iterator<Item = String>) -> Result<()> {
    let cells: String = cells.map(|cell| format!("{cell:>34}")).collect();
    Ok(writeln!(out, "{name:46}{cells}")?)
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

/// The most that the large pack may cost until the first answer, in hundredths of what the small one does.
const GROWN: u64 = 110;

/// What the large pack costs beside the small one.
///
/// # Errors
/// A missing figure.
pub(crate) fn grown(small: &Figures, large: &Figures) -> Result<String> {
    let ready = |figures: &Figures| {
        let all = figures.by_name();
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

/// Each target with what was seen.
///
/// # Errors
/// A figure that a target needs is missing.
pub(crate) fn targets(mayfly: &Figures) -> Result<String> {
    let figures = mayfly.by_name();
    let mut out = String::new();
    writeln!(out, "{:52}{:>12}{:>12}", "mayfly", "seen", "at most")?;
    for (name, limit) in TARGETS {
        let seen = *figures
            .get(name)
            .with_context(|| format!("no figure for {name:?}"))?;
        let verdict = if seen <= limit { "pass" } else { "MISS" };
        writeln!(out, "{name:52}{seen:12}{limit:12}  {verdict}")?;
    }
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use mayfly_stamp::Traced;
    use serde_json::json;

    use super::*;

    fn birth(scale: u64, traced: bool) -> Birth {
        let counts = |exits, ticks| Counts {
            exits,
            reasons: [(0x81, exits)].into(),
            hypercalls: [(32, exits)].into(),
            guest_ticks: ticks,
        };
        Birth {
            guest: "mayfly".into(),
            create: 0,
            created: 60 * scale,
            unpause: 100 * scale,
            first_frame: Some(101 * scale),
            syn_ack: Some(102 * scale),
            ready: 103 * scale,
            destroy: 200 * scale,
            destroyed: 230 * scale,
            cpu_ns: 1,
            traced: traced.then(|| Traced {
                to_first_frame: Some(counts(30, 90_000)),
                to_transmit: Some(counts(20, 80_000)),
                to_ready: counts(70, 200_000),
                xenstore_to_first_frame: Some(9),
                xenstore_to_ready: 12,
                entry: 1,
            }),
            timeline: Some(json!({
                "events": [{"phase": "entry", "tsc": 5, "ns": 0}, {"phase": "first_tx_queued", "tsc": 9, "ns": 4 * scale}],
                "counters": {"xenstore_requests": 9, "xenstore_round_trips": 2},
            })),
        }
    }

    pub(crate) fn report() -> Report {
        let births = [9_000_000, 1_000_000, 1_010_000, 990_000].map(|scale| birth(scale, false));
        Report {
            tsc_hz: 1_000_000_000,
            births: births.into_iter().chain([birth(1_000_000, true)]).collect(),
        }
    }

    #[test]
    fn the_first_birth_is_dropped_and_the_median_taken() {
        let figures = Figures::new(Kind::Mayfly, &report()).unwrap();
        let names: BTreeMap<_, _> = figures.by_name();
        assert_eq!(names["create"], 60_000_000);
        assert_eq!(names["unpause to first HTTP byte"], 3_000_000);
        assert_eq!(names["VM exits to first HTTP byte"], 70);
        assert_eq!(names["hypercalls to first transmit request"], 20);
        let text = table(&[figures], 1_000_000_000, true).unwrap();
        assert!(text.contains("60.000 (59.400 to 60.600)"), "{text}");
        assert!(text.contains("event_channel_op 70"), "{text}");
    }

    #[test]
    fn targets_are_passed_and_missed() {
        let mut figures = Figures::new(Kind::Mayfly, &report()).unwrap();
        let text = targets(&figures).unwrap();
        assert_eq!(text.matches("pass").count(), 6, "{text}");
        figures.counts.retain(|(name, _)| *name != EXITS);
        assert!(targets(&figures).is_err());
        figures.counts.push((EXITS, 101));
        assert!(targets(&figures).unwrap().contains("MISS"));
    }

    #[test]
    fn too_few_births_are_an_error() {
        let mut report = report();
        report.births.truncate(1);
        assert!(Figures::new(Kind::Mayfly, &report).is_err());
        assert!(Figures::new(Kind::Null, &report).is_err());
    }
}

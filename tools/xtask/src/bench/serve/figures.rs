//! Turns runs into a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};

use super::Run;
use super::bed::{Peer, Server, Size};
use super::load::{Load, Sample};

/// The median, minimum and maximum of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Spread {
    pub(super) median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    /// `None` without samples. For an even number, the lower middle sample is the median.
    pub(super) fn of(samples: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut samples: Vec<_> = samples.into_iter().collect();
        samples.sort_by(f64::total_cmp);
        Some(Self {
            median: *samples.get(samples.len().checked_sub(1)? / 2)?,
            min: *samples.first()?,
            max: *samples.last()?,
        })
    }
}

/// A short description of a load.
pub(super) fn title(load: &Load) -> String {
    match load {
        Load::Dns {
            questions,
            concurrency,
            rate,
        } => {
            let zone = if questions.contains("small") {
                "1,000"
            } else {
                "1,000,000"
            };
            let rate = rate.map_or(String::new(), |rate| format!(" at {rate}/s"));
            format!("DNS, {zone} names, {concurrency} at a time{rate}")
        }
        Load::Http {
            path,
            connections,
            keep_alive,
            pause_ms,
        } => {
            let keep = if *keep_alive { "kept alive" } else { "closed" };
            let pause = pause_ms.map_or(String::new(), |ms| format!(" with pauses of {ms} ms"));
            let unit = if load.is_bulk() { ", MiB" } else { "" };
            format!("HTTP, {path}{unit}, {connections} connections {keep}{pause}")
        }
    }
}

/// Whether a load is worth a profile.
pub(super) fn is_profiled(load: &Load) -> bool {
    match load {
        Load::Dns { concurrency, .. } => *concurrency == 64,
        Load::Http {
            connections,
            keep_alive,
            ..
        } => matches!(connections, 8 | 64) && *keep_alive,
    }
}

fn samples<'a>(
    runs: &'a [Run],
    load: &'a Load,
    server: Server,
) -> impl Iterator<Item = &'a Sample> {
    runs.iter()
        .filter(move |run| run.load == *load && run.peer.server == server)
        .map(|run| &run.sample)
}

/// All measurements as text.
///
/// # Errors
/// A load without runs.
pub(super) fn table(runs: &[Run], counted: bool) -> Result<String> {
    let mut loads: Vec<&Load> = Vec::new();
    for run in runs {
        if !loads.contains(&&run.load) {
            loads.push(&run.load);
        }
    }
    let mut out = String::from(if counted {
        "answers per virtual second, in which hypervisor, dom0, client and guest share a thousand million instructions;\n\
         thousands of instructions of the guest for each answer, what Xen does for it included.\n\n"
    } else {
        "median (least to greatest) of answers per second in the lab; CPU time of the guest for each answer, as Xen counts it;\n\
         busy: part of its CPU that the guest used. A guest that is not busy waited for dom0, where the client is.\n\n"
    });
    writeln!(
        out,
        "{:58}{:>28}{:>28}{:>7}{:>22}{:>7}{:>12}{:>10}",
        "", "mayfly", "linux", "ratio", "guest us, m / l", "ratio", "busy m / l", "errors"
    )?;
    for load in &loads {
        let spread = |server, field: fn(&Sample) -> f64| {
            Spread::of(samples(runs, load, server).map(field)).context("a load without runs")
        };
        let rate = |server| spread(server, |s| s.rate);
        let cost = |server| Ok::<_, anyhow::Error>(spread(server, |s| s.guest_us)?.median);
        let busy = |server| Ok::<_, anyhow::Error>(spread(server, |s| s.guest_busy)?.median);
        let (mayfly, linux) = (rate(Server::Mayfly)?, rate(Server::Linux)?);
        let (cheap, dear) = (cost(Server::Mayfly)?, cost(Server::Linux)?);
        let errors = |server| samples(runs, load, server).map(|s| s.errors).sum::<u64>();
        writeln!(
            out,
            "{:58}{:>28}{:>28}{:>7.2}{:>22}{:>7.2}{:>12}{:>10}",
            title(load),
            text(mayfly),
            text(linux),
            mayfly.median / linux.median,
            format!("{cheap:.1} / {dear:.1}"),
            dear / cheap,
            format!("{:.2} / {:.2}", busy(Server::Mayfly)?, busy(Server::Linux)?),
            format!("{} / {}", errors(Server::Mayfly), errors(Server::Linux)),
        )?;
    }
    switched(&mut out, runs, &loads)?;
    latencies(&mut out, runs, &loads)?;
    sizes(&mut out, runs)?;
    Ok(out)
}

/// The figures of counted runs by name: answers in a virtual second, and instructions of the guest for an answer.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rates and costs are positive and small"
)]
pub(super) fn by_name(runs: &[Run]) -> BTreeMap<String, u64> {
    let figures = runs.iter().flat_map(|run| {
        let server = run.peer.server.name();
        let name = |what: &str| format!("{}: {server}, {what}", title(&run.load));
        let sample = &run.sample;
        [
            (name("answers"), sample.rate.round() as u64),
            // In a counted run, a microsecond is a thousand instructions.
            (name("instructions"), (sample.guest_us * 1e3).round() as u64),
        ]
    });
    figures.collect()
}

fn text(spread: Spread) -> String {
    // A small number of MiB needs digits after the point.
    let digits = usize::from(spread.median < 100.0) * 2;
    format!(
        "{:.digits$} ({:.digits$} to {:.digits$})",
        spread.median, spread.min, spread.max
    )
}

/// The same guest on the switch, compared with netback.
fn switched(out: &mut String, runs: &[Run], loads: &[&Load]) -> Result<()> {
    let mut is_first = true;
    for load in loads {
        let spread =
            |server, field: fn(&Sample) -> f64| Spread::of(samples(runs, load, server).map(field));
        let Some(switched) = spread(Server::Switched, |s| s.rate) else {
            continue;
        };
        if std::mem::take(&mut is_first) {
            writeln!(
                out,
                "\n{:58}{:>28}{:>18}{:>18}{:>12}{:>10}",
                "mayfly on hatch switch",
                "answers",
                "times netback",
                "times linux",
                "guest us",
                "errors"
            )?;
        }
        let cost = spread(Server::Switched, |s| s.guest_us).context("a load without runs")?;
        let times = |server| {
            let other = spread(server, |s| s.rate);
            other.map_or(f64::NAN, |other| switched.median / other.median)
        };
        let errors = samples(runs, load, Server::Switched).map(|s| s.errors);
        writeln!(
            out,
            "{:58}{:>28}{:>18.2}{:>18.2}{:>12.1}{:>10}",
            title(load),
            text(switched),
            times(Server::Mayfly),
            times(Server::Linux),
            cost.median,
            errors.sum::<u64>()
        )?;
    }
    Ok(())
}

fn latencies(out: &mut String, runs: &[Run], loads: &[&Load]) -> Result<()> {
    let paced = |load: &&&Load| {
        matches!(
            load,
            Load::Dns { rate: Some(_), .. }
                | Load::Http {
                    pause_ms: Some(_),
                    ..
                }
        )
    };
    if !loads.iter().any(|load| paced(&load)) {
        return Ok(());
    }
    writeln!(
        out,
        "\n{:58}{:>22}{:>22}{:>22}",
        "time to an answer at half the slowest one's rate, ms",
        "mayfly p50 / p99",
        "linux p50 / p99",
        "on the switch"
    )?;
    for load in loads.iter().filter(paced) {
        let of = |server, field: fn(&Sample) -> Option<f64>| {
            let spread = Spread::of(samples(runs, load, server).filter_map(field));
            spread.map_or("-".into(), |spread| format!("{:.2}", spread.median))
        };
        let both = |server| {
            format!(
                "{} / {}",
                of(server, |s| s.p50_ms),
                of(server, |s| s.p99_ms)
            )
        };
        writeln!(
            out,
            "{:58}{:>22}{:>22}{:>22}",
            title(load),
            both(Server::Mayfly),
            both(Server::Linux),
            both(Server::Switched)
        )?;
    }
    Ok(())
}

/// Compares the cost of the large zone with that of the small one.
fn sizes(out: &mut String, runs: &[Run]) -> Result<()> {
    let of = |server, size, field: fn(&Sample) -> f64| {
        let peer = Peer { server, size };
        let full = |run: &&Run| {
            run.peer == peer
                && matches!(
                    run.load,
                    Load::Dns {
                        concurrency: 64,
                        rate: None,
                        ..
                    }
                )
        };
        Spread::of(runs.iter().filter(full).map(|run| field(&run.sample)))
    };
    for (server, name) in [(Server::Mayfly, "mayfly"), (Server::Linux, "linux")] {
        for (what, field) in [
            ("rate", (|s| s.rate) as fn(&Sample) -> f64),
            ("guest CPU time of an answer", |s| s.guest_us),
        ] {
            if let (Some(small), Some(large)) = (
                of(server, Size::Small, field),
                of(server, Size::Large, field),
            ) {
                writeln!(
                    out,
                    "{name}: {what} with 1,000,000 names is {:.3} times that with 1,000",
                    large.median / small.median
                )?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_make_a_table() {
        let load = Load::Dns {
            questions: Size::Small.questions(),
            concurrency: 64,
            rate: None,
        };
        let run = |server, rate| Run {
            peer: Peer {
                server,
                size: Size::Small,
            },
            load: load.clone(),
            round: 0,
            sample: Sample {
                rate,
                answers: 10,
                guest_us: 1e6 / rate,
                ..Sample::default()
            },
        };
        let mut runs: Vec<Run> = [3000.0, 3300.0, 2700.0]
            .map(|rate| run(Server::Mayfly, rate))
            .into();
        assert!(table(&runs, false).is_err());
        runs.push(run(Server::Linux, 1000.0));
        let text = table(&runs, false).unwrap();
        assert!(text.contains("3000 (2700 to 3300)"), "{text}");
        assert!(text.contains("3.00"), "{text}");
        assert!(!text.contains("switch"), "{text}");
        runs.push(run(Server::Switched, 4500.0));
        let text = table(&runs, false).unwrap();
        let line = text.lines().last().unwrap();
        assert!(line.contains("4500 (4500 to 4500)"), "{text}");
        assert!(line.contains("1.50") && line.contains("4.50"), "{text}");
    }
}

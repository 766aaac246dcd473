//! `cargo xtask bench density`: the cost of one more guest when there are many, and xenstored's part of it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use mayfly_stamp::Maker;
use mayfly_stamp::density::{Job, Outcome, Storm, StormOutcome, outcomes};

use super::figures::{Spread, ms};
use super::job::{self, Dom0, Kind, STAMP};
use crate::lab::Xenstored;
use crate::progress::Progress;

const JOB: &str = "/bench/density.json";
/// The numbers of first and of last guests that are compared.
const END: usize = 20;
/// The greatest cost of the last guests, as a multiple of the first ones'.
const GROWTH: f64 = 1.2;
/// The same on the switch.
const GROWTH_ON_SWITCH: f64 = 1.1;
/// The greatest counted times of a resident process with guests of 4 MiB on the switch, in ms.
const ON_SWITCH: [(&str, f64); 2] = [("create", 0.9), ("destroy", 1.0)];
/// The greatest 99th percentile of the time to a page beside a storm, as a multiple of that without it.
const BESIDE_STORM: f64 = 2.0;
/// The memory of Xen and dom0, and what Xen needs for a guest beside its own memory, in MiB.
const HOST: u32 = 2048;
const OVERHEAD: u32 = 3;
/// ns in a second.
const SECOND: u64 = 1_000_000_000;

#[derive(Args)]
pub(crate) struct Density {
    /// Count instructions on a deterministic machine instead of timing
    #[arg(long)]
    counted: bool,
    /// Guests made by hatch
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=200))]
    hatch: u32,
    /// Guests made by a resident process on `hatch switch`
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1000))]
    switch: u32,
    /// Guests made by xl, with the smallest hotplug script
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=200))]
    xl: u32,
    /// dom0's xenstored
    #[arg(long, value_enum, default_value_t)]
    xenstored: Xenstored,
    /// MiB of each guest
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=8))]
    memory: u32,
    /// Births and deaths in a second, beside the guests on the switch, which are asked for their pages meanwhile
    #[arg(long, requires = "seconds", value_parser = clap::value_parser!(u32).range(1..=1000))]
    storm: Option<u32>,
    /// The length of the storm
    #[arg(long, requires = "storm", value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: Option<u32>,
    /// CPUs of the machine [default: 1 counted, 2 timed]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=4))]
    cpus: Option<u32>,
    /// Write the time of every guest as JSON, in ns
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub(crate) fn run(density: &Density) -> Result<()> {
    let progress = Progress::new();
    let step = |text: &str| progress.step(text);
    let mut files = Kind::Mayfly.files(&step)?;
    files.push(job::hatch("hatch", &step)?);
    files.push(job::hatch("hatch-switch", &step)?);
    files.push(job::measuring(&step)?);
    let job = Job {
        config: "/bench/mayfly.cfg".into(),
        memory: density.memory,
        dom0: Ipv4Addr::new(10, 1, 0, 1),
        prefix: 16,
        counts: [
            (Maker::Xl, density.xl),
            (Maker::Hatch, density.hatch),
            (Maker::Switch, density.switch),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect(),
        storm: density
            .storm
            .zip(density.seconds)
            .map(|(per_second, seconds)| Storm {
                per_second,
                seconds,
            }),
        bound_s: 1800,
    };
    files.push(job::placed(JOB, serde_json::to_vec(&job)?));
    let command = [STAMP, "density", JOB];
    let usual = Dom0::usual(density.counted, density.xenstored.into());
    let most = density.hatch.max(density.switch).max(density.xl);
    let dom0 = Dom0 {
        cpus: density.cpus.unwrap_or(usual.cpus),
        memory: usual.memory.max(HOST + most * (density.memory + OVERHEAD)),
        ..usual
    };
    let outcomes = job::measure("density", dom0, files, &command, outcomes, &step)?;
    progress.finish();
    if let Some(path) = &density.json {
        fs::write(path, serde_json::to_vec_pretty(&outcomes)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    for outcome in &outcomes {
        tell(outcome, density.counted);
    }
    Ok(())
}

/// Prints the figures of one maker's guests.
fn tell(outcome: &Outcome, is_counted: bool) {
    let unit = if is_counted { "virtual" } else { "lab" };
    let count = outcome.create.len();
    let name = match outcome.maker {
        Maker::Xl => "xl",
        Maker::Hatch | Maker::Pool => "hatch",
        Maker::Switch => "a resident process on the switch",
    };
    println!(
        "{count} guests by {name}, all of them served: {} MiB of memory in all",
        outcome.memory
    );
    for (what, all) in [
        ("create", &outcome.create),
        ("introduce", &outcome.introduce),
        ("its page", &outcome.serve),
        ("destroy", &outcome.destroy),
    ] {
        if all.is_empty() {
            continue;
        }
        let first = median(all.iter().take(END));
        let last = median(all.iter().rev().take(END));
        println!(
            "  {what:9} {first:9.3} {unit} ms for the first {END}, {last:9.3} for the last: {:.2} times",
            last / first
        );
        let growth = match (what, outcome.maker) {
            ("create", Maker::Hatch) => GROWTH,
            ("create", Maker::Switch) => GROWTH_ON_SWITCH,
            _ => f64::INFINITY,
        };
        if last > growth * first {
            println!("  MISSED: the target is at most {growth} times");
        }
        let most = ON_SWITCH.iter().find(|(name, _)| *name == what);
        if let Some((_, most)) = most.filter(|_| outcome.maker == Maker::Switch && is_counted)
            && first > *most
        {
            println!("  MISSED: the target is at most {most} {unit} ms");
        }
    }
    if let (Some(first), Some(last)) = (outcome.switch.first(), outcome.switch.last()) {
        println!("  the switch has {first} KiB after the first birth, {last} KiB after the last");
    }
    if let Some(storm) = &outcome.storm {
        stormy(storm, unit);
    }
    let each = outcome.xenstored / u64::try_from(count).unwrap_or(1).max(1);
    println!(
        "  xenstored {:9.3} {unit} ms of CPU for each birth",
        ms(each, SECOND)
    );
}

/// Prints the figures of a storm.
fn stormy(storm: &StormOutcome, unit: &str) {
    let births = storm.create.len();
    println!(
        "  {births} births and deaths in {:.3} {unit} s: a birth {:.3} {unit} ms, a death {:.3}",
        ms(storm.took, SECOND) / 1e3,
        median(storm.create.iter()),
        median(storm.destroy.iter())
    );
    let [alone, beside] = [&storm.alone, &storm.beside].map(|all| {
        let mut all: Vec<f64> = all.iter().map(|ns| ms(*ns, SECOND)).collect();
        all.sort_by(f64::total_cmp);
        let percentile = |hundredths: usize| {
            let rank = (all.len() * hundredths).div_ceil(100).saturating_sub(1);
            all.get(rank).copied().unwrap_or(f64::NAN)
        };
        (percentile(50), percentile(99), percentile(100), all.len())
    });
    for (when, (half, most, longest, count)) in [("without it", alone), ("beside it", beside)] {
        println!(
            "  {count} pages of the other guests {when}: median {half:.3} {unit} ms, 99th percentile {most:.3}, longest {longest:.3}"
        );
    }
    let each =
        |ns: u64| ms(ns, SECOND) / f64::from(u32::try_from(births.max(1)).unwrap_or(u32::MAX));
    for (name, ns) in &storm.cpu {
        println!("    {name:16} {:8.3} {unit} ms of CPU for each", each(*ns));
    }
    let times = beside.1 / alone.1;
    let verdict = match times > BESIDE_STORM {
        true => "MISSED",
        false => "met",
    };
    println!(
        "  the 99th percentile is {times:.2} times; at most {BESIDE_STORM} is the target: {verdict}"
    );
}

/// The median in ms.
fn median<'a>(samples: impl Iterator<Item = &'a u64>) -> f64 {
    Spread::of(samples.copied()).map_or(f64::NAN, |spread| ms(spread.median, SECOND))
}

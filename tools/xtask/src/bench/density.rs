//! `cargo xtask bench density`: the cost of one more guest when there are many, and xenstored's part of it.

use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use mayfly_stamp::Maker;
use mayfly_stamp::density::{Job, Outcome, outcomes};

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
/// The greatest counted times of programs, in ms.
const PROGRAMS: [(&str, f64); 3] = [("create", 4.0), ("list", 3.0), ("destroy", 3.0)];
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
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=200))]
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
        first: Ipv4Addr::new(10, 0, 2, 20),
        counts: [
            (Maker::Xl, density.xl),
            (Maker::Hatch, density.hatch),
            (Maker::Switch, density.switch),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .collect(),
        bound_s: 1800,
    };
    files.push(job::placed(JOB, serde_json::to_vec(&job)?));
    let command = [STAMP, "density", JOB];
    let dom0 = Dom0 {
        counted: density.counted,
        xenstored: density.xenstored.into(),
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
        ("its page", &outcome.serve),
        ("destroy", &outcome.destroy),
    ] {
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
    for (program, took) in &outcome.programs {
        let each = median(took.iter());
        println!("  hatch {program:9} {each:9.3} {unit} ms as a program, for one guest alone");
        let most = PROGRAMS.iter().find(|(name, _)| name == program);
        if let Some((_, most)) = most.filter(|_| is_counted)
            && each > *most
        {
            println!("  MISSED: the target is at most {most} {unit} ms");
        }
    }
    let each = outcome.xenstored / u64::try_from(count).unwrap_or(1).max(1);
    println!(
        "  xenstored {:9.3} {unit} ms of CPU for each birth",
        ms(each, SECOND)
    );
}

/// The median in ms.
fn median<'a>(samples: impl Iterator<Item = &'a u64>) -> f64 {
    Spread::of(samples.copied()).map_or(f64::NAN, |spread| ms(spread.median, SECOND))
}

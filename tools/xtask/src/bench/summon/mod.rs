//! `cargo xtask bench summon`: the time from a client's SYN to its SYN-ACK. The kinds are a service without a guest,
//! one with a pool, with a suspended guest and with a running one, and guests that `hatch create` and `xl create` make
//! when the client comes.

mod kinds;
mod lives;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use mayfly_lab::Xenstored;
use mayfly_stamp::wakes::{By, Job, Report, Subject};
use mayfly_summon::status::BirthStep;
use mayfly_toolstack::paths::mac_text;

use self::kinds::{
    AT_LEAST, AT_MOST, COLD, FROM_POOL, KINDS, Kind, Made, ON_SWITCH, POOL_ON_SWITCH, RUNNING,
    TARGETS,
};
use self::lives::LIVES;
use super::figures::{Spread, ms, number};
use super::job::{self, BOUND_S, Dom0, STAMP};
use super::picture::{self, Bar};
use super::{snapshot, twice};
use crate::guest;
use crate::progress::Progress;

const JOB: &str = "/bench/wakes.json";
const SERVICES: &str = "/bench/summon.toml";
const MAYFLY: &str = "/bench/mayfly";
/// The number of guests made ahead.
const POOL: usize = 1;

#[derive(Args)]
pub(crate) struct Summon {
    /// Count instructions on a deterministic machine instead of timing
    #[arg(long)]
    counted: bool,
    /// Connections of each kind that count; one more is made first and dropped [default: 5 counted, 20 timed]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Measure only the kind with this name in the table; may be given again for another
    #[arg(long = "only", value_name = "NAME", value_parser = KINDS.map(|kind| kind.name))]
    only: Vec<String>,
    /// Write every connection as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the parts of one connection's time, and all connections, as SVG
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// Record the daemon's figures in tests/snapshots/summon.json, for `cargo xtask test` to compare with
    #[arg(long, conflicts_with_all = ["rounds", "only", "json", "picture"])]
    record: bool,
}

pub(crate) fn run(task: &Summon) -> Result<()> {
    let progress = Progress::new();
    let step = |text: &str| progress.step(text);
    if task.record {
        let figures = recorded(&step, Spread::median)?;
        progress.finish();
        return snapshot::write(snapshot::SUMMON, &figures);
    }
    let is_wanted =
        |kind: &Kind| task.only.is_empty() || task.only.iter().any(|name| name == kind.name);
    let plan = Plan {
        kinds: KINDS.into_iter().filter(is_wanted).collect(),
        counted: task.counted,
        rounds: task.rounds.unwrap_or(if task.counted { 5 } else { 20 }) + 1,
    };
    let report = plan.run("bench-summon", &step)?;
    progress.finish();
    if let Some(path) = &task.json {
        fs::write(path, serde_json::to_vec_pretty(&report)?)
            .with_context(|| path.display().to_string())?;
    }
    let unit = if task.counted { "virtual ms" } else { "lab ms" };
    if let Some(path) = &task.picture {
        let picture = drawn(&plan.kinds, &report, unit)?;
        fs::write(path, picture).with_context(|| path.display().to_string())?;
    }
    let spreads = spreads(&plan.kinds, &report)?;
    println!("{}", table(&spreads, report.tsc_hz, unit)?);
    if task.counted {
        println!("{}", targets(&spreads)?);
        print!("{}", lives::told(&report)?);
    } else {
        println!("{}", ratios(&spreads)?);
    }
    Ok(())
}

/// The figures to record: the daemon's, counted twice at the same time, one of each spread. The guests on netback and those on the switch
/// have a lab of their own each: every guest that runs takes part in the broadcast by which a client looks for another.
///
/// # Errors
/// The errors of the lab; runs that differ.
pub(super) fn recorded(
    report: mayfly_lab::Report<'_>,
    one: fn(&Spread) -> u64,
) -> Result<BTreeMap<String, u64>> {
    let is_daemons = |kind: &Kind| matches!(kind.made, Made::Summoned(..));
    let kinds = KINDS.into_iter().filter(is_daemons);
    let (switched, others): (Vec<_>, Vec<_>) = kinds.partition(is_on_switch);
    let mut figures = BTreeMap::new();
    for (name, kinds) in [("bench-summon", others), ("bench-switch", switched)] {
        let plan = Plan {
            kinds,
            counted: true,
            rounds: 6,
        };
        let run = twice(name, report, |name, step| plan.run(name, step))?;
        let spreads = spreads(&plan.kinds, &run)?;
        let named =
            |(name, spread): (&str, Spread)| (format!("SYN to SYN-ACK, {name}"), one(&spread));
        figures.extend(spreads.into_iter().map(named));
        let costs = lives::spreads(&run);
        let costs = costs.into_iter();
        figures.extend(costs.map(|(what, spread)| (format!("{LIVES}: {what}"), one(&spread))));
        let bytes = lives::first_bytes(&run).into_iter();
        let named = |name| format!("SYN-ACK to first HTTP byte, {name}");
        figures.extend(bytes.map(|(name, spread)| (named(name), one(&spread))));
    }
    Ok(figures)
}

fn is_on_switch(kind: &Kind) -> bool {
    kind.name.starts_with(ON_SWITCH)
}

/// The plan of a measurement.
struct Plan {
    kinds: Vec<Kind>,
    counted: bool,
    /// The number of connections of each kind. The first one is dropped later.
    rounds: u32,
}

impl Plan {
    /// Runs the plan in a lab of its own.
    fn run(&self, name: &str, report: mayfly_lab::Report<'_>) -> Result<Report> {
        report("building mayfly");
        let mayfly = guest::build(guest::MAYFLY)?;
        let mayfly = fs::read(&mayfly).with_context(|| mayfly.display().to_string())?;
        let mut files = vec![
            job::placed(MAYFLY, mayfly),
            job::hatch("hatch", report)?,
            job::hatch("hatch-summon", report)?,
            job::hatch("hatch-switch", report)?,
            job::measuring(report)?,
        ];
        // Nothing is made ahead for services that take no such guest.
        let is_pooled = |kind: &Kind| [FROM_POOL, POOL_ON_SWITCH].contains(&kind.name);
        // They differ in size or back end, and there are guests of each.
        let pooled = self.kinds.iter().filter(|kind| is_pooled(kind)).count();
        let pool = if pooled == 0 { 0 } else { POOL };
        let mut services = format!(
            "[daemon]\nlisten = []\nttl = 1\npool = {pool}\n[daemon.limits]\nbirths_per_prefix = 1000\n"
        );
        let mut subjects = Vec::new();
        for (kind, last) in self.kinds.iter().zip(80..) {
            let address = Ipv4Addr::new(10, 0, 2, last);
            let by = match kind.made {
                Made::Summoned(line, state) => {
                    services.push_str(&service(kind.name, address, line));
                    By::Summon(state)
                }
                Made::Program(make, remove) => {
                    // The name of the guest and of its file.
                    let name = format!("guest-{last}");
                    let path = format!("/bench/{name}.cfg");
                    files.push(job::placed(&path, config(&name, address)));
                    By::Programs(words(make, &path), words(remove, &name))
                }
            };
            subjects.push(Subject {
                name: kind.name.into(),
                address,
                by,
            });
        }
        let has_lives = self.counted && self.kinds.iter().any(is_on_switch);
        let lives = has_lives.then(|| {
            files.extend(lives::configs());
            lives::job()
        });
        let job = Job {
            lives,
            services: SERVICES.into(),
            switch: self.kinds.iter().any(is_on_switch).then(|| "xenbr0".into()),
            pool: POOL * pooled,
            subjects,
            rounds: self.rounds,
            bound_s: BOUND_S,
        };
        files.push(job::placed(SERVICES, services));
        files.push(job::placed(JOB, serde_json::to_vec(&job)?));
        let dom0 = Dom0::usual(self.counted, Xenstored::C);
        let command = [STAMP, "wakes", JOB];
        job::measure(name, dom0, files, &command, Report::from_console, report)
    }
}

fn words(words: &[&str], last: &str) -> Vec<String> {
    let words = words.iter().chain([&last]);
    words.map(|&word| word.to_owned()).collect()
}

/// A service of the daemon's file.
fn service(name: &str, address: Ipv4Addr, line: &str) -> String {
    let memory = match line.contains("memory") {
        true => "",
        false => "memory = 8\n",
    };
    format!(
        "[[services]]\nname = \"{name}\"\nhosts = [\"{name}.example.test\"]\nzone = \"example.test\"\nimage = \"{MAYFLY}\"\n\
         {memory}ipv4 = \"{address}/24\"\nidle = 2\n{line}\n"
    )
}

/// A configuration of the same guest for a program.
fn config(name: &str, address: Ipv4Addr) -> String {
    let [.., last] = address.octets();
    let mac = mac_text(&[0x00, 0x16, 0x3e, 0, 0, last]);
    format!(
        "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"{MAYFLY}\"\nmemory = 8\nvcpus = 1\ntsc_mode = \"native\"\nextra = \"ip={address}/24\"\n\
         vif = [ \"bridge=xenbr0,script=vif-mayfly,mac={mac}\" ]\n"
    )
}

/// The ticks of a kind's connections, without the first.
fn samples<'a>(kind: &'a Kind, report: &'a Report) -> impl Iterator<Item = u64> + 'a {
    let connections = report.connections.iter();
    let own = connections.filter(|connection| connection.subject == kind.name);
    own.map(|connection| connection.ticks).skip(1)
}

type Spreads = Vec<(&'static str, Spread)>;

fn spreads(kinds: &[Kind], report: &Report) -> Result<Spreads> {
    let spread = |kind: &Kind| {
        let spread = Spread::of(samples(kind, report));
        let missing = || format!("too few connections of {:?}", kind.name);
        Ok((kind.name, spread.with_context(missing)?))
    };
    kinds.iter().map(spread).collect()
}

/// The median of a kind, if it was measured.
fn of(spreads: &Spreads, name: &str) -> Option<u64> {
    let found = spreads.iter().find(|(known, _)| *known == name);
    found.map(|(_, spread)| spread.median)
}

/// The ratio of two kinds' medians, if both were measured.
fn ratio(spreads: &Spreads, one: &str, other: &str) -> Option<f64> {
    Some(number(of(spreads, one)?) / number(of(spreads, other)?.max(1)))
}

fn table(spreads: &Spreads, tsc_hz: u64, unit: &str) -> Result<String> {
    let mut out = format!(
        "SYN to SYN-ACK, the question for the link address included: median (least to greatest), {unit}; the first of each is dropped\n"
    );
    for (name, spread) in spreads {
        let ms = |ticks| ms(ticks, tsc_hz);
        let figures = format!(
            "{:.3} ({:.3} to {:.3})",
            ms(spread.median),
            ms(spread.min),
            ms(spread.max)
        );
        write!(out, "{name:16}{figures:>36}")?;
        if let Some(times) = ratio(spreads, name, COLD) {
            write!(out, "{times:10.3} times {COLD}")?;
        }
        writeln!(out)?;
    }
    Ok(out)
}

fn verdict(is_met: bool) -> &'static str {
    if is_met { "pass" } else { "MISS" }
}

/// Compares the counted figures with the targets. Returns one line for each target.
fn targets(spreads: &Spreads) -> Result<String> {
    let mut out = String::new();
    for (name, limit) in TARGETS {
        let Some(seen) = of(spreads, name) else {
            continue;
        };
        let verdict = verdict(seen <= limit);
        writeln!(out, "{name:16}{seen:12}, at most{limit:12}  {verdict}")?;
    }
    Ok(out)
}

/// Compares the timed figures with the targets. Returns one line for each target.
fn ratios(spreads: &Spreads) -> Result<String> {
    let mut out = String::new();
    let most = AT_MOST.map(|target| (target, "most"));
    let least = AT_LEAST.map(|target| (target, "least"));
    for ((one, limit, other), at) in most.into_iter().chain(least) {
        let Some(seen) = ratio(spreads, one, other) else {
            continue;
        };
        let is_met = if at == "most" {
            seen <= limit
        } else {
            seen >= limit
        };
        let verdict = verdict(is_met);
        writeln!(
            out,
            "{one}: {seen:.2} times {other}, at {at} {limit}  {verdict}"
        )?;
    }
    Ok(out)
}

fn is_moment(step: &BirthStep) -> bool {
    step.from_us == step.to_us
}

/// A picture of the last connection of each kind, as the daemon reports it, and of all connections.
fn drawn(kinds: &[Kind], report: &Report, unit: &str) -> Result<String> {
    let mut falls = Vec::new();
    let mut rows = Vec::new();
    for kind in kinds {
        let mut connections = report.connections.iter().rev();
        let last = connections.find(|connection| connection.subject == kind.name);
        let steps = last.map_or(&[][..], |last| &last.steps);
        // A running guest was born for an earlier client.
        let is_born = kind.name != RUNNING && !steps.is_empty();
        if is_born {
            let bar = |step: &BirthStep| Bar {
                who: if is_moment(step) { "seen" } else { "daemon" }.into(),
                what: step.what.clone(),
                // The bar of a moment begins at the SYN.
                from: if is_moment(step) {
                    0.0
                } else {
                    number(step.from_us) / 1e3
                },
                to: number(step.to_us) / 1e3,
            };
            let title = format!("what the daemon says of one: {}", kind.name);
            falls.push((title, steps.iter().map(bar).collect()));
        }
        let all = samples(kind, report).map(|ticks| ms(ticks, report.tsc_hz));
        rows.push((kind.name.to_owned(), all.collect()));
    }
    picture::draw(&falls, "SYN to SYN-ACK, each connection", &rows, unit)
}

#[cfg(test)]
mod tests {
    use mayfly_stamp::wakes::Connection;

    use super::*;

    /// Connections of all kinds; the first of each is a slow one.
    fn report() -> Report {
        let step = |what: &str, from_us, to_us| BirthStep {
            what: what.into(),
            from_us,
            to_us,
        };
        let ticks = [
            12_000_000u64,
            1_300_000,
            1_200_000,
            190_000,
            390_000,
            240_000,
            1_900_000,
            600_000,
            400_000,
            10_000_000,
            90_000_000,
        ];
        let of = |scale: u64| {
            let kinds = KINDS.into_iter().zip(ticks);
            kinds.map(move |(kind, ticks)| Connection {
                subject: kind.name.into(),
                ticks: ticks * scale,
                first_byte: ticks * scale + 100_000,
                steps: match kind.made {
                    Made::Summoned(..) => vec![step("SYN", 0, 0), step("memory", 5, 10)],
                    Made::Program(..) => Vec::new(),
                },
            })
        };
        Report {
            tsc_hz: 1_000_000_000,
            costs: Vec::new(),
            connections: of(9).chain(of(1)).collect(),
        }
    }

    #[test]
    fn targets_are_met_and_missed() {
        let mut report = report();
        let spreads = |report: &Report| super::spreads(&KINDS, report).unwrap();
        let text = table(&spreads(&report), report.tsc_hz, "ms").unwrap();
        assert!(text.contains("12.000 (12.000 to 12.000)"), "{text}");
        let text = targets(&spreads(&report)).unwrap();
        assert_eq!(
            (text.matches("pass").count(), text.matches("MISS").count()),
            (6, 1),
            "{text}"
        );
        let text = ratios(&spreads(&report)).unwrap();
        assert!(
            text.contains("cold: 1.20 times hatch create, at most 1.3  pass"),
            "{text}"
        );
        assert!(
            text.contains("xl create: 7.50 times cold, at least 8  MISS"),
            "{text}"
        );
        let few = super::spreads(&KINDS[..1], &report).unwrap();
        assert_eq!(targets(&few).unwrap().lines().count(), 1);
        assert_eq!(ratios(&few).unwrap(), "");
        report.connections.truncate(KINDS.len());
        assert!(super::spreads(&KINDS, &report).is_err());
    }

    #[test]
    fn every_kind_is_drawn() {
        let svg = drawn(&KINDS, &report(), "ms").unwrap();
        assert_eq!(svg.matches("<circle").count(), KINDS.len(), "{svg}");
        assert!(
            svg.contains("daemon: memory") && svg.contains("seen: SYN"),
            "{svg}"
        );
    }
}

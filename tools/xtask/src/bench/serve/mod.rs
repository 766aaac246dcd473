//! `cargo xtask bench serve`: the speed of the guest, compared with Linux with NSD and nginx.
//!
//! All guests run in one boot of the lab, with the same content, memory and CPU, and take turns. dnsperf and wrk run in
//! dom0, which has its own CPU. On an emulated machine dom0's share of the work (netback, the bridge and the client
//! itself) is large. So the tables have, besides the rates, the cost of each answer for the guest: its CPU time, as Xen
//! counts it.

mod bed;
mod counted;
mod figures;
mod guests;
mod load;
mod profile;
pub(super) mod site;

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use mayfly_lab::Report;
use serde::Serialize;

use self::bed::{Bed, Files, Peer, Server, Size};
use self::load::{BULK, Load, Sample};
use super::snapshot;
use crate::progress::Progress;

/// The number of pending queries or connections in a latency run.
const LATENCY_CONCURRENCY: u32 = 16;
/// The number of attempts of a run, each in a new lab, when dom0 stalls.
const ATTEMPTS: u32 = 3;
/// The length of a profile, in seconds.
const PROFILE: u32 = 10;

#[derive(Args)]
pub(crate) struct Serve {
    /// Seconds of each run [default: 4, quick 2]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: Option<u32>,
    /// Runs of each load against each guest [default: 3, quick 1]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: Option<u32>,
    /// Fewer loads, shorter
    #[arg(long)]
    quick: bool,
    /// Count instructions on a deterministic machine with one CPU instead of timing: each load of `--quick` once
    #[arg(long, conflicts_with_all = ["seconds", "rounds", "profile"])]
    counted: bool,
    /// Instead, have a Linux guest ask mayfly, and have one flood beside mayfly: all on netback, and then on the switch
    #[arg(long, requires = "counted", conflicts_with_all = ["only", "record", "json"])]
    guests: bool,
    /// Only this protocol
    #[arg(long, value_enum)]
    only: Option<Protocol>,
    /// Leave out the zone of a million names
    #[arg(long)]
    small: bool,
    /// Also sample the function in which mayfly executes, a thousand times a second
    #[arg(long)]
    profile: bool,
    /// Write every run as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Record the counted figures in tests/snapshots/serve.json, for the documents
    #[arg(long, requires = "counted", conflicts_with_all = ["only", "small"])]
    record: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Protocol {
    /// Queries with dnsperf
    Dns,
    /// Requests with wrk
    Http,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
struct Run {
    peer: Peer,
    load: Load,
    /// Counts from 0.
    round: u32,
    sample: Sample,
}

impl Serve {
    fn wants(&self, protocol: Protocol) -> bool {
        self.only.is_none_or(|only| only == protocol)
    }

    fn sizes(&self) -> &'static [Size] {
        if self.wants(Protocol::Dns) && !self.small {
            &[Size::Small, Size::Large]
        } else {
            &[Size::Small]
        }
    }

    fn is_short(&self) -> bool {
        self.quick || self.counted
    }

    /// The loads, each with its site.
    fn loads(&self) -> Vec<(Size, Load)> {
        let mut loads = Vec::new();
        let concurrency: &[u32] = if self.is_short() {
            &[64]
        } else {
            &[1, 64, 1000]
        };
        if self.wants(Protocol::Dns) {
            for &size in self.sizes() {
                loads.extend(concurrency.iter().map(|&concurrency| {
                    let questions = size.questions();
                    let rate = None;
                    (
                        size,
                        Load::Dns {
                            questions,
                            concurrency,
                            rate,
                        },
                    )
                }));
            }
        }
        if self.wants(Protocol::Http) {
            for file in site::FILES {
                for keep_alive in [true, false] {
                    // Many connections of 10 MiB each would outlast any run.
                    let few: &[u32] = if self.is_short() { &[8] } else { &[1, 8] };
                    let concurrency = if file.name == BULK { few } else { concurrency };
                    loads.extend(concurrency.iter().map(|&connections| {
                        let (path, pause_ms) = (file.name, None);
                        let load = Load::Http {
                            path,
                            connections,
                            keep_alive,
                            pause_ms,
                        };
                        (Size::Small, load)
                    }));
                }
            }
        }
        loads
    }
}

/// Runs loads, and starts a new lab when one stalls.
struct Bench<'a> {
    files: Files,
    peers: Vec<Peer>,
    /// The current lab; `None` only while another one is started.
    bed: Option<Bed>,
    runs: Vec<Run>,
    seconds: u32,
    rounds: u32,
    report: Report<'a>,
}

impl Bench<'_> {
    fn again<T>(&mut self, what: &str, run: impl Fn(&Bed) -> Result<T>) -> Result<T> {
        for attempt in 1.. {
            let bed = self.bed.as_ref().context("no lab")?;
            match run(bed) {
                Ok(done) => return Ok(done),
                Err(e) if attempt == ATTEMPTS => return Err(e).with_context(|| what.to_owned()),
                Err(e) => {
                    eprintln!("{what}: {e:#}; once more in a new lab");
                    self.bed = None;
                    self.bed = Some(Bed::up(&self.files, &self.peers, self.report)?);
                }
            }
        }
        unreachable!("the last attempt returns")
    }

    /// Runs a load against the servers of a site in turn. Returns the median rates.
    fn load(&mut self, size: Size, load: impl Fn(Server) -> Load) -> Result<Vec<f64>> {
        let servers = Server::of(size);
        for round in 0..self.rounds {
            let mut turn = servers.to_vec();
            // Alternate the order of the servers.
            if round % 2 == 1 {
                turn.reverse();
            }
            for server in turn {
                let (peer, load) = (Peer { server, size }, load(server));
                let what = figures::title(&load);
                (self.report)(&format!(
                    "{}: {what}, run {} of {}",
                    peer.name(),
                    round + 1,
                    self.rounds
                ));
                let seconds = self.seconds;
                let sample = self.again(&what, |bed| bed.run(peer, &load, seconds))?;
                self.runs.push(Run {
                    peer,
                    load,
                    round,
                    sample,
                });
            }
        }
        let median = |&server: &Server| {
            let load = load(server);
            let peer = Peer { server, size };
            let runs = self
                .runs
                .iter()
                .filter(|r| r.peer == peer && r.load == load);
            figures::Spread::of(runs.map(|r| r.sample.rate)).map_or(0.0, |s| s.median)
        };
        Ok(servers.iter().map(median).collect())
    }
}

pub(crate) fn run(serve: &Serve) -> Result<()> {
    let progress = Progress::new();
    let report = |text: &str| progress.step(text);
    if serve.guests {
        let table = guests::run(guests::loads(), &report)?;
        progress.finish();
        print!("{table}");
        return Ok(());
    }
    let sizes = serve.sizes();
    let peers: Vec<Peer> = sizes
        .iter()
        .flat_map(|&size| {
            let servers = Server::of(size).iter();
            servers.map(move |&server| Peer { server, size })
        })
        .collect();
    let cpus = if serve.counted { 1 } else { 2 };
    let files = Files::make(sizes, cpus, &report)?;
    if serve.counted {
        let runs = counted::run(files, &peers, &serve.loads(), &report)?;
        progress.finish();
        write(serve, &runs)?;
        print!("{}", figures::table(&runs, true)?);
        if serve.record {
            snapshot::write(snapshot::SERVE, &figures::by_name(&runs))?;
        }
        return Ok(());
    }
    let bed = Some(Bed::up(&files, &peers, &report)?);
    let mut bench = Bench {
        files,
        peers,
        bed,
        runs: Vec::new(),
        seconds: serve.seconds.unwrap_or(if serve.quick { 2 } else { 4 }),
        rounds: serve.rounds.unwrap_or(if serve.quick { 1 } else { 3 }),
        report: &report,
    };
    let mut latency = Vec::new();
    for (size, load) in serve.loads() {
        let rates = bench.load(size, |_| load.clone())?;
        // Half of the slowest one's rate, so that all have the same work.
        let half = rates.into_iter().fold(f64::INFINITY, f64::min) / 2.0;
        if let Some(load) = at_half(&load, half) {
            latency.push((size, load));
        }
    }
    for (size, load) in latency {
        bench.load(size, |_| load.clone())?;
    }
    let mut profiles = Vec::new();
    if serve.profile {
        for (size, load) in serve.loads() {
            if figures::is_profiled(&load) {
                let peer = Peer {
                    server: Server::Mayfly,
                    size,
                };
                report(&format!("profile: {}", figures::title(&load)));
                let samples = bench.again("profile", |bed| bed.profile(peer, &load, PROFILE))?;
                profiles.push((figures::title(&load), samples));
            }
        }
    }
    let Bench { runs, bed, .. } = bench;
    bed.context("no lab")?.down()?;
    progress.finish();
    write(serve, &runs)?;
    print!("{}", figures::table(&runs, false)?);
    for (title, samples) in profiles {
        print!("\n{}", profile::table(&title, &samples)?);
    }
    Ok(())
}

fn write(serve: &Serve, runs: &[Run]) -> Result<()> {
    match &serve.json {
        None => Ok(()),
        Some(path) => fs::write(path, serde_json::to_vec_pretty(runs)?)
            .with_context(|| format!("cannot write {}", path.display())),
    }
}

/// The latency run of a load, at a fixed rate.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn at_half(load: &Load, rate: f64) -> Option<Load> {
    match *load {
        Load::Dns {
            questions,
            concurrency: 64,
            rate: None,
        } => Some(Load::Dns {
            questions,
            concurrency: LATENCY_CONCURRENCY,
            rate: Some((rate as u64).max(1)),
        }),
        Load::Http {
            path,
            connections: 64,
            keep_alive: true,
            pause_ms: None,
        } => Some(Load::Http {
            path,
            connections: LATENCY_CONCURRENCY,
            keep_alive: true,
            // The pause of each connection after an answer is such that all together do not exceed the rate.
            pause_ms: Some((f64::from(LATENCY_CONCURRENCY) * 1e3 / rate).ceil() as u64),
        }),
        _ => None,
    }
}

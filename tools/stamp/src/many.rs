//! Many guests at once: they are made one after the other, asked for their page while all of them run, and destroyed.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_stamp::Maker;
use mayfly_stamp::density::{Job, Outcome};
use mayfly_toolstack::paths::mac_text;
use mayfly_xen::Xen;
use serde_json::Value;

use crate::birth::HATCH;
use crate::raw_ns;
use crate::switched::{self, Resident};
use crate::sys::ticks;
use crate::wait::Bound;

/// The interval between two checks of guests that end by themselves.
const GLANCE: Duration = Duration::from_millis(10);

/// Runs the job; `report` gets the results of each maker.
pub(crate) fn run(job: &Job, report: &mut dyn FnMut(Outcome)) -> Result<()> {
    let mut xen = Xen::open()?;
    for &(maker, count) in &job.counts {
        let outcome = guests(job, maker, count, &mut xen);
        report(outcome.with_context(|| format!("{count} guests of {maker:?}"))?);
    }
    Ok(())
}

fn guests(job: &Job, maker: Maker, count: u32, xen: &mut Xen) -> Result<Outcome> {
    let bound = Bound(Duration::from_secs(job.bound_s));
    let clock = Clock::start();
    let programs = match maker {
        Maker::Switch => switched::programs(&job.config, bound)?,
        _ => Vec::new(),
    };
    let in_ns = |(name, took): (String, Vec<u64>)| {
        let took = took.into_iter().map(|ticks| clock.ns(ticks));
        (name, took.collect())
    };
    let programs = programs.into_iter().map(in_ns).collect();
    let free = xen.free_memory()?;
    let xenstored = Xenstored::find()?;
    let before = xenstored.cpu_ns()?;
    let mut resident = None;
    let (names, create) = match maker {
        Maker::Xl => by_xl(job, count, bound, &clock)?,
        Maker::Hatch => by_hatch(job, count, bound)?,
        Maker::Switch => {
            let (made, took) = Resident::make(job, addresses(job, count), bound.0)?;
            resident = Some(made);
            let create = took.into_iter().map(|ticks| clock.ns(ticks));
            (Vec::new(), create.collect())
        }
        Maker::Pool => bail!("a pool is of guests that are not there yet"),
    };
    let spent = xenstored.cpu_ns()? - before;
    let memory = free.saturating_sub(xen.free_memory()?);
    let mut serve = Vec::new();
    for address in addresses(job, count) {
        let start = ticks();
        let stream = TcpStream::connect_timeout(&SocketAddr::from((address, 80)), bound.0);
        let asked = stream.map_err(Into::into).and_then(|s| page(s, bound.0));
        asked.with_context(|| address.to_string())?;
        serve.push(clock.ns(ticks() - start));
    }
    let program = match maker {
        Maker::Xl => "xl",
        _ => HATCH,
    };
    let mut destroy = Vec::new();
    if let Some(resident) = &mut resident {
        let took = resident.destroy()?.into_iter();
        destroy.extend(took.map(|ticks| clock.ns(ticks)));
    }
    for name in &names {
        let start = ticks();
        bound.run(&[program, "destroy", name])?;
        destroy.push(clock.ns(ticks() - start));
    }
    let end = Instant::now() + bound.0;
    while xen.list()?.len() > 1 {
        ensure!(Instant::now() < end, "they do not go");
        sleep(GLANCE);
    }
    Ok(Outcome {
        maker,
        create,
        xenstored: spent,
        serve,
        destroy,
        memory,
        programs,
    })
}

/// Makes all guests with one `hatch create`.
fn by_hatch(job: &Job, count: u32, bound: Bound) -> Result<(Vec<String>, Vec<u64>)> {
    let (count, memory) = (count.to_string(), job.memory.to_string());
    let first = format!("{}/24", job.first);
    let said = bound.run(&[
        HATCH,
        "create",
        "-n",
        &count,
        "--template",
        "--json",
        "--no-pool",
        "--memory",
        &memory,
        "--ip",
        &first,
        &job.config,
    ])?;
    let made = said.lines().map(|line| {
        let made: Value = serde_json::from_str(line).context("hatch's line")?;
        let name = made["name"].as_str().context("no name")?;
        let ns = made["timeline"]["total_ns"].as_u64().context("no time")?;
        Ok((name.to_owned(), ns))
    });
    made.collect()
}

/// Makes each guest with its own `xl create`.
fn by_xl(job: &Job, count: u32, bound: Bound, clock: &Clock) -> Result<(Vec<String>, Vec<u64>)> {
    let mut made = (Vec::new(), Vec::new());
    for (number, address) in (1u32..).zip(addresses(job, count)) {
        let [.., high, low] = number.to_be_bytes();
        let name = format!("mayfly-{number}");
        let mac = mac_text(&[0x00, 0x16, 0x3e, 0x01, high, low]);
        let start = ticks();
        bound.run(&[
            "xl",
            "create",
            "-e",
            "-q",
            &job.config,
            &format!("name=\"{name}\""),
            &format!("memory={}", job.memory),
            &format!("extra=\"ip={address}/24\""),
            &format!("vif=[\"bridge=xenbr0,script=vif-mayfly,mac={mac}\"]"),
        ])?;
        made.1.push(clock.ns(ticks() - start));
        made.0.push(name);
    }
    Ok(made)
}

fn addresses(job: &Job, count: u32) -> impl Iterator<Item = Ipv4Addr> {
    let first = job.first.to_bits();
    (first..first.saturating_add(count)).map(Ipv4Addr::from_bits)
}

/// Requests a guest's page, and reads all of it. Returns the time at which its first byte was there, in ticks.
pub(crate) fn page(mut stream: TcpStream, bound: Duration) -> Result<u64> {
    stream.set_read_timeout(Some(bound))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: mayfly.test\r\nConnection: close\r\n\r\n")?;
    let mut answer = vec![0; 1 << 12];
    let length = stream.read(&mut answer)?;
    let first = ticks();
    answer.truncate(length);
    stream.take(1 << 20).read_to_end(&mut answer)?;
    ensure!(
        answer.starts_with(b"HTTP/1.1 200 "),
        "the answer is {:?}",
        String::from_utf8_lossy(answer.get(..80).unwrap_or(&answer))
    );
    Ok(first)
}

/// Converts ticks to ns. Linux' clock over a longer time gives the frequency of the counter.
struct Clock {
    hz: u128,
}

impl Clock {
    /// Reads both clocks over a while.
    fn start() -> Self {
        let (start, ns) = (ticks(), raw_ns());
        sleep(Duration::from_secs(1));
        let (ticks, ns) = (ticks() - start, raw_ns() - ns);
        Self {
            hz: u128::from(ticks) * 1_000_000_000 / ns.max(1),
        }
    }

    fn ns(&self, ticks: u64) -> u64 {
        let ns = u128::from(ticks) * 1_000_000_000 / self.hz.max(1);
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

/// The process of xenstored or oxenstored.
struct Xenstored(String);

impl Xenstored {
    fn find() -> Result<Self> {
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if matches!(name.trim(), "xenstored" | "oxenstored") {
                return Ok(Self(path.join("schedstat").display().to_string()));
            }
        }
        bail!("there is no xenstored")
    }

    /// CPU time that it has used (Documentation/scheduler/sched-stats.rst: the first number, in ns).
    fn cpu_ns(&self) -> Result<u64> {
        let text = fs::read_to_string(&self.0).with_context(|| self.0.clone())?;
        let first = text.split(' ').next().unwrap_or_default();
        first
            .parse()
            .with_context(|| format!("{} is {text:?}", self.0))
    }
}

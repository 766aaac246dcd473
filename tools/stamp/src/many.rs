//! Many guests at once: they are made one after the other, asked for their page while all of them run, and destroyed.

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_stamp::Maker;
use mayfly_stamp::density::{Job, Outcome};
use mayfly_toolstack::paths::mac_text;
use mayfly_xen::Xen;
use serde_json::Value;

use crate::birth::HATCH;
use crate::page::{Clock, addresses, asked};
use crate::storm;
use crate::switched::{self, Resident, SETTLED, Switch};
use crate::sys::ticks;
use crate::wait::Bound;

/// The interval between two checks of guests that end by themselves.
const GLANCE: Duration = Duration::from_millis(10);

/// Runs the job; `report` gets the results of each maker.
pub(crate) fn run(job: &Job, report: &mut dyn FnMut(Outcome)) -> Result<()> {
    let mut xen = Xen::open()?;
    let own = format!("{}/{}", job.dom0, job.prefix);
    let bound = Bound(Duration::from_secs(job.bound_s));
    bound.run(&["ip", "address", "add", &own, "dev", "xenbr0"])?;
    for &(maker, count) in &job.counts {
        let outcome = guests(job, maker, count, &mut xen);
        report(outcome.with_context(|| format!("{count} guests of {maker:?}"))?);
    }
    Ok(())
}

/// What the guests of one maker cost, until all of them run.
struct Made<'a> {
    /// The names of guests that a program destroys.
    names: Vec<String>,
    /// The domids of those that this process destroys.
    resident: Option<(Resident<'a>, Vec<u16>)>,
    create: Vec<u64>,
    introduce: Vec<u64>,
    switch: Vec<u64>,
}

impl Made<'_> {
    fn by_program(names: Vec<String>, create: Vec<u64>) -> Self {
        Self {
            names,
            resident: None,
            create,
            introduce: Vec::new(),
            switch: Vec::new(),
        }
    }
}

fn guests(job: &Job, maker: Maker, count: u32, xen: &mut Xen) -> Result<Outcome> {
    let bound = Bound(Duration::from_secs(job.bound_s));
    let clock = Clock::start();
    let is_on_switch = maker == Maker::Switch;
    let _switch = is_on_switch
        .then(|| Switch::start("xenbr0", bound.0))
        .transpose()?;
    let free = xen.free_memory()?;
    let xenstored = Xenstored::find()?;
    let before = xenstored.cpu_ns()?;
    let mut made = match maker {
        Maker::Xl => by_xl(job, count, bound, &clock)?,
        Maker::Hatch => by_hatch(job, count, bound)?,
        Maker::Switch => on_switch(job, count, bound, &clock)?,
        Maker::Pool => bail!("a pool is of guests that are not there yet"),
    };
    let spent = xenstored.cpu_ns()? - before;
    let memory = free.saturating_sub(xen.free_memory()?);
    let mut serve = Vec::new();
    for address in addresses(job, count) {
        serve.push(clock.ns(asked(address, bound)?));
    }
    let storm = match job.storm.filter(|_| is_on_switch) {
        Some(storm) => Some(Box::new(storm::run(job, storm, count, bound, &clock)?)),
        None => None,
    };
    let mut destroy = Vec::new();
    if let Some((resident, domains)) = &mut made.resident {
        for domid in std::mem::take(domains) {
            destroy.push(clock.ns(resident.destroy(domid)?));
            sleep(SETTLED);
        }
    }
    let program = match maker {
        Maker::Xl => "xl",
        _ => HATCH,
    };
    for name in &made.names {
        sleep(SETTLED);
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
        create: made.create,
        introduce: made.introduce,
        xenstored: spent,
        serve,
        destroy,
        memory,
        switch: made.switch,
        storm,
    })
}

/// Makes each guest in this process.
fn on_switch<'a>(job: &'a Job, count: u32, bound: Bound, clock: &Clock) -> Result<Made<'a>> {
    let mut resident = Resident::new(job, bound.0)?;
    let (mut domains, mut create) = (Vec::new(), Vec::new());
    let (mut introduce, mut switch) = (Vec::new(), Vec::new());
    for (number, address) in (1u32..).zip(addresses(job, count)) {
        let born = resident.bear(number, address)?;
        create.push(clock.ns(born.took));
        let (domid, took) = resident.introduce(born)?;
        introduce.push(clock.ns(took));
        domains.push(domid);
        switch.push(switched::memory()?);
        // xenstored and xenconsoled end what they have begun.
        sleep(SETTLED);
    }
    Ok(Made {
        names: Vec::new(),
        resident: Some((resident, domains)),
        create,
        introduce,
        switch,
    })
}

/// Makes all guests with one `hatch create`.
fn by_hatch<'a>(job: &Job, count: u32, bound: Bound) -> Result<Made<'a>> {
    let (count, memory) = (count.to_string(), job.memory.to_string());
    let first = addresses(job, 1).next().context("no address")?;
    let first = format!("{first}/{}", job.prefix);
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
    let (names, create) = made.collect::<Result<_>>()?;
    Ok(Made::by_program(names, create))
}

/// Makes each guest with its own `xl create`.
fn by_xl<'a>(job: &Job, count: u32, bound: Bound, clock: &Clock) -> Result<Made<'a>> {
    let (mut names, mut create) = (Vec::new(), Vec::new());
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
            &format!("extra=\"ip={address}/{}\"", job.prefix),
            &format!("vif=[\"bridge=xenbr0,script=vif-mayfly,mac={mac}\"]"),
        ])?;
        create.push(clock.ns(ticks() - start));
        names.push(name);
    }
    Ok(Made::by_program(names, create))
}

/// The processes of dom0's xenstored.
struct Xenstored(Vec<String>);

impl Xenstored {
    fn find() -> Result<Self> {
        let mut paths = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let path = entry?.path();
            let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
            if matches!(
                name.trim(),
                "xenstored" | "oxenstored" | "hatch-xenstored" | "store-worker"
            ) {
                paths.push(path.join("schedstat").display().to_string());
            }
        }
        ensure!(!paths.is_empty(), "there is no xenstored");
        Ok(Self(paths))
    }

    /// CPU time that they have used (Documentation/scheduler/sched-stats.rst: the first number, in ns).
    fn cpu_ns(&self) -> Result<u64> {
        let mut all = 0;
        for path in &self.0 {
            let text = fs::read_to_string(path).with_context(|| path.clone())?;
            let first = text.split(' ').next().unwrap_or_default();
            let ns: u64 = first
                .parse()
                .with_context(|| format!("{path} is {text:?}"))?;
            all += ns;
        }
        Ok(all)
    }
}

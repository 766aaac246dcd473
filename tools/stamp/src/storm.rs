//! Births and deaths at a rate, beside guests that serve.

use std::collections::BTreeMap;
use std::fs;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use mayfly_stamp::density::{Job, Storm, StormOutcome};

use crate::page::{Clock, addresses, asked};
use crate::switched::Resident;
use crate::wait::Bound;

/// The pause between two requests to guests that stay.
const PAUSE: Duration = Duration::from_millis(10);
/// The number of names of processes that are told.
const BUSIEST: usize = 10;
/// The number of addresses of the storm's guests, in turn.
const CIRCLE: u32 = 100;

/// Asks the first `count` guests for their page in turn, for as long as the storm takes without it, and then beside it.
pub(crate) fn run(
    job: &Job,
    storm: Storm,
    count: u32,
    bound: Bound,
    clock: &Clock,
) -> Result<StormOutcome> {
    let staying: Vec<Ipv4Addr> = addresses(job, count).collect();
    let coming: Vec<Ipv4Addr> = addresses(job, count + CIRCLE).skip(staying.len()).collect();
    let length = Duration::from_secs(storm.seconds.into());
    let ended = AtomicBool::new(false);
    let quiet = thread::scope(|scope| {
        let client = scope.spawn(|| latencies(&staying, &ended, bound));
        sleep(length);
        ended.store(true, Ordering::Relaxed);
        joined(client.join())
    })?;
    ended.store(false, Ordering::Relaxed);
    let before = cpu()?;
    let (beside, stormy, took) = thread::scope(|scope| {
        let client = scope.spawn(|| latencies(&staying, &ended, bound));
        let begun = Instant::now();
        let stormy = births(job, storm, &coming, bound);
        let took = begun.elapsed();
        ended.store(true, Ordering::Relaxed);
        anyhow::Ok((joined(client.join())?, stormy?, took))
    })?;
    let mut cpu: Vec<(String, u64)> = cpu()?
        .into_iter()
        .map(|(name, ns)| {
            let before = before.get(&name).copied().unwrap_or_default();
            (name, ns.saturating_sub(before))
        })
        .collect();
    cpu.sort_by_key(|(_, ns)| std::cmp::Reverse(*ns));
    cpu.truncate(BUSIEST);
    Ok(StormOutcome {
        alone: clock.all_ns(quiet),
        beside: clock.all_ns(beside),
        create: clock.all_ns(stormy.create),
        destroy: clock.all_ns(stormy.destroy),
        took: took.as_nanos().try_into()?,
        cpu,
    })
}

/// The CPU time of all processes in dom0 by their names, in ns (Documentation/scheduler/sched-stats.rst).
fn cpu() -> Result<BTreeMap<String, u64>> {
    let mut all: BTreeMap<String, u64> = BTreeMap::new();
    for process in fs::read_dir("/proc")? {
        // A process or thread may be gone by now.
        let Ok(threads) = fs::read_dir(process?.path().join("task")) else {
            continue;
        };
        for thread in threads.flatten() {
            let file = |name| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let spent = file("schedstat");
            let ns = spent.split(' ').next().and_then(|ns| ns.parse().ok());
            *all.entry(file("comm").trim().to_owned()).or_default() += ns.unwrap_or(0u64);
        }
    }
    Ok(all)
}

fn joined<T>(result: thread::Result<Result<T>>) -> Result<T> {
    result.map_err(|_| anyhow!("the client's thread panicked"))?
}

/// Asks for pages until that ends; gives the ticks that each took.
fn latencies(guests: &[Ipv4Addr], ended: &AtomicBool, bound: Bound) -> Result<Vec<u64>> {
    let mut took = Vec::new();
    for guest in guests.iter().cycle() {
        if ended.load(Ordering::Relaxed) {
            break;
        }
        took.push(asked(*guest, bound)?);
        sleep(PAUSE);
    }
    Ok(took)
}

/// The ticks of each birth and each death.
struct Stormy {
    create: Vec<u64>,
    destroy: Vec<u64>,
}

/// Makes guests at the storm's rate. Each is asked for its page, introduced to xenstored, and destroyed.
fn births(job: &Job, storm: Storm, coming: &[Ipv4Addr], bound: Bound) -> Result<Stormy> {
    let mut resident = Resident::new(job, bound.0)?;
    let interval = Duration::from_secs(1) / storm.per_second;
    let mut stormy = Stormy {
        create: Vec::new(),
        destroy: Vec::new(),
    };
    let mut due = Instant::now();
    // The numbers, and so the names and MAC addresses, are none of the other guests'. An address has one MAC address,
    // so that the client need not learn another.
    let guests = (10_000..).zip(coming).cycle();
    let count = storm.per_second * storm.seconds;
    for (number, address) in guests.take(usize::try_from(count)?) {
        sleep(due.saturating_duration_since(Instant::now()));
        due += interval;
        let born = resident.bear(number, *address)?;
        stormy.create.push(born.took);
        asked(*address, bound).with_context(|| format!("birth {number}"))?;
        let (domid, _) = resident.introduce(born)?;
        stormy.destroy.push(resident.destroy(domid)?);
    }
    Ok(stormy)
}

//! The measuring program, which runs in dom0.
//!
//! - `stamp JOB` runs the [`Job`] in that file, and prints the results.
//! - `stamp density JOB` makes many guests, as the [`density::Job`] in that file says, and prints the cost of each.
//! - `stamp cpu DOMID...` prints the CPU time that each domain has used, in ns, a line each.
//! - `stamp cost COUNT PROGRAM ...` runs a program COUNT times, and prints the ticks of each run.
//! - `stamp wakes JOB` connects to services of `hatch summon`, and to guests made for it, as the
//!   [`Job`](mayfly_stamp::wakes::Job) in that file says.
//! - `stamp profile DOMID SECONDS` samples the instruction pointer of the domain a thousand times a second, and prints
//!   each address with its number of samples; address 0 stands for a sleeping domain.
//! - `stamp guard VIF BRIDGE MAC ADDRESS` installs hatch's guard at a vif; `stamp guard VIF` prints the number of
//!   frames that it has dropped.
#![deny(unsafe_code)]

mod birth;
mod lives;
mod many;
mod page;
mod storm;
mod switched;
mod sys;
mod wait;
mod woken;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs};

use anyhow::{Context, Result};
use mayfly_links::Links;
use mayfly_stamp::{Birth, Job, Line, MARK, density};
use mayfly_summon::guard::{self, Identity};
use mayfly_xen::{DomainInfo, Xen};
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::birth::Dom0;
use crate::sys::ticks;

/// The interval between two samples of a domain.
const GLANCE: Duration = Duration::from_millis(1);

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["cpu", domains @ ..] => cpu(domains),
        ["profile", domain, seconds] => profile(domain, seconds),
        ["density", path] => many_guests(path),
        ["cost", count, program @ ..] => cost(count, program),
        ["guard", vif] => dropped(vif),
        ["guard", vif, bridge, mac, address] => guard(vif, bridge, mac, address),
        ["wakes", path] => return told(|seen| woken::run(&job(path)?, seen)),
        [path] => return told(|seen| births(&job(path)?, seen)),
        _ => Err(anyhow::anyhow!(
            "usage: stamp JOB | stamp density JOB | stamp cpu DOMID... | stamp cost COUNT PROGRAM ... | stamp wakes JOB | stamp profile DOMID SECONDS | stamp guard VIF [BRIDGE MAC ADDRESS]"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("stamp: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn cpu(domains: &[&str]) -> Result<()> {
    let mut xen = Xen::open()?;
    for domain in domains {
        println!("{}", look(&mut xen, domain.parse()?)?.cpu_ns);
    }
    Ok(())
}

/// Xen's information about a domain, which must exist.
fn look(xen: &mut Xen, domid: u16) -> Result<DomainInfo> {
    let info = xen.info(domid)?;
    info.with_context(|| format!("there is no domain {domid}"))
}

fn cost(count: &str, program: &[&str]) -> Result<()> {
    let bound = wait::Bound(Duration::from_secs(60));
    for _ in 0..count.parse()? {
        let start = ticks();
        bound.run(program)?;
        println!("{}", ticks() - start);
    }
    Ok(())
}

fn profile(domain: &str, seconds: &str) -> Result<()> {
    let domain = domain.parse()?;
    let end = Instant::now() + Duration::from_secs(seconds.parse()?);
    let mut xen = Xen::open()?;
    let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
    while Instant::now() < end {
        let address = if look(&mut xen, domain)?.is_blocked() {
            0
        } else {
            xen.instruction(domain)?
        };
        *seen.entry(address).or_default() += 1;
        sleep(GLANCE);
    }
    for (address, count) in seen {
        println!("{address:x} {count}");
    }
    Ok(())
}

fn guard(vif: &str, bridge: &str, mac: &str, address: &str) -> Result<()> {
    let bytes: Vec<u8> = mac
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<Result<_, _>>()?;
    let mut links = Links::open()?;
    let identity = Identity {
        mac: bytes.try_into().ok().context("six bytes")?,
        ipv4: Some(address.parse()?),
        ipv6: None,
        host: links.bridge(bridge)?.mac,
    };
    let vif = links.find(vif)?;
    Ok(guard::protect(&mut links, vif.index, &identity)?)
}

fn dropped(vif: &str) -> Result<()> {
    let mut links = Links::open()?;
    let vif = links.find(vif)?;
    println!("{}", guard::dropped(&mut links, vif.index)?);
    Ok(())
}

fn many_guests(path: &str) -> Result<()> {
    let mut outcomes = Vec::new();
    let result = job(path).and_then(|job| many::run(&job, &mut |outcome| outcomes.push(outcome)));
    // Printed at the end: the console is slow.
    for outcome in outcomes {
        print(&density::Line::Outcome(outcome));
    }
    match &result {
        Ok(()) => print(&density::Line::End),
        Err(e) => print(&density::Line::Failed(format!("{e:#}"))),
    }
    result
}

fn job<T: DeserializeOwned>(path: &str) -> Result<T> {
    let job = fs::read(path).with_context(|| format!("cannot read {path}"))?;
    serde_json::from_slice(&job).with_context(|| format!("{path} is no job"))
}

/// Prints the measurements, and at the end the ticks in a second or the error.
fn told<T: Serialize>(run: impl FnOnce(&mut Vec<T>) -> Result<()>) -> ExitCode {
    // Printed at the end: the console is slow, and its lines cost Xen work too.
    let mut seen = Vec::new();
    let result = in_time(|| run(&mut seen));
    for one in seen {
        print(&Line::Seen(one));
    }
    match result {
        Ok(tsc_hz) => {
            print(&Line::<T>::End(tsc_hz));
            ExitCode::SUCCESS
        }
        Err(e) => {
            print(&Line::<T>::Failed(format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}

fn print(line: &impl Serialize) {
    match serde_json::to_string(line) {
        Ok(json) => println!("{MARK}{json}"),
        Err(e) => println!("{MARK}{{\"failed\":\"{e}\"}}"),
    }
}

/// Runs something long. Returns the frequency of the time stamp counter, measured over that time.
fn in_time(run: impl FnOnce() -> Result<()>) -> Result<u64> {
    let start = (ticks(), raw_ns());
    run()?;
    let (ticks, ns) = (ticks() - start.0, raw_ns() - start.1);
    Ok(u64::try_from(
        u128::from(ticks) * 1_000_000_000 / ns.max(1),
    )?)
}

fn births(job: &Job, births: &mut Vec<Birth>) -> Result<()> {
    let mut dom0 = Dom0::new(job)?;
    for (rounds, traced) in [(job.plain, false), (job.traced, true)] {
        for round in 0..rounds {
            for guest in order(&job.guests, round) {
                births.push(dom0.birth(guest, traced)?);
            }
        }
    }
    Ok(())
}

/// The order of the guests in a round, the same in each run. No two successive rounds have the same order, because the
/// clean-up that a large guest leaves to dom0 and Xen burdens the next birth.
fn order<T>(guests: &[T], round: u32) -> Vec<&T> {
    let mut ordered: Vec<_> = guests.iter().collect();
    fastrand::Rng::with_seed(round.into()).shuffle(&mut ordered);
    ordered
}

/// `CLOCK_MONOTONIC_RAW`, in ns. Good over the whole run; over short times it may stand still under Xen.
fn raw_ns() -> u128 {
    let now = clock_gettime(ClockId::MonotonicRaw);
    u128::from(now.tv_sec.unsigned_abs()) * 1_000_000_000 + u128::from(now.tv_nsec.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::order;

    #[test]
    fn everybody_comes_after_everybody() {
        let guests: Vec<u8> = (0..9).collect();
        let mut neighbours = BTreeSet::new();
        for round in 0..100 {
            let order = order(&guests, round);
            assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), 9);
            neighbours.extend(order.windows(2).map(|pair| (*pair[0], *pair[1])));
        }
        assert_eq!(neighbours.len(), 9 * 8);
        assert!(order::<u8>(&[], 5).is_empty());
    }
}

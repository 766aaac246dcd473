//! `stamp JOB`: does what the [`Job`] in that file says, and prints what it saw.
#![deny(unsafe_code)]

mod birth;
mod sys;
mod wait;
mod xenstore;

use std::process::ExitCode;
use std::{env, fs};

use anyhow::{Context, Result};
use mayfly_stamp::{Birth, Job, Line, MARK};
use rustix::time::{ClockId, clock_gettime};

use crate::birth::Dom0;
use crate::sys::ticks;

fn main() -> ExitCode {
    // Printed at the end: the console is slow, and its lines are Xen's work too.
    let mut births = Vec::new();
    let result = run(&mut births);
    for birth in births {
        print(&Line::Birth(Box::new(birth)));
    }
    match result {
        Ok(tsc_hz) => {
            print(&Line::End(tsc_hz));
            ExitCode::SUCCESS
        }
        Err(e) => {
            print(&Line::Failed(format!("{e:#}")));
            ExitCode::FAILURE
        }
    }
}

fn print(line: &Line) {
    match serde_json::to_string(line) {
        Ok(json) => println!("{MARK}{json}"),
        Err(e) => println!("{MARK}{{\"failed\":\"{e}\"}}"),
    }
}

/// Does the job; gives the frequency of the time stamp counter, taken over all of the job's time.
fn run(births: &mut Vec<Birth>) -> Result<u64> {
    let path = env::args().nth(1).context("usage: stamp JOB")?;
    let job = fs::read(&path).with_context(|| format!("cannot read {path}"))?;
    let job: Job = serde_json::from_slice(&job).with_context(|| format!("{path} is no job"))?;
    let mut dom0 = Dom0::new(&job)?;
    let start = (ticks(), raw_ns());
    for (rounds, traced) in [(job.plain, false), (job.traced, true)] {
        for round in 0..rounds {
            for guest in order(&job.guests, round) {
                births.push(dom0.birth(guest, traced)?);
            }
        }
    }
    let (ticks, ns) = (ticks() - start.0, raw_ns() - start.1);
    Ok(u64::try_from(
        u128::from(ticks) * 1_000_000_000 / ns.max(1),
    )?)
}

/// The order of a round. All orders get their turn: what a large guest leaves for dom0 and Xen to
/// clear up falls on whoever is born next.
fn order<T>(guests: &[T], round: u32) -> Vec<&T> {
    let mut left: Vec<_> = guests.iter().collect();
    let mut ordered = Vec::with_capacity(left.len());
    let mut number = round as usize;
    while !left.is_empty() {
        let next = number % left.len();
        number /= left.len();
        ordered.push(left.remove(next));
    }
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
    fn every_order_has_its_turn() {
        assert_eq!(order(&[1, 2, 3], 0), [&1, &2, &3]);
        let orders: BTreeSet<_> = (0..6).map(|round| order(&[1, 2, 3], round)).collect();
        assert_eq!(orders.len(), 6);
        assert_eq!(order(&[1, 2, 3], 6), [&1, &2, &3]);
        assert!(order::<u8>(&[], 5).is_empty());
    }
}

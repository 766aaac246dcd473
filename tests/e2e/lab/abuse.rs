//! Load and abuse: honest clients are answered all the time, memory stays flat, and the counters tell what happened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{BRIDGE, static_program};

use crate::birth::{BOUND, Place};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    ("a flood of SYN", syn_flood),
    ("malformed frames", frames),
    ("half-sent requests", half),
    ("slow readers", readers),
    ("slow writers", writers),
];

const PROGRAM: &str = "/guest/abuse";
const MAC: &str = "00:16:3e:00:00:80";
/// Longest time that an honest client waits while others mean ill.
const PATIENCE: Duration = Duration::from_secs(10);

/// Octets that may be in use for other connections than the time before.
const SLACK: f64 = 65536.0;

/// Seconds of abuse, and connections of it: more of both when asked for.
fn scale(full: usize) -> Result<(u64, usize)> {
    let part = match std::env::var("MAYFLY_ABUSE").ok().as_deref() {
        None => 10,
        Some("full") => 1,
        Some(other) => anyhow::bail!("MAYFLY_ABUSE={other:?}: it is \"full\" or not set"),
    };
    Ok((if part == 1 { 60 } else { 10 }, full / part))
}

fn syn_flood(place: &Place) -> Result<()> {
    let (seconds, _) = scale(1)?;
    let metrics = abused(place, seconds, &["syn", MAC, BRIDGE])?;
    // Half-open connections are given up for new ones: that is where a flood shows.
    metrics.grown("mayfly_dropped_total{cause=\"tcp_half_open\"}")
}

fn frames(place: &Place) -> Result<()> {
    let (seconds, _) = scale(1)?;
    let metrics = abused(place, seconds, &["frames", MAC, BRIDGE])?;
    metrics.grown("mayfly_dropped_total{cause=\"rx_bad_checksum\"}")
}

fn half(place: &Place) -> Result<()> {
    let (seconds, count) = scale(10_000)?;
    abused(place, seconds, &["half", &count.to_string()]).map(drop)
}

fn readers(place: &Place) -> Result<()> {
    let (seconds, count) = scale(1_000)?;
    abused(place, seconds, &["readers", &count.to_string()]).map(drop)
}

fn writers(place: &Place) -> Result<()> {
    let (seconds, count) = scale(1_000)?;
    abused(place, seconds, &["writers", &count.to_string()]).map(drop)
}

/// What the guest's counters said before and after.
struct Counters {
    before: BTreeMap<String, f64>,
    after: BTreeMap<String, f64>,
}

impl Counters {
    fn grown(&self, name: &str) -> Result<()> {
        let of = |all: &BTreeMap<String, f64>| all.get(name).copied();
        let before = of(&self.before).with_context(|| format!("no {name}"))?;
        let after = of(&self.after).with_context(|| format!("no {name}"))?;
        ensure!(after > before, "{name} was {before} and is {after}");
        Ok(())
    }
}

/// Abuses a guest for some seconds, while an honest client asks by DNS and HTTP in turn and must be answered each time.
fn abused(place: &Place, seconds: u64, words: &[&str]) -> Result<Counters> {
    let program = static_program("mayfly-abuse", "mayfly-abuse")?;
    place.lab.put(PROGRAM, 0o755, &std::fs::read(program)?)?;
    let birth = place.create(
        "mayfly",
        &[
            "memory=64",
            &format!("vif=['mac={MAC},bridge={BRIDGE},script=vif-mayfly']"),
        ],
    )?;
    birth.ready()?;
    birth.answers()?;
    let (http, dns) = (place.lab.http()?, place.lab.dns()?);
    let metrics = || -> Result<BTreeMap<String, f64>> {
        let (status, text) = ask::http(http, "/.mayfly/metrics", BOUND)?;
        ensure!(status == 200, "GET /.mayfly/metrics gives {status}");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').context("no metric")?;
                Ok((name.to_owned(), value.parse()?))
            })
            .collect()
    };
    let (guest, time) = (mayfly_lab::GUEST.to_string(), seconds.to_string());
    let mut argv = vec![PROGRAM, &guest, &time];
    argv.extend(words);
    let bound = Duration::from_secs(seconds + 120);
    // Sockets get their memory when they are first used, and keep it: a first round has them all used.
    let first = place.lab.exec_with(&argv, &[], bound)?;
    ensure!(first.success(), "{}{}", first.text(), first.error_text());
    let before = metrics()?;
    let over = AtomicBool::new(false);
    let (abuse, honest) = thread::scope(|scope| {
        let honest = scope.spawn(|| -> Result<(u32, Duration)> {
            let (mut answers, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::Relaxed) {
                let start = Instant::now();
                let (status, _) = ask::http(http, "/", PATIENCE)?;
                ensure!(status == 200, "an honest client gets {status}");
                ensure!(!ask::dns(dns, "mayfly.test", Rtype::A, PATIENCE)?.is_empty());
                longest = longest.max(start.elapsed());
                answers += 1;
            }
            Ok((answers, longest))
        });
        let abuse = place.lab.exec_with(&argv, &[], bound);
        over.store(true, Ordering::Relaxed);
        (abuse, honest.join())
    });
    let abuse = abuse?;
    ensure!(abuse.success(), "{}{}", abuse.text(), abuse.error_text());
    let honest = honest.map_err(|_| anyhow::anyhow!("the honest client panicked"))?;
    let (answers, longest) = honest.with_context(|| abuse.text())?;
    ensure!(answers > 0, "the honest client had no turn");
    println!(
        "{}: {}; {answers} honest pairs of answers, the longest in {longest:?}",
        words.join(" "),
        abuse.text().trim()
    );
    // The same once more takes no more memory.
    let free = |all: &BTreeMap<String, f64>| {
        const NAME: &str = "mayfly_memory_bytes{kind=\"heap_free\"}";
        all.get(NAME).copied().with_context(|| format!("no {NAME}"))
    };
    let start = Instant::now();
    let after = loop {
        let after = metrics()?;
        let (free_before, free_after) = (free(&before)?, free(&after)?);
        if free_after >= free_before - SLACK {
            break after;
        }
        ensure!(
            start.elapsed() < BOUND,
            "{free_before} octets of the heap were free, and {free_after} are"
        );
        thread::sleep(Duration::from_secs(1));
    };
    birth.destroy()?;
    Ok(Counters { before, after })
}

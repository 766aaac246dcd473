//! Load and abuse: honest clients are always answered, memory use stays flat, and the counters show what happened.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{BRIDGE, static_program};

use crate::birth::{BOUND, Place};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    BRIEF[0],
    BRIEF[1],
    ("half-sent requests", half),
    ("slow readers", readers),
    ("slow writers", writers),
];

/// The cases of a short run.
pub(crate) const BRIEF: &[Case] = &[("a flood of SYN", syn_flood), ("malformed frames", frames)];

const PROGRAM: &str = "/guest/abuse";
const MAC: &str = "00:16:3e:00:00:80";
/// The longest time that an honest client may wait during an attack.
const PATIENCE: Duration = Duration::from_secs(10);

/// The least number of bytes of RAM of a connection's slot: its two buffers, in a guest of 64 MiB.
const SLOT_RAM: f64 = (4096 + 32768) as f64;
/// The greatest number of bytes of heap of a connection's slot.
const SLOT_HEAP: f64 = 1024.0;
/// The number of slots that the second round may need beyond the first, because the honest client's connections come at
/// random times.
const SLOTS: f64 = 8.0;

/// An upper bound of the connections of a guest of 64 MiB.
const SLOTS_MAX: usize = 800;
const EVICTED: &str = "mayfly_dropped_total{cause=\"tcp_evicted\"}";

/// The duration of an attack in seconds, and its number of connections. Both are larger in a full run.
fn scale(full: usize) -> Result<(u64, usize)> {
    let part = match std::env::var("MAYFLY_ABUSE").ok().as_deref() {
        None => 10,
        Some("full") => 1,
        Some(other) => anyhow::bail!("MAYFLY_ABUSE={other:?}: it is \"full\" or not set"),
    };
    Ok((if part == 1 { 60 } else { 5 }, full / part))
}

fn syn_flood(place: &Place) -> Result<()> {
    let (seconds, _) = scale(1)?;
    let metrics = abused(place, seconds, &["syn", MAC, BRIDGE])?;
    // Once half of the connections are half open, SYNs get cookies, so a flood shows in this counter.
    metrics.grown("mayfly_tcp_syn_cookies_total{event=\"sent\"}")
}

fn frames(place: &Place) -> Result<()> {
    let (seconds, _) = scale(1)?;
    let metrics = abused(place, seconds, &["frames", MAC, BRIDGE])?;
    metrics.grown("mayfly_dropped_total{cause=\"rx_bad_checksum\"}")
}

fn half(place: &Place) -> Result<()> {
    let (seconds, count) = scale(10_000)?;
    let metrics = abused(place, seconds, &["half", &count.to_string()])?;
    // There are always more hostile connections than the guest has room for; those are dropped, and not the honest
    // ones.
    metrics.grown(EVICTED)
}

fn readers(place: &Place) -> Result<()> {
    let (seconds, count) = scale(1_000)?;
    let metrics = abused(place, seconds, &["readers", &count.to_string()])?;
    if count > SLOTS_MAX {
        metrics.grown(EVICTED)?;
    }
    Ok(())
}

fn writers(place: &Place) -> Result<()> {
    let (seconds, count) = scale(1_000)?;
    let metrics = abused(place, seconds, &["writers", &count.to_string()])?;
    if count > SLOTS_MAX {
        metrics.grown(EVICTED)?;
    }
    Ok(())
}

/// The number of rounds after which memory use must be stable.
const ROUNDS: u32 = 4;

/// A guest's metrics, by name.
type Metrics = BTreeMap<String, f64>;

/// The guest's counters before and after a round.
struct Counters {
    before: Metrics,
    after: Metrics,
}

impl Counters {
    /// The drops in the last round, as text.
    fn text(&self) -> String {
        let grown = |(name, after): (&String, &f64)| {
            let grown = after - self.before.get(name).copied().unwrap_or_default();
            let cause = name.strip_prefix("mayfly_dropped_total")?;
            (grown > 0.0).then(|| format!("{cause} {grown}"))
        };
        let all: Vec<_> = self.after.iter().filter_map(grown).collect();
        format!("dropped in it: {}", all.join(", "))
    }

    fn grown(&self, name: &str) -> Result<()> {
        let (before, after) = (get(&self.before, name)?, get(&self.after, name)?);
        ensure!(after > before, "{name} was {before} and is {after}");
        Ok(())
    }
}

fn get(metrics: &Metrics, name: &str) -> Result<f64> {
    let value = metrics.get(name).copied();
    value.with_context(|| format!("no {name}"))
}

/// The free bytes of the heap, and of the RAM from which sockets get their buffers.
fn free(metrics: &Metrics) -> Result<(f64, f64)> {
    let of = |kind: &str| get(metrics, &format!("mayfly_memory_bytes{{kind=\"{kind}\"}}"));
    Ok((of("heap_free")?, of("ram_free")?))
}

fn metrics(place: &Place) -> Result<Metrics> {
    let (status, text) = ask::http(place.lab.http()?, "/.mayfly/metrics", BOUND)?;
    ensure!(status == 200, "GET /.mayfly/metrics gives {status}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').context("no metric")?;
            Ok((name.to_owned(), value.parse()?))
        })
        .collect()
}

/// The metrics once no connection is left but the one that reads them.
fn at_rest(place: &Place) -> Result<Metrics> {
    let start = Instant::now();
    loop {
        let all = metrics(place)?;
        let connections = ["half_open", "open", "closing"].map(|state| {
            get(
                &all,
                &format!("mayfly_tcp_connections{{state=\"{state}\"}}"),
            )
        });
        let [half_open, open, closing] = connections;
        if half_open? + open? + closing? <= 1.0 {
            return Ok(all);
        }
        ensure!(
            start.elapsed() < BOUND,
            "connections are left {BOUND:?} after the last: {all:?}"
        );
        thread::sleep(Duration::from_secs(1));
    }
}

/// Attacks a guest for some seconds, while an honest client queries by DNS and HTTP in turn and must be answered each
/// time.
fn round(place: &Place, seconds: u64, words: &[&str]) -> Result<Metrics> {
    let (http, dns) = (place.lab.http()?, place.lab.dns()?);
    let (guest, time) = (mayfly_lab::GUEST.to_string(), seconds.to_string());
    let mut argv = vec![PROGRAM, &guest, &time];
    argv.extend(words);
    let bound = Duration::from_secs(seconds + 120);
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
    at_rest(place)
}

/// Attacks a guest in rounds, until a round costs no more memory than a few slots. Slots of connections get their
/// memory at first use and keep it, and tables grow to the most that they have held at once, so the first rounds may
/// cost memory. A leak would cost memory in each round.
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
    let fresh = at_rest(place)?;
    println!(
        "{}: bytes free in heap and RAM: fresh {:?}",
        words.join(" "),
        free(&fresh)?
    );
    let mut before = round(place, seconds, words)?;
    for number in 2..=ROUNDS {
        let after = round(place, seconds, words)?;
        let ((heap_before, ram_before), (heap_after, ram_after)) = (free(&before)?, free(&after)?);
        println!(
            "{}: bytes free: before round {number} {:?}, after it {:?}",
            words.join(" "),
            (heap_before, ram_before),
            (heap_after, ram_after)
        );
        let counters = Counters { before, after };
        println!("{}: {}", words.join(" "), counters.text());
        let slots = (ram_before - ram_after) / SLOT_RAM;
        if slots <= SLOTS && heap_before - heap_after <= slots * SLOT_HEAP {
            birth.destroy()?;
            return Ok(counters);
        }
        before = counters.after;
    }
    bail!("each of {ROUNDS} rounds took memory")
}

//! `hatch pool`, and `hatch create` that takes guests out of it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::{GUEST, Output};
use serde_json::Value;

use crate::birth::{BOUND, EXAMPLE, HATCH, Place};
use crate::cases::Case;
use crate::hatch::json;

pub(crate) const CASES: &[Case] = &[
    ("create takes a guest that was made ahead", taken),
    (
        "what a pool can't give is refused, or made from nothing",
        other,
    ),
    ("a pool that was killed is cleaned up by gc", killed),
    (
        "a failure at any step of giving leaves nothing behind",
        failures,
    ),
    (
        "gc removes what kill -9 at any step of giving has left",
        kills,
    ),
];

const LOG: &str = "/run/pool.log";
/// The steps that give a shell its identity, in order. The fault of each is named `give STEP`.
const STEPS: [&str; 8] = [
    "check", "names", "keys", "port", "load", "claim", "unpause", "finish",
];

/// A running pool.
struct Pool<'a> {
    place: &'a Place,
    pid: String,
}

impl<'a> Pool<'a> {
    /// Starts a pool of this size, with a fault if one is given, and waits until it is full.
    fn start(place: &'a Place, size: usize, fault: &str) -> Result<Self> {
        let script = format!(
            "{fault} {HATCH} pool --size {size} {EXAMPLE} >{LOG} 2>&1 </dev/null & echo $!"
        );
        let pid = place.lab.shell(&script)?.trim().to_owned();
        let pool = Self { place, pid };
        pool.until(size)?;
        Ok(pool)
    }

    fn status(&self) -> Result<Option<Value>> {
        let output = self.place.hatch(&["pool", "--status", "--json"])?;
        output.success().then(|| json(&output.text())).transpose()
    }

    /// Waits until it has this number of guests.
    fn until(&self, ready: usize) -> Result<Value> {
        let start = Instant::now();
        loop {
            let status = self.status()?;
            if let Some(status) = status.as_ref().filter(|status| status["ready"] == ready) {
                return Ok(status.clone());
            }
            if start.elapsed() > BOUND {
                let log = self.place.lab.shell(&format!("cat {LOG}"))?;
                anyhow::bail!("the pool is {status:?}, and says:\n{log}");
            }
            sleep(Duration::from_millis(100));
        }
    }

    fn create(&self, words: &[&str]) -> Result<Output> {
        self.place
            .hatch(&[&["create", "--pool", "--json"], words, &[EXAMPLE]].concat())
    }

    /// Sends it a signal, and waits for its end.
    fn end(&self, signal: &str) -> Result<()> {
        let script = format!(
            "kill {signal} {0} 2>/dev/null; for n in $(seq 300); do kill -0 {0} 2>/dev/null || exit 0; sleep 0.1; done; exit 1",
            self.pid
        );
        self.place.lab.shell(&script).map(drop)
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        let _ = self.end("-TERM");
    }
}

/// The numbers of all domains but dom0.
fn domids(place: &Place) -> Result<Vec<u64>> {
    let text = place.lab.shell("xl list | awk 'NR > 2 { print $2 }'")?;
    let numbers = text
        .split_whitespace()
        .map(|word| word.parse().context("xl list"));
    numbers.collect()
}

fn served(place: &Place) -> Result<()> {
    let page = place.lab.shell(&format!("wget -q -O - http://{GUEST}/"))?;
    ensure!(!page.is_empty(), "an empty page");
    Ok(())
}

fn taken(place: &Place) -> Result<()> {
    let pool = Pool::start(place, 2, "")?;
    let shells = domids(place)?;
    ensure!(shells.len() == 2, "the shells are {shells:?}");
    for round in 1..=3 {
        let waiting = domids(place)?;
        let output = pool.create(&[])?;
        ensure!(output.success(), "create: {}", output.error_text());
        let made = json(&output.text())?;
        let domid = made["domid"].as_u64().context("no domid")?;
        ensure!(waiting.contains(&domid), "{made} was none of {waiting:?}");
        served(place)?;
        let listed = json(&place.hatched(&["list", "--json"])?)?;
        ensure!(
            listed.to_string().contains("\"mayfly\""),
            "hatch list: {listed}"
        );
        // It fills up again after a guest was taken.
        let status = pool.until(2)?;
        ensure!(status["taken"] == round, "it is {status}");
        place.hatched(&["destroy", "mayfly"])?;
    }
    // `create` takes one by default as well.
    let made = json(&place.hatched(&["create", "--json", EXAMPLE])?)?;
    served(place)?;
    pool.end("-TERM")?;
    // A taken guest is a guest like others; those that were not taken are gone.
    ensure!(domids(place)? == [made["domid"].as_u64().context("no domid")?]);
    served(place)?;
    place.hatched(&["destroy", "mayfly"]).map(drop)
}

fn other(place: &Place) -> Result<()> {
    let none = place.hatch(&["create", "--pool", EXAMPLE])?;
    ensure!(
        !none.success() && none.error_text().contains("pool"),
        "without a pool: {}",
        none.error_text()
    );
    let pool = Pool::start(place, 1, "")?;
    for (words, what) in [
        (&["--memory", "12"][..], "memory"),
        (&["--kernel", "/guest/hatch"][..], ""),
    ] {
        let refused = pool.create(words)?;
        let text = refused.error_text() + &refused.text();
        ensure!(
            !refused.success() && text.contains(what),
            "{words:?}: {text}"
        );
    }
    // Without `--pool`, it makes a guest if the pool has none that fits.
    place.hatched(&["create", "--memory", "12", EXAMPLE])?;
    served(place)?;
    // If the name is in use, no shell is used up, or it is replaced.
    let taken = pool.create(&[])?;
    ensure!(
        taken.code == 4,
        "exit code {}: {}",
        taken.code,
        taken.error_text()
    );
    place.hatched(&["destroy", "mayfly"])?;
    pool.until(1).map(drop)
}

fn killed(place: &Place) -> Result<()> {
    let pool = Pool::start(place, 3, "")?;
    ensure!(pool.create(&[])?.success());
    pool.until(3)?;
    pool.end("-KILL")?;
    place.hatched(&["gc"])?;
    // gc does not touch the taken guest.
    ensure!(domids(place)?.len() == 1);
    served(place)?;
    // The next pool finds the socket of the previous one, and takes it over.
    drop(Pool::start(place, 1, "")?);
    place.hatched(&["destroy", "mayfly"]).map(drop)
}

fn failures(place: &Place) -> Result<()> {
    for step in STEPS {
        let fault = format!("HATCH_FAIL_AT='give {step}'");
        let pool = Pool::start(place, 1, &fault)?;
        let output = pool.create(&[])?;
        let text = output.error_text() + &output.text();
        ensure!(
            !output.success() && text.contains(&format!("`{step}`")),
            "{fault}: exit code {}: {text}",
            output.code
        );
        pool.end("-TERM")?;
        place.nothing_left().context(fault)?;
    }
    Ok(())
}

fn kills(place: &Place) -> Result<()> {
    for step in STEPS {
        let fault = format!("HATCH_KILL_AT='give {step}'");
        let pool = Pool::start(place, 2, &fault)?;
        let output = pool.create(&[])?;
        ensure!(!output.success(), "{fault}: it succeeds");
        place.hatched(&["gc"])?;
        if step == "finish" {
            // The guest is complete and runs, so gc must not touch it.
            served(place).context("finish")?;
            place.hatched(&["destroy", "mayfly"])?;
        }
        place.nothing_left().context(fault)?;
    }
    Ok(())
}

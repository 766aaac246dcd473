//! `cargo xtask bench summon`: from a client's SYN to its SYN-ACK, from a host that has no guest, out of a pool, from a guest that runs
//! already, and from one that `xl` makes when it is asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use mayfly_lab::Xenstored;

use super::job::{self, Dom0};
use crate::guest;
use crate::progress::Progress;

/// What begins a line that counts, in the output.
const MARK: &str = "mayfly-summon: ";
const SERVICES: &str = r#"[daemon]
listen = []
ttl = 1
pool = 1

[daemon.limits]
births_per_prefix = 1000

[[services]]
name = "cold"
hosts = ["cold.example.test"]
zone = "example.test"
image = "/bench/mayfly"
memory = 8
ipv4 = "10.0.2.80/24"
idle = 2

[[services]]
name = "pool"
hosts = ["pool.example.test"]
zone = "example.test"
image = "/bench/mayfly"
memory = 8
ipv4 = "10.0.2.81/24"
idle = 2
asleep = "pool"

[[services]]
name = "running"
hosts = ["running.example.test"]
zone = "example.test"
image = "/bench/mayfly"
memory = 8
ipv4 = "10.0.2.82/24"
on_demand = false
"#;
const XL: &str = r#"name = "xl"
type = "pvh"
kernel = "/bench/mayfly"
memory = 8
vcpus = 1
extra = "ip=10.0.2.83/24"
vif = [ "bridge=xenbr0,script=vif-mayfly,mac=00:16:3e:00:00:83" ]
tsc_mode = "native"
"#;
/// One after the other, with pauses in which those that sleep fall asleep. The first round is not counted.
const SCRIPT: &str = r#"
# Without a network card the bridge would take the vifs' MAC address, which is nobody's.
ip link set xenbr0 address 52:54:00:6d:61:01
/bench/hatch summon /bench/summon.toml </dev/null >/run/summon.log 2>&1 &
summon=$!
sleep 10
for round in $(seq 0 $1); do
    for one in "cold 10.0.2.80" "pool 10.0.2.81" "running 10.0.2.82"; do
        set -- "$1" $one
        ticks=$(/bench/stamp connect $3:80) && echo "mayfly-summon: $round $2 $ticks"
        sleep 5
    done
    ticks=$(/bench/stamp connect 10.0.2.83:80 xl create -q /bench/xl.cfg) && echo "mayfly-summon: $round xl $ticks"
    xl destroy xl
    sleep 5
done
cat /run/summon.log
kill $summon
wait
"#;

#[derive(Args)]
pub(crate) struct Summon {
    /// Count instructions on a deterministic machine instead of timing
    #[arg(long)]
    counted: bool,
    /// How often each is tried
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Write every sample as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Ticks from SYN to SYN-ACK, by who answers.
type Samples = BTreeMap<String, Vec<u64>>;

pub(crate) fn run(task: &Summon) -> Result<()> {
    let progress = Progress::new();
    let step = |text: &str| progress.step(text);
    step("building");
    let mayfly = guest::build(guest::MAYFLY)?;
    let mayfly = fs::read(&mayfly).with_context(|| mayfly.display().to_string())?;
    let files = vec![
        job::placed("/bench/mayfly", mayfly),
        job::hatch(&step)?,
        job::measuring(&step)?,
        job::placed("/bench/summon.toml", SERVICES),
        job::placed("/bench/xl.cfg", XL),
        job::placed("/bench/script", SCRIPT),
    ];
    let dom0 = Dom0 {
        counted: task.counted,
        xenstored: Xenstored::C,
    };
    let rounds = task.rounds.to_string();
    let words = ["sh", "/bench/script", &rounds];
    let read = |output: &str| samples(output, task.rounds).map_err(|error| format!("{error:#}"));
    let samples = job::measure("bench-summon", dom0, files, &words, read, &step)?;
    progress.finish();
    if let Some(path) = &task.json {
        fs::write(path, serde_json::to_vec_pretty(&samples)?)
            .with_context(|| path.display().to_string())?;
    }
    println!("{}", table(&samples, task.counted));
    Ok(())
}

/// The samples of all rounds but the first.
fn samples(output: &str, rounds: u32) -> Result<Samples> {
    let mut samples = Samples::new();
    for line in output.lines() {
        let Some((_, sample)) = line.split_once(MARK) else {
            continue;
        };
        let words: Vec<&str> = sample.split_whitespace().collect();
        let [round, who, ticks] = words.as_slice() else {
            anyhow::bail!("a sample is {sample:?}");
        };
        if *round != "0" {
            let ticks = ticks.parse().with_context(|| format!("{sample:?}"))?;
            samples.entry((*who).to_owned()).or_default().push(ticks);
        }
    }
    let is_whole = samples.len() == 4 && samples.values().all(|all| all.len() == rounds as usize);
    ensure!(is_whole, "samples are missing: {samples:?}\n{output}");
    Ok(samples)
}

/// Median, least and greatest of each, and the ratio to the cold one's.
fn table(samples: &Samples, counted: bool) -> String {
    let unit = if counted { "virtual ms" } else { "lab ms" };
    // On the counting machine a tick is a nanosecond; on the other it nearly is one, and only ratios mean anything.
    let ms = |ticks: u64| ticks as f64 / 1e6;
    let median = |all: &[u64]| {
        let mut sorted = all.to_vec();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or(0)
    };
    let cold = samples.get("cold").map_or(0, |all| median(all));
    let mut text = format!(
        "| SYN to SYN-ACK, {unit} | median | least | greatest | to cold |\n|---|---|---|---|---|\n"
    );
    for (who, all) in samples {
        let (least, most) = (all.iter().min(), all.iter().max());
        let middle = median(all);
        text.push_str(&format!(
            "| {who} | {:.3} | {:.3} | {:.3} | {:.3} |\n",
            ms(middle),
            ms(least.copied().unwrap_or(0)),
            ms(most.copied().unwrap_or(0)),
            middle as f64 / cold.max(1) as f64
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_among_other_lines() {
        let mut output = String::from("(XEN) noise\n");
        for round in 0..3 {
            for who in ["cold", "pool", "running", "xl"] {
                output.push_str(&format!("[    1.0] {MARK}{round} {who} {}\r\n", round * 10));
            }
        }
        let samples = samples(&output, 2).unwrap();
        assert_eq!(samples["cold"], [10, 20]);
        assert!(super::samples(&output, 3).is_err());
        assert!(table(&samples, true).contains("| xl | 0.000 "));
    }
}

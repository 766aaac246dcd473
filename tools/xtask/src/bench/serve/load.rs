//! Runs dnsperf and wrk, and parses their output.

use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// The file whose transfer is counted in MiB.
pub(super) const BULK: &str = "10m.bin";

/// A load, with the arguments of its program in dom0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Load {
    /// dnsperf.
    Dns {
        /// File with the questions.
        questions: &'static str,
        /// The number of pending queries.
        concurrency: u32,
        /// Queries per second; without it, as many as are answered.
        rate: Option<u64>,
    },
    /// wrk.
    Http {
        /// Path of the file.
        path: &'static str,
        /// The number of simultaneous connections.
        connections: u32,
        /// Whether a connection carries more than one request.
        keep_alive: bool,
        /// Pause after each answer on a connection, in ms.
        pause_ms: Option<u64>,
    },
}

/// One run of a load against one guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Sample {
    /// Answers per second.
    pub(super) rate: f64,
    /// Answers.
    pub(super) answers: u64,
    /// Questions without an answer, and connections that broke.
    pub(super) errors: u64,
    /// Median time to an answer, in ms.
    pub(super) p50_ms: Option<f64>,
    /// The 99th percentile of the time to an answer, in ms.
    pub(super) p99_ms: Option<f64>,
    /// CPU time of the guest, in us for each answer.
    pub(super) guest_us: f64,
    /// CPU time of dom0, in us for each answer.
    pub(super) dom0_us: f64,
    /// The fraction of the run in which the guest's CPU was busy with the guest.
    pub(super) guest_busy: f64,
}

/// Pauses wrk's connections after each answer.
pub(super) const PAUSE: &str = "function delay() return tonumber(os.getenv('PAUSE_MS')) end\n";
pub(super) const PAUSE_PATH: &str = "/bench/pause.lua";

impl Load {
    /// The shell's line.
    pub(super) fn command(&self, address: &str, seconds: u32) -> String {
        match self {
            Self::Dns {
                questions,
                concurrency,
                rate,
            } => {
                // Each query's time is printed with -v; the percentiles are computed after the run.
                let rate = rate.map_or(String::new(), |rate| format!("-Q {rate} -v"));
                // dnsperf takes at most 255 sockets.
                let sockets = (*concurrency).min(255);
                format!(
                    "dnsperf -s {address} -d {questions} -l {seconds} -t 2 -c {sockets} -q {concurrency} {rate} > /run/load 2>&1; \
                     grep -v '^>' /run/load; grep '^>' /run/load | awk '$2 != \"T\" {{ print $NF }}' | sort -n | \
                     awk '{{ t[NR] = $1 }} END {{ if (NR) print \"p50\", t[int((NR + 1) * .5)], \"p99\", t[int((NR + 1) * .99)] }}'"
                )
            }
            Self::Http {
                path,
                connections,
                keep_alive,
                pause_ms,
            } => {
                let close = if *keep_alive {
                    ""
                } else {
                    "-H 'Connection: close'"
                };
                let (before, pause) = pause_ms.map_or((String::new(), String::new()), |ms| {
                    (format!("PAUSE_MS={ms} "), format!("-s {PAUSE_PATH}"))
                });
                format!(
                    "{before}wrk -t 1 -c {connections} -d {seconds}s --timeout 10s --latency {close} {pause} http://{address}:80/{path} 2>&1"
                )
            }
        }
    }

    /// Whether MiB are counted instead of answers, because a run has few answers.
    pub(super) fn is_bulk(&self) -> bool {
        matches!(self, Self::Http { path, .. } if *path == BULK)
    }

    /// Parses the output of the program.
    ///
    /// # Errors
    /// Malformed output.
    pub(super) fn sample(&self, text: &str) -> Result<Sample> {
        let sample = match self {
            Self::Dns { .. } => dnsperf(text),
            Self::Http { .. } => wrk(text, self.is_bulk()),
        };
        sample.with_context(|| format!("{self:?} printed:\n{text}"))
    }
}

/// The number after `name` on its line.
fn number(text: &str, name: &str) -> Result<f64> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name));
    let word = line.and_then(|rest| rest.split_whitespace().next());
    word.and_then(|word| word.parse().ok())
        .with_context(|| format!("no number after {name:?}"))
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(number: f64) -> u64 {
    number as u64
}

fn dnsperf(text: &str) -> Result<Sample> {
    let line = text.lines().find_map(|line| line.strip_prefix("p50 "));
    let percentiles: Option<Vec<f64>> = line.and_then(|rest| {
        let words = rest.split_whitespace().filter(|word| *word != "p99");
        words.map(|word| word.parse().ok()).collect()
    });
    let ms = |index: usize| {
        let seconds = percentiles.as_ref().and_then(|p| p.get(index));
        seconds.map(|seconds| seconds * 1e3)
    };
    Ok(Sample {
        rate: number(text, "Queries per second:")?,
        answers: whole(number(text, "Queries completed:")?),
        errors: whole(number(text, "Queries lost:")?),
        p50_ms: ms(0),
        p99_ms: ms(1),
        ..Sample::default()
    })
}

fn wrk(text: &str, bulk: bool) -> Result<Sample> {
    let requests = text
        .lines()
        .find(|line| line.contains(" requests in "))
        .and_then(|line| line.split_whitespace().next())
        .and_then(|word| word.parse().ok())
        .context("no requests")?;
    let errors = text.lines().find(|line| line.contains("Socket errors:"));
    let errors = errors.map_or(0, |line| {
        line.split([' ', ','])
            .filter_map(|word| word.parse::<u64>().ok())
            .sum()
    });
    let wrong = number(text, "Non-2xx or 3xx responses:").map_or(0, whole);
    ensure!(wrong == 0, "{wrong} answers are not the file");
    if bulk {
        let summary = text.lines().find(|line| line.contains(" requests in "));
        let read = summary.and_then(|line| line.split_whitespace().rev().nth(1));
        let rate = text
            .lines()
            .find_map(|line| line.strip_prefix("Transfer/sec:"));
        return Ok(Sample {
            rate: mib(rate.context("no rate")?)?,
            answers: whole(mib(read.context("no bytes")?)?),
            errors,
            ..Sample::default()
        });
    }
    Ok(Sample {
        rate: number(text, "Requests/sec:")?,
        answers: requests,
        errors,
        p50_ms: Some(duration(text, "50%")?),
        p99_ms: Some(duration(text, "99%")?),
        ..Sample::default()
    })
}

/// A size as wrk prints it, in MiB.
fn mib(word: &str) -> Result<f64> {
    let word = word.trim();
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = word.strip_suffix(unit).unwrap_or(word).parse()?;
    Ok(match unit {
        "B" => number / f64::from(1 << 20),
        "KB" => number / 1024.0,
        "MB" => number,
        "GB" => number * 1024.0,
        _ => anyhow::bail!("a size of {word:?}"),
    })
}

/// A time as wrk prints it, in ms.
fn duration(text: &str, name: &str) -> Result<f64> {
    let line = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(name));
    let word = line.map(str::trim).context("no latency")?;
    let unit = word.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = word.strip_suffix(unit).unwrap_or(word).parse()?;
    Ok(match unit {
        "us" => number / 1e3,
        "ms" => number,
        "s" => number * 1e3,
        "m" => number * 6e4,
        _ => anyhow::bail!("a latency of {word:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DNSPERF: &str = "Statistics:

  Queries sent:         5400
  Queries completed:    5399 (99.98%)
  Queries lost:         1 (0.02%)

  Response codes:       NOERROR 4859 (90.00%), NXDOMAIN 540 (10.00%)
  Average packet size:  request 35, response 51
  Run time (s):         2.000101
  Queries per second:   2699.363682

  Average Latency (s):  0.023 (min 0.001, max 0.1)
p50 0.001500 p99 0.012000
";
    const WRK: &str = "Running 2s test @ http://10.0.2.80/1k.bin
  1 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency    26.64ms    4.88ms  75.90ms   84.46%
    Req/Sec     2.42k   304.70     2.83k    75.00%
  Latency Distribution
     50%   25.91ms
     75%   27.71ms
     90%   31.52ms
     99%    1.04s
  4824 requests in 2.01s, 6.05MB read
  Socket errors: connect 0, read 3, write 0, timeout 1
Requests/sec:   2402.65
Transfer/sec:      3.01MB
";

    #[test]
    fn reads_what_the_programs_print() {
        let sample = dnsperf(DNSPERF).unwrap();
        assert_eq!((sample.answers, sample.errors), (5399, 1));
        assert_eq!(sample.p50_ms, Some(1.5));
        assert_eq!(sample.p99_ms, Some(12.0));
        let bulk = wrk(WRK, true).unwrap();
        assert!((bulk.rate - 3.01).abs() < 1e-9 && bulk.answers == 6);
        let sample = wrk(WRK, false).unwrap();
        assert_eq!((sample.answers, sample.errors), (4824, 4));
        assert_eq!(sample.p50_ms, Some(25.91));
        assert_eq!(sample.p99_ms, Some(1040.0));
        assert!((sample.rate - 2402.65).abs() < 1e-9);
        assert!(wrk(&format!("{WRK}\n  Non-2xx or 3xx responses: 7\n"), false).is_err());
        assert!(dnsperf("no").is_err());
    }
}

//! `cargo xtask fuzz`: all random testing. The fuzzers of `tests/fuzz` run under libFuzzer, and the property tests run
//! from a random seed with ten times as many cases. Two tables show the runs and the findings.

mod libfuzzer;
mod properties;

use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;

use crate::progress::Progress;

/// The property tests, as a target.
const PROPERTIES: &str = "properties";

#[derive(Args)]
pub(crate) struct Fuzz {
    /// Fuzzers of tests/fuzz, `properties` for all property tests, or packages with property tests [default: all]
    targets: Vec<String>,
    /// Seconds of each fuzzer; property tests take as long as their cases
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Repeats a run with this seed [default: a random one]
    #[arg(long)]
    seed: Option<u32>,
    /// The factor of the number of cases of a property test
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    scale: u32,
}

/// Runs the targets one after the other. The exit code says whether something was found.
pub(crate) fn run(fuzz: &Fuzz) -> Result<ExitCode> {
    let (fuzzers, packages) = (libfuzzer::targets()?, properties::packages()?);
    for target in &fuzz.targets {
        ensure!(
            target == PROPERTIES || fuzzers.contains(target) || packages.contains(target),
            "there is no {target:?} to fuzz; there are {}, {PROPERTIES}, and of these {}",
            fuzzers.join(", "),
            packages.join(", ")
        );
    }
    let is_wanted = |name: &String| fuzz.targets.is_empty() || fuzz.targets.contains(name);
    let all_properties = is_wanted(&PROPERTIES.to_owned());
    let fuzzers: Vec<_> = fuzzers.into_iter().filter(|f| is_wanted(f)).collect();
    let packages: Vec<_> = packages
        .into_iter()
        .filter(|package| all_properties || is_wanted(package))
        .collect();
    let seed = fuzz.seed.unwrap_or_else(random);
    println!("seed {seed}: `cargo xtask fuzz --seed {seed}` repeats the property tests");
    let progress = Progress::new();
    let fuzzed = if fuzzers.is_empty() {
        Vec::new()
    } else {
        libfuzzer::ensure_tools()?;
        libfuzzer::write_seeds(&progress)?;
        libfuzzer::all(&fuzzers, fuzz.seconds, seed, &progress)?
    };
    let tested = properties::all(&packages, seed, fuzz.scale, &progress)?;
    progress.finish();
    if !fuzzed.is_empty() {
        print!("{}", libfuzzer::table(&fuzzed));
    }
    if !tested.is_empty() {
        print!("{}", properties::table(&tested));
    }
    let findings: Vec<_> = fuzzed.iter().filter_map(libfuzzer::Run::finding).collect();
    let findings = [
        findings,
        tested.iter().filter_map(properties::Run::finding).collect(),
    ]
    .concat();
    println!("seed {seed}, {} findings", findings.len());
    for finding in &findings {
        println!("{finding}");
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A random seed of 32 bits, the size that libFuzzer takes. 0 would let libFuzzer choose.
fn random() -> u32 {
    let bits = RandomState::new().hash_one(std::process::id()) >> 32;
    u32::try_from(bits).unwrap_or(1).max(1)
}

//! `reference`: asks two servers and prints their differences. It fails if a difference is not allowed by a rule.
#![forbid(unsafe_code)]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::Parser;
use mayfly_reference::client::Heard;
use mayfly_reference::questions::Questions;
use mayfly_reference::report::Report;
use mayfly_reference::{COUNT, SEED};

/// Asks two authoritative name servers the same questions, and compares the answers.
#[derive(Parser)]
struct Arguments {
    /// The server that is tested
    tested: SocketAddr,
    /// The server it is compared with
    reference: SocketAddr,
    /// Number of questions
    #[arg(long, default_value_t = COUNT)]
    count: usize,
    /// The seed of the question generator
    #[arg(long, default_value_t = SEED)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the comparison. Returns whether all differences are allowed.
fn run(arguments: &Arguments) -> Result<bool> {
    println!("seed {}", arguments.seed);
    let questions: Vec<_> = Questions::new(arguments.seed)?
        .take(arguments.count)
        .collect();
    let start = Instant::now();
    let (tested, reference) = thread::scope(|scope| {
        let other = scope.spawn(|| Heard::from_reference(arguments.reference, &questions));
        let tested = Heard::from(arguments.tested, &questions);
        (tested, other.join())
    });
    let reference = reference.map_err(|_| anyhow::anyhow!("a client panicked"))?;
    let tested = tested.with_context(|| format!("asking {}", arguments.tested))?;
    let reference = reference.with_context(|| format!("asking {}", arguments.reference))?;
    let report = Report::new(&questions, &tested, &reference)?;
    println!("asked for {:.1} s", start.elapsed().as_secs_f64());
    print!("{}", report.text());
    Ok(report.is_clean())
}

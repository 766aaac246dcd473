//! `cargo xtask`: builds the guest, runs the lab and the tests.
#![forbid(unsafe_code)]

mod bench;
mod check;
mod console;
mod demo;
mod documents;
mod fuzz;
mod guest;
mod host;
mod lab;
mod order;
mod pack;
mod progress;
mod size;
mod sources;
mod summon;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Builds the guest, runs it on a real Xen, checks and tests.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Show a guest on a real Xen answering DNS and HTTP
    Demo(demo::Demo),
    /// Build the guest, and print its path
    Build(guest::Build),
    /// Measure the cost of a boot, of serving, of many guests and of a wake
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Print the sizes of the guest's image, and their changes
    Size(size::Size),
    /// Write the tables in the documents from the figures in tests/snapshots
    Documents,
    /// List anew what hatch uses when it makes and removes a guest, for the linker to place side by side
    Order,
    /// Formatting, lints, rules for sources, unit tests and property tests
    Check,
    /// Check, build, and the end-to-end tests on a real Xen
    Test(check::Test),
    /// All random testing: fuzzers, and property tests from a random seed
    Fuzz(fuzz::Fuzz),
    /// A real Xen under QEMU, for a developer
    #[command(subcommand)]
    Lab(lab::Lab),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<ExitCode> {
    match task {
        Task::Demo(demo) => demo::run(&demo)?,
        Task::Build(build) => guest::run(&build)?,
        Task::Bench(task) => return bench::run(task),
        Task::Size(size) => size::run(&size)?,
        Task::Documents => documents::write()?,
        Task::Order => order::run()?,
        Task::Check => check::check()?,
        Task::Test(test) => check::test(&test)?,
        Task::Fuzz(fuzz) => return fuzz::run(&fuzz),
        Task::Lab(task) => return lab::run(task),
    }
    Ok(ExitCode::SUCCESS)
}

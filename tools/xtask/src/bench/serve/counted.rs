//! The speed of serving on the deterministic lab, in instructions. The lab has one CPU and no agent, so a script in
//! dom0 runs all loads.
//!
//! The cost of an answer is then the same whatever else the host does: 1 us of CPU time is a thousand instructions.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result};
use mayfly_lab::{Lab, Options, Placed, Report};

use super::super::job::forget;
use super::Run;
use super::bed::{self, Files, Peer, Server, Size};
use super::load::Load;

pub(super) const SCRIPT: &str = "/bench/run";
/// The start of the line before each run's output.
pub(super) const MARK: &str = "mayfly-serve: run ";
/// The length of each run, in virtual seconds.
const SECONDS: u32 = 1;
/// The time limit of all runs together.
pub(super) const BOUND: Duration = Duration::from_secs(3600);

/// Runs each load once against each server.
///
/// # Errors
/// The errors of the lab; a guest that does not serve; malformed output.
pub(super) fn run(
    files: Files,
    peers: &[Peer],
    loads: &[(Size, Load)],
    report: Report<'_>,
) -> Result<Vec<Run>> {
    let mut script = String::from("#!/bin/sh\n");
    writeln!(script, "{}", bed::switch())?;
    for &peer in peers {
        let serves = bed::serves(peer);
        writeln!(script, "{}", peer.create())?;
        writeln!(
            script,
            "for i in $(seq 300); do ({serves}) > /dev/null 2>&1 && break; sleep 1; done"
        )?;
    }
    let mut plan = Vec::new();
    for (size, load) in loads {
        for &server in Server::of(*size) {
            let peer = Peer {
                server,
                size: *size,
            };
            writeln!(script, "domain=$(xl domid {})", peer.name())?;
            writeln!(script, "echo; echo '{MARK}{}'", plan.len())?;
            writeln!(script, "{}", bed::script(peer, "$domain", load, SECONDS))?;
            plan.push((peer, load.clone()));
        }
    }
    writeln!(script, "echo; echo '{MARK}{}'", plan.len())?;
    let mut files: Vec<Placed> = files
        .0
        .into_iter()
        .map(|(path, mode, content)| Placed {
            path,
            mode,
            content,
        })
        .collect();
    files.push(Placed {
        path: SCRIPT.into(),
        mode: 0o755,
        content: script.into(),
    });
    let name = format!("serve-counted-{}", std::process::id());
    let counted = Options::counted(&name, &[SCRIPT]);
    let options = Options {
        files,
        counted: true,
        autorun: counted.autorun,
        bound: counted.bound,
        ..bed::options(&name, 1)
    };
    let lab = Lab::up(&options, report)?;
    report("counting");
    let log = lab.wait_off(BOUND)?;
    let runs = read(&log, plan)?;
    forget(&name)?;
    Ok(runs)
}

/// Parses the runs in a serial log.
fn read(log: &str, plan: Vec<(Peer, Load)>) -> Result<Vec<Run>> {
    let mut parts = sections(log);
    plan.into_iter()
        .map(|(peer, load)| {
            let text = parts.next().context("the script did not get to its end")?;
            let sample = bed::sample(&load, &text).with_context(|| peer.name())?;
            Ok(Run {
                peer,
                load,
                round: 0,
                sample,
            })
        })
        .collect()
}

/// What a script in dom0 has printed after each mark.
pub(super) fn sections(log: &str) -> impl Iterator<Item = String> {
    let of_dom0 = |line: &&str| !line.starts_with("(XEN)") && !line.starts_with("(d");
    log.split(MARK).skip(1).map(move |part| {
        // Skip the mark's own line, and the empty line before the next mark.
        let lines = part
            .lines()
            .skip(1)
            .filter(of_dom0)
            .filter(|line| !line.trim().is_empty());
        lines.collect::<Vec<_>>().join("\n")
    })
}

//! `hatch pause`, `unpause` and `shutdown`.

use std::time::{Duration, Instant};

use clap::Args;

use super::domains::{self, Domains, Ways};
use super::exit::Failure;
use mayfly_commands::Exit;
use mayfly_toolstack::paths;
use mayfly_xenstore::Store as _;

/// Pauses guests.
#[derive(Args, Debug)]
pub(crate) struct Pause {
    #[command(flatten)]
    pub(crate) domains: Domains,
}

/// Unpauses guests.
#[derive(Args, Debug)]
pub(crate) struct Unpause {
    #[command(flatten)]
    pub(crate) domains: Domains,
}

/// Asks guests to shut down. A guest that has shut down stays listed until `hatch destroy`.
#[derive(Args, Debug)]
pub(crate) struct Shutdown {
    #[command(flatten)]
    pub(crate) domains: Domains,

    /// Waits until the guests have shut down, for at most this many seconds.
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: Option<u64>,
}

pub(crate) fn pause(domains: &Domains) -> Result<(), Failure> {
    let mut ways = Ways::open()?;
    domains::each(domains, "paused", |what| {
        let domid = ways.find(what, domains.force)?;
        ways.xen.pause(domid)?;
        Ok(domid)
    })
}

pub(crate) fn unpause(domains: &Domains) -> Result<(), Failure> {
    let mut ways = Ways::open()?;
    domains::each(domains, "unpaused", |what| {
        let domid = ways.find(what, domains.force)?;
        // Xen counts pauses. This undoes one of them, as `xl unpause` does.
        ways.xen.unpause(domid)?;
        Ok(domid)
    })
}

pub(crate) fn shutdown(arguments: &Shutdown) -> Result<(), Failure> {
    let mut ways = Ways::open()?;
    let end = arguments
        .wait
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    if end.is_some() {
        // Set before the guests are asked, so that no end is missed.
        ways.store.watch("@releaseDomain", "shutdown")?;
    }
    let domains = &arguments.domains;
    let mut asked = Vec::new();
    domains::each(domains, "asked", |what| {
        let domid = ways.find(what, domains.force)?;
        ways.store.write(
            &format!("{}/control/shutdown", paths::home(domid)),
            "poweroff",
        )?;
        asked.push((domid, what.to_owned()));
        Ok(domid)
    })?;
    let Some(end) = end else {
        return Ok(());
    };
    while !asked.is_empty() {
        let mut still = Vec::new();
        for (domid, what) in asked {
            let ended = ways
                .xen
                .info(domid)?
                .is_none_or(|info| info.shutdown().is_some() || info.is_dying());
            if !ended {
                still.push((domid, what));
            }
        }
        asked = still;
        if asked.is_empty() {
            break;
        }
        let left = end.saturating_duration_since(Instant::now());
        if ways.store.event(left)?.is_none() {
            let names: Vec<_> = asked.into_iter().map(|(_, what)| what).collect();
            return Err(Failure::new(
                Exit::Failed,
                format!("still running when the time was over: {}", names.join(", ")),
            ));
        }
    }
    Ok(())
}

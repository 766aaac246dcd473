//! Reads a file and the settings of the daemon.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use super::service::{SeenValues, service};
use super::table::{FileTable, FoundValue};
use super::values::{bridge, name, netback_threads, network, number, on_change, seconds, value};
use super::{DaemonConfig, Named, OnChange, SOCKET, SummonConfig, SummonLimits};
use mayfly_toolstack::config::{BRIDGE, ConfigProblems};

/// The content of a file, and the files that it names, with their lines.
pub(super) struct ReadFile {
    pub(super) config: SummonConfig,
    pub(super) named: Vec<(usize, Named, PathBuf)>,
}

/// Reads a file's text.
pub(super) fn file(source: &str, text: &str) -> Result<ReadFile, ConfigProblems> {
    let mut problems = ConfigProblems::of(source);
    let mut top = FileTable::of_file(text, &mut problems);
    // If a line is not TOML, later problems would only follow from that.
    if !problems.all.is_empty() {
        return Err(problems);
    }
    let table = top.table("daemon", "[daemon]", &mut problems);
    let tables = top.tables("services", "[[services]]", &mut problems);
    let files = top.tables("zones", "[[zones]]", &mut problems);
    top.finish(&mut problems);
    let mut seen = SeenValues::default();
    let Some(table) = table else {
        problems.add(0, "[daemon] is missing: it says where to listen");
        return Err(problems);
    };
    let daemon = daemon(table, &mut seen, &mut problems);
    if tables.is_empty() {
        problems.add(0, "there are no [[services]]");
    }
    let services: Vec<_> = tables
        .into_iter()
        .filter_map(|table| service(table, &daemon, &mut seen, &mut problems))
        .collect();
    seen.check_zones(&mut problems);
    let zones = files
        .into_iter()
        .filter_map(|table| zone(table, &mut seen, &mut problems))
        .collect();
    if problems.all.is_empty() {
        let config = SummonConfig {
            daemon,
            services,
            zones,
        };
        let named = seen.named;
        return Ok(ReadFile { config, named });
    }
    problems.all.sort_by_key(|problem| problem.line);
    Err(problems)
}

/// A zone's master file.
fn zone(
    mut table: FileTable<'_>,
    seen: &mut SeenValues,
    problems: &mut ConfigProblems,
) -> Option<(String, PathBuf)> {
    let found = table.needed::<String>("name", r#""example.test""#, problems);
    let file = table.needed::<PathBuf>("file", r#""/etc/hatch/example.test.zone""#, problems);
    let name = found.and_then(|found| name("name", &found, problems));
    if let Some(FoundValue { value, line }) = &name {
        seen.take("zone's file", value, *line, problems);
        if !seen.has_zone(value) {
            problems.add(*line, format!("name: no service is in the zone {value}"));
        }
    }
    if let Some(FoundValue { value, line }) = &file {
        seen.named.push((*line, Named::Zone, value.clone()));
    }
    table.finish(problems);
    Some((name?.value.to_string(), file?.value))
}

/// Reads `[daemon]`. An invalid value is reported and replaced by the default.
fn daemon(
    mut table: FileTable<'_>,
    seen: &mut SeenValues,
    problems: &mut ConfigProblems,
) -> DaemonConfig {
    let example = r#"["192.0.2.1:53"], where DNS queries come to, or [] for nowhere"#;
    let listen = table.list::<SocketAddr>("listen", example, problems);
    let listen = listen.unwrap_or_default();
    for FoundValue { value, line } in &listen {
        seen.take("socket", value, *line, problems);
        seen.reserve(value.ip(), *line);
    }
    let forward = table.get::<SocketAddr>("forward", problems);
    if let Some(FoundValue { value, line }) = forward {
        let is_own = listen.iter().any(|own| own.value == value);
        if is_own || value.ip().is_unspecified() || value.port() == 0 {
            let what = format!("forward: {value} is not the address and port of another resolver");
            problems.add(line, what);
        }
    }
    let is_for_somebody = table.has("forward_for");
    let forward_for = table.get::<Vec<IpNet>>("forward_for", problems);
    match (&forward, &forward_for) {
        (Some(forward), None) if !is_for_somebody => problems.add(
            forward.line,
            "forward needs forward_for, the networks whose queries are forwarded, like [\"10.0.2.0/24\", \"fd00:2::/64\"]",
        ),
        (None, Some(networks)) => problems.add(
            networks.line,
            "forward_for: there is no forward, the resolver's address, like \"192.0.2.53:53\"",
        ),
        _ => {}
    }
    let limits = table.table("limits", "[daemon.limits]", problems);
    let daemon = DaemonConfig {
        bridge: bridge(&mut table, problems).unwrap_or_else(|| BRIDGE.to_owned()),
        status: value(table.get("status", problems)),
        socket: value(table.get("socket", problems)).unwrap_or_else(|| SOCKET.into()),
        ttl: number(&mut table, "ttl", 1..=3600, 10, problems),
        forward: value(forward),
        forward_for: value(forward_for).unwrap_or_default(),
        limits: limits.map_or_else(SummonLimits::default, |table| self::limits(table, problems)),
        pool: number(&mut table, "pool", 0..=1000, 0, problems),
        on_change: on_change(&mut table, OnChange::default(), problems),
        guard: value(table.get("guard", problems)).unwrap_or(true),
        network: value(network(&mut table, problems)),
        netback_threads: netback_threads(&mut table, problems),
        nsid: value(table.get("nsid", problems)),
        listen: listen.iter().map(|one| one.value).collect(),
    };
    table.finish(problems);
    daemon
}

fn limits(mut table: FileTable<'_>, problems: &mut ConfigProblems) -> SummonLimits {
    let usual = SummonLimits::default();
    let mut count = |key, most, usual| number(&mut table, key, 1..=most, usual, problems);
    let births_per_second = count("births_per_second", 1000, usual.births_per_second);
    let burst = count("burst", 1000, usual.burst);
    let births_per_prefix = count("births_per_prefix", 10_000, usual.births_per_prefix);
    let turn = seconds(&mut table, "turn", problems);
    let mut size = |key, range, usual| number(&mut table, key, range, usual, problems);
    let limits = SummonLimits {
        births_per_second,
        burst,
        births_per_prefix,
        // The number of domids.
        running: size("running", 1..=32_751, usual.running),
        queue: size("queue", 0..=10_000, usual.queue),
        held_frames: size("held_frames", 1..=4096, usual.held_frames),
        // Room for one full Ethernet frame at least.
        held_bytes: size("held_bytes", 1514..=16 << 20, usual.held_bytes),
        turn: value(turn).unwrap_or(usual.turn),
        memory: number(&mut table, "memory", 1..=1 << 24, usual.memory, problems),
    };
    table.finish(problems);
    limits
}

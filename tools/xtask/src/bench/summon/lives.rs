//! What guests on the switch cost by programs and in a resident process, and when the first byte of an answer comes.

use std::fmt::Write as _;
use std::net::Ipv4Addr;

use anyhow::Result;
use mayfly_lab::Placed;
use mayfly_stamp::wakes::{Lives, Report};
use mayfly_toolstack::paths::mac_text;

use super::super::figures::{Spread, ms};
use super::super::job;
use super::kinds::{KINDS, Kind};
use super::{MAYFLY, is_on_switch, verdict};

const CONFIG: &str = "/bench/lives.cfg";
const TEMPLATE: &str = "/bench/others.cfg";
/// What the names of these figures begin with.
pub(super) const LIVES: &str = "on the switch";
/// The number of other guests beside which programs are measured again.
const OTHERS: u32 = 20;
const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 70);
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 140);

/// The most that a first byte may come after the SYN-ACK, in ticks.
const FIRST_BYTE: u64 = 250_000;
/// Targets of counted times, in ticks.
const TARGETS: [(&str, u64); 7] = [
    ("resident: create, until it runs", 900_000),
    ("resident: destroy, until all is gone", 1_000_000),
    ("create", 4_000_000),
    ("list", 3_000_000),
    ("destroy", 3_000_000),
    ("list, beside 20 others", 3_000_000),
    ("destroy, beside 20 others", 3_000_000),
];

pub(super) fn job() -> Lives {
    Lives {
        config: CONFIG.into(),
        template: TEMPLATE.into(),
        address: ADDRESS,
        others: OTHERS,
        first: FIRST,
    }
}

/// The configurations of the guests.
pub(super) fn configs() -> [Placed; 2] {
    let config = |name: &str, last: u8, address: Ipv4Addr| {
        let mac = mac_text(&[0x00, 0x16, 0x3e, 0, 0, last]);
        format!(
            "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"{MAYFLY}\"\nmemory = 4\nvcpus = 1\ntsc_mode = \"native\"\n\
             extra = \"ip={address}/24\"\nvif = [ \"bridge=xenbr0,mac={mac}\" ]\n"
        )
    };
    [
        job::placed(CONFIG, config("mayfly", 70, ADDRESS)),
        job::placed(TEMPLATE, config("other", 140, FIRST)),
    ]
}

/// The ticks of each deed, without the first time; and of the time from each SYN-ACK until the first byte.
pub(super) fn spreads(report: &Report) -> Vec<(String, Spread)> {
    let mut names: Vec<&str> = Vec::new();
    for cost in &report.costs {
        if !names.contains(&cost.what.as_str()) {
            names.push(&cost.what);
        }
    }
    let spread = |name: &&str| {
        let costs = report.costs.iter().filter(|cost| cost.what == *name);
        let spread = Spread::of(costs.map(|cost| cost.ticks).skip(1))?;
        Some(((*name).to_owned(), spread))
    };
    names.iter().filter_map(spread).collect()
}

/// The ticks from the SYN-ACK until the first byte of an answer to a request that follows at once, for each kind on the
/// switch, without the first connection.
pub(super) fn first_bytes(report: &Report) -> Vec<(&'static str, Spread)> {
    let kinds = KINDS.iter().filter(|kind| is_on_switch(kind));
    let spread = |kind: &Kind| {
        let own = report.connections.iter();
        let own = own.filter(|one| one.subject == kind.name);
        let later = own.map(|one| one.first_byte.saturating_sub(one.ticks));
        Some((kind.name, Spread::of(later.skip(1))?))
    };
    kinds.filter_map(spread).collect()
}

/// The figures, and their targets.
pub(super) fn told(report: &Report) -> Result<String> {
    let mut out = String::new();
    for (name, spread) in spreads(report) {
        let target = TARGETS.iter().find(|(known, _)| *known == name);
        let target = target.map_or(String::new(), |(_, most)| {
            format!(
                "  at most {:.3}  {}",
                ms(*most, report.tsc_hz),
                verdict(spread.median <= *most)
            )
        });
        let [median, min, max] =
            [spread.median, spread.min, spread.max].map(|ticks| ms(ticks, report.tsc_hz));
        writeln!(
            out,
            "{LIVES}: {name:40}{median:8.3} ({min:.3} to {max:.3}){target}"
        )?;
    }
    for (kind, spread) in first_bytes(report) {
        let median = ms(spread.median, report.tsc_hz);
        let most = ms(FIRST_BYTE, report.tsc_hz);
        let verdict = verdict(spread.median <= FIRST_BYTE);
        writeln!(
            out,
            "{kind:16} from the SYN-ACK to the first byte {median:8.3}, at most {most:.3}  {verdict}"
        )?;
    }
    Ok(out)
}

//! The packets that wake a service, and those that do not.

use std::time::Instant;

use anyhow::{Result, ensure};
use mayfly_lab::{GUEST, Lab};
use mayfly_summon::wire::frame::{FrameKind, look};

use super::*;

/// The number of cold starts of each kind.
pub(super) fn starts() -> Result<u32> {
    Ok(crate::cycles(10)?.clamp(5, 500))
}

/// The number of SYNs to services in the capture at the network card.
pub(super) fn syns(lab: &Lab) -> Result<usize> {
    let frames = lab.captured()?;
    let seen = frames.iter().filter_map(|frame| look(frame));
    let syns = seen.filter(|seen| seen.kind == FrameKind::Syn);
    Ok(syns.count())
}

/// Each connection is to a sleeping service, and there are as many SYNs as connections, so none was sent twice.
pub(super) fn cold_starts(place: &Place, is_asked: bool) -> Result<()> {
    let name = |n: u32| format!("s{n}");
    let services = (0..CIRCLE).map(|n| service(&name(n), *http(n).ip(), ""));
    let limits = "[daemon.limits]\nbirths_per_prefix = 1000";
    let services: Vec<String> = services.collect();
    let summoned = Summoned::start(place, limits, &services.concat())?;
    // A service is gone when it has died as often as it was born.
    let is_gone = |n: u32, births: u32| {
        summoned.until(&name(n), |one| {
            one["state"] == "asleep" && one["births"] == births && one["deaths"] == births
        })
    };
    let before = syns(&place.lab)?;
    let (starts, begun) = (starts()?, Instant::now());
    for start in 0..starts {
        let n = start % CIRCLE;
        is_gone(n, start / CIRCLE)?;
        if is_asked {
            let records = summoned.query(&format!("{}.example.test", name(n)))?;
            let address = http(n);
            ensure!(
                records == [format!("A {}", address.ip())],
                "DNS gives {records:?}"
            );
        }
        summoned.page_of(n)?;
    }
    let took = begun.elapsed();
    for n in 0..CIRCLE {
        let births = (n..starts).step_by(CIRCLE as usize).count();
        let one = is_gone(n, u32::try_from(births)?)?;
        ensure!(one["failures"] == 0, "it is {one}");
    }
    let syns = syns(&place.lab)? - before;
    println!("{starts} cold starts in {took:?}, {syns} SYNs");
    ensure!(syns == starts as usize, "{starts} connections, {syns} SYNs");
    let wakes = summoned.totals()?["wakes"].clone();
    let by_query = wakes["dns"].as_u64().unwrap_or(0);
    let expected = match is_asked {
        true => u64::from(starts),
        false => 0,
    };
    // The switch may report the SYN before the front reports the query that came first.
    let is_early = is_asked && place.on_switch.get() && by_query < expected;
    ensure!(by_query == expected || is_early, "it was woken by {wakes}");
    Ok(())
}

pub(super) fn by_syn(place: &Place) -> Result<()> {
    cold_starts(place, false)
}

pub(super) fn by_query(place: &Place) -> Result<()> {
    cold_starts(place, true)
}

/// Uses the kernel's count of retransmitted SYNs.
pub(super) fn by_dom0(place: &Place) -> Result<()> {
    const AGAIN: &str = "awk '/^TcpExt:/ { if (n) print $at; else for (i = 1; i <= NF; i++) if ($i == \"TCPSynRetrans\") at = i; n = 1 }' /proc/net/netstat";
    let summoned = Summoned::start(place, "", &www())?;
    let before = place.lab.shell(AGAIN)?;
    ensure!(before.trim().parse::<u64>().is_ok(), "it counts {before:?}");
    for _ in 0..5 {
        summoned.asleep("www")?;
        summoned.get(GUEST)?;
    }
    let after = place.lab.shell(AGAIN)?;
    ensure!(before == after, "SYNs again: {before} became {after}");
    let www = summoned.asleep("www")?;
    ensure!(www["births"] == 5, "it is {www}");
    Ok(())
}

/// A neighbour solicitation and a SYN of IPv6, and a datagram of IPv4.
pub(super) fn by_others(place: &Place) -> Result<()> {
    let lines = "ipv6 = \"fd00:2::80/64\"";
    let summoned = Summoned::start(place, "", &service("www", GUEST, lines))?;
    let lab = &place.lab;
    lab.shell("wget -q -O /dev/null http://[fd00:2::80]/")?;
    summoned.asleep("www")?;
    lab.shell(&format!("nslookup mayfly.test {GUEST}"))?;
    let www = summoned.asleep("www")?;
    let wakes = summoned.totals()?["wakes"].clone();
    ensure!(
        www["births"] == 2 && www["failures"] == 0 && wakes["nd"] == 1,
        "woken by {wakes}: {www}"
    );
    ensure!(
        wakes["udp"].as_u64().unwrap_or(0) + wakes["arp"].as_u64().unwrap_or(0) == 1,
        "woken by {wakes}"
    );
    Ok(())
}

pub(super) fn others(place: &Place) -> Result<()> {
    let summoned = Summoned::start(place, "", &www())?;
    for name in ["other.example.test", "www.example.org"] {
        ensure!(summoned.query(name).is_err(), "{name} has an address");
    }
    let nobody = place
        .lab
        .exec(&["ping", "-c", "1", "-W", "1", "10.0.2.99"])?;
    ensure!(!nobody.success(), "somebody is there");
    let www = summoned.status("www")?;
    ensure!(
        www["births"] == 0 && www["state"] == "asleep",
        "it is {www}"
    );
    Ok(())
}

//! Many services, and hostile clients.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::{BRIDGE, DOM0, GUEST, static_program};

use super::*;

/// Runs an attack for some seconds, and queries an honest service meanwhile. Returns the attacker's output.
pub(crate) fn abused(summoned: &Summoned<'_>, words: &[&str], honest: Ipv4Addr) -> Result<String> {
    const ABUSE: &str = "/guest/abuse";
    let program = static_program("mayfly-abuse", "mayfly-abuse")?;
    let lab = summoned.lab();
    lab.put(ABUSE, 0o755, &std::fs::read(program)?)?;
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..3 {
                from_dom0(lab, honest)?;
            }
            anyhow::Ok(())
        });
        let said = lab.run(&[&[ABUSE], words].concat())?;
        match asking.join() {
            Ok(asked) => asked.with_context(|| said.clone())?,
            Err(_) => bail!("the honest client panicked"),
        }
        Ok(said)
    })
}

pub(super) fn query_flood(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let many: Vec<String> = (0..20)
        .map(|n| service(&format!("many-{n}"), Ipv4Addr::new(10, 0, 2, 100 + n), ""))
        .collect();
    let services = www() + &service("one", one, "") + &many.concat();
    let limits = "[daemon.limits]\nbirths_per_prefix = 5\nrunning = 5";
    let summoned = Summoned::start(place, limits, &services)?;
    let server = DOM0.to_string();
    for name in ["*.example.test", HOST] {
        let said = abused(&summoned, &[&server, "10", "queries", name], one)?;
        println!("{name}: {}", said.trim());
    }
    summoned.logged("turned away")?;
    let totals = summoned.totals()?;
    let www = summoned.status("www")?;
    println!("{totals}");
    // Unknown names have woken no service; a known name has, once in each of its lives.
    ensure!(
        www["births"].as_u64().is_some_and(|births| births <= 5),
        "it is {www}"
    );
    let all = summoned.lab().shell("xl list | awk 'NR > 2' | wc -l")?;
    ensure!(all.trim().parse::<u32>()? <= 2, "{all} guests run");
    Ok(())
}

pub(super) fn syn_flood(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let services = www() + &service("one", one, "");
    let summoned = Summoned::start(place, "", &services)?;
    let words = [&GUEST.to_string(), "4", "syn", &mac(GUEST), BRIDGE];
    let said = abused(&summoned, &words, one)?;
    let www = summoned.until("www", |www| www["births"] == 1)?;
    println!("{}: {}", said.trim(), www["frames"]);
    ensure!(www["births"] == 1 && www["failures"] == 0, "it is {www}");
    Ok(())
}

/// Random clients of many services that sleep after two seconds. All are answered, and nothing is left.
pub(super) fn fifty(place: &Place) -> Result<()> {
    let seconds = if crate::is_long() { 600 } else { 15 };
    let services: Vec<String> = (0..50)
        .map(|n| service(&format!("s{n}"), Ipv4Addr::new(10, 0, 2, 100 + n), ""))
        .collect();
    let limits = "[daemon.limits]\nbirths_per_second = 100\nburst = 100\nbirths_per_prefix = 1000";
    let summoned = Summoned::start(place, limits, &services.concat())?;
    // The first birth leaves some things for good.
    summoned.get(Ipv4Addr::new(10, 0, 2, 100))?;
    summoned.asleep("s0")?;
    let before = crate::hatch::state(place)?;
    let memory = taken(&summoned)?;
    let script = format!(
        "client() {{ n=$1; end=$(($(date +%s) + {seconds})); ok=0; bad=0
         while [ $(date +%s) -lt $end ]; do
             n=$(((n * 1103515245 + 12345) & 0x7fffffff))
             if wget -q -O /dev/null http://10.0.2.$((100 + n / 65536 % 50))/; then ok=$((ok + 1)); else bad=$((bad + 1)); fi
         done; echo $ok $bad; }}
         client 1 & client 2 & client 3 & client 4 & wait"
    );
    let output = summoned.lab().exec_with(
        &["sh", "-c", &script],
        &[],
        Duration::from_secs(seconds + 60),
    )?;
    let text = output.text();
    let bad = text.lines().filter(|line| !line.ends_with(" 0")).count();
    ensure!(
        bad == 0 && text.lines().count() == 4,
        "answered and not: {text}"
    );
    let (mut births, mut deaths) = (0, 0);
    for n in 0..50 {
        let one = summoned.asleep(&format!("s{n}"))?;
        ensure!(one["failures"] == 0, "it is {one}");
        births += one["births"].as_u64().unwrap_or(0);
        deaths += one["deaths"].as_u64().unwrap_or(0);
    }
    println!("{births} births, {deaths} deaths; answered and not: {text:?}");
    ensure!(births == deaths && births > 1);
    crate::hatch::returns(place, &before)?;
    let after = taken(&summoned)?;
    println!("KiB of dom0, xenstored and hatch: {memory:?} became {after:?}");
    // Allocators keep some memory, and dom0's kernel 0.1 MiB for each birth at first. Continuing growth shows in the
    // long run.
    for ((before, after), may_grow) in memory.iter().zip(&after).zip([64 << 10, 4 << 10, 4 << 10]) {
        ensure!(after - before <= may_grow, "{before} KiB became {after}");
    }
    Ok(())
}

/// The memory in use in dom0, and the resident memory of xenstored and of the daemon, in KiB.
pub(super) fn taken(summoned: &Summoned<'_>) -> Result<[i64; 3]> {
    let script = format!(
        "awk '/^MemTotal:/ {{ all = $2 }} /^MemAvailable:/ {{ print all - $2 }}' /proc/meminfo
         for pid in $(pidof xenstored) $(cat {PID}); do awk '/^VmRSS:/ {{ print $2 }}' /proc/$pid/status; done"
    );
    let text = summoned.lab().shell(&script)?;
    let figures: Vec<i64> = text
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    let figures = figures.try_into();
    figures.map_err(|_| anyhow::anyhow!("dom0's memory is {text:?}"))
}

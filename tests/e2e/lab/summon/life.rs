//! Services through sleep and death, and the daemon through restarts.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::{BRIDGE, GUEST};
use serde_json::Value;

use super::wakes::syns;
use super::*;
use crate::switch::Switch;

pub(super) fn takeover(place: &Place) -> Result<()> {
    let summoned = Summoned::start(
        place,
        "",
        &service("www", GUEST, "").replace("idle = 2", "idle = 20"),
    )?;
    summoned.page()?;
    let domid = summoned.until("www", |www| www["state"] == "running")?["domid"].clone();
    for signal in ["KILL", "TERM"] {
        summoned.signal(signal)?;
        summoned.page().context("nobody serves without a daemon")?;
        place.lab.shell(&format!(
            "while kill -0 $(cat {PID}) 2>/dev/null; do sleep 0.1; done"
        ))?;
        summoned.spawn()?;
        let www = summoned.status("www")?;
        ensure!(
            www["domid"] == domid && www["births"] == 0,
            "after SIG{signal}: {www}"
        );
        summoned.page()?;
    }
    summoned.asleep("www")?;
    summoned.page()?;
    Ok(())
}

/// The daemon is killed after each of its requests to xenstored in turn: during start, making a pooled guest, giving
/// one its name, suspending one, resuming one, and removing one. After each, the next daemon serves both services, and
/// nothing is left.
pub(super) fn killed_anywhere(place: &Place) -> Result<()> {
    // Go through the requests of all that. Beyond them, the daemon lives.
    let step = if crate::is_long() { 1 } else { 6 };
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let services =
        service("www", GUEST, "asleep = \"suspend\"") + &service("one", one, "asleep = \"pool\"");
    for requests in (5..400).step_by(step) {
        let summoned = Summoned { place };
        let flush = format!("ip neigh flush dev {BRIDGE}");
        place.lab.shell(&flush)?;
        summoned.write("pool = 1", &services)?;
        summoned.spawn_to(LOG, &format!("HATCH_KILL_AFTER={requests}"))?;
        // Both are born, sleep, and are woken. The daemon ends at one of the requests.
        let ask = format!(
            "wget -q -T 3 -O /dev/null http://{GUEST}/; wget -q -T 3 -O /dev/null http://{one}/"
        );
        let script = format!(
            "for n in 1 2 3 4; do kill -0 $(cat {PID}) 2>/dev/null || break; ({ask}) & sleep 4; done; kill -0 $(cat {PID}) 2>/dev/null && echo lives; true"
        );
        let lives = place.lab.shell(&script)?.contains("lives");
        // End processes of the daemon that may be left.
        summoned.signal("KILL").ok();
        let number = || format!("killed after {requests} requests");
        summoned.spawn().with_context(number)?;
        summoned.get(GUEST).with_context(number)?;
        summoned.get(one).with_context(number)?;
        let www = summoned.until("www", |www| www["state"] == "suspended");
        www.and_then(|_| summoned.asleep("one"))
            .with_context(number)?;
        drop(summoned);
        place.nothing_left().with_context(number)?;
        if lives {
            println!("it makes fewer than {requests} requests");
            return Ok(());
        }
    }
    Ok(())
}

pub(super) fn failures(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let two = Ipv4Addr::new(10, 0, 2, 82);
    let services = [
        www(),
        // A word at which the guest crashes.
        service("one", one, "cmdline = \"ip=nonsense\""),
        service("two", two, "").replace("/guest/mayfly", "/guest/nowhere"),
    ];
    let summoned = Summoned::start(place, "", &services.concat())?;
    for name in ["one", "two"] {
        summoned.query(&format!("{name}.example.test"))?;
        let failed = summoned.until(name, |one| one["state"] == "backed-off")?;
        ensure!(failed["failures"] == 1, "it is {failed}");
    }
    let two = summoned.status("two")?;
    let trouble = two["last_trouble"].as_str().unwrap_or_default();
    ensure!(trouble.contains("/guest/nowhere"), "it is {two}");
    summoned.page()?;
    // It is tried again after a pause, and then after a longer one.
    summoned.asleep("one")?;
    summoned.query("one.example.test")?;
    summoned.until("one", |one| one["failures"] == 2)?;
    Ok(())
}

pub(super) fn caps(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let services = www() + &service("one", one, "");
    let summoned = Summoned::start(place, "[daemon.limits]\nrunning = 1", &services)?;
    summoned.page()?;
    summoned.query("one.example.test")?;
    summoned.until("one", |one| one["state"] == "queued")?;
    ensure!(summoned.totals()?["running"] == 1);
    // It is started as soon as the other one sleeps, and its waiting client is served.
    summoned.get(one)?;
    let one = summoned.status("one")?;
    ensure!(one["births"] == 1, "it is {one}");
    Ok(())
}

pub(super) fn reload(place: &Place) -> Result<()> {
    let two = Ipv4Addr::new(10, 0, 2, 82);
    let long = |text: String| text.replace("idle = 2", "idle = 60");
    let summoned = Summoned::start(place, "", &long(www() + &service("two", two, "")))?;
    summoned.page()?;
    summoned.get(two)?;
    let domid = summoned.status("www")?["domid"].clone();
    // A wrong file changes nothing.
    summoned.write("nonsense = 1", &www())?;
    summoned.signal("HUP")?;
    summoned.logged("not reloaded")?;
    let one = Ipv4Addr::new(10, 0, 2, 81);
    summoned.write("", &long(www() + &service("one", one, "")))?;
    summoned.signal("HUP")?;
    summoned.logged("reloaded services=")?;
    summoned.get(one)?;
    let www = summoned.status("www")?;
    ensure!(www["domid"] == domid, "it was {domid} and is {www}");
    ensure!(summoned.status("two").is_err(), "two is still there");
    let end = Instant::now() + BOUND;
    while place.lab.exec(&[HATCH, "show", "two"])?.success() {
        ensure!(Instant::now() < end, "two still runs");
    }
    ensure!(summoned.query("two.example.test").is_err());
    Ok(())
}

pub(super) fn connection(place: &Place) -> Result<()> {
    let summoned = Summoned::start(place, "", &www())?;
    // A silent client.
    place.lab.shell(&format!(
        "(sleep 6 | nc {GUEST} 80 >/dev/null) </dev/null >/dev/null 2>&1 &"
    ))?;
    summoned.until("www", |www| www["state"] == "running")?;
    let start = Instant::now();
    summoned.asleep("www")?;
    let stayed = start.elapsed();
    ensure!(
        stayed > Duration::from_secs(4),
        "it went to sleep after {stayed:?}"
    );
    Ok(())
}

/// A guest is asked for its connections after two seconds, and removed half a second later. Clients come around both
/// times.
pub(super) fn at_the_end(place: &Place) -> Result<()> {
    let summoned = Summoned::start(place, "", &www())?;
    let rounds = crate::cycles(5)?.clamp(5, 100);
    for round in 0..rounds {
        summoned.page().with_context(|| format!("round {round}"))?;
        std::thread::sleep(Duration::from_millis(1950 + u64::from(round * 137 % 800)));
    }
    let www = summoned.asleep("www")?;
    println!("{rounds} connections, {} births", www["births"]);
    ensure!(
        www["births"] == www["deaths"] && www["failures"] == 0,
        "it is {www}"
    );
    Ok(())
}

pub(super) fn pool(place: &Place) -> Result<()> {
    let services = service("www", GUEST, "asleep = \"pool\"");
    let summoned = Summoned::start(place, "pool = 2", &services)?;
    for births in 1..=3 {
        let end = Instant::now() + BOUND;
        while summoned.totals()?["pool"] != 2 {
            ensure!(
                Instant::now() < end,
                "the pool is not full: {}",
                summoned.log()?
            );
        }
        summoned.page()?;
        let www = summoned.until("www", |www| www["births"] == births)?;
        let boot = www["last_boot"].as_array().context("no boot")?;
        ensure!(
            !boot.iter().any(|step| step["what"] == "memory"),
            "it was made and not taken: {www}"
        );
        summoned.asleep("www")?;
    }
    summoned.signal("TERM")?;
    summoned.logged("ending")?;
    place.lab.shell(&format!(
        "while kill -0 $(cat {PID}) 2>/dev/null; do sleep 0.1; done"
    ))?;
    Ok(())
}

pub(super) fn suspend(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let services = service("www", GUEST, "asleep = \"suspend\"") + &service("one", one, "");
    let summoned = Summoned::start(place, "[daemon.limits]\nrunning = 1", &services)?;
    let still =
        |resumes: u32| move |www: &Value| www["state"] == "suspended" && www["resumes"] == resumes;
    let before = syns(&place.lab)?;
    summoned.page()?;
    let domid = summoned.until("www", still(0))?["domid"].clone();
    let list = place
        .lab
        .shell("xl list www | awk 'NR == 2 { print $5 }'")?;
    ensure!(list.contains('p'), "it is not paused: {list}");
    for resumes in 1..=5 {
        if resumes % 2 == 0 {
            summoned.query(HOST)?;
        }
        summoned.page()?;
        let www = summoned.until("www", still(resumes))?;
        ensure!(www["domid"] == domid && www["births"] == 1, "it is {www}");
    }
    let syns = syns(&place.lab)? - before;
    ensure!(syns == 6, "6 connections, {syns} SYNs");
    // Broadcasts on the bridge are not queued for the suspended guest: a full queue would take its carrier.
    let flood = "for n in $(seq 90 99); do ping -c 1 -W 1 10.0.2.$n >/dev/null & done; wait";
    place.lab.shell(flood)?;
    summoned.page()?;
    summoned.until("www", still(6))?;
    // Without the daemon, the guest would stay suspended, so the daemon resumes it.
    summoned.signal("TERM")?;
    place.lab.shell(&format!(
        "while kill -0 $(cat {PID}) 2>/dev/null; do sleep 0.1; done"
    ))?;
    summoned
        .page()
        .context("it stands still without a daemon")?;
    summoned.spawn()?;
    let www = summoned.until("www", still(0))?;
    ensure!(www["domid"] == domid, "it was {domid} and is {www}");
    // A killed daemon cannot resume it. The next daemon finds it.
    summoned.signal("KILL")?;
    summoned.spawn()?;
    summoned.page()?;
    let www = summoned.until("www", still(0))?;
    ensure!(www["domid"] == domid, "it was {domid} and is {www}");
    summoned.get(one)?;
    let www = summoned.asleep("www")?;
    ensure!(www["deaths"] == 1 && www["failures"] == 0, "it is {www}");
    Ok(())
}

/// A switch that is killed takes neither running guests nor sleeping services with it: the next one has them.
pub(super) fn switch_killed(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let services = service("www", GUEST, "").replace("idle = 2", "idle = 60");
    let services = services + &service("one", one, "");
    let mut switch = Switch::start(place)?;
    let summoned = Summoned::start(place, "", &services)?;
    summoned.page()?;
    let www = summoned.until("www", |www| www["state"] == "running")?;
    ensure!(www["network"] == "switch", "it is {www}");
    // Its back end is the file's matter.
    let output = place.hatch(&["network", "www", "netback"])?;
    let why = output.error_text();
    ensure!(
        !output.success() && why.contains("a service of `hatch summon`"),
        "{why}"
    );
    for round in 1..=2 {
        switch.kill()?;
        summoned.logged_times("no switch runs", round)?;
        // Dropped, the first would remove the journal.
        std::mem::forget(std::mem::replace(&mut switch, Switch::start(place)?));
        summoned.logged_times("a switch runs", round)?;
        summoned.get(one)?;
        summoned.page()?;
        let now = summoned.status("www")?;
        ensure!(now["domid"] == www["domid"], "it was {www} and is {now}");
    }
    Ok(())
}

/// Where a switch runs, its name in the file decides; where none runs, so does the file, and netback serves the others.
pub(super) fn back_ends(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let services = www() + &service("one", one, "network = \"switch\"");
    let summoned = Summoned::start(place, "", &services)?;
    summoned.logged("network=netback")?;
    summoned.logged("no switch runs")?;
    summoned.page()?;
    ensure!(summoned.status("www")?["network"] == "netback");
    // It is started later: who has waited for it is served, and others stay where they are.
    let switch = Switch::start(place)?;
    summoned.logged("a switch runs")?;
    summoned.get(one)?;
    summoned.asleep("www")?;
    summoned.page()?;
    let www = summoned.until("www", |www| www["state"] == "running")?;
    ensure!(www["network"] == "netback" && www["births"] == 2, "{www}");
    drop(summoned);
    drop(switch);
    Ok(())
}

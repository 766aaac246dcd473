//! `hatch summon` under attack, or without something that it needs. Honest clients of its other services are served.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::{BRIDGE, DOM0, Lab, Options, Placed, hatch_programs, static_program, workspace};

use crate::birth::{BOUND, HATCH, Place};
use crate::cases::Case;
use crate::summon::load::abused;
use crate::summon::{FILE, Summoned, file, from_dom0, service, www};

pub(crate) const CASES: &[Case] = &[
    ("a sweep of a network wakes no more than it may", sweep),
    ("10,000 queries a second", counted_flood),
    ("a guest that never says anything is backed off", silent),
    ("what a guest has served is told", requests),
    ("guests made ahead give way", room),
];

/// These come last in a lab of their own, because dom0's kernel does not recover.
pub(crate) const XENSTORED: &[Case] = &[
    ("xenstored replaced by a new one", replaced),
    ("xenstored killed and started anew", killed),
];

pub(crate) fn options() -> Options {
    Options {
        name: "e2e-storm".to_owned(),
        ..crate::summon::options()
    }
}

const ONE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 81);
const TWO: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 82);

/// The time limit of a counted lab.
const COUNTED: Duration = Duration::from_secs(600);

/// The daemon's resident memory in KiB.
fn resident(summoned: &Summoned<'_>) -> Result<u64> {
    let script = "awk '/^VmRSS:/ { print $2 }' /proc/$(cat /run/summon.pid)/status";
    let text = summoned.lab().shell(script)?;
    text.trim()
        .parse()
        .with_context(|| format!("VmRSS is {text:?}"))
}

fn sweep(place: &Place) -> Result<()> {
    let many: Vec<String> = (0..20)
        .map(|n| service(&format!("many-{n}"), Ipv4Addr::new(10, 0, 2, 100 + n), ""))
        .collect();
    let services = www() + &service("one", ONE, "") + &many.concat();
    let limits = "[daemon.limits]\nbirths_per_second = 2\nburst = 4\nrunning = 5\nqueue = 8";
    let summoned = Summoned::start(place, limits, &services)?;
    from_dom0(&place.lab, ONE)?;
    let before = resident(&summoned)?;
    let network = DOM0.to_string();
    let start = Instant::now();
    let said = abused(&summoned, &[&network, "10", "sweep", BRIDGE], ONE)?;
    // The sweep takes most of dom0's single CPU, so a birth may take as long.
    summoned.logged("up service=many")?;
    let seconds = start.elapsed().as_secs();
    let after = resident(&summoned)?;
    // The status may be a moment older than the log.
    std::thread::sleep(Duration::from_secs(1));
    let (mut births, mut failures) = (0, 0);
    let mut held = 0;
    for name in (0..20).map(|n| format!("many-{n}")) {
        let one = summoned.status(&name)?;
        births += one["births"].as_u64().unwrap_or(0);
        failures += one["failures"].as_u64().unwrap_or(0);
        held = held.max(one["frames"]["held"].as_u64().unwrap_or(0));
    }
    let totals = summoned.totals()?;
    println!(
        "{}, in {seconds} s: {births} births; {before} KiB became {after}; {totals}",
        said.trim()
    );
    ensure!(
        failures == 0,
        "{failures} births failed:\n{}",
        summoned.log()?
    );
    ensure!(
        (1..=4 + 2 * (seconds + 1)).contains(&births),
        "{births} births in {seconds} s"
    );
    ensure!(
        totals["running"]
            .as_u64()
            .is_some_and(|running| running <= 5)
    );
    ensure!(after < before + 8 * 1024, "{before} KiB became {after}");
    summoned.logged("turned away")
}

/// In a counted lab, where a second is a thousand million instructions, because no emulated machine sends this many
/// queries in a real second.
fn counted_flood(_: &Place) -> Result<()> {
    const ABUSE: &str = "/guest/abuse";
    const SECONDS: u64 = 2;
    let script = format!(
        "{HATCH} summon {FILE} </dev/null >/run/summon.log 2>&1 & daemon=$!
         sleep 1
         for name in '*.example.test' www.example.test; do
             {ABUSE} {DOM0} {SECONDS} queries \"$name\" --rate 10000 >/run/said & flood=$!
             for n in 1 2 3; do wget -q -O /dev/null http://{ONE}/ && echo honest; sleep 0.4; done
             wait $flood; echo \"flood $(cat /run/said)\"
             echo \"lost $(awk '/^Udp:/ {{ lost = $6 }} END {{ print lost }}' /proc/net/snmp)\"
             echo \"guests $(xl list | awk 'NR > 2' | wc -l)\"
             echo \"resident $(awk '/^VmRSS:/ {{ print $2 }}' /proc/$daemon/status)\"
         done
         sed 's/^/log /' /run/summon.log"
    );
    let abuse = static_program("mayfly-abuse", "mayfly-abuse")?;
    let placed = |path: &str, mode, content| Placed {
        path: path.to_owned(),
        mode,
        content,
    };
    let services = www() + &service("one", ONE, "");
    let mut files = vec![
        placed(ABUSE, 0o755, std::fs::read(abuse)?),
        placed(
            "/guest/mayfly",
            0o644,
            std::fs::read(workspace().join("target/guest/mayfly"))?,
        ),
        placed(FILE, 0o644, file("", &services).into_bytes()),
    ];
    for program in hatch_programs(true)? {
        let name = program.file_name().context("a program has a name")?;
        let path = format!("/guest/{}", name.to_string_lossy());
        files.push(placed(&path, 0o755, std::fs::read(&program)?));
    }
    let options = Options {
        files,
        ..Options::counted("e2e-flood", &["sh", "-c", &script])
    };
    let log = Lab::up(&options, &|_| {})?.wait_off(COUNTED)?;
    let of = |word: &str| -> Vec<&str> {
        let lines = log.lines().map(str::trim);
        lines
            .filter_map(|line| line.strip_prefix(word)?.strip_prefix(' '))
            .collect()
    };
    let numbers = |word: &str| -> Vec<u64> {
        let words = of(word).into_iter();
        words
            .filter_map(|line| line.split_whitespace().next()?.parse().ok())
            .collect()
    };
    let honest = log.lines().filter(|line| line.trim() == "honest").count();
    let (floods, guests, resident) = (numbers("flood"), numbers("guests"), numbers("resident"));
    println!(
        "{:?}; lost {:?}, {guests:?} guests, {resident:?} KiB",
        of("flood"),
        numbers("lost")
    );
    ensure!(
        honest == 6,
        "{honest} of 6 honest clients were answered:\n{log}"
    );
    ensure!(
        floods.len() == 2 && floods.iter().all(|sent| *sent >= 10_000 * SECONDS),
        "{floods:?} queries were sent"
    );
    // Queries that arrive while a guest is being made may find the socket's queue full.
    let lost = numbers("lost").last().copied().context("nothing lost")?;
    let sent: u64 = floods.iter().sum();
    ensure!(
        lost * 100 < sent,
        "{lost} of {sent} queries were lost:\n{log}"
    );
    // Queries for unknown names have woken no service.
    ensure!(
        matches!(guests.as_slice(), [..=1, ..=2]),
        "{guests:?} guests"
    );
    ensure!(
        resident.iter().all(|kib| *kib < 16 * 1024),
        "it has {resident:?} KiB"
    );
    ensure!(of("log").iter().any(|line| line.contains("turned away")));
    Ok(())
}

/// A guest that runs and never does anything: the null guest, without its final hypercall.
fn silent(place: &Place) -> Result<()> {
    const VMMCALL: [u8; 3] = [0x0f, 0x01, 0xd9];
    const JUMP_HERE: [u8; 2] = [0xeb, 0xfe];
    let mut image = std::fs::read(workspace().join("target/guest/null-guest"))?;
    let at = image.windows(3).position(|bytes| bytes == VMMCALL);
    let at = at.context("the null guest makes no hypercall")?;
    image.splice(at..at + 2, JUMP_HERE);
    place.lab.put("/guest/silent", 0o644, &image)?;
    let one = service("one", ONE, "").replace("/guest/mayfly", "/guest/silent");
    let summoned = Summoned::start(place, "", &(www() + &one))?;
    summoned.query("one.example.test")?;
    summoned.page()?;
    let failed = summoned.until("one", |one| one["state"] == "backed-off")?;
    let trouble = failed["last_trouble"].as_str().unwrap_or_default();
    ensure!(
        failed["failures"] == 1 && trouble.contains("has sent nothing"),
        "it is {failed}"
    );
    summoned.page()
}

fn requests(place: &Place) -> Result<()> {
    let summoned = Summoned::start(place, "", &www().replace("idle = 2", "idle = 20"))?;
    for _ in 0..3 {
        summoned.page()?;
    }
    place
        .lab
        .shell(&format!("nslookup mayfly.test {}", mayfly_lab::GUEST))?;
    // nslookup queries both address types. Our own status requests do not count, however many they were.
    for _ in 0..3 {
        summoned.until("www", |www| www["requests"] == 5)?;
        std::thread::sleep(Duration::from_secs(1));
    }
    Ok(())
}

/// The memory of pooled guests is no reason to refuse a birth.
fn room(place: &Place) -> Result<()> {
    let services = service("www", mayfly_lab::GUEST, "asleep = \"pool\"\nmemory = 8")
        + &service("one", ONE, "memory = 16");
    let summoned = Summoned::start(place, "pool = 4\n[daemon.limits]\nmemory = 24", &services)?;
    let pool = |wanted: u64| {
        let end = Instant::now() + BOUND;
        while summoned.totals()?["pool"] != wanted {
            ensure!(
                Instant::now() < end,
                "it is {}: {}",
                summoned.totals()?,
                summoned.log()?
            );
        }
        anyhow::Ok(())
    };
    pool(3)?;
    summoned.get(ONE)?;
    pool(1)?;
    let one = summoned.asleep("one")?;
    ensure!(one["births"] == 1 && one["failures"] == 0, "it is {one}");
    pool(3)?;
    summoned.signal("TERM")?;
    summoned.logged("ending")?;
    place
        .lab
        .shell("while kill -0 $(cat /run/summon.pid) 2>/dev/null; do sleep 0.1; done")?;
    Ok(())
}

fn is_vif_gone(place: &Place, domid: &serde_json::Value) -> Result<()> {
    let end = Instant::now() + BOUND;
    while place
        .lab
        .exec(&["test", "-e", &format!("/sys/class/net/vif{domid}.0")])?
        .success()
    {
        ensure!(Instant::now() < end, "vif{domid}.0 is still there");
    }
    let list = place.lab.shell("xl list")?;
    ensure!(list.lines().count() == 2, "domains are left:\n{list}");
    Ok(())
}

/// The upgrade that xenstored provides: a new process takes over the state of the old one.
fn replaced(place: &Place) -> Result<()> {
    let services = www() + &service("one", ONE, "");
    let summoned = Summoned::start(place, "", &services)?;
    summoned.get(ONE)?;
    place
        .lab
        .shell("xenstore-control live-update -F -t 30 /usr/lib/xen-4.17/bin/xenstored")?;
    let from_command = place
        .lab
        .shell("tr '\\0' ' ' </proc/$(pidof xenstored)/cmdline")?;
    ensure!(from_command.contains("-U"), "it is {from_command:?}");
    for (name, address) in [("www", mayfly_lab::GUEST), ("one", ONE)] {
        summoned.get(address)?;
        let asleep = summoned.asleep(name)?;
        ensure!(asleep["failures"] == 0, "it is {asleep}");
    }
    Ok(())
}

/// xenstored restarts with an empty tree. Running guests go on, are found again, and end. There are no new guests until
/// the kernel has restarted, and the daemon says so.
fn killed(place: &Place) -> Result<()> {
    const LONG: &str = "idle = 12";
    let lab = &place.lab;
    let services =
        www() + &service("one", ONE, "").replace("idle = 2", LONG) + &service("two", TWO, "");
    let summoned = Summoned::start(place, "", &services)?;
    let before = lab.shell("xenstore-ls -f")?;
    summoned.get(ONE)?;
    summoned.get(mayfly_lab::GUEST)?;
    let www = summoned.until("www", |www| www["state"] == "running")?;
    let one = summoned.status("one")?;
    lab.shell("kill -9 $(pidof xenstored)")?;
    summoned.logged("xenstored has ended")?;
    summoned
        .get(ONE)
        .context("nobody serves without xenstored")?;
    // A guest that does not exist cannot be made, and the error says why. An unused guest waits to be removed.
    summoned.query("two.example.test")?;
    let two = summoned.until("two", |two| two["state"] == "backed-off")?;
    let trouble = two["last_trouble"].as_str().unwrap_or_default();
    ensure!(trouble.contains("cannot reach xenstored"), "it is {two}");
    summoned.until("www", |www| www["state"] == "dying")?;
    summoned.get(ONE)?;
    lab.shell("xenstored --pid-file /run/xen/xenstored.pid && xen-init-dom0")?;
    summoned.logged("xenstored runs again")?;
    // The guest that was to be removed is gone, and the other is in the index again.
    let asleep = summoned.asleep("www")?;
    ensure!(
        asleep["failures"] == 0 && asleep["deaths"] == 1,
        "it is {asleep}"
    );
    let listed = lab.run(&[HATCH, "list"])?;
    ensure!(
        listed.contains("one") && !listed.contains("www"),
        "hatch lists:\n{listed}"
    );
    lab.run(&[HATCH, "gc"])?;
    summoned.get(ONE)?;
    // The kernel makes no new interfaces, and that is found out in less than ten seconds.
    summoned.asleep("two")?;
    let start = Instant::now();
    summoned.query("two.example.test")?;
    let two = summoned.until("two", |two| two["failures"] == 2)?;
    let trouble = two["last_trouble"].as_str().unwrap_or_default();
    ensure!(
        trouble.contains("is not connected to this xenstored"),
        "it is {two}"
    );
    ensure!(start.elapsed() < Duration::from_secs(5));
    // A new daemon finds the guest, and removes it in its time.
    summoned.signal("KILL")?;
    summoned.spawn()?;
    let found = summoned.status("one")?;
    ensure!(
        found["domid"] == one["domid"],
        "it was {one} and is {found}"
    );
    summoned.get(ONE)?;
    summoned.asleep("one")?;
    for guest in [www, one] {
        is_vif_gone(place, &guest["domid"])?;
    }
    let other = lab.exec(&[HATCH, "create", crate::birth::EXAMPLE])?;
    ensure!(
        !other.success()
            && other
                .error_text()
                .contains("is not connected to this xenstored"),
        "hatch says {}",
        other.error_text()
    );
    drop(summoned);
    // Restore the nodes for the next case.
    for line in before.lines() {
        let Some((path, value)) = line.split_once(" = ") else {
            bail!("xenstore has {line:?}");
        };
        lab.run(&["xenstore-write", path, value.trim_matches('"')])?;
    }
    Ok(())
}

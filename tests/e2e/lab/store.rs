//! `hatch xenstored` in the place of Debian's.

use anyhow::{Context as _, Result, ensure};
use mayfly_lab::{Options, Xenstored};

use crate::birth::{HATCH, Maker, Place};
use crate::cases::Case;
use crate::replug::{load, with_file};

/// A lab whose dom0 runs it.
pub(crate) fn options() -> Options {
    Options {
        xenstored: Xenstored::Hatch,
        ..Options::named("e2e-store")
    }
}

/// The cases of `hatch xenstored` alone.
pub(crate) const CASES: &[Case] = &[
    ("Xen's own tools work with it", tools),
    ("its worker is killed again and again during births", killed),
];

fn tools(place: &Place) -> Result<()> {
    let run = |words: &[&str]| place.lab.run(words);
    let processes = run(&["ps", "-o", "comm"])?;
    ensure!(processes.contains("hatch-xenstored"), "{processes}");
    run(&["xenstore-write", "/test/a/b", "one", "/test/c", "two"])?;
    ensure!(run(&["xenstore-read", "-s", "/test/a/b"])? == "one\n");
    ensure!(run(&["xenstore-list", "/test"])? == "a\nc\n");
    run(&["xenstore-chmod", "/test/c", "n0", "r7"])?;
    let listed = run(&["xenstore-ls", "-p", "/test"])?;
    ensure!(listed.contains("(n0,r7)"), "{listed}");
    let watched = "xenstore-watch -n 2 /test/a & sleep 0.3; xenstore-write /test/a/d 1; wait";
    let watched = place.lab.shell(watched)?;
    ensure!(watched == "/test/a\n/test/a/d\n", "{watched:?}");
    run(&["xenstore-rm", "/test"])?;
    ensure!(!place.lab.exec(&["xenstore-read", "/test/c"])?.success());
    ensure!(run(&["xenstore-control", "check"])?.contains("OK"));
    let quota = run(&["xenstore-control", "quota"])?;
    ensure!(quota.contains("nodes"), "{quota}");
    // A second one leaves the first one alone.
    let second = ["hatch-xenstored", "--pid-file", "/run/xen/xenstored.pid"];
    ensure!(!place.lab.exec(&second)?.success(), "two xenstoreds run");
    ensure!(run(&["xl", "list"])?.contains("Domain-0"));
    Ok(())
}

/// Kills the worker every few milliseconds until `/guest/calm` is there, and then writes the number of kills.
const STORM: &str = "rm -f /guest/calm; (n=0; while [ ! -e /guest/calm ]; do \
    kill -9 $(pidof store-worker) 2>/dev/null && n=$((n + 1)); usleep 3000; done; echo $n >/guest/kills) \
    >/dev/null 2>&1 </dev/null &";
/// Ends that.
const CALM: &str = "touch /guest/calm; while [ ! -e /guest/kills ]; do usleep 10000; done; cat /guest/kills; \
    rm /guest/calm /guest/kills";
/// The file descriptors of the worker, and the number of processes.
const RESOURCES: &str = "usleep 300000; ls /proc/$(pidof store-worker)/fd | wc -l; pidof store-worker store-copy | wc -w";
/// Kills the worker 50 times, and prints the longest time that a request has taken after it, in hundredths of a second.
const PAUSES: &str = "longest=0; for i in $(seq 50); do kill -9 $(pidof store-worker); \
    read start rest </proc/uptime; xenstore-exists /tool || exit 1; read end rest </proc/uptime; \
    start=${start%.*}${start#*.}; end=${end%.*}${end#*.}; took=$((end - start)); \
    [ $took -gt $longest ] && longest=$took; done; echo $longest";

/// Runs `act` while the worker is killed every few milliseconds. Returns the number of kills.
fn in_storm(place: &Place, act: impl FnOnce() -> Result<()>) -> Result<u32> {
    place.lab.shell(STORM)?;
    let result = act();
    let kills = place.lab.shell(CALM)?;
    result.with_context(|| format!("{} kills", kills.trim()))?;
    Ok(kills.trim().parse()?)
}

fn killed(place: &Place) -> Result<()> {
    let lab = &place.lab;
    let pid = lab.run(&["cat", "/run/xen/xenstored.pid"])?;
    let before = resources(place)?;
    lab.shell(&format!(
        "xenstore-watch -n 3 {WATCHED} >{EVENTS} & echo $! >{EVENTS}.pid"
    ))?;
    let mut kills = 0;
    for maker in [Maker::Hatch, Maker::Xl] {
        place.maker.set(maker);
        for round in 0..3 {
            kills += in_storm(place, || {
                let (birth, file) =
                    with_file(place).with_context(|| format!("{maker:?}, {round}"))?;
                load(lab.http()?, &file, || Ok(()))?;
                birth.destroy()
            })?;
            place.nothing_left()?;
        }
        // A guest that serves, and whose end is noticed.
        let (birth, file) = with_file(place)?;
        kills += in_storm(place, || load(lab.http()?, &file, || Ok(())))?;
        lab.run(&["xenstore-write", WATCHED, "Domain-0"])?;
        kills += in_storm(place, || {
            lab.run(&["xl", "shutdown", "-w", "mayfly"]).map(drop)
        })?;
        drop(birth);
        place.nothing_left()?;
    }
    ensure!(kills > 100, "{kills} kills");
    let pause: u32 = lab.shell(PAUSES)?.trim().parse()?;
    eprintln!("{kills} kills; the longest of 50 pauses: {pause}0 ms");
    ensure!(pause < 50, "a pause of {pause}0 ms");
    ensure!(lab.run(&["xenstore-control", "check"])?.contains("OK"));
    ensure!(lab.run(&["cat", "/run/xen/xenstored.pid"])? == pid);
    expect_events(place, 3)?;
    let now = resources(place)?;
    ensure!(
        now[0] <= before[0] && now[1] == 2,
        "{before:?} before, {now:?} now"
    );
    Ok(())
}

/// Returns the number of file descriptors of the worker, and that of processes beside the keeper.
fn resources(place: &Place) -> Result<[u32; 2]> {
    let text = place.lab.shell(RESOURCES)?;
    let numbers = text.split_whitespace().map(str::parse);
    let numbers: Vec<u32> = numbers.collect::<Result<_, _>>()?;
    numbers.try_into().ok().context("two numbers")
}

/// Checks that a client of `xenstore-watch` has got so many events, and no other.
fn expect_events(place: &Place, count: usize) -> Result<()> {
    let lab = &place.lab;
    lab.shell(&format!(
        "timeout 30 sh -c 'while kill -0 $(cat {EVENTS}.pid); do sleep 0.1; done' 2>/dev/null; true"
    ))?;
    let events = lab.run(&["cat", EVENTS])?;
    ensure!(events == format!("{WATCHED}\n").repeat(count), "{events:?}");
    lab.run(&["rm", EVENTS, &format!("{EVENTS}.pid")]).map(drop)
}

/// A xenstored that is replaced while guests run.
pub(crate) const TAKEOVER: &[Case] = &[
    ("taken over from xenstored and given back", taken_over),
    ("a takeover that fails changes nothing", refused),
];

/// oxenstored writes its state in another format.
pub(crate) const OTHER_DOM0: &[Case] = &[("oxenstored is not taken over", not_taken_over)];

/// A node that is always there, which nobody else writes.
const WATCHED: &str = "/local/domain/0/name";
/// The events of a client that waits for them all the time.
const EVENTS: &str = "/guest/events";

/// Runs `hatch xenstored takeover`, and checks which program xenstored is then.
fn take_over(place: &Place, program: &str, successor: &str) -> Result<()> {
    let said = place
        .lab
        .shell(&format!("{HATCH} xenstored takeover {program}"))?;
    ensure!(said.contains("it has answered after"), "{said}");
    let executed = "readlink /proc/$(cat /run/xen/xenstored.pid)/exe";
    let executed = place.lab.shell(executed)?;
    ensure!(executed.trim_end().ends_with(successor), "{executed}");
    ensure!(
        place
            .lab
            .run(&["xenstore-control", "check"])?
            .contains("OK")
    );
    Ok(())
}

fn taken_over(place: &Place) -> Result<()> {
    let lab = &place.lab;
    let pid = lab.run(&["cat", "/run/xen/xenstored.pid"])?;
    lab.shell(&format!(
        "xenstore-watch -n 7 {WATCHED} >{EVENTS} & echo $! >{EVENTS}.pid"
    ))?;
    let (mut birth, mut file) = with_file(place)?;
    for round in 0..3 {
        // The order of children is not the same in both.
        let tree = || lab.shell("xenstore-ls -fp /local/domain | sort");
        let there = tree()?;
        load(lab.http()?, &file, || {
            take_over(place, "", "hatch-xenstored")?;
            take_over(place, "", "hatch-xenstored").context("from itself")
        })?;
        let now = tree()?;
        ensure!(now == there, "before:\n{there}\nnow:\n{now}");
        lab.run(&["xenstore-write", WATCHED, "Domain-0"])?;
        // The guest's watch, and that of whoever waits for its end.
        lab.run(&["xl", "shutdown", "-w", "mayfly"])?;
        drop(birth);
        place.nothing_left()?;
        // The watches of dom0's kernel.
        (birth, file) = with_file(place).with_context(|| format!("round {round}"))?;
        load(lab.http()?, &file, || {
            take_over(place, "$(command -v xenstored)", "bin/xenstored")
        })?;
        lab.run(&["xenstore-write", WATCHED, "Domain-0"])?;
        load(lab.http()?, &file, || Ok(()))?;
        birth.destroy()?;
        place.nothing_left()?;
        (birth, file) = with_file(place)?;
    }
    birth.destroy()?;
    ensure!(lab.run(&["cat", "/run/xen/xenstored.pid"])? == pid);
    expect_events(place, 7)
}

fn refused(place: &Place) -> Result<()> {
    let lab = &place.lab;
    let refused = |program: &str, text: &str| {
        let output = lab.exec(&[HATCH, "xenstored", "takeover", program])?;
        let error = output.error_text();
        ensure!(
            !output.success() && error.contains(text),
            "{program}: {error}"
        );
        ensure!(lab.run(&["xenstore-control", "check"])?.contains("OK"));
        Ok(())
    };
    refused("/no/such", "/no/such")?;
    refused("/guest/mayfly", "not executable")?;
    take_over(place, "", "hatch-xenstored")?;
    refused("/guest/mayfly", "not executable")?;
    lab.put("/guest/empty", 0o755, b"")?;
    refused("/guest/empty", "/guest/empty")?;
    take_over(place, "$(command -v xenstored)", "bin/xenstored")?;
    lab.run(&["rm", "/guest/empty"]).map(drop)
}

fn not_taken_over(place: &Place) -> Result<()> {
    let output = place.lab.exec(&[HATCH, "xenstored", "takeover"])?;
    let error = output.error_text();
    ensure!(
        !output.success() && error.contains("no C xenstored and no hatch xenstored runs"),
        "{error}"
    );
    ensure!(place.lab.run(&["xl", "list"])?.contains("Domain-0"));
    Ok(())
}

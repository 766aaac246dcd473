//! A running guest is moved between netback and the switch.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::ask;

use crate::birth::{BOUND, EXAMPLE, HATCH, Place};
use crate::cases::Case;
use crate::handshake::put_linux;
use crate::hatch::json;
use crate::lifecycle::{KeptAlive, LINUX, linux_answers};
use crate::switch::{Switch, answers, pack};

pub(crate) const CASES: &[Case] = &[
    (
        "a guest moves from one back end to the other, and its connections go on",
        mayfly,
    ),
    ("a Linux guest moves as well, and then closes", of_linux),
    ("who cannot be moved stays where it is", refused),
    ("a guest is moved and removed at the same time", removed),
];

const PACK: &str = "/guest/moves.mfs";
fn moved(place: &Place, name: &str, to: &str) -> Result<()> {
    let moved = json(&place.hatched(&["network", "--json", name, to])?)?;
    ensure!(
        moved["moved"] == true && moved["network"] == to,
        "{name} to {to}: {moved}"
    );
    Ok(())
}

/// Starts a download in dom0, of which most is still to come, and new connections one after the other. A connection that
/// takes as long as a second SYN is noted.
const LOAD: &str = r#"
rm -f /run/begun /run/over /run/stop /run/stopped /run/slow /run/count
(wget -q -O - http://10.0.2.80/large.bin | (dd bs=1 count=1000 2>/dev/null; touch /run/begun; sleep 1; cat) | sha256sum >/run/sum; touch /run/over) &
(while ! [ -e /run/stop ]; do
    read a _ </proc/uptime
    timeout 5 wget -q -O /dev/null http://10.0.2.80/ || echo failed >>/run/slow
    read b _ </proc/uptime
    a=${a%.*}${a#*.} b=${b%.*}${b#*.}
    [ $((b - a)) -lt 95 ] || echo $((b - a)) hundredths >>/run/slow
    echo >>/run/count
done; touch /run/stopped) &
while ! [ -e /run/begun ]; do sleep 0.1; done
"#;

/// Ends the connections; gives the number of all, and those that were slow.
const STOP: &str = r#"
sleep 1; touch /run/stop
for n in $(seq 100); do [ -e /run/stopped ] && break; sleep 0.1; done
wc -l </run/count
[ -e /run/slow ] && cat /run/slow || true
"#;

/// The time of a move in which no connection can take as long as a second SYN, unless the first was lost.
const QUICK: Duration = Duration::from_millis(700);

fn mayfly(place: &Place) -> Result<()> {
    let lab = &place.lab;
    let switch = Switch::start(place)?;
    lab.put(PACK, 0o644, &pack()?)?;
    for first in ["switch", "netback"] {
        place.hatched(&[
            "create",
            "--network",
            first,
            "--ramdisk",
            PACK,
            "--memory",
            "32",
            EXAMPLE,
        ])?;
        let (status, _) = ask::http(lab.http()?, "/", BOUND)?;
        ensure!(status == 200, "GET / gives {status}");
        let whole = lab.shell("wget -q -O - http://10.0.2.80/large.bin | sha256sum")?;
        let mut idle = KeptAlive::open(lab.http()?)?;
        idle.ask()?;
        let other = if first == "switch" {
            "netback"
        } else {
            "switch"
        };
        for round in 0..3 {
            for to in [other, first] {
                let what = format!("from {first}, round {round}, to {to}");
                lab.shell(LOAD).context(what.clone())?;
                let start = Instant::now();
                moved(place, "mayfly", to).context(what.clone())?;
                let is_quick = start.elapsed() < QUICK;
                let seen = lab.shell(STOP)?;
                let (count, slow) = seen.split_once('\n').unwrap_or_default();
                // In a lab that is slow, so is a connection that was held.
                let is_well = slow.is_empty() || !is_quick && !slow.contains("failed");
                ensure!(
                    is_well && count.trim().parse::<u32>().is_ok_and(|count| count > 2),
                    "{what}: {seen}; {}",
                    lab.shell("xenstore-ls -f /local/domain; dmesg | tail; cat /run/switch.log")?
                );
                idle.ask().context(what.clone())?;
                let over = "for n in $(seq 200); do [ -e /run/over ] && exec cat /run/sum; sleep 0.2; done; exit 1";
                let sum = lab.shell(over).context(what.clone())?;
                ensure!(sum == whole, "{what}: {sum} is not {whole}");
                let vifs = lab.shell("ls /sys/class/net | grep -c vif || true")?;
                let is_there = switch.guest("mayfly").is_ok();
                ensure!(
                    (vifs.trim() == "1") == (to == "netback") && is_there == (to == "switch"),
                    "{what}: {vifs} vifs, on the switch: {is_there}"
                );
            }
        }
        place.hatched(&["destroy", "--wait", "mayfly"])?;
        ensure!(lab.shell("xl list | grep -c null || true")?.trim() == "0");
    }
    drop(switch);
    place.nothing_left()
}

/// A page by which the guest ends itself in good order: its devices are closed.
const EXTRA: &str = r#"console=hvc0 quiet then="mkdir /www/cgi-bin; printf '#!/bin/sh\npoweroff -f\n' >/www/cgi-bin/off; chmod 755 /www/cgi-bin/off""#;

/// A Linux front end knows one directory for as long as it runs; it closes there, too, wherever it was moved.
fn of_linux(place: &Place) -> Result<()> {
    put_linux(place)?;
    let switch = Switch::start(place)?;
    for first in ["switch", "netback"] {
        let other = if first == "switch" {
            "netback"
        } else {
            "switch"
        };
        place.hatched(&["create", "--network", first, "--extra", EXTRA, LINUX])?;
        linux_answers(place).context(first)?;
        for to in [other, first, other] {
            moved(place, "linux", to)?;
            linux_answers(place).with_context(|| format!("from {first} to {to}"))?;
        }
        let _ = place.lab.exec(&[
            "timeout",
            "20",
            "wget",
            "-q",
            "http://10.0.2.80/cgi-bin/off",
        ])?;
        let start = Instant::now();
        while !place.lab.run(&["xl", "list"])?.lines().any(|line| {
            line.starts_with("linux")
                && line
                    .split_whitespace()
                    .nth(4)
                    .is_some_and(|flags| flags.contains('s'))
        }) {
            ensure!(
                start.elapsed() < BOUND,
                "it does not shut down: {}",
                place.lab.shell("xenstore-ls -f /local/domain")?
            );
        }
        place.hatched(&["destroy", "--wait", "linux"])?;
        ensure!(place.lab.shell("xl list | grep -c null || true")?.trim() == "0");
    }
    drop(switch);
    place.nothing_left()
}

fn refused(place: &Place) -> Result<()> {
    let no = |words: &[&str], why: &str| -> Result<()> {
        let output = place.hatch(words)?;
        let text = output.error_text();
        ensure!(!output.success() && text.contains(why), "{words:?}: {text}");
        Ok(())
    };
    place.hatched(&["create", "--network", "netback", EXAMPLE])?;
    no(&["network", "mayfly", "switch"], "none runs")?;
    let switch = Switch::start(place)?;
    no(&["network", "nobody", "switch"], "nobody")?;
    let there = place.hatched(&["network", "mayfly", "netback"])?;
    ensure!(there.contains("there already"), "{there}");
    answers(place)?;
    // Where a switch runs, a guest is on it.
    place.hatched(&["destroy", "--wait", "mayfly"])?;
    place.hatched(&["create", EXAMPLE, "--paused"])?;
    let there = place.hatched(&["network", "mayfly", "switch"])?;
    ensure!(
        there.contains("there already"),
        "create takes the switch: {there}"
    );
    place.hatched(&["unpause", "mayfly"])?;
    answers(place)?;
    place.hatched(&["destroy", "mayfly"])?;
    drop(switch);
    place.nothing_left()
}

/// The kernel's thread for xenstore, which would connect no other guest if it had to wait, is none the worse.
fn removed(place: &Place) -> Result<()> {
    let switch = Switch::start(place)?;
    for round in 0..4 {
        place.hatched(&["create", "--network", "netback", EXAMPLE])?;
        answers(place)?;
        // The guest is in good time for it once its features are known; the two meet in other places each time.
        let script = format!(
            "{HATCH} network mayfly switch >/run/moved 2>&1 & usleep {}; {HATCH} destroy --wait mayfly; wait $!; cat /run/moved",
            round * 15_000
        );
        let said = place.lab.shell(&script)?;
        println!("round {round}: {}", said.trim());
        place.hatched(&["gc"])?;
        place.nothing_left().with_context(|| said)?;
    }
    drop(switch);
    place.nothing_left()
}

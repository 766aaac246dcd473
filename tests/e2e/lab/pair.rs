//! Two guests of the switch that ask each other.

use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::birth::{BOUND, EXAMPLE, Place};
use crate::cases::Case;
use crate::handshake::put_linux;
use crate::lifecycle::LINUX;
use crate::switch::{PACK, Switch, pack};

pub(crate) const CASES: &[Case] = &[(
    "guests of one thread and of two reach each other, and outlive the switch",
    pair,
)];

const CLIENT: &str = "10.0.2.81";
/// A page that runs what is posted to it.
const EXTRA: &str = r#"console=hvc0 quiet address=10.0.2.81/24 then="mkdir /www/cgi-bin; printf '#!/bin/sh\necho; exec sh\n' >/www/cgi-bin/run; chmod 755 /www/cgi-bin/run""#;
/// The MAC addresses of both, by which two threads have one of them each.
const MACS: [&str; 2] = ["00:16:3e:00:00:02", "00:16:3e:00:00:03"];

const SUM: &str = "wget -q -O - http://10.0.2.80/large.bin | sha256sum";
/// The file is read slowly, byte by byte at first, so that the switch ends in the middle of it.
const SLOWLY: &str = "(wget -q -O - http://10.0.2.80/large.bin | (dd bs=1 count=1000 2>/dev/null; touch /begun; sleep 1; cat) | sha256sum >/sum; touch /over) >/dev/null 2>&1 & while ! [ -e /begun ]; do sleep 0.1; done";
const OVER: &str =
    "for n in $(seq 100); do [ -e /over ] && exec cat /sum; sleep 0.1; done; echo never";

/// What the Linux guest prints.
fn ask(place: &Place, script: &str) -> Result<String> {
    let post =
        format!("timeout 60 wget -q -O - --post-data '{script}' http://{CLIENT}/cgi-bin/run");
    Ok(place.lab.shell(&post)?.trim().to_owned())
}

/// Frames and bytes that the client has got, and frames that went to the bridge.
fn seen(switch: &Switch<'_>) -> Result<[u64; 3]> {
    let got = switch.guest("linux")?["counters"]["to_guest"].clone();
    let sent = switch.status()?["bridges"][0]["counters"]["sent"].clone();
    let numbers = [&got["frames"], &got["bytes"], &sent].map(|number| number.as_u64());
    let [Some(frames), Some(bytes), Some(sent)] = numbers else {
        anyhow::bail!("{got} {sent}");
    };
    Ok([frames, bytes, sent])
}

fn pair(place: &Place) -> Result<()> {
    let lab = &place.lab;
    put_linux(place)?;
    lab.put(PACK, 0o644, &pack()?)?;
    let switch = Switch::start_with(place, "--threads 1")?;
    let create = ["create", "--network", "switch"];
    let mayfly = [
        "--mac",
        MACS[0],
        "--ramdisk",
        PACK,
        "--memory",
        "32",
        EXAMPLE,
    ];
    place.hatched(&[&create[..], &mayfly].concat())?;
    let linux = ["--mac", MACS[1], "--extra", EXTRA, LINUX];
    place.hatched(&[&create[..], &linux].concat())?;
    let start = Instant::now();
    while ask(place, "echo up").is_ok_and(|text| text != "up") {
        ensure!(start.elapsed() < BOUND, "the Linux guest does not answer");
    }
    let whole = lab.shell(SUM)?.trim().to_owned();
    // From ring to ring, in frames as long as the sender has made them.
    let direct = |switch: &Switch<'_>, what: &str| -> Result<()> {
        let before = seen(switch)?;
        let sum = ask(place, SUM)?;
        ensure!(sum == whole, "{what}: {sum} is not {whole}");
        let after = seen(switch)?;
        let [frames, bytes, sent] = [0, 1, 2].map(|at| after[at] - before[at]);
        ensure!(
            bytes > 10 << 20 && bytes / frames > 4 << 10 && sent < 100,
            "{what}: {bytes} bytes in {frames} frames, {sent} frames to the bridge"
        );
        Ok(())
    };
    direct(&switch, "one thread")?;
    switch.kill()?;
    std::mem::forget(switch);
    // The next one has more threads.
    let switch = Switch::start_with(place, "--threads 2")?;
    direct(&switch, "two threads")?;
    ask(place, SLOWLY)?;
    switch.kill()?;
    std::mem::forget(switch);
    let switch = Switch::start_with(place, "--threads 2")?;
    let sum = ask(place, OVER)?;
    ensure!(sum == whole, "killed: {sum} is not {whole}");
    let status = switch.status()?;
    ensure!(
        status["guests"]
            .as_array()
            .is_some_and(|guests| guests.len() == 2)
            && status["bridges"]
                .as_array()
                .is_some_and(|bridges| bridges.len() == 1),
        "{status}"
    );
    // Each thread that moves frames is confined.
    let tasks = format!(
        "for task in /proc/{}/task/*; do echo $(cat $task/comm) $(grep -h -e Seccomp: -e CapEff $task/status); done",
        switch.pid
    );
    let tasks = lab.shell(&tasks)?;
    let confined = tasks.lines().filter(|task| task.contains("Seccomp: 2"));
    let powers = tasks
        .lines()
        .filter(|task| !task.contains("CapEff: 0000000000000000"));
    ensure!(confined.count() == 2 && powers.count() == 0, "{tasks}");
    for name in ["mayfly", "linux"] {
        place.hatched(&["destroy", name]).context(name)?;
    }
    let start = Instant::now();
    while lab.shell("xl list | grep -c null || true")?.trim() != "0" {
        ensure!(start.elapsed() < BOUND, "a domain is kept");
    }
    drop(switch);
    place.nothing_left()
}

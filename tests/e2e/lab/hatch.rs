//! Cases about hatch itself: its guests' network is connected before they run, other tools can manage them, and
//! failures leave nothing behind.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::{GUEST, Output};
use serde_json::Value;

use crate::birth::{BOUND, EXAMPLE, HATCH, Place};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    ("the network is connected before the guest runs", connected),
    ("xl sees and handles its guests", citizens),
    ("it leaves alone what others made", others),
    ("of two creations with one name, one succeeds", names),
    ("of hatch and xl with one name, one succeeds", rivals),
    (
        "it gives up what it does not need, and says what it lacks",
        rights,
    ),
    (
        "what can't be is refused before there is a domain",
        refusals,
    ),
    ("many births and deaths leave nothing behind", cycles),
    ("many guests at once are all served", many),
];

/// The cases that depend on xenstored. (Without xenconsoled, `xl create` fails.)
pub(crate) const OTHER_DOM0: &[Case] = &[
    ("of two creations with one name, one succeeds", names),
    crate::faults::LOST,
];

impl Place {
    /// Runs hatch.
    pub(crate) fn hatch(&self, words: &[&str]) -> Result<Output> {
        self.lab.exec(&[&[HATCH], words].concat())
    }

    /// Runs hatch, which must succeed. Returns its output.
    pub(crate) fn hatched(&self, words: &[&str]) -> Result<String> {
        self.lab.run(&[&[HATCH], words].concat())
    }
}

pub(crate) fn json(text: &str) -> Result<Value> {
    serde_json::from_str(text).with_context(|| format!("no JSON: {text:?}"))
}

fn connected(place: &Place) -> Result<()> {
    let made = json(&place.hatched(&["create", "-p", "--json", EXAMPLE])?)?;
    let domid = made["domid"].as_u64().context("no domid")?;
    ensure!(made["preconnected"] == true, "it says {made}");
    let backend = format!("/local/domain/0/backend/vif/{domid}/0/state");
    let state = place.lab.run(&["xenstore-read", &backend])?;
    ensure!(state.trim() == "4", "the back end's state is {state}");
    let port = format!("cat /sys/class/net/vif{domid}.0/brport/state");
    ensure!(
        place.lab.shell(&port)?.trim() == "3",
        "the vif does not forward"
    );
    // Packets that are sent before the guest runs wait for it: there is no second ARP request and no second SYN.
    let script = format!(
        "wget -q -O /run/page http://{GUEST}/.mayfly/boot & sleep 0.3; {HATCH} unpause mayfly; wait $!; cat /run/page"
    );
    let boot = json(&place.lab.shell(&script)?)?;
    let events = boot["events"].as_array().context("no events")?;
    let has = |phase: &str| events.iter().any(|event| event["phase"] == phase);
    ensure!(
        has("preconnected") && !has("xenstore_sent"),
        "its boot was {boot}"
    );
    place.hatched(&["destroy", "mayfly"]).map(drop)
}

fn citizens(place: &Place) -> Result<()> {
    place.hatched(&["create", "--console", EXAMPLE])?;
    let listed = place.lab.run(&["xl", "list", "mayfly"])?;
    ensure!(listed.contains("mayfly"), "xl list: {listed}");
    for verb in ["pause", "unpause"] {
        place.lab.run(&["xl", verb, "mayfly"])?;
    }
    let page = format!("wget -q -O - http://{GUEST}/");
    ensure!(!place.lab.shell(&page)?.is_empty());
    let top = place
        .lab
        .shell("xl uptime; xl vcpu-list mayfly; xl network-list mayfly; xl list -v mayfly")?;
    ensure!(top.contains("/local/domain/0/backend/vif"), "xl says {top}");
    let tty = "xenstore-read /local/domain/$(xl domid mayfly)/console/tty";
    ensure!(place.lab.shell(tty)?.starts_with("/dev/pts/"));
    place.lab.run(&["xl", "destroy", "mayfly"])?;
    // hatch's own index still has the guest. That entry is stale, and the name can be used again.
    place.hatched(&["create", "-p", EXAMPLE])?;
    place.hatched(&["destroy", "mayfly"])?;
    place.hatched(&["gc"])?;
    place.nothing_left()
}

fn others(place: &Place) -> Result<()> {
    place.lab.run(&["xl", "create", EXAMPLE])?;
    let result = (|| {
        let refused = place.hatch(&["destroy", "mayfly"])?;
        ensure!(!refused.success(), "hatch destroys what xl has made");
        ensure!(place.lab.exec(&["xl", "domid", "mayfly"])?.success());
        let taken = place.hatch(&["create", EXAMPLE])?;
        let text = taken.error_text();
        ensure!(
            taken.code == 4 && text.contains("mayfly"),
            "exit code {}: {text}",
            taken.code
        );
        place.hatched(&["gc"])?;
        let listed = json(&place.hatched(&["list", "--json"])?)?;
        ensure!(
            listed.to_string().contains("mayfly"),
            "hatch list: {listed}"
        );
        ensure!(
            !place
                .lab
                .shell(&format!("wget -q -O - http://{GUEST}/"))?
                .is_empty()
        );
        Ok(())
    })();
    place.lab.run(&["xl", "destroy", "mayfly"])?;
    result
}

fn names(place: &Place) -> Result<()> {
    contend(place, &format!("{HATCH} create -p {EXAMPLE}"))
}

fn rivals(place: &Place) -> Result<()> {
    contend(place, &format!("xl create -p -q {EXAMPLE}"))
}

/// Lets hatch and a rival make the same guest at the same time.
fn contend(place: &Place, rival: &str) -> Result<()> {
    let rounds = if crate::is_long() { 50 } else { 5 };
    for round in 0..rounds {
        let script = format!(
            "{rival} >/run/rival 2>&1 & rival=$!; {HATCH} create -p {EXAMPLE} >/run/hatch.1 2>&1; echo $?; wait $rival; echo $?"
        );
        let codes = place.lab.shell(&script)?;
        let codes: Vec<&str> = codes.split_whitespace().collect();
        let made = codes.iter().filter(|code| **code == "0").count();
        if made != 1 {
            let said = place.lab.shell("cat /run/hatch.1 /run/rival")?;
            bail!("round {round}: the exit codes are {codes:?}: {said}");
        }
        let named = place.lab.shell("xl list | grep -c ' *mayfly '; true")?;
        ensure!(
            named.trim() == "1",
            "round {round}: {named} domains have the name"
        );
        place.hatched(&["destroy", "--force", "mayfly"])?;
        place
            .nothing_left()
            .with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// Makes an unprivileged user, and runs a program as that user.
const NOBODY: &str = "echo nobody:x:65534:65534::/:/bin/sh >/etc/passwd; chmod 755 /guest; start-stop-daemon -S -c nobody -x";

/// CAP_NET_ADMIN and CAP_SYS_NICE, in the form of /proc/PID/status.
const PORTS: &str = "CapPrm:\t0000000000801000";

fn rights(place: &Place) -> Result<()> {
    let look = "HATCH_RUN=cat /proc/$PPID/status >/run/status";
    let create = [HATCH, "create", "-p", EXAMPLE];
    place
        .lab
        .run(&[&["env", "HATCH_RUN_AT=names", look], &create[..]].concat())?;
    place.hatched(&["destroy", "mayfly"])?;
    let status = place.lab.shell("cat /run/status; rm /run/status")?;
    ensure!(
        status.contains(PORTS) && status.contains("NoNewPrivs:\t1"),
        "its rights are {status}"
    );
    for command in ["list", "destroy mayfly", "create -p /guest/mayfly.cfg"] {
        let script = format!("{NOBODY} {HATCH} -- {command}");
        let output = place.lab.exec(&["sh", "-c", &script])?;
        let text = output.error_text();
        ensure!(
            output.code == 5 && text.to_lowercase().contains("permission denied"),
            "{command}, as nobody: exit code {}: {text}",
            output.code
        );
    }
    Ok(())
}

fn refusals(place: &Place) -> Result<()> {
    let long = format!("x={}", "y".repeat(5000));
    let wrong: &[(&[&str], &str)] = &[
        (&["--name", "a/b"], "name"),
        (&["--name", ""], "name"),
        (&["--memory", "99999999"], "memory"),
        (&["--memory", "1"], "memory"),
        (&["--kernel", "/nowhere"], "/nowhere"),
        (&["--kernel", "/bin/busybox"], "PVH"),
        (&["--bridge", "nowhere"], "nowhere"),
        (&["--mac", "01:00:00:00:00:01"], "MAC"),
        (&["--extra", &long], "command line"),
    ];
    for (words, expected) in wrong {
        let output = place.hatch(&[&["create"], *words, &[EXAMPLE]].concat())?;
        let text = output.error_text();
        ensure!(
            !output.success() && text.contains(expected),
            "{words:?}: exit code {}: {text}",
            output.code
        );
        place.nothing_left()?;
    }
    Ok(())
}

/// Prints the state that must be the same after many births: memory, nodes, interfaces, descriptors, event channels.
const STATE: &str = "
    xl info | awk '/^free_memory/ { print \"memory\", $3 }'
    echo nodes $(xenstore-ls | wc -l)
    echo interfaces $(ls /sys/class/net | wc -l)
    echo files $(cut -f 1 /proc/sys/fs/file-nr)
    echo channels $(lsevtchn 0 | wc -l)
";

pub(crate) fn state(place: &Place) -> Result<Vec<(String, i64)>> {
    let text = place.lab.shell(STATE)?;
    let parsed: Option<Vec<_>> = text
        .lines()
        .map(|line| {
            let (name, value) = line.trim().split_once(' ')?;
            Some((name.to_owned(), value.trim().parse().ok()?))
        })
        .collect();
    let parsed = parsed.filter(|all| all.len() == 5);
    parsed.with_context(|| format!("dom0's state is {text:?}"))
}

fn cycles(place: &Place) -> Result<()> {
    let count = crate::cycles(30)?;
    // The first birth leaves some things for good.
    let script = |count: u32| {
        format!(
            "for n in $(seq {count}); do {HATCH} create {EXAMPLE} >/dev/null && {HATCH} destroy mayfly >/dev/null || exit 1; done"
        )
    };
    place.lab.shell(&script(3))?;
    let before = state(place)?;
    let start = Instant::now();
    let mut left = count;
    while left > 0 {
        let now = left.min(100);
        place.lab.shell(&script(now))?;
        left -= now;
    }
    let elapsed = start.elapsed().as_secs_f64();
    let after = returns(place, &before)?;
    println!("{count} births and deaths in {elapsed:.1} s: {before:?} became {after:?}");
    Ok(())
}

/// Waits until dom0's state is as before. RCU and Xen's scrubbing free some memory a little later.
pub(crate) fn returns(place: &Place, before: &[(String, i64)]) -> Result<Vec<(String, i64)>> {
    let end = Instant::now() + BOUND;
    loop {
        let after = state(place)?;
        let same = before
            .iter()
            .zip(&after)
            .all(|((name, before), (_, after))| {
                // Open files of dom0's shells come and go; memory is in MiB.
                let slack = if name == "files" { 64 } else { 1 };
                (before - after).abs() <= slack
            });
        if same {
            return Ok(after);
        }
        ensure!(Instant::now() < end, "{before:?} became {after:?}");
    }
}

fn many(place: &Place) -> Result<()> {
    let count = crate::cycles(20)?.min(200);
    let number = count.to_string();
    let template = [
        "create",
        "-n",
        &number,
        "--template",
        "--json",
        "--ip",
        "10.0.2.20/24",
        EXAMPLE,
    ];
    let made = place.hatched(&template)?;
    let result = (|| {
        let script = format!(
            "for n in $(seq {count}); do wget -q -O - http://10.0.2.$((19 + n))/ >/dev/null && echo served; done | wc -l"
        );
        let served = place.lab.shell(&script)?;
        ensure!(
            served.trim() == number,
            "of {count}, {served} are served: {made}"
        );
        Ok(())
    })();
    let names: Vec<String> = (1..=count).map(|n| format!("mayfly-{n}")).collect();
    let words: Vec<&str> = std::iter::once("destroy")
        .chain(names.iter().map(String::as_str))
        .collect();
    place.hatched(&words)?;
    result
}

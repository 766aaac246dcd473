//! Front ends that do the xenbus handshake with `hatch switch` themselves.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use mayfly_lab::linux;
use serde_json::Value;

use crate::birth::{BOUND, EXAMPLE, HATCH, Place};
use crate::cases::Case;
use crate::hatch::json;
use crate::lifecycle::{LINUX, linux_answers};
use crate::switch::{Switch, answers};
use crate::watch::Watch;

pub(crate) const CASES: &[Case] = &[
    (
        "a Linux guest is on the switch, outlives it, and reboots",
        of_linux,
    ),
    ("a front end that is plugged anew is served", replugged),
];

/// Puts the Linux guest's files into the lab.
pub(crate) fn put_linux(place: &Place) -> Result<()> {
    let guest = linux::guest(&|_| {})?;
    let lab = &place.lab;
    let kernel = linux::vmlinux(&std::fs::read(guest.kernel)?)?;
    lab.put("/guest/vmlinux", 0o644, &kernel)?;
    lab.put("/guest/ramdisk", 0o644, &guest.ramdisk)?;
    let config = include_str!("../../../tools/examples/linux.cfg");
    let config = config.replace("vmlinuz", "vmlinux");
    let config = config.replace(",script=vif-mayfly", "");
    lab.put(LINUX, 0o644, config.as_bytes())
}

fn domid(place: &Place, name: &str) -> Result<u32> {
    let text = place.lab.run(&["xl", "domid", name])?;
    text.trim().parse().context("no domid")
}

/// Waits until Xen has no domain that is dead and still mapped.
fn no_zombies(place: &Place, switch: &Switch<'_>) -> Result<()> {
    let start = Instant::now();
    while place.lab.shell("xl list | grep -c null || true")?.trim() != "0" {
        ensure!(start.elapsed() < BOUND, "it is kept: {}", switch.status()?);
    }
    ensure!(switch.status()?["guests"] == Value::Array(Vec::new()));
    Ok(())
}

fn of_linux(place: &Place) -> Result<()> {
    let lab = &place.lab;
    put_linux(place)?;
    let switch = Switch::start(place)?;
    let watch = Watch::start(place)?;
    let create = ["create", "--network", "switch", "--json", LINUX];
    let made = json(&place.hatched(&create)?)?;
    ensure!(made["network"] == "switch", "{made}");
    let served = |what: &str, switch: &Switch<'_>| -> Result<u32> {
        linux_answers(place).with_context(|| {
            let store = lab.shell("xenstore-ls -f /local/domain; cat /run/switch.log");
            format!("{what}; {}", store.unwrap_or_default())
        })?;
        let domid = domid(place, "linux")?;
        let guest = switch.guest("linux")?;
        ensure!(
            guest["domain"] == domid
                && guest["shut"].is_null()
                && guest["counters"]["from_guest"]["frames"].as_u64() > Some(3),
            "{what}: {guest}"
        );
        lab.shell(&format!("! [ -e /sys/class/net/vif{domid}.0 ]"))?;
        Ok(domid)
    };
    let first = served("its birth", &switch)?;
    switch.kill()?;
    std::mem::forget(switch);
    let switch = Switch::start(place)?;
    served("the next switch", &switch)?;
    lab.shell(&format!(
        "xenstore-write /local/domain/{first}/control/shutdown reboot"
    ))?;
    let start = Instant::now();
    while lab.exec(&["xl", "domid", "linux"])?.text().trim() == first.to_string()
        || lab
            .exec(&["xl", "domid", "linux"])?
            .text()
            .trim()
            .is_empty()
    {
        ensure!(start.elapsed() < BOUND, "it does not reboot");
    }
    served("its reboot", &switch)?;
    place.hatched(&["destroy", "linux"])?;
    no_zombies(place, &switch)?;
    drop(watch);
    // xl as well can end it.
    place.hatched(&create)?;
    served("its second birth", &switch)?;
    lab.run(&["xl", "destroy", "linux"])?;
    no_zombies(place, &switch)?;
    place.hatched(&["gc"])?;
    drop(switch);
    place.nothing_left()
}

/// Plugs the interface of domain $1 anew, as a toolstack would, in a directory of the switch.
const PLUG: &str = r#"
f=/local/domain/$1/device/vif/0 b=/local/domain/0/switch/$1
interface=$(xenstore-read $b/interface)
xenstore-rm $b
xenstore-write $b/interface "$interface" $b/frontend $f $b/frontend-id $1 $b/online 1 $b/state 1
xenstore-chmod -r $b n0 r$1
xenstore-write $f/state 1
"#;

/// mayfly, whose network the builder connects, connects by itself when it is plugged anew.
fn replugged(place: &Place) -> Result<()> {
    let switch = Switch::start(place)?;
    let lab = &place.lab;
    lab.put("/guest/plug-switch", 0o755, PLUG.as_bytes())?;
    place.hatched(&["create", "--network", "switch", EXAMPLE])?;
    answers(place)?;
    let domid = domid(place, "mayfly")?;
    let front = format!("/local/domain/{domid}/device/vif/0");
    lab.xenstore_wait(&format!("/local/domain/{domid}/data/mayfly/ready"), BOUND)?;
    for round in 0..3 {
        lab.shell(&format!("sh -e /guest/plug-switch {domid}"))?;
        let state = format!("/local/domain/0/switch/{domid}/state");
        let start = Instant::now();
        while lab.run(&["xenstore-read", &state])?.trim() != "4" {
            ensure!(
                start.elapsed() < BOUND,
                "round {round}: {}",
                lab.shell(&format!(
                    "xenstore-ls -f {front}; xenstore-ls -f /local/domain/0/switch; cat /run/switch.log"
                ))?
            );
        }
        answers(place).with_context(|| format!("round {round}"))?;
        // It connected by itself.
        lab.run(&["xenstore-read", &format!("{front}/tx-ring-ref")])?;
        let guest = switch.guest("mayfly")?;
        ensure!(guest["shut"].is_null(), "{guest}");
    }
    let output = lab.exec(&[HATCH, "destroy", "mayfly"])?;
    ensure!(output.success(), "{}", output.error_text());
    no_zombies(place, &switch)?;
    drop(switch);
    place.nothing_left()
}

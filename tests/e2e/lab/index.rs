//! hatch's index and Xen: stale entries of a guest whose number another domain has, and conflicts over one name, one
//! number or one UUID.

use anyhow::{Context as _, Result, ensure};

use crate::birth::{EXAMPLE, HATCH, Place};
use crate::cases::Case;
use crate::hatch::json;

pub(crate) const CASES: &[Case] = &[
    ("a stale entry leads to nobody else's domain", succeeded),
    ("nothing is inherited with a number", inherited),
    ("a late destroy leaves the new guest's claim", twice),
    ("gc spares xl's guest of the same UUID", namesake),
];

/// The UUID of a guest that is gone. `stale` writes the index entries of that guest with the number of another domain,
/// because Xen reuses numbers.
const GONE: &str = "11111111-2222-4333-8444-555555555555";

fn stale(place: &Place, domid: u64, name: &str) -> Result<()> {
    for (path, value) in [
        (format!("/hatch/name/{name}"), format!("{domid} {GONE}")),
        (
            "/hatch/mac/00163e999999".to_owned(),
            format!("{domid} {GONE}"),
        ),
        (
            format!("/hatch/domain/{domid}"),
            format!("{GONE} 00:16:3e:99:99:99 {name}"),
        ),
    ] {
        place.lab.run(&["xenstore-write", &path, &value])?;
    }
    Ok(())
}

/// A stale entry of the index leads nowhere, whatever domain has the number now.
fn succeeded(place: &Place) -> Result<()> {
    let other = "/run/other.cfg";
    let text = "name='other'\ntype='pvh'\nkernel='/guest/mayfly'\nmemory=8\nvcpus=1\n";
    place.lab.put(other, 0o644, text.as_bytes())?;
    place.lab.run(&["xl", "create", "-p", "-q", other])?;
    let result = (|| {
        let domid: u64 = place.lab.run(&["xl", "domid", "other"])?.trim().parse()?;
        stale(place, domid, "web")?;
        let listed = json(&place.hatched(&["list", "--json", "--ours"])?)?;
        ensure!(
            listed == json("[]")?,
            "hatch takes it for its own: {listed}"
        );
        for words in [
            &["pause", "web"][..],
            &["unpause", "web"],
            &["shutdown", "web"],
            &["show", "web"],
        ] {
            let output = place.hatch(words)?;
            ensure!(output.code == 3, "{words:?}: {}", output.error_text());
        }
        let asked = format!("/local/domain/{domid}/control/shutdown");
        let asked = place.lab.exec(&["xenstore-read", &asked])?.text();
        ensure!(asked.trim().is_empty(), "it was asked to end: {asked:?}");
        let number = domid.to_string();
        ensure!(
            !place.hatch(&["destroy", &number])?.success(),
            "destroyed by number"
        );
        // The name leads to the stale entries, and only those are removed.
        place.hatched(&["destroy", "web"])?;
        ensure!(
            place.lab.exec(&["xl", "domid", "other"])?.success(),
            "destroyed by a stale name"
        );
        let left = place
            .lab
            .shell("xenstore-ls -f /hatch | grep -c 5555 ; true")?;
        ensure!(left.trim() == "0", "{left} entries are left");
        // The same with gc. A stale name can be used by another guest.
        stale(place, domid, "web")?;
        place.hatched(&["gc"])?;
        let left = place
            .lab
            .shell("xenstore-ls -f /hatch | grep -c 5555 ; true")?;
        ensure!(left.trim() == "0", "{left} entries are left by gc");
        stale(place, domid, "mayfly")?;
        place.hatched(&["create", "-p", EXAMPLE])?;
        place.hatched(&["destroy", "mayfly"])?;
        ensure!(place.lab.exec(&["xl", "domid", "other"])?.success());
        place.hatched(&["gc"])?;
        Ok(())
    })();
    place.lab.run(&["xl", "destroy", "other"])?;
    result?;
    place.nothing_left()
}

/// A domain inherits nothing from the previous domain of its number: neither a shutdown request nor a back end's
/// directory.
fn inherited(place: &Place) -> Result<()> {
    place.hatched(&["create", "-p", EXAMPLE])?;
    let domid: u64 = place.lab.run(&["xl", "domid", "mayfly"])?.trim().parse()?;
    place.hatched(&["destroy", "mayfly", "--wait"])?;
    let next = domid + 1;
    for (path, value) in [
        (format!("/local/domain/{next}/control/shutdown"), "poweroff"),
        (format!("/local/domain/{next}/device/vif/7/state"), "1"),
        (format!("/local/domain/0/backend/vif/{next}/7/x"), "1"),
        (format!("/libxl/{next}/device/vbd/1/backend"), "x"),
    ] {
        place.lab.run(&["xenstore-write", &path, value])?;
    }
    let made = json(&place.hatched(&["create", "--json", EXAMPLE])?)?;
    ensure!(made["domid"] == next, "it is {made}, and not {next}");
    let left = format!(
        "for path in /local/domain/{next}/control/shutdown /local/domain/{next}/device/vif/7 /local/domain/0/backend/vif/{next}/7 /libxl/{next}/device/vbd; do xenstore-exists $path && echo $path; done; true"
    );
    let left = place.lab.shell(&left)?;
    ensure!(left.trim().is_empty(), "it has inherited {left}");
    // The keys that libxl sets for every guest.
    let vm = place
        .lab
        .run(&["xenstore-read", &format!("/local/domain/{next}/vm")])?;
    let uuid = place
        .lab
        .run(&["xenstore-read", &format!("{}/uuid", vm.trim())])?;
    ensure!(
        vm.trim() == format!("/vm/{}", uuid.trim()),
        "{vm} has {uuid}"
    );
    let rights = format!("xenstore-ls -p -w /local/domain/{next} | grep '^name'");
    let rights = place.lab.shell(&rights)?;
    ensure!(
        rights.contains(&format!("r{next}")),
        "the guest can't read its name: {rights}"
    );
    // `hatch show` prints its bridge and its UUID.
    let shown = json(&place.hatched(&["show", "--json", "mayfly"])?)?;
    ensure!(
        shown["vif"]["bridge"] == "xenbr0" && shown["uuid"] == uuid.trim(),
        "{shown}"
    );
    place.hatched(&["destroy", "mayfly"])?;
    place.nothing_left()
}

/// Two processes destroy one guest, and a third makes it anew meanwhile. The new guest's claim remains.
fn twice(place: &Place) -> Result<()> {
    let rounds = if crate::is_long() { 50 } else { 5 };
    for round in 0..rounds {
        place.hatched(&["create", "-p", EXAMPLE])?;
        let script = format!(
            "{HATCH} destroy mayfly & {HATCH} destroy mayfly & for n in $(seq 50); do {HATCH} create -p {EXAMPLE} 2>/run/said && break; done; wait"
        );
        place.lab.shell(&script)?;
        // Whatever the order was, a living guest has its claim.
        let domid = place.lab.exec(&["xl", "domid", "mayfly"])?;
        if domid.success() {
            let domid = domid.text();
            let entry = place
                .lab
                .exec(&["xenstore-read", "/hatch/name/mayfly"])?
                .text();
            ensure!(
                entry.starts_with(&format!("{} ", domid.trim())),
                "round {round}: the name of domain {domid} is claimed by {entry:?}"
            );
        }
        let gone = place.hatch(&["destroy", "mayfly"])?;
        ensure!(gone.success() || gone.code == 3, "{}", gone.error_text());
        place
            .nothing_left()
            .with_context(|| format!("round {round}"))?;
    }
    Ok(())
}

/// A guest made by xl with the UUID of a guest that a killed hatch has left unfinished.
fn namesake(place: &Place) -> Result<()> {
    let file = "/run/fixed.cfg";
    let text = format!(
        "name='fixed'\nuuid='{GONE}'\ntype='pvh'\nkernel='/guest/mayfly'\nmemory=8\nvcpus=1\n"
    );
    place.lab.put(file, 0o644, text.as_bytes())?;
    let mark = format!("/hatch/making/{GONE}");
    place.lab.run(&["xenstore-write", &mark, "999999 1"])?;
    place.lab.run(&["xl", "create", "-p", "-q", file])?;
    let result = (|| {
        place.hatched(&["gc"])?;
        ensure!(
            place.lab.exec(&["xl", "domid", "fixed"])?.success(),
            "gc has destroyed xl's guest"
        );
        ensure!(
            !place.lab.exec(&["xenstore-exists", &mark])?.success(),
            "the mark stays"
        );
        let vm = place
            .lab
            .exec(&["xenstore-exists", &format!("/vm/{GONE}")])?;
        ensure!(vm.success(), "gc has removed what is xl's");
        Ok(())
    })();
    place.lab.run(&["xl", "destroy", "fixed"])?;
    result
}

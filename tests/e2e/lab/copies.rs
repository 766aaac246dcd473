//! Many guests from one: `hatch restore -n` and `hatch clone`.

use anyhow::{Context as _, Result, ensure};

use crate::birth::{BOUND, HATCH, Place};
use crate::cases::Case;
use crate::lifecycle::{Clients, KeptAlive};

pub(crate) const CASES: &[Case] = &[
    ("several guests are restored from one file", restored),
    ("a guest that serves is cloned", cloned),
];

const SAVED: &str = "/guest/saved";

fn hatch(place: &Place, argv: &[&str]) -> Result<String> {
    place.lab.run(&[&[HATCH], argv].concat())
}

/// Each of these guests serves its page at its own address. A copy needs no help of the guest that it comes from.
fn serve(place: &Place, names: &[&str], first: u8) -> Result<()> {
    for (name, last) in names.iter().zip(first..) {
        let domid = place.lab.run(&["xl", "domid", name])?;
        let ready = format!("/local/domain/{}/data/mayfly/ready", domid.trim());
        let ready = place.lab.xenstore_wait(&ready, BOUND)?;
        ensure!(ready.trim() == "1", "{name} does not serve");
        let size = format!(
            "timeout 20 wget -q -O - http://10.0.2.{last}/large.bin | wc -c; grep '^10.0.2.{last} ' /proc/net/arp"
        );
        let said = place.lab.shell(&size).with_context(|| (*name).to_owned())?;
        ensure!(
            said.starts_with("6291456\n") && said.contains("00:16:3e:"),
            "{name} at 10.0.2.{last}: {said}"
        );
    }
    Ok(())
}

fn remove(place: &Place, names: &[&str]) -> Result<()> {
    hatch(place, &[&["destroy", "--wait"], names].concat()).map(drop)
}

fn restored(place: &Place) -> Result<()> {
    let clients = Clients::of(place)?;
    hatch(place, &["save", "-c", "mayfly", SAVED])?;
    // Addresses that run out: nothing is restored.
    let words = ["restore", "-n", "3", "--name", "copy", "--ip"];
    let many = |ip| {
        let argv = [&words[..], &[ip, "--mac", "00:16:3e:00:00:70", SAVED]].concat();
        place.lab.exec(&[&[HATCH], &argv[..]].concat())
    };
    let output = many("10.0.2.253/24")?;
    let error = output.error_text();
    ensure!(error.contains("outside of the network"), "{error}");
    let output = many("10.0.2.101/24")?;
    ensure!(output.success(), "{}", output.error_text());
    let names = ["copy-1", "copy-2", "copy-3"];
    serve(place, &names, 101)?;
    KeptAlive::open(place.lab.http()?)?
        .ask()
        .context("the first guest")?;
    remove(place, &names)?;
    // One of them, with the addresses of its command line, in place of the guest.
    hatch(place, &["destroy", "--wait", "mayfly"])?;
    hatch(place, &["restore", "-n", "1", "--first", "2", SAVED])?;
    serve(place, &["mayfly-2"], 81)?;
    let again = format!("{HATCH} restore -n 2 --first 3 - < {SAVED}");
    let error = place.lab.exec(&["sh", "-c", &again])?.error_text();
    ensure!(error.contains("-n needs a file"), "{error}");
    remove(place, &["mayfly-2"])?;
    place.lab.run(&["rm", SAVED])?;
    drop(clients);
    place.nothing_left()
}

fn cloned(place: &Place) -> Result<()> {
    let mut clients = Clients::of(place)?;
    let names = ["mayfly-1", "mayfly-2"];
    clients.outlive(|| hatch(place, &["clone", "mayfly", "-n", "2"]).map(drop))?;
    serve(place, &names, 81)?;
    // A clone of a clone.
    hatch(place, &["clone", "mayfly-2", "--name", "third"])?;
    serve(place, &["third-1"], 83)?;
    remove(place, &names)?;
    remove(place, &["third-1"])?;
    clients.birth.destroy()
}

//! Many guests from one: `hatch restore -n` and `hatch clone`.

use anyhow::{Context as _, Result, ensure};

use crate::birth::{BOUND, HATCH, Place};
use crate::cases::Case;
use crate::lifecycle::{Clients, KeptAlive};
use crate::switch::Switch;

pub(crate) const CASES: &[Case] = &[
    ("several guests are restored from one file", restored),
    ("a guest that serves is cloned", cloned),
    ("twenty copies of a guest of the switch are on it", switched),
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

/// The copies are where the guest is, answer at addresses of their own, and the guest goes on as if nothing had happened.
fn switched(place: &Place) -> Result<()> {
    const COPIES: usize = 20;
    let lab = &place.lab;
    let switch = Switch::start(place)?;
    let birth = place.create("mayfly", &["memory=4"])?;
    birth.ready()?;
    let mut idle = KeptAlive::open(lab.http()?)?;
    idle.ask()?;
    let made = hatch(
        place,
        &["clone", "mayfly", "-n", &COPIES.to_string(), "--json"],
    )?;
    idle.ask().context("the guest itself")?;
    let served = switch.status()?["guests"].as_array().map_or(0, Vec::len);
    ensure!(
        made.lines().count() == COPIES && (1..=COPIES + 1).contains(&served),
        "{made}: {served}"
    );
    let script = format!(
        "for n in $(seq 81 {}); do wget -q -O /dev/null http://10.0.2.$n/ || echo $n does not answer; done; \
         grep -E '^10.0.2.(8[1-9]|9[0-9]|100) .*00:16:3e:' /proc/net/arp | awk '{{ print $4 }}' | sort -u | wc -l",
        80 + COPIES
    );
    let said = lab.shell(&script)?;
    ensure!(said.trim() == COPIES.to_string(), "{said}");
    idle.ask().context("the guest itself, later")?;
    let vifs = lab.shell("ls /sys/class/net | grep -c vif || true")?;
    ensure!(vifs.trim() == "0", "{vifs} of them are on netback");
    // One that was saved there comes back there, or to netback where no switch runs.
    birth.destroy()?;
    hatch(place, &["save", "mayfly-1", SAVED])?;
    let saved = format!("{HATCH} restore {SAVED} && wget -q -O /dev/null http://10.0.2.81/");
    lab.shell(&saved)?;
    ensure!(switch.guest("mayfly-1").is_ok(), "{}", switch.status()?);
    let names: Vec<_> = (1..=COPIES).map(|n| format!("mayfly-{n}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    remove(place, &names)?;
    drop(switch);
    let said = lab.shell(&format!("({saved}) 2>&1"))?;
    ensure!(said.contains("no switch serves its bridge"), "{said}");
    remove(place, &["mayfly-1"])?;
    lab.run(&["rm", SAVED])?;
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

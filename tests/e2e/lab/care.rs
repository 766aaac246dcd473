//! Administration of a running daemon: commands, and bridges that are removed and made again.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use mayfly_lab::GUEST;

use crate::birth::{HATCH, Place};
use crate::cases::Case;
use crate::summon::{FILE, Summoned, service, www};

pub(crate) const CASES: &[Case] = &[
    ("summon wakes, restarts and puts to sleep", words),
    ("a bridge that was made anew is found", bridge),
];

/// A bridge of this test, with dom0 and a service on it.
const OTHER: &str = "br-other";
const DOM0_THERE: &str = "10.9.0.1/24";
const THERE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 80);

fn words(place: &Place) -> Result<()> {
    let summoned = Summoned::start(place, "", &www())?;
    let tell = |word: &str, name: &str| summoned.lab().exec(&[HATCH, "summon", word, name]);
    let is_done = |word: &str| -> Result<()> {
        let output = tell(word, "www")?;
        ensure!(output.success(), "{word}: {output:?}");
        Ok(())
    };
    is_done("wake")?;
    let first = summoned.until("www", |www| www["state"] == "running")?;
    is_done("restart")?;
    let second = summoned.until("www", |www| {
        www["state"] == "running" && www["domid"] != first["domid"]
    })?;
    ensure!(second["births"] == 2, "{second}");
    summoned.page()?;
    is_done("sleep")?;
    summoned.until("www", |www| www["state"] == "asleep" && www["deaths"] == 2)?;
    let unknown = tell("wake", "ww")?;
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    ensure!(
        !unknown.success() && said.contains("there is no service \"ww\""),
        "{said}"
    );
    Ok(())
}

fn bridge(place: &Place) -> Result<()> {
    let lab = &place.lab;
    let make = format!(
        "ip link add {OTHER} type bridge && ip addr add {DOM0_THERE} dev {OTHER} && ip link set {OTHER} up"
    );
    let remove = format!("ip link del {OTHER}");
    lab.shell(&make).context("a second bridge")?;
    let there = service("there", THERE, &format!("bridge = \"{OTHER}\""))
        .replace("gateway = \"10.0.2.2\"\n", "");
    let result = (|| {
        let summoned = Summoned::start(place, "", &format!("{}{there}", www()))?;
        summoned.get(THERE)?;
        summoned.until("there", |one| {
            one["state"] == "asleep" && one["births"] == 1
        })?;
        // Do it twice: a port that was found again must be found again once more.
        for births in [2_usize, 3] {
            lab.shell(&remove)?;
            summoned.logged_times("the port is lost", births - 1)?;
            lab.shell(&make)?;
            summoned.logged_times("the bridge has a port again", births - 1)?;
            summoned.get(THERE)?;
            summoned.until("there", |one| {
                one["state"] == "asleep" && one["births"] == births
            })?;
        }
        // The services on the other bridge are not affected.
        summoned.get(GUEST)?;
        lab.shell(&format!("{HATCH} summon check {FILE}")).map(drop)
    })();
    let _ = lab.shell(&remove);
    result
}

//! A Linux guest steals another guest's addresses: first without hatch's guard at its vif, to see that this does harm,
//! and then with it.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::{BRIDGE, GUEST, linux, static_program};

use crate::birth::{BOUND, Place};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    (
        "a guest does not get what is for another's address, nor into dom0",
        address,
    ),
    ("a guest does not take another's MAC address", mac),
];

const STAMP: &str = "/guest/stamp";
const CONFIG: &str = "/guest/linux.cfg";
const EXAMPLE: &str = include_str!("../../../tools/examples/linux.cfg");
const VICTIM: &str = "00:16:3e:00:00:80";
const THIEF: &str = "00:16:3e:00:00:90";
const THIEF_ADDRESS: &str = "10.0.2.90";
/// Text of the Linux guest's page, which the victim's page does not have.
const LINUX: &str = "A Linux guest answers";
/// The content of a page in dom0 that guests must not get.
const SECRET: &str = "dom0's own";
/// The number of requests to the victim during the attack.
const TIMES: u32 = 8;

/// The guest whose page a client of an address gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reached {
    Victim,
    Thief,
    Nobody,
}

/// The attacking guest. Dropping this destroys it.
struct Thief<'a> {
    place: &'a Place,
    vif: String,
}

impl Drop for Thief<'_> {
    fn drop(&mut self) {
        let _ = self.place.lab.exec(&["xl", "destroy", "linux"]);
    }
}

impl<'a> Thief<'a> {
    /// Creates the guest, which runs `then` as soon as it has its network.
    fn new(place: &'a Place, guarded: bool, then: &str) -> Result<Self> {
        let config = format!(
            "{EXAMPLE}\nextra = 'console=hvc0 quiet address={THIEF_ADDRESS}/24 then=\"{then}\"'\n\
             vif = [ 'mac={THIEF},bridge={BRIDGE},script=vif-mayfly' ]\n"
        );
        place.lab.put(CONFIG, 0o644, config.as_bytes())?;
        place.lab.run(&["xl", "create", "-p", "-q", CONFIG])?;
        let domid = place.lab.run(&["xl", "domid", "linux"])?;
        let vif = format!("vif{}.0", domid.trim());
        let thief = Self { place, vif };
        if guarded {
            let words = [STAMP, "guard", &thief.vif, BRIDGE, THIEF, THIEF_ADDRESS];
            place.lab.run(&words)?;
        }
        place.lab.run(&["xl", "unpause", "linux"])?;
        Ok(thief)
    }

    /// The number of its frames that the guard dropped.
    fn dropped(&self) -> Result<u32> {
        let text = self.place.lab.run(&[STAMP, "guard", &self.vif])?;
        text.trim().parse().context("stamp guard gives no number")
    }
}

fn reached(place: &Place, page: &str) -> Result<Reached> {
    let output = place
        .lab
        .exec(&["timeout", "3", "wget", "-q", "-O", "-", page])?;
    Ok(match output.text() {
        _ if !output.success() => Reached::Nobody,
        text if text.contains(LINUX) => Reached::Thief,
        _ => Reached::Victim,
    })
}

/// Requests the page until this guest, or none, is reached.
fn until(place: &Place, page: &str, who: Reached) -> Result<()> {
    let start = Instant::now();
    loop {
        let now = reached(place, page)?;
        if now == who {
            return Ok(());
        }
        ensure!(
            start.elapsed() < BOUND,
            "{page} reaches {now:?}, not {who:?}"
        );
        sleep(Duration::from_millis(500));
    }
}

/// Runs the attack without and with the guard.
fn rob(
    place: &Place,
    then: &str,
    robbed: Reached,
    besides: fn(&Place, bool) -> Result<()>,
) -> Result<()> {
    let guest = linux::guest(&|_| {})?;
    let lab = &place.lab;
    lab.put("/guest/vmlinuz", 0o644, &std::fs::read(guest.kernel)?)?;
    lab.put("/guest/ramdisk", 0o644, &guest.ramdisk)?;
    let stamp = std::fs::read(static_program("mayfly-stamp", "stamp")?)?;
    lab.put(STAMP, 0o755, &stamp)?;
    lab.put("/run/www/secret", 0o644, SECRET.as_bytes())?;
    let vif = format!("vif=['mac={VICTIM},bridge={BRIDGE},script=vif-mayfly']");
    let page = format!("http://{GUEST}/");
    let result = (|| {
        lab.shell("httpd -p 9000 -h /run/www")?;
        let victim = place.create("mayfly", &[&vif])?;
        until(place, &page, Reached::Victim)?;
        let thief = Thief::new(place, false, then)?;
        until(place, &page, robbed).context("the theft does no harm by itself")?;
        besides(place, false)?;
        drop(thief);
        // Flush all caches that have the attacker's address.
        victim.destroy()?;
        lab.shell(&format!("ip neigh flush dev {BRIDGE}"))?;
        let victim = place.create("mayfly", &[&vif])?;
        until(place, &page, Reached::Victim)?;
        let thief = Thief::new(place, true, then)?;
        let start = Instant::now();
        while thief.dropped()? == 0 {
            ensure!(start.elapsed() < BOUND, "the thief does not begin");
            sleep(Duration::from_millis(200));
        }
        besides(place, true)?;
        for time in 1..=TIMES {
            let who = reached(place, &page)?;
            ensure!(
                who == Reached::Victim,
                "time {time}: {page} reaches {who:?}"
            );
            sleep(Duration::from_millis(500));
        }
        println!("{} frames of the thief's were dropped", thief.dropped()?);
        drop(thief);
        victim.destroy()
    })();
    let _ = lab.exec(&["killall", "httpd"]);
    result
}

fn address(place: &Place) -> Result<()> {
    let then = format!(
        "wget -q -O /www/secret http://10.0.2.15:9000/secret & ip address add {GUEST}/24 dev eth0; \
         while :; do arping -q -c 1 -A -I eth0 {GUEST}; sleep 1; done &"
    );
    rob(place, &then, Reached::Thief, |place, guarded| {
        // The guest may use its own address, and the page shows what it gets from dom0.
        until(place, &format!("http://{THIEF_ADDRESS}/"), Reached::Thief)?;
        let page = format!("http://{THIEF_ADDRESS}/secret");
        let words = ["timeout", "3", "wget", "-q", "-O", "-", &page];
        let text = place.lab.exec(&words)?.text();
        ensure!(
            text.contains(SECRET) != guarded,
            "from dom0 it got {text:?}"
        );
        Ok(())
    })
}

fn mac(place: &Place) -> Result<()> {
    let then = format!(
        "ip link set eth0 down; ip link set eth0 address {VICTIM}; ip link set eth0 up; \
         while :; do arping -q -c 1 -w 1 -I eth0 10.0.2.2; done &"
    );
    rob(place, &then, Reached::Nobody, |_, _| Ok(()))
}

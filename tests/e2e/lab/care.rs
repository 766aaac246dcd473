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
    (
        "summon's front has no power, and comes again when it is killed",
        front,
    ),
    (
        "summon that is started again applies its file, and what was replaced reaches guests",
        applies,
    ),
];

/// The front's number: the daemon's only child.
const FRONT: &str =
    "grep -l \"^PPid:[[:space:]]*$(cat /run/summon.pid)$\" /proc/[0-9]*/status | cut -d/ -f3";

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

/// Strangers reach a process that can do nothing but ask for services; what becomes of it harms no guest.
fn front(place: &Place) -> Result<()> {
    let status = "status = \"127.0.0.1:8053\"";
    let summoned = Summoned::start(place, status, &www())?;
    let lab = summoned.lab();
    let of_front = || -> Result<u32> {
        let text = lab.shell(FRONT)?;
        let number = text.trim().parse();
        number.with_context(|| format!("the daemon's children are {text:?}"))
    };
    let first = of_front()?;
    let status = lab.shell(&format!("cat /proc/{first}/status"))?;
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        ensure!(status.contains(line), "{line:?} is not in {status}");
    }
    let files = lab.shell(&format!("ls -l /proc/{first}/fd"))?;
    ensure!(files.contains("socket:"), "{files}");
    // All services are on the switch, which holds the frames for them: the front has no port.
    for kept in ["/dev/xen", "/proc/xen", "xenstored", "/dev/net/tun"] {
        ensure!(!files.contains(kept), "the front has {kept}: {files}");
    }

    summoned.page()?;
    let before = summoned.until("www", |www| www["state"] == "running")?;
    lab.shell(&format!("kill -9 {first}"))?;
    summoned.logged("the front is started again")?;
    let second = of_front()?;
    ensure!(first != second, "it is still {first}");
    // The guest is as it was, and queries, the page and frames are served again.
    let running = summoned.status("www")?;
    ensure!(running["domid"] == before["domid"], "{before} {running}");
    let addresses = summoned.query("www.example.test")?;
    ensure!(addresses == [format!("A {GUEST}")], "{addresses:?}");
    lab.shell("wget -q -O - http://127.0.0.1:8053/metrics | grep -q hatch_summon")?;
    summoned.asleep("www")?;
    summoned.page()?;
    // The front dies in the middle of a birth. A client without an answer sends again.
    summoned.asleep("www")?;
    lab.shell(&format!(
        "wget -q -O /dev/null http://{GUEST}/ & kill -9 $({FRONT}); wait $!"
    ))?;
    summoned.logged_times("the front is started again", 2)?;
    // When the daemon ends, so does the front.
    let last = of_front()?;
    summoned.signal("KILL")?;
    lab.shell(&format!(
        "while kill -0 {last} 2>/dev/null; do sleep 0.05; done"
    ))
    .map(drop)
}

/// A daemon applies what has changed while none ran, and notices that another image is at the same path.
fn applies(place: &Place) -> Result<()> {
    const IMAGE: &str = "/guest/image";
    let lab = &place.lab;
    let replace = format!("cp /guest/mayfly {IMAGE}.new && mv {IMAGE}.new {IMAGE}");
    lab.shell(&replace)?;
    let always = |name: &str, n: u8, lines: &str| {
        service(
            name,
            Ipv4Addr::new(10, 0, 2, n),
            &format!("on_demand = false\n{lines}"),
        )
        .replace("/guest/mayfly", IMAGE)
    };
    let others = always("kept", 91, "") + &always("fresh", 92, "on_change = \"restart when idle\"");
    let www = |memory: u8| {
        service("www", GUEST, &format!("memory = {memory}")).replace("idle = 2", "idle = 60")
    };
    let summoned = Summoned::start(place, "", &format!("{}{others}", www(8)))?;
    let running = |name: &str| summoned.until(name, |one| one["state"] == "running");
    summoned.page()?;
    // The daemon records what a guest was made of a moment after its birth.
    let is_told = |domid: &serde_json::Value| {
        let path = format!("/local/domain/{domid}/summon");
        lab.shell(&format!(
            "until xenstore-read {path} 2>/dev/null; do sleep 0.1; done"
        ))
    };
    let [first, kept, fresh] = ["www", "kept", "fresh"].map(|name| {
        let domid = running(name)?["domid"].clone();
        is_told(&domid)?;
        anyhow::Ok(domid)
    });
    let (first, kept, fresh) = (first?, kept?, fresh?);

    let restart = |memory| -> Result<()> {
        summoned.write("", &format!("{}{others}", www(memory)))?;
        summoned.spawn()
    };
    summoned.signal("KILL")?;
    restart(8)?;
    for (name, domid) in [("www", &first), ("kept", &kept), ("fresh", &fresh)] {
        let now = running(name)?;
        ensure!(now["domid"] == *domid, "nothing has changed: {now}");
    }
    summoned.signal("KILL")?;
    restart(16)?;
    summoned.asleep("www")?;
    summoned.page()?;
    let has = lab.shell("xl list www | awk 'NR == 2 { print $3 }'")?;
    let mib: u64 = has.trim().parse().context("its memory")?;
    ensure!(mib > 12, "it has {mib} MiB");

    // The image is replaced while the daemon runs, and then while none runs.
    lab.shell(&replace)?;
    let is_new = |before: &serde_json::Value| {
        let before = before.clone();
        move |one: &serde_json::Value| one["state"] == "running" && one["domid"] != before
    };
    let second = summoned.until("fresh", is_new(&fresh))?["domid"].clone();
    is_told(&second)?;
    summoned.signal("KILL")?;
    lab.shell(&format!("sleep 2; {replace}"))?;
    restart(16)?;
    summoned.until("fresh", is_new(&second))?;
    let still = running("kept")?;
    ensure!(still["domid"] == kept, "it was to be kept: {still}");
    lab.shell(&format!("rm {IMAGE}")).map(drop)
}

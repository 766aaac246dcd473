//! `hatch summon`: services that sleep until somebody asks, by DNS or by a SYN alone, and go to sleep again.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{BRIDGE, DOM0, GUEST, Lab, Options, Protocol, static_program};
use mayfly_summon::wire::frame::{What, look};
use serde_json::Value;

use crate::birth::{BOUND, HATCH, Place};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    ("a SYN wakes a service that answers it itself", by_syn),
    ("a query wakes a service, and is answered at once", by_query),
    ("clients of dom0 send each SYN once", by_dom0),
    ("by IPv6, and by a datagram", by_others),
    ("other names and addresses wake nobody", others),
    ("it outlives its daemon, and kill -9 of it", takeover),
    (
        "a service that fails is backed off, and fails alone",
        failures,
    ),
    ("no more guests than there may be", caps),
    ("a new file is gone over to without losing a guest", reload),
    ("an open connection keeps a guest", connection),
    ("who comes as it is about to go is served", at_the_end),
    ("a pool is born from", pool),
    ("a suspended guest goes on, or makes room", suspend),
    ("its log may be full", full_log),
    ("systemd runs it as its unit says", under_systemd),
    ("a flood of queries makes no flood of guests", query_flood),
    ("a flood of SYNs makes one guest", syn_flood),
    ("fifty services and random clients", fifty),
];

/// Where the tests' file is in dom0.
pub(crate) const FILE: &str = "/guest/summon.toml";
const LOG: &str = "/run/summon.log";
const PID: &str = "/run/summon.pid";
const HOST: &str = "www.example.test";
/// How often a change is looked for.
const TICK: Duration = Duration::from_millis(50);

/// Services that are woken in turn, so that one falls asleep while others are born.
const CIRCLE: u32 = 6;

/// The lab that these cases want: what passes its network card is captured, and the host reaches dom0's DNS and some services.
pub(crate) fn options() -> Options {
    let services = (0..CIRCLE).map(|n| (Protocol::Tcp, http(n)));
    Options {
        capture: true,
        systemd: true,
        forwards: services
            .chain([(Protocol::Udp, SocketAddrV4::new(DOM0, 53))])
            .collect(),
        ..Options::named("e2e-summon")
    }
}

/// Where a service of the circle is.
fn http(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(GUEST.to_bits() + n), 80)
}

/// How many cold starts of each kind are tried.
fn starts() -> Result<u32> {
    Ok(crate::cycles(10)?.clamp(5, 200))
}

/// A service of the file. Later lines go into it.
pub(crate) fn service(name: &str, address: Ipv4Addr, lines: &str) -> String {
    format!(
        r#"
[[services]]
name = "{name}"
hosts = ["{name}.example.test"]
zone = "example.test"
image = "/guest/mayfly"
ipv4 = "{address}/24"
gateway = "10.0.2.2"
idle = 2
{lines}
"#
    )
}

pub(crate) fn www() -> String {
    service("www", GUEST, "")
}

/// The daemon's file.
pub(crate) fn file(daemon: &str, services: &str) -> String {
    format!("[daemon]\nlisten = [\"{DOM0}:53\"]\nttl = 1\n{daemon}\n{services}")
}

/// A daemon in dom0. Dropping it ends it, and its guests.
pub(crate) struct Summoned<'a> {
    place: &'a Place,
}

impl<'a> Summoned<'a> {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(place: &'a Place, daemon: &str, services: &str) -> Result<Self> {
        let summoned = Self { place };
        // dom0 may know another MAC address of the same service, from an earlier case.
        let flush = format!("ip neigh flush dev {BRIDGE}");
        place.lab.shell(&flush)?;
        summoned.write(daemon, services)?;
        summoned.spawn()?;
        Ok(summoned)
    }

    pub(crate) fn write(&self, daemon: &str, services: &str) -> Result<()> {
        self.lab()
            .put(FILE, 0o644, file(daemon, services).as_bytes())
    }

    pub(crate) fn spawn(&self) -> Result<()> {
        self.spawn_to(LOG)?;
        self.logged("ready")
    }

    fn spawn_to(&self, log: &str) -> Result<()> {
        let script = format!("{HATCH} summon {FILE} </dev/null >{log} 2>&1 & echo $! >{PID}");
        self.lab().shell(&script).map(drop)
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.place.lab
    }

    pub(crate) fn log(&self) -> Result<String> {
        self.lab().shell(&format!("cat {LOG}"))
    }

    /// Waits until something is in the log.
    pub(crate) fn logged(&self, what: &str) -> Result<()> {
        let end = Instant::now() + BOUND;
        loop {
            let log = self.log()?;
            if log.contains(what) {
                return Ok(());
            }
            ensure!(Instant::now() < end, "the log has no {what:?}:\n{log}");
            std::thread::sleep(TICK);
        }
    }

    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let script = format!("kill -{signal} $(cat {PID})");
        self.lab().shell(&script).map(drop)
    }

    /// How a service is.
    pub(crate) fn status(&self, name: &str) -> Result<Value> {
        let told = self.lab().run(&[HATCH, "summon", "status", "--json"])?;
        let status: Value = serde_json::from_str(&told).context("no status")?;
        let services = status["services"].as_array().context("no services")?;
        let one = services.iter().find(|one| one["name"] == name);
        one.cloned()
            .with_context(|| format!("no {name} in {status}"))
    }

    pub(crate) fn totals(&self) -> Result<Value> {
        let told = self.lab().run(&[HATCH, "summon", "status", "--json"])?;
        let mut status: Value = serde_json::from_str(&told).context("no status")?;
        Ok(status["totals"].take())
    }

    /// Waits until a service is as wanted.
    pub(crate) fn until(&self, name: &str, is_wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + BOUND;
        loop {
            let status = self.status(name)?;
            if is_wanted(&status) {
                return Ok(status);
            }
            if Instant::now() > end {
                bail!("{name} is {status}; the log has:\n{}", self.log()?);
            }
            std::thread::sleep(TICK);
        }
    }

    pub(crate) fn asleep(&self, name: &str) -> Result<Value> {
        self.until(name, |one| one["state"] == "asleep")
    }

    /// Gets the page of `www` from the host.
    pub(crate) fn page(&self) -> Result<()> {
        self.page_of(0)
    }

    /// Gets that of a service of the circle.
    fn page_of(&self, n: u32) -> Result<()> {
        let server = self.lab().forward(Protocol::Tcp, http(n))?;
        let (status, page) = ask::http(server, "/", BOUND)?;
        ensure!(status == 200 && !page.is_empty(), "GET / gives {status}");
        Ok(())
    }

    pub(crate) fn query(&self, name: &str) -> Result<Vec<String>> {
        let server: SocketAddr = self
            .lab()
            .forward(Protocol::Udp, SocketAddrV4::new(DOM0, 53))?;
        ask::dns(server, name, Rtype::A, BOUND)
    }

    pub(crate) fn get(&self, address: Ipv4Addr) -> Result<()> {
        self::from_dom0(self.lab(), address)
    }
}

impl Drop for Summoned<'_> {
    fn drop(&mut self) {
        // What of it is left, `nothing_left` finds.
        let script = format!(
            "kill -9 $(cat {PID}); for name in $(xl list | awk 'NR > 2 {{ print $1 }}'); do {HATCH} destroy $name; done; {HATCH} gc"
        );
        let _ = self.place.lab.exec(&["sh", "-c", &script]);
    }
}

/// Gets a page from dom0.
pub(crate) fn from_dom0(lab: &Lab, address: Ipv4Addr) -> Result<()> {
    let script = format!("wget -q -O /dev/null http://{address}/");
    lab.shell(&script).map(drop)
}

/// SYNs to services that the capture at the network card has.
fn syns(lab: &Lab) -> Result<usize> {
    let frames = lab.captured()?;
    let seen = frames.iter().filter_map(|frame| look(frame));
    let syns = seen.filter(|seen| seen.what == What::Syn);
    Ok(syns.count())
}

/// Each connection is to a service that is not there, and there are no more SYNs than connections: none was sent twice.
fn cold_starts(place: &Place, is_asked: bool) -> Result<()> {
    let name = |n: u32| format!("s{n}");
    let services = (0..CIRCLE).map(|n| service(&name(n), *http(n).ip(), ""));
    let limits = "[daemon.limits]\nbirths_per_prefix = 1000";
    let services: Vec<String> = services.collect();
    let summoned = Summoned::start(place, limits, &services.concat())?;
    // As often as it was born, it has gone again.
    let is_gone = |n: u32, births: u32| {
        summoned.until(&name(n), |one| {
            one["state"] == "asleep" && one["births"] == births && one["deaths"] == births
        })
    };
    let before = syns(&place.lab)?;
    let (starts, begun) = (starts()?, Instant::now());
    for start in 0..starts {
        let n = start % CIRCLE;
        is_gone(n, start / CIRCLE)?;
        if is_asked {
            let records = summoned.query(&format!("{}.example.test", name(n)))?;
            let address = http(n);
            ensure!(
                records == [format!("A {}", address.ip())],
                "DNS gives {records:?}"
            );
        }
        summoned.page_of(n)?;
    }
    let took = begun.elapsed();
    for n in 0..CIRCLE {
        let births = (n..starts).step_by(CIRCLE as usize).count();
        let one = is_gone(n, u32::try_from(births)?)?;
        ensure!(one["failures"] == 0, "it is {one}");
    }
    let syns = syns(&place.lab)? - before;
    println!("{starts} cold starts in {took:?}, {syns} SYNs");
    ensure!(syns == starts as usize, "{starts} connections, {syns} SYNs");
    let wakes = summoned.totals()?["wakes"].clone();
    ensure!(
        wakes["dns"] == if is_asked { starts } else { 0 },
        "it was woken by {wakes}"
    );
    Ok(())
}

fn by_syn(place: &Place) -> Result<()> {
    cold_starts(place, false)
}

fn by_query(place: &Place) -> Result<()> {
    cold_starts(place, true)
}

/// The kernel counts SYNs that it sent again.
fn by_dom0(place: &Place) -> Result<()> {
    const AGAIN: &str = "awk '/^TcpExt:/ { if (n) print $at; else for (i = 1; i <= NF; i++) if ($i == \"TCPSynRetrans\") at = i; n = 1 }' /proc/net/netstat";
    let summoned = Summoned::start(place, "", &www())?;
    let before = place.lab.shell(AGAIN)?;
    ensure!(before.trim().parse::<u64>().is_ok(), "it counts {before:?}");
    for _ in 0..5 {
        summoned.asleep("www")?;
        summoned.get(GUEST)?;
    }
    let after = place.lab.shell(AGAIN)?;
    ensure!(before == after, "SYNs again: {before} became {after}");
    let www = summoned.asleep("www")?;
    ensure!(www["births"] == 5, "it is {www}");
    Ok(())
}

/// A neighbour solicitation and a SYN of IPv6, and a datagram of IPv4.
fn by_others(place: &Place) -> Result<()> {
    let lines = "ipv6 = \"fd00:2::80/64\"";
    let summoned = Summoned::start(place, "", &service("www", GUEST, lines))?;
    let lab = &place.lab;
    lab.shell("wget -q -O /dev/null http://[fd00:2::80]/")?;
    summoned.asleep("www")?;
    lab.shell(&format!("nslookup mayfly.test {GUEST}"))?;
    let www = summoned.asleep("www")?;
    let wakes = summoned.totals()?["wakes"].clone();
    ensure!(
        www["births"] == 2 && www["failures"] == 0 && wakes["nd"] == 1,
        "woken by {wakes}: {www}"
    );
    ensure!(
        wakes["udp"].as_u64().unwrap_or(0) + wakes["arp"].as_u64().unwrap_or(0) == 1,
        "woken by {wakes}"
    );
    Ok(())
}

fn others(place: &Place) -> Result<()> {
    let summoned = Summoned::start(place, "", &www())?;
    for name in ["other.example.test", "www.example.org"] {
        ensure!(summoned.query(name).is_err(), "{name} has an address");
    }
    let nobody = place
        .lab
        .exec(&["ping", "-c", "1", "-W", "1", "10.0.2.99"])?;
    ensure!(!nobody.success(), "somebody is there");
    let www = summoned.status("www")?;
    ensure!(
        www["births"] == 0 && www["state"] == "asleep",
        "it is {www}"
    );
    Ok(())
}

fn takeover(place: &Place) -> Result<()> {
    let summoned = Summoned::start(
        place,
        "",
        &service("www", GUEST, "").replace("idle = 2", "idle = 20"),
    )?;
    summoned.page()?;
    let domid = summoned.until("www", |www| www["state"] == "running")?["domid"].clone();
    for signal in ["KILL", "TERM"] {
        summoned.signal(signal)?;
        summoned.page().context("nobody serves without a daemon")?;
        place.lab.shell(&format!(
            "while kill -0 $(cat {PID}) 2>/dev/null; do sleep 0.1; done"
        ))?;
        summoned.spawn()?;
        let www = summoned.status("www")?;
        ensure!(
            www["domid"] == domid && www["births"] == 0,
            "after SIG{signal}: {www}"
        );
        summoned.page()?;
    }
    summoned.asleep("www")?;
    summoned.page()?;
    Ok(())
}

fn failures(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let two = Ipv4Addr::new(10, 0, 2, 82);
    let services = [
        www(),
        // A word that the guest does not survive.
        service("one", one, "cmdline = \"ip=nonsense\""),
        service("two", two, "").replace("/guest/mayfly", "/guest/nowhere"),
    ];
    let summoned = Summoned::start(place, "", &services.concat())?;
    for name in ["one", "two"] {
        summoned.query(&format!("{name}.example.test"))?;
        let failed = summoned.until(name, |one| one["state"] == "backed-off")?;
        ensure!(failed["failures"] == 1, "it is {failed}");
    }
    let two = summoned.status("two")?;
    let trouble = two["last_trouble"].as_str().unwrap_or_default();
    ensure!(trouble.contains("/guest/nowhere"), "it is {two}");
    summoned.page()?;
    // It is tried again in its time, and then later.
    summoned.asleep("one")?;
    summoned.query("one.example.test")?;
    summoned.until("one", |one| one["failures"] == 2)?;
    Ok(())
}

fn caps(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let services = www() + &service("one", one, "");
    let summoned = Summoned::start(place, "[daemon.limits]\nrunning = 1", &services)?;
    summoned.page()?;
    summoned.query("one.example.test")?;
    summoned.until("one", |one| one["state"] == "queued")?;
    ensure!(summoned.totals()?["running"] == 1);
    // As soon as the other one sleeps it is there, and so is who waits for it.
    summoned.get(one)?;
    let one = summoned.status("one")?;
    ensure!(one["births"] == 1, "it is {one}");
    Ok(())
}

fn reload(place: &Place) -> Result<()> {
    let two = Ipv4Addr::new(10, 0, 2, 82);
    let long = |text: String| text.replace("idle = 2", "idle = 60");
    let summoned = Summoned::start(place, "", &long(www() + &service("two", two, "")))?;
    summoned.page()?;
    summoned.get(two)?;
    let domid = summoned.status("www")?["domid"].clone();
    // What is wrong changes nothing.
    summoned.write("nonsense = 1", &www())?;
    summoned.signal("HUP")?;
    summoned.logged("not reloaded")?;
    let one = Ipv4Addr::new(10, 0, 2, 81);
    summoned.write("", &long(www() + &service("one", one, "")))?;
    summoned.signal("HUP")?;
    summoned.logged("reloaded services=")?;
    summoned.get(one)?;
    let www = summoned.status("www")?;
    ensure!(www["domid"] == domid, "it was {domid} and is {www}");
    ensure!(summoned.status("two").is_err(), "two is still there");
    let end = Instant::now() + BOUND;
    while place.lab.exec(&[HATCH, "show", "two"])?.success() {
        ensure!(Instant::now() < end, "two still runs");
    }
    ensure!(summoned.query("two.example.test").is_err());
    Ok(())
}

fn connection(place: &Place) -> Result<()> {
    let summoned = Summoned::start(place, "", &www())?;
    // A client that says nothing.
    place.lab.shell(&format!(
        "(sleep 6 | nc {GUEST} 80 >/dev/null) </dev/null >/dev/null 2>&1 &"
    ))?;
    summoned.until("www", |www| www["state"] == "running")?;
    let start = Instant::now();
    summoned.asleep("www")?;
    let stayed = start.elapsed();
    ensure!(
        stayed > Duration::from_secs(4),
        "it went to sleep after {stayed:?}"
    );
    Ok(())
}

/// A guest is asked for its connections after two seconds, and goes half a second later: clients come around both.
fn at_the_end(place: &Place) -> Result<()> {
    let summoned = Summoned::start(place, "", &www())?;
    let rounds = crate::cycles(5)?.clamp(5, 100);
    for round in 0..rounds {
        summoned.page().with_context(|| format!("round {round}"))?;
        std::thread::sleep(Duration::from_millis(1950 + u64::from(round * 137 % 800)));
    }
    let www = summoned.asleep("www")?;
    println!("{rounds} connections, {} births", www["births"]);
    ensure!(
        www["births"] == www["deaths"] && www["failures"] == 0,
        "it is {www}"
    );
    Ok(())
}

fn pool(place: &Place) -> Result<()> {
    let services = service("www", GUEST, "asleep = \"pool\"");
    let summoned = Summoned::start(place, "pool = 2", &services)?;
    for births in 1..=3 {
        let end = Instant::now() + BOUND;
        while summoned.totals()?["pool"] != 2 {
            ensure!(
                Instant::now() < end,
                "the pool is not full: {}",
                summoned.log()?
            );
        }
        summoned.page()?;
        let www = summoned.until("www", |www| www["births"] == births)?;
        let boot = www["last_boot"].as_array().context("no boot")?;
        ensure!(
            !boot.iter().any(|step| step["what"] == "memory"),
            "it was made and not taken: {www}"
        );
        summoned.asleep("www")?;
    }
    summoned.signal("TERM")?;
    summoned.logged("ending")?;
    place.lab.shell(&format!(
        "while kill -0 $(cat {PID}) 2>/dev/null; do sleep 0.1; done"
    ))?;
    Ok(())
}

fn suspend(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let services = service("www", GUEST, "asleep = \"suspend\"") + &service("one", one, "");
    let summoned = Summoned::start(place, "[daemon.limits]\nrunning = 1", &services)?;
    let still =
        |resumes: u32| move |www: &Value| www["state"] == "suspended" && www["resumes"] == resumes;
    let before = syns(&place.lab)?;
    summoned.page()?;
    let domid = summoned.until("www", still(0))?["domid"].clone();
    let list = place
        .lab
        .shell("xl list www | awk 'NR == 2 { print $5 }'")?;
    ensure!(list.contains('p'), "it is not paused: {list}");
    for resumes in 1..=5 {
        if resumes % 2 == 0 {
            summoned.query(HOST)?;
        }
        summoned.page()?;
        let www = summoned.until("www", still(resumes))?;
        ensure!(www["domid"] == domid && www["births"] == 1, "it is {www}");
    }
    let syns = syns(&place.lab)? - before;
    ensure!(syns == 6, "6 connections, {syns} SYNs");
    // What the bridge sends to all meanwhile does not wait for it: a queue that stands still would take its carrier.
    let flood = "for n in $(seq 90 99); do ping -c 1 -W 1 10.0.2.$n >/dev/null & done; wait";
    place.lab.shell(flood)?;
    summoned.page()?;
    summoned.until("www", still(6))?;
    // Nobody else would let it go on.
    summoned.signal("TERM")?;
    place.lab.shell(&format!(
        "while kill -0 $(cat {PID}) 2>/dev/null; do sleep 0.1; done"
    ))?;
    summoned
        .page()
        .context("it stands still without a daemon")?;
    summoned.spawn()?;
    let www = summoned.until("www", still(0))?;
    ensure!(www["domid"] == domid, "it was {domid} and is {www}");
    // Who dies can't let it go on: who comes next finds it.
    summoned.signal("KILL")?;
    summoned.spawn()?;
    summoned.page()?;
    let www = summoned.until("www", still(0))?;
    ensure!(www["domid"] == domid, "it was {domid} and is {www}");
    summoned.get(one)?;
    let www = summoned.asleep("www")?;
    ensure!(www["deaths"] == 1 && www["failures"] == 0, "it is {www}");
    Ok(())
}

fn full_log(place: &Place) -> Result<()> {
    let summoned = Summoned { place };
    summoned.write("", &www())?;
    summoned.spawn_to("/dev/full")?;
    summoned.page()?;
    let end = Instant::now() + BOUND;
    while summoned.status("www")?["state"] != "asleep" {
        ensure!(Instant::now() < end, "it does not go to sleep");
    }
    Ok(())
}

/// The unit as it is given away, under a systemd in name spaces of its own.
fn under_systemd(place: &Place) -> Result<()> {
    const UNIT: &str = include_str!("../../../tools/examples/hatch-summon.service");
    const START: &str = "mkdir -p /usr/local/sbin /etc/hatch /sys/fs/cgroup
        ln -sf /guest/hatch /guest/hatch-summon /usr/local/sbin
        ln -sf /guest/summon.toml /etc/hatch/summon.toml
        mount -t cgroup2 none /sys/fs/cgroup
        container=other unshare -p -m -f sh -c 'mount -t proc proc /proc && exec /lib/systemd/systemd --unit=multi-user.target' </dev/null >/run/systemd.log 2>&1 &
        while ! pidof systemd; do sleep 0.1; done >$1
        while ! [ -S /run/systemd/private ]; do sleep 0.1; done";
    let lab = &place.lab;
    let inside = |script: &str| {
        let all = format!("nsenter -t $(cat {PID}) -m -p sh -c '{script}'");
        lab.shell(&all)
    };
    let summoned = Summoned { place };
    summoned.write("", &www())?;
    lab.put(
        "/etc/systemd/system/hatch-summon.service",
        0o644,
        UNIT.as_bytes(),
    )?;
    lab.run(&["sh", "-c", START, "sh", PID])?;
    inside("systemctl start hatch-summon")?;
    // Of what it may use, it is given no more than the unit says, and its system calls are filtered.
    let status = lab.shell("grep -E ^CapBnd:\\|^Seccomp: /proc/$(pidof hatch-summon)/status")?;
    let words: Vec<&str> = status.split_whitespace().collect();
    ensure!(
        words == ["CapBnd:", "0000000000003400", "Seccomp:", "2"],
        "it may: {status}"
    );
    // Of the kernel's own files it may write where it lets netback go, and nothing else.
    let opened = |path| format!("sh -c ': >>{path}'");
    let within = |path| {
        lab.shell(&format!(
            "nsenter -t $(pidof hatch-summon) -m {}",
            opened(path)
        ))
    };
    within("/sys/bus/xen-backend/drivers/vif/unbind")?;
    lab.shell(&opened("/sys/kernel/mm/ksm/run"))?;
    ensure!(
        within("/sys/kernel/mm/ksm/run").is_err(),
        "it may write all"
    );
    summoned.page()?;
    summoned.asleep("www")?;
    summoned.write("", &www().replace("idle = 2", "idle = 60"))?;
    inside("systemctl reload hatch-summon")?;
    summoned.query(HOST)?;
    summoned.page()?;
    let domid = summoned.until("www", |www| www["state"] == "running")?["domid"].clone();
    lab.shell("kill -9 $(pidof hatch-summon)")?;
    let end = Instant::now() + BOUND;
    loop {
        let log = inside("journalctl -u hatch-summon -o cat")?;
        let is_back = log.contains("taken over service=www") && log.ends_with("ready services=1\n");
        if is_back && log.contains("reloaded services=1") {
            break;
        }
        ensure!(Instant::now() < end, "the journal has:\n{log}");
        std::thread::sleep(TICK);
    }
    let www = summoned.status("www")?;
    ensure!(www["domid"] == domid, "it was {domid} and is {www}");
    inside("systemctl stop hatch-summon")?;
    ensure!(
        inside("systemctl is-active hatch-summon").is_err(),
        "it runs"
    );
    summoned.page().context("nobody serves without a daemon")
}

/// Has somebody who means ill at work for some seconds, and asks an honest service meanwhile; gives what the first says.
pub(crate) fn abused(summoned: &Summoned<'_>, words: &[&str], honest: Ipv4Addr) -> Result<String> {
    const ABUSE: &str = "/guest/abuse";
    let program = static_program("mayfly-abuse", "mayfly-abuse")?;
    let lab = summoned.lab();
    lab.put(ABUSE, 0o755, &std::fs::read(program)?)?;
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for _ in 0..3 {
                from_dom0(lab, honest)?;
            }
            anyhow::Ok(())
        });
        let said = lab.run(&[&[ABUSE], words].concat())?;
        match asking.join() {
            Ok(asked) => asked.with_context(|| said.clone())?,
            Err(_) => bail!("the honest client panicked"),
        }
        Ok(said)
    })
}

fn query_flood(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let many: Vec<String> = (0..20)
        .map(|n| service(&format!("many-{n}"), Ipv4Addr::new(10, 0, 2, 100 + n), ""))
        .collect();
    let services = www() + &service("one", one, "") + &many.concat();
    let limits = "[daemon.limits]\nbirths_per_prefix = 5\nrunning = 5";
    let summoned = Summoned::start(place, limits, &services)?;
    let server = DOM0.to_string();
    for name in ["*.example.test", HOST] {
        let said = abused(&summoned, &[&server, "10", "queries", name], one)?;
        println!("{name}: {}", said.trim());
    }
    summoned.logged("turned away")?;
    let totals = summoned.totals()?;
    let www = summoned.status("www")?;
    println!("{totals}");
    // What does not exist has woken nobody; what does, once in each of its lives.
    ensure!(
        www["births"].as_u64().is_some_and(|births| births <= 5),
        "it is {www}"
    );
    let all = summoned.lab().shell("xl list | awk 'NR > 2' | wc -l")?;
    ensure!(all.trim().parse::<u32>()? <= 2, "{all} guests run");
    Ok(())
}

fn syn_flood(place: &Place) -> Result<()> {
    let one = Ipv4Addr::new(10, 0, 2, 81);
    let mac = "mac = \"00:16:3e:00:00:80\"";
    let services = service("www", GUEST, mac) + &service("one", one, "");
    let summoned = Summoned::start(place, "", &services)?;
    let words = [&GUEST.to_string(), "4", "syn", "00:16:3e:00:00:80", BRIDGE];
    let said = abused(&summoned, &words, one)?;
    let www = summoned.until("www", |www| www["births"] == 1)?;
    println!("{}: {}", said.trim(), www["frames"]);
    ensure!(www["births"] == 1 && www["failures"] == 0, "it is {www}");
    Ok(())
}

/// Random clients of many services that sleep after two seconds: all are answered, and nothing is left.
fn fifty(place: &Place) -> Result<()> {
    let seconds = if crate::is_long() { 600 } else { 15 };
    let services: Vec<String> = (0..50)
        .map(|n| service(&format!("s{n}"), Ipv4Addr::new(10, 0, 2, 100 + n), ""))
        .collect();
    let limits = "[daemon.limits]\nbirths_per_second = 100\nburst = 100\nbirths_per_prefix = 1000";
    let summoned = Summoned::start(place, limits, &services.concat())?;
    // The first of each leaves what stays for good.
    summoned.get(Ipv4Addr::new(10, 0, 2, 100))?;
    summoned.asleep("s0")?;
    let before = crate::hatch::state(place)?;
    let memory = taken(&summoned)?;
    let script = format!(
        "client() {{ n=$1; end=$(($(date +%s) + {seconds})); ok=0; bad=0
         while [ $(date +%s) -lt $end ]; do
             n=$(((n * 1103515245 + 12345) & 0x7fffffff))
             if wget -q -O /dev/null http://10.0.2.$((100 + n / 65536 % 50))/; then ok=$((ok + 1)); else bad=$((bad + 1)); fi
         done; echo $ok $bad; }}
         client 1 & client 2 & client 3 & client 4 & wait"
    );
    let output = summoned.lab().exec_with(
        &["sh", "-c", &script],
        &[],
        Duration::from_secs(seconds + 60),
    )?;
    let text = output.text();
    let bad = text.lines().filter(|line| !line.ends_with(" 0")).count();
    ensure!(
        bad == 0 && text.lines().count() == 4,
        "answered and not: {text}"
    );
    let (mut births, mut deaths) = (0, 0);
    for n in 0..50 {
        let one = summoned.asleep(&format!("s{n}"))?;
        ensure!(one["failures"] == 0, "it is {one}");
        births += one["births"].as_u64().unwrap_or(0);
        deaths += one["deaths"].as_u64().unwrap_or(0);
    }
    println!("{births} births, {deaths} deaths; answered and not: {text:?}");
    ensure!(births == deaths && births > 1);
    crate::hatch::returns(place, &before)?;
    let after = taken(&summoned)?;
    println!("KiB of dom0, xenstored and hatch: {memory:?} became {after:?}");
    // Allocators keep some of what they once needed, dom0's kernel 0.1 MiB for each birth at first; what goes on growing shows in the long run.
    for ((before, after), may_grow) in memory.iter().zip(&after).zip([64 << 10, 4 << 10, 4 << 10]) {
        ensure!(after - before <= may_grow, "{before} KiB became {after}");
    }
    Ok(())
}

/// Memory that dom0 has given out, and that xenstored and the daemon have resident, in KiB.
fn taken(summoned: &Summoned<'_>) -> Result<[i64; 3]> {
    let script = format!(
        "awk '/^MemTotal:/ {{ all = $2 }} /^MemAvailable:/ {{ print all - $2 }}' /proc/meminfo
         for pid in $(pidof xenstored) $(cat {PID}); do awk '/^VmRSS:/ {{ print $2 }}' /proc/$pid/status; done"
    );
    let text = summoned.lab().shell(&script)?;
    let figures: Vec<i64> = text
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect();
    let figures = figures.try_into();
    figures.map_err(|_| anyhow::anyhow!("dom0's memory is {text:?}"))
}

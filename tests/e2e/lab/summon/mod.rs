//! `hatch summon`: services that sleep until a DNS query or a SYN comes, and go to sleep again.

mod life;
pub(crate) mod load;
mod wakes;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{BRIDGE, DOM0, GUEST, Lab, Options, Protocol};
use serde_json::Value;

use crate::birth::{BOUND, HATCH, Place};
use crate::cases::Case;

/// They run with guests on `hatch switch`, which runs.
pub(crate) const CASES: &[Case] = &[
    (
        "a SYN wakes a service that answers it itself",
        wakes::by_syn,
    ),
    (
        "a query wakes a service, and is answered at once",
        wakes::by_query,
    ),
    ("clients of dom0 send each SYN once", wakes::by_dom0),
    ("by IPv6, and by a datagram", wakes::by_others),
    ("other names and addresses wake nobody", wakes::others),
    ("it outlives its daemon, and kill -9 of it", life::takeover),
    (
        "a daemon killed after any request is taken over from",
        life::killed_anywhere,
    ),
    (
        "a service that fails is backed off, and fails alone",
        life::failures,
    ),
    ("no more guests than there may be", life::caps),
    (
        "a new file is gone over to without losing a guest",
        life::reload,
    ),
    ("an open connection keeps a guest", life::connection),
    ("who comes as it is about to go is served", life::at_the_end),
    ("a pool is born from", life::pool),
    ("a suspended guest goes on, or makes room", life::suspend),
    ("its log may be full", full_log),
    (
        "a flood of queries makes no flood of guests",
        load::query_flood,
    ),
    ("a flood of SYNs makes one guest", load::syn_flood),
    ("fifty services and random clients", load::fifty),
];

/// The cases that also run with guests on netback: where no switch runs, a service is there.
pub(crate) const ON_NETBACK: &[Case] = &[
    (
        "a SYN wakes a service that answers it itself",
        wakes::by_syn,
    ),
    (
        "a query wakes a service, and is answered at once",
        wakes::by_query,
    ),
    ("it outlives its daemon, and kill -9 of it", life::takeover),
    ("an open connection keeps a guest", life::connection),
    ("who comes as it is about to go is served", life::at_the_end),
    ("a pool is born from", life::pool),
    ("a suspended guest goes on, or makes room", life::suspend),
];

/// The cases about the two together.
pub(crate) const BACK_ENDS: &[Case] = &[
    ("systemd runs both as their units say", under_systemd),
    (
        "a switch that is killed and started again has its services",
        life::switch_killed,
    ),
    (
        "a switch that is started later takes no service from netback",
        life::back_ends,
    ),
];

/// The path of the tests' file in dom0.
pub(crate) const FILE: &str = "/guest/summon.toml";
const LOG: &str = "/run/summon.log";
const PID: &str = "/run/summon.pid";
const HOST: &str = "www.example.test";
/// The interval at which changes are polled.
const TICK: Duration = Duration::from_millis(50);

/// The number of services that are woken in turn, so that one falls asleep while others are born.
const CIRCLE: u32 = 6;

/// The lab of these cases: it captures the frames at its network card, and the host reaches dom0's DNS and some
/// services.
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

/// The HTTP address of service `n` of the circle.
fn http(n: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::from_bits(GUEST.to_bits() + n), 80)
}

/// The MAC address of an address, one in all cases: QEMU's router, through which the host's clients come, keeps the one
/// that it has seen.
pub(crate) fn mac(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// A service for the file, with additional lines.
pub(crate) fn service(name: &str, address: Ipv4Addr, lines: &str) -> String {
    let mac = mac(address);
    format!(
        r#"
[[services]]
name = "{name}"
hosts = ["{name}.example.test"]
zone = "example.test"
image = "/guest/mayfly"
ipv4 = "{address}/24"
mac = "{mac}"
gateway = "10.0.2.2"
idle = 2
{lines}
"#
    )
}

pub(crate) fn www() -> String {
    service("www", GUEST, "")
}

/// The content of the daemon's file.
pub(crate) fn file(daemon: &str, services: &str) -> String {
    format!("[daemon]\nlisten = [\"{DOM0}:53\"]\nttl = 1\n{daemon}\n{services}")
}

/// A daemon in dom0. Dropping this ends it and its guests.
pub(crate) struct Summoned<'a> {
    place: &'a Place,
}

impl<'a> Summoned<'a> {
    /// Starts it, and waits until it is ready.
    pub(crate) fn start(place: &'a Place, daemon: &str, services: &str) -> Result<Self> {
        let summoned = Self { place };
        // dom0 may remember another MAC address of the same service from an earlier case.
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
        self.spawn_to(LOG, "")?;
        self.logged("ready")
    }

    /// Starts it with another log, or with environment variables.
    fn spawn_to(&self, log: &str, variables: &str) -> Result<()> {
        let script =
            format!("{variables} {HATCH} summon {FILE} </dev/null >{log} 2>&1 & echo $! >{PID}");
        self.lab().shell(&script).map(drop)
    }

    pub(crate) fn lab(&self) -> &Lab {
        &self.place.lab
    }

    pub(crate) fn log(&self) -> Result<String> {
        self.lab().shell(&format!("cat {LOG}"))
    }

    /// Waits until a text is in the log.
    pub(crate) fn logged(&self, what: &str) -> Result<()> {
        self.logged_times(what, 1)
    }

    /// Waits until a text is in the log `times` times.
    pub(crate) fn logged_times(&self, what: &str, times: usize) -> Result<()> {
        let end = Instant::now() + BOUND;
        loop {
            let log = self.log()?;
            if log.matches(what).count() >= times {
                return Ok(());
            }
            ensure!(
                Instant::now() < end,
                "the log has {what:?} less than {times} times:\n{log}"
            );
            std::thread::sleep(TICK);
        }
    }

    pub(crate) fn signal(&self, signal: &str) -> Result<()> {
        let script = format!("kill -{signal} $(cat {PID})");
        self.lab().shell(&script).map(drop)
    }

    /// The status of a service.
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

    /// Waits until the status of a service meets a condition.
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

    /// Gets the page of service `n` of the circle.
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
        // `nothing_left` finds anything that is left of it.
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

fn full_log(place: &Place) -> Result<()> {
    let summoned = Summoned { place };
    summoned.write("", &www())?;
    summoned.spawn_to("/dev/full", "")?;
    summoned.page()?;
    let end = Instant::now() + BOUND;
    while summoned.status("www")?["state"] != "asleep" {
        ensure!(Instant::now() < end, "it does not go to sleep");
    }
    Ok(())
}

/// The example units, under a systemd in namespaces of its own.
fn under_systemd(place: &Place) -> Result<()> {
    const UNITS: [(&str, &str); 2] = [
        (
            "hatch-summon",
            include_str!("../../../../tools/examples/hatch-summon.service"),
        ),
        (
            "hatch-switch",
            include_str!("../../../../tools/examples/hatch-switch.service"),
        ),
    ];
    // By the name of the thread: both processes are of one program, as `pidof` looks.
    const MAKER: &str = "$(grep -lx hatch-summon /proc/[0-9]*/comm | cut -d/ -f3)";
    const FRONT: &str = "$(grep -lx summon-front /proc/[0-9]*/comm | cut -d/ -f3)";
    const START: &str = "mkdir -p /usr/local/sbin /etc/hatch /sys/fs/cgroup
        ln -sf /guest/hatch /guest/hatch-summon /guest/hatch-switch /usr/local/sbin
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
    for (name, unit) in UNITS {
        let path = format!("/etc/systemd/system/{name}.service");
        lab.put(&path, 0o644, unit.as_bytes())?;
    }
    lab.run(&["sh", "-c", START, "sh", PID])?;
    // The daemon finds the switch, which is started before it.
    inside("systemctl start hatch-summon hatch-switch")?;
    lab.shell("until grep -qx summon-front /proc/[0-9]*/comm; do sleep 0.1; done")?;
    // The maker has only the capabilities that the unit lists, the front has none, and the system calls of both are filtered.
    for (process, capabilities, kept) in [
        (MAKER, "CapBnd:", "0000000000803400"),
        (FRONT, "CapEff:", "0000000000000000"),
    ] {
        let keys = format!("-e ^{capabilities} -e ^Seccomp:");
        let status = lab.shell(&format!("grep {keys} /proc/{process}/status"))?;
        let words: Vec<&str> = status.split_whitespace().collect();
        ensure!(
            words == [capabilities, kept, "Seccomp:", "2"],
            "it may: {status}"
        );
    }
    // Of the kernel's files, it may write only the one for unbinding netback.
    let opened = |path| format!("sh -c ': >>{path}'");
    let within = |path| lab.shell(&format!("nsenter -t {MAKER} -m {}", opened(path)));
    within("/sys/bus/xen-backend/drivers/vif/unbind")?;
    lab.shell(&opened("/sys/kernel/mm/ksm/run"))?;
    ensure!(
        within("/sys/kernel/mm/ksm/run").is_err(),
        "it may write all"
    );
    summoned.page()?;
    let www = summoned.asleep("www")?;
    ensure!(www["network"] == "switch", "it is {www}");
    summoned.write("", &self::www().replace("idle = 2", "idle = 60"))?;
    inside("systemctl reload hatch-summon")?;
    summoned.query(HOST)?;
    summoned.page()?;
    let domid = summoned.until("www", |www| www["state"] == "running")?["domid"].clone();
    lab.shell(&format!("kill -9 {MAKER}"))?;
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
    summoned.page().context("nobody serves without a daemon")?;
    inside("systemctl stop hatch-switch")?;
    // Stopped like this, it has not failed.
    inside("! systemctl is-failed hatch-switch")?;
    lab.shell("rm /run/hatch/switch.journal*").map(drop)
}

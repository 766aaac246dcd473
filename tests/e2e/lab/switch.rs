//! `hatch switch`: a process of dom0 is the back end of a guest's network.

use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{BRIDGE, Lab};
use mayfly_pack::{Options, pack_dir};
use serde_json::Value;

use crate::birth::{BOUND, EXAMPLE, HATCH, Place};
use crate::cases::{Case, CaseFunction};
use crate::hatch::json;

pub(crate) const CASES: &[Case] = &[
    ("the switch serves a guest from its birth to its end", life),
    ("a download outlives the switch", killed),
    ("a guest that xl destroys is let go of", stranger),
    (
        "what can't be on the switch is refused, and leaves nothing",
        refused,
    ),
    ("guests that end while no switch runs leave nothing", away),
    FOUND,
    (
        "a failure or kill -9 at any step of a birth leaves nothing, or what gc finds",
        steps,
    ),
];

/// The cases that run with oxenstored as well, which introduces guests in another way.
pub(crate) const OTHER_DOM0: &[Case] = &[FOUND];

const FOUND: Case = (
    "a guest that ran before xenstored knew it is found by all, and obeys",
    found,
);

const LOG: &str = "/run/switch.log";
pub(crate) const PACK: &str = "/guest/switch.mfs";
/// The size of the download in bytes.
const SIZE: usize = 10 << 20;

/// A running switch in dom0. Dropping this ends it.
pub(crate) struct Switch<'a> {
    lab: &'a Lab,
    pub(crate) pid: String,
}

impl<'a> Switch<'a> {
    pub(crate) fn start(place: &'a Place) -> Result<Self> {
        Self::start_with(place, "")
    }

    /// Starts it with further words of its command line.
    pub(crate) fn start_with(place: &'a Place, words: &str) -> Result<Self> {
        let lab = &place.lab;
        let pid = lab.shell(&format!(
            "setsid {HATCH} switch --bridge {BRIDGE} {words} </dev/null >>{LOG} 2>&1 & echo $!"
        ))?;
        let this = Self {
            lab,
            pid: pid.trim().to_owned(),
        };
        let start = Instant::now();
        while this.status().is_err() {
            ensure!(
                start.elapsed() < BOUND,
                "no switch: {}",
                lab.shell(&format!("cat {LOG}"))?
            );
        }
        Ok(this)
    }

    pub(crate) fn status(&self) -> Result<Value> {
        json(&self.lab.run(&[HATCH, "switch", "status", "--json"])?)
    }

    /// The switch's status of the guest with this name.
    pub(crate) fn guest(&self, name: &str) -> Result<Value> {
        let status = self.status()?;
        let guests = status["guests"].as_array().context("no guests")?;
        let guest = guests.iter().find(|guest| guest["name"] == name);
        Ok(guest.context("no such guest")?.clone())
    }

    pub(crate) fn kill(&self) -> Result<()> {
        self.lab.run(&["kill", "-9", &self.pid])?;
        Ok(())
    }
}

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        let script = format!(
            "kill {0} 2>/dev/null; while [ -d /proc/{0} ]; do usleep 10000; done; rm -f /run/hatch/switch.journal*",
            self.pid
        );
        let _ = self.lab.shell(&script);
    }
}

/// Runs a case of services while a switch runs, so that their guests are on it.
pub(crate) fn under(place: &Place, case: CaseFunction) -> Result<()> {
    let switch = Switch::start(place)?;
    place.on_switch.set(true);
    let result = case(place);
    place.on_switch.set(false);
    drop(switch);
    result
}

fn create(place: &Place, words: &[&str]) -> Result<Value> {
    let words = [&["create", "--network", "switch", "--json", EXAMPLE], words].concat();
    json(&place.hatched(&words)?)
}

/// Checks that the guest answers dom0, and the host, whose frames come over the bridge.
pub(crate) fn answers(place: &Place) -> Result<()> {
    let (status, body) = ask::http(place.lab.http()?, "/", BOUND)?;
    ensure!(status == 200 && !body.is_empty(), "GET / gives {status}");
    let records = ask::dns(place.lab.dns()?, "mayfly.test", Rtype::A, BOUND)?;
    ensure!(records.len() == 1, "mayfly.test A gives {records:?}");
    let page = place
        .lab
        .run(&["wget", "-q", "-O", "-", "http://10.0.2.80/"])?;
    ensure!(!page.is_empty());
    Ok(())
}

fn life(place: &Place) -> Result<()> {
    let switch = Switch::start(place)?;
    for _ in 0..3 {
        let made = create(place, &[])?;
        let domid = made["domid"].as_u64().context("no domid")?;
        answers(place)?;
        let ready = format!("/local/domain/{domid}/data/mayfly/ready");
        place.lab.xenstore_wait(&ready, BOUND)?;
        let guest = switch.guest("mayfly")?;
        ensure!(
            guest["shut"].is_null()
                && guest["counters"]["from_guest"]["frames"].as_u64() > Some(10)
                && guest["counters"]["guard_source"] == 0,
            "{guest}"
        );
        // There is no vif, and xl sees the guest like any other.
        let vif = format!("! [ -e /sys/class/net/vif{domid}.0 ] && xl domid mayfly");
        ensure!(place.lab.shell(&vif)?.trim() == domid.to_string());
        // A dump of its traffic, with a request meanwhile.
        let dump = format!(
            "(usleep 300000; wget -q -O /dev/null http://10.0.2.80/) & {HATCH} switch dump mayfly --seconds 2 | wc -c"
        );
        let bytes: usize = place.lab.shell(&dump)?.trim().parse()?;
        ensure!(bytes > 500, "a record of {bytes} bytes");
        filtered(place)?;
        // After its end, none of its pages is mapped any more.
        place.hatched(&["destroy", "mayfly"])?;
        let zombies = place.lab.shell("xl list | grep -c null || true")?;
        ensure!(zombies.trim() == "0", "zombies: {zombies}");
        ensure!(switch.status()?["guests"] == Value::Array(Vec::new()));
    }
    drop(switch);
    place.nothing_left()
}

/// The two processes that read what guests have written have no thread without a filter of system calls.
fn filtered(place: &Place) -> Result<()> {
    for name in ["hatch-switch", "switch-xenbus"] {
        let script = format!(
            "cd /proc; for n in [0-9]*; do [ \"$(cat $n/comm)\" = {name} ] && grep -h ^Seccomp: $n/task/*/status; done; true"
        );
        let filters = place.lab.shell(&script)?;
        let is_filtered = |line: &str| line.split_whitespace().eq(["Seccomp:", "2"]);
        ensure!(
            !filters.is_empty() && filters.lines().all(is_filtered),
            "{name}: {filters:?}"
        );
    }
    // The second one is started again.
    let script = "pid() { grep -lx switch-xenbus /proc/[0-9]*/comm | cut -d/ -f3; }
        old=$(pid); kill -9 $old
        for n in $(seq 100); do new=$(pid); [ \"$new\" -gt 0 ] && [ \"$new\" != $old ] && exit; usleep 100000; done; exit 1";
    place.lab.shell(script).map(drop)
}

/// A guest that ran before xenstored knew of it is visible to other tools, and obeys their requests.
fn found(place: &Place) -> Result<()> {
    let switch = Switch::start(place)?;
    for end in ["xl shutdown mayfly", "xl destroy mayfly"] {
        let made = create(place, &["--console"])?;
        let domid = made["domid"].as_u64().context("no domid")?;
        let spans = made["timeline"]["spans"].as_array().context("no spans")?;
        let at = |name: &str| spans.iter().position(|span| span["what"] == name);
        ensure!(
            at("unpause").is_some() && at("unpause") < at("names"),
            "xenstored is asked before it runs: {made}"
        );
        answers(place)?;
        let lab = &place.lab;
        ensure!(lab.run(&["xl", "list", "mayfly"])?.contains("mayfly"));
        ensure!(place.hatched(&["list"])?.contains("mayfly"));
        let home = format!("/local/domain/{domid}");
        lab.xenstore_wait(&format!("{home}/data/mayfly/ready"), BOUND)?;
        if lab.run(&["ps", "-o", "comm"])?.contains("xenconsoled") {
            lab.shell(&format!(
                "for n in $(seq 600); do tty=$(xenstore-read {home}/console/tty); [ -c \"$tty\" ] && exit; usleep 100000; done; exit 1"
            ))?;
        }
        // It has advertised its control features, so its watches are set.
        lab.xenstore_wait(&format!("{home}/control/feature-poweroff"), BOUND)?;
        lab.shell(end)?;
        lab.shell("for n in $(seq 600); do xl domid mayfly 2>/dev/null || exit 0; xl list | grep -q 'mayfly.*--s' && exit; usleep 100000; done; exit 1")
            .with_context(|| end.to_owned())?;
        // A guest that was shut down still exists; hatch's index has one that is gone.
        let _ = place.hatch(&["destroy", "mayfly"])?;
        place.hatched(&["gc"])?;
    }
    drop(switch);
    place.nothing_left()
}

/// Steps of a birth on the switch, in their order.
const STEPS: [&str; 12] = [
    "domain", "memory", "rings", "front", "load", "context", "connect", "unpause", "names", "keys",
    "port", "claim",
];

fn steps(place: &Place) -> Result<()> {
    let switch = Switch::start(place)?;
    let words = ["create", "--network", "switch", EXAMPLE];
    for step in STEPS {
        for fault in ["HATCH_FAIL_AT", "HATCH_KILL_AT"] {
            let fault = format!("{fault}={step}");
            let words = [&["env", &fault, HATCH], &words[..]].concat();
            let output = place.lab.exec(&words)?;
            ensure!(!output.success(), "{fault}: it succeeds");
            if fault.contains("KILL") {
                place.hatched(&["gc"])?;
            } else {
                let text = output.error_text();
                ensure!(text.contains(&format!("`{step}`")), "{fault}: {text}");
            }
            let guests = &switch.status()?["guests"];
            ensure!(*guests == Value::Array(Vec::new()), "{fault}: {guests}");
            let marks = place.lab.shell("ls /run/hatch/making")?;
            ensure!(marks.trim().is_empty(), "{fault}: {marks}");
            let left = place.hatched(&["gc", "--dry-run"])?;
            ensure!(left.contains("nothing is left"), "{fault}: {left}");
            let domains = place.lab.shell("xl list | wc -l")?;
            ensure!(domains.trim() == "2", "{fault}: a domain stays");
        }
    }
    create(place, &[])?;
    answers(place)?;
    place.hatched(&["destroy", "mayfly"])?;
    drop(switch);
    place.nothing_left()
}

/// A site with a file whose download takes a while.
pub(crate) fn pack() -> Result<Vec<u8>> {
    let site = tempfile::tempdir()?;
    let www = site.path().join("www");
    std::fs::create_dir_all(&www)?;
    // The content cannot be compressed.
    let mut state = 1_u64;
    let random = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let bytes: Vec<u8> = random.take(SIZE / 8).flatten().collect();
    std::fs::write(www.join("large.bin"), &bytes)?;
    std::fs::write(www.join("index.html"), "<p>large")?;
    let packed = pack_dir(site.path(), &Options::default());
    let packed = packed.map_err(|problems| anyhow::anyhow!("{problems}"))?;
    Ok(packed.to_vec()?)
}

fn killed(place: &Place) -> Result<()> {
    let switch = Switch::start(place)?;
    place.lab.put(PACK, 0o644, &pack()?)?;
    create(place, &["--ramdisk", PACK, "--memory", "32"])?;
    const URL: &str = "http://10.0.2.80/large.bin";
    let whole = place
        .lab
        .shell(&format!("wget -q -O - {URL} | sha256sum"))?;
    // The file is read slowly, so that the switch ends in the middle of it; byte by byte at first, so that nothing is
    // read ahead.
    let script = format!(
        "(wget -q -O - {URL} | (dd bs=1 count=1000 2>/dev/null; touch /run/begun; sleep 1; cat) | sha256sum >/run/sum; touch /run/over) & \
        while ! [ -e /run/begun ]; do usleep 10000; done"
    );
    place
        .lab
        .shell(&format!("rm -f /run/begun /run/over; {script}"))?;
    switch.kill()?;
    let next = Switch::start(place)?;
    let log = place.lab.shell(&format!("cat {LOG}"))?;
    ensure!(log.contains("is taken over"), "{log}");
    let over = "for n in $(seq 600); do [ -e /run/over ] && exec cat /run/sum; usleep 100000; done; exit 1";
    let sum = place.lab.shell(over)?;
    ensure!(sum == whole, "{sum} is not {whole}");
    let (status, _) = ask::http(place.lab.http()?, "/", BOUND)?;
    ensure!(status == 200, "GET / gives {status}");
    // The first switch is gone already; the next one owns its journal.
    std::mem::forget(switch);
    place.hatched(&["destroy", "mayfly"])?;
    drop(next);
    place.nothing_left()
}

fn refused(place: &Place) -> Result<()> {
    let words = ["create", "--network", "switch", EXAMPLE];
    let output = place.hatch(&words)?;
    ensure!(
        !output.success() && output.error_text().contains("no switch runs"),
        "without a switch: {}",
        output.error_text()
    );
    let switch = Switch::start(place)?;
    let another = place.hatch(&["switch", "--bridge", BRIDGE])?;
    ensure!(
        !another.success() && another.error_text().contains("another switch has it"),
        "{}",
        another.error_text()
    );
    create(place, &[])?;
    let mac = "xenstore-read /local/domain/$(xl domid mayfly)/device/vif/0/mac";
    let mac = place.lab.shell(mac)?;
    let words = [&words[..], &["--name", "other", "--mac", mac.trim()]].concat();
    let output = place.hatch(&words)?;
    ensure!(
        !output.success() && output.error_text().contains("the MAC address is taken"),
        "of two with one MAC address: {}",
        output.error_text()
    );
    answers(place)?;
    place.hatched(&["destroy", "mayfly"])?;
    drop(switch);
    place.nothing_left()
}

fn stranger(place: &Place) -> Result<()> {
    let switch = Switch::start(place)?;
    create(place, &[])?;
    answers(place)?;
    // The switch's mappings keep the domain until the switch notices its end.
    place.lab.run(&["xl", "destroy", "mayfly"])?;
    let start = Instant::now();
    while place.lab.shell("xl list | grep -c null || true")?.trim() != "0" {
        ensure!(start.elapsed() < BOUND, "it is kept: {}", switch.status()?);
    }
    ensure!(switch.status()?["guests"] == Value::Array(Vec::new()));
    // Only hatch's index still has the guest.
    place.hatched(&["gc"])?;
    drop(switch);
    place.nothing_left()
}

fn away(place: &Place) -> Result<()> {
    let switch = Switch::start(place)?;
    create(place, &[])?;
    answers(place)?;
    switch.kill()?;
    std::mem::forget(switch);
    place.hatched(&["destroy", "mayfly"])?;
    let zombies = place.lab.shell("xl list | grep -c null || true")?;
    ensure!(zombies.trim() == "0", "zombies: {zombies}");
    let next = Switch::start(place)?;
    if next.status()?["guests"] != Value::Array(Vec::new()) {
        bail!("it serves {}", next.status()?);
    }
    drop(next);
    place.nothing_left()
}

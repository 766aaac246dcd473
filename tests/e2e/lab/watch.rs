//! `hatch watch`: the actions at a guest's end, by a running watch, and by the next one after a kill.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::{GUEST, workspace};

use crate::birth::{BOUND, HATCH, Place};
use crate::cases::Case;

pub(crate) const CASES: &[Case] = &[
    ("a guest that powers off is destroyed", powers_off),
    ("a guest that reboots is made again", reboots),
    (
        "a guest that crashes again and again is made again ever later",
        crashes,
    ),
    ("a watch that was killed is taken over from", taken_over),
    ("without a watch, a guest that has ended stays", unwatched),
];

const CONFIG: &str = "/guest/watched.cfg";
const LOG: &str = "/run/watch.log";
/// Makes the guest crash at once.
const CRASHES: &str = "extra = \"ip=nonsense\"";

/// A running `hatch watch`.
pub(crate) struct Watch<'a> {
    place: &'a Place,
    pid: String,
}

impl<'a> Watch<'a> {
    pub(crate) fn start(place: &'a Place) -> Result<Self> {
        let script = format!("touch {LOG}; {HATCH} watch --json >>{LOG} 2>&1 </dev/null & echo $!");
        let pid = place.lab.shell(&script)?.trim().to_owned();
        let watch = Self { place, pid };
        let ready = format!("process {} watches", watch.pid);
        until("the watch does not start", || Ok(watch.told(&ready)? == 1))?;
        Ok(watch)
    }

    fn runs(&self) -> Result<bool> {
        let look = format!("kill -0 {} 2>/dev/null && echo runs; true", self.pid);
        Ok(self.place.lab.shell(&look)?.trim() == "runs")
    }

    /// Ends it with this signal.
    fn end(&self, signal: &str) -> Result<()> {
        self.place.lab.run(&["kill", signal, &self.pid])?;
        until("the watch does not end", || Ok(!self.runs()?))
    }

    /// The number of times that its log has this text.
    fn told(&self, what: &str) -> Result<usize> {
        let log = self.place.lab.shell(&format!("cat {LOG}"))?;
        Ok(log.lines().filter(|line| line.contains(what)).count())
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let _ = self.end("-TERM");
        let _ = self.place.lab.shell(&format!("rm -f {LOG}"));
    }
}

fn until(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !is()? {
        ensure!(start.elapsed() < BOUND, "{what}");
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Makes the example guest with lines appended. Returns hatch's output.
fn create(place: &Place, lines: &[&str]) -> Result<String> {
    let example = std::fs::read_to_string(workspace().join("tools/examples/mayfly.cfg"))?;
    let config = format!("{example}\n{}\n", lines.join("\n"));
    place.lab.put(CONFIG, 0o644, config.as_bytes())?;
    let output = place.hatch(&["create", CONFIG])?;
    ensure!(output.success(), "create: {}", output.error_text());
    Ok(output.error_text())
}

/// The guest's number, if it exists.
fn domid(place: &Place) -> Result<Option<u32>> {
    let output = place.lab.exec(&["xl", "domid", "mayfly"])?;
    match output.success() {
        true => Ok(Some(output.text().trim().parse().context("xl domid")?)),
        false => Ok(None),
    }
}

fn ask(place: &Place, to: &str) -> Result<()> {
    let path = format!(
        "/local/domain/{}/control/shutdown",
        domid(place)?.context("there is no guest")?
    );
    place.lab.run(&["xenstore-write", &path, to]).map(drop)
}

fn served(place: &Place) -> Result<()> {
    until("the guest is not served", || {
        let page = place
            .lab
            .shell(&format!("wget -q -O - http://{GUEST}/; true"))?;
        Ok(!page.is_empty())
    })
}

fn powers_off(place: &Place) -> Result<()> {
    let watch = Watch::start(place)?;
    let said = create(place, &[])?;
    ensure!(!said.contains("hatch watch"), "it says {said}");
    served(place)?;
    ask(place, "poweroff")?;
    until("the guest stays", || Ok(domid(place)?.is_none()))?;
    place.nothing_left()?;
    ensure!(watch.told("\"reason\":\"poweroff\"")? == 1);
    // Its capabilities: bridge ports, and files of any owner.
    let status = place
        .lab
        .shell(&format!("cat /proc/{}/status", watch.pid))?;
    ensure!(
        status.contains("CapPrm:\t0000000000801004") && status.contains("NoNewPrivs:\t1"),
        "its rights are {status}"
    );
    let second = place.hatch(&["watch"])?;
    ensure!(!second.success(), "two of them watch");
    Ok(())
}

fn reboots(place: &Place) -> Result<()> {
    let watch = Watch::start(place)?;
    create(place, &["on_reboot = \"restart\""])?;
    let first = domid(place)?;
    served(place)?;
    ask(place, "reboot")?;
    until("the guest is not made again", || {
        let now = domid(place)?;
        Ok(now.is_some() && now != first)
    })?;
    served(place)?;
    ensure!(watch.told("\"restarted\"")? == 1);
    place.hatched(&["destroy", "mayfly"])?;
    place.nothing_left()
}

fn crashes(place: &Place) -> Result<()> {
    let watch = Watch::start(place)?;
    create(place, &["on_crash = \"preserve\"", CRASHES])?;
    until("nobody sees it crash", || {
        Ok(watch.told("\"preserve\"")? == 1)
    })?;
    ensure!(domid(place)?.is_some(), "it is not preserved");
    place.hatched(&["destroy", "mayfly"])?;

    create(place, &["on_crash = \"restart\"", CRASHES])?;
    until("it is not made again", || {
        Ok(watch.told("\"restarted\"")? >= 1)
    })?;
    let first = Instant::now();
    until("it is made again only once", || {
        Ok(watch.told("\"restarted\"")? >= 2)
    })?;
    // The pause is shorter by the time until the crash was noticed.
    let pause = first.elapsed();
    ensure!(
        pause > Duration::from_secs(4),
        "it was made again after {pause:?}"
    );
    // It waits to be made once more; destroying ends that.
    until("it does not crash", || Ok(domid(place)?.is_none()))?;
    place.hatched(&["destroy", "mayfly"])?;
    place.nothing_left()
}

fn taken_over(place: &Place) -> Result<()> {
    let watch = Watch::start(place)?;
    create(place, &[])?;
    let first = domid(place)?;
    served(place)?;
    watch.end("-KILL")?;
    // The guest ends while no watch runs.
    ask(place, "reboot")?;
    until("the guest does not end", || {
        let listed = place.hatched(&["list", "--json"])?;
        Ok(listed.contains("\"state\":\"reboot\""))
    })?;
    let next = Watch::start(place)?;
    until("the guest is not made again", || {
        let now = domid(place)?;
        Ok(now.is_some() && now != first)
    })?;
    place.hatched(&["destroy", "mayfly"])?;
    place.nothing_left()?;

    // This watch is killed while a guest waits to be made again.
    create(place, &["on_crash = \"restart\"", CRASHES])?;
    until("it does not wait", || {
        let waits = place
            .lab
            .exec(&["xenstore-exists", "/hatch/restart/mayfly"])?;
        Ok(next.told("\"restarted\"")? >= 2 && waits.success() && domid(place)?.is_none())
    })?;
    next.end("-KILL")?;
    // No watch runs, but one is expected, so `create` warns.
    let said = place.lab.shell(&format!(
        "{HATCH} create -p --name other --extra ip=10.0.2.90/24 {CONFIG} 2>&1"
    ))?;
    ensure!(said.contains("hatch watch"), "it says {said}");
    place.hatched(&["destroy", "other"])?;
    let last = Watch::start(place)?;
    until("it is not made again", || {
        Ok(last.told("\"restarted\"")? >= 3)
    })?;
    until("it does not crash", || Ok(domid(place)?.is_none()))?;
    place.hatched(&["destroy", "mayfly"])?;
    place.nothing_left()
}

fn unwatched(place: &Place) -> Result<()> {
    let said = create(place, &[])?;
    ensure!(said.contains("hatch watch"), "it says {said}");
    served(place)?;
    ask(place, "poweroff")?;
    until("the guest does not end", || {
        let listed = place.hatched(&["list", "--json"])?;
        Ok(listed.contains("\"state\":\"poweroff\""))
    })?;
    // No watch has recorded the action at its end.
    drop(Watch::start(place)?);
    if domid(place)?.is_none() {
        bail!("a watch that comes later destroys it");
    }
    place.hatched(&["destroy", "mayfly"]).map(drop)
}

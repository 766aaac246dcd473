//! `cargo xtask demo --summon`: queries a service that does not run yet.

use std::fs;
use std::net::SocketAddrV4;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{DOM0, GUEST, Lab, Protocol, hatch_programs, workspace};
use serde::Deserialize;

use crate::progress::Progress;
use crate::{guest, lab, pack};

/// The time limit of each step.
const BOUND: Duration = Duration::from_secs(60);
/// The interval at which changes are polled.
const TICK: Duration = Duration::from_millis(100);
const SITE: &str = "tools/examples/site";
const HOST: &str = "www.example.test";
const HATCH: &str = "/guest/hatch";
const FILE: &str = "/guest/summon.toml";

/// The file of services.
fn services() -> String {
    format!(
        r#"[daemon]
listen = ["{DOM0}:53"]
ttl = 2

[[services]]
name = "www"
hosts = ["{HOST}"]
zone = "example.test"
image = "/guest/mayfly"
site = "/guest/site.mfs"
memory = 8
ipv4 = "{GUEST}/24"
gateway = "10.0.2.2"
idle = 5
"#
    )
}

/// The parts of `hatch summon status --json` that are shown.
#[derive(Deserialize)]
struct Status {
    services: Vec<Service>,
}

#[derive(Deserialize)]
struct Service {
    state: String,
    births: u64,
    deaths: u64,
    last_boot: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    what: String,
    from_us: u64,
    to_us: u64,
}

/// Runs the demo in a lab of this name. The handler of the interruption takes the lab down.
pub(crate) fn run(
    name: &str,
    machine: &lab::Machine,
    once: bool,
    progress: &Progress,
    interrupted: &Receiver<()>,
) -> Result<()> {
    progress.step("building the guest");
    let mayfly = fs::read(guest::build(guest::MAYFLY)?)?;
    progress.step("building hatch");
    let programs = hatch_programs(false)?;
    let site = pack::pack(&workspace().join(SITE))?;
    let mut options = machine.options(name);
    let dns = SocketAddrV4::new(DOM0, 53);
    options.forwards = vec![(Protocol::Udp, dns), (Protocol::Tcp, dns)];
    let lab = Lab::up(&options, &|step| progress.step(step))?;
    progress.say("Xen and dom0 are up");
    lab.put("/guest/mayfly", 0o644, &mayfly)?;
    lab.put("/guest/site.mfs", 0o644, &site)?;
    lab.put_programs("/guest", &programs)?;
    lab.put(FILE, 0o644, services().as_bytes())?;
    lab.shell(&format!(
        "{HATCH} summon {FILE} </dev/null >/run/summon.log 2>&1 &"
    ))?;
    let result = shown(&lab, &lab.forward(Protocol::Udp, dns)?, progress);
    if result.is_err() {
        eprintln!("{}", lab.shell("cat /run/summon.log").unwrap_or_default());
    }
    result?;
    if once {
        return lab.down();
    }
    let dns = lab.forward(Protocol::Udp, dns)?;
    println!(
        "\nIt runs until Ctrl-C:\n$ dig @{} -p {} {HOST}\n$ curl http://{}/\n$ cargo xtask lab exec --name {name} {HATCH} summon status\n\
         $ cargo xtask lab exec --name {name} cat /run/summon.log",
        dns.ip(),
        dns.port(),
        lab.http()?
    );
    // By then, the handler has taken the lab down.
    let _ = interrupted.recv();
    Ok(())
}

fn shown(lab: &Lab, dns: &std::net::SocketAddr, progress: &Progress) -> Result<()> {
    until(lab, |www| www.state == "asleep")?;
    progress.finish();
    println!("\nNothing runs:\n$ xl list\n{}", lab.run(&["xl", "list"])?);

    let records = ask::dns(*dns, HOST, Rtype::A, BOUND)?;
    ensure!(records == [format!("A {GUEST}")], "DNS gives {records:?}");
    println!(
        "$ dig @{} -p {} {HOST}\n{}",
        dns.ip(),
        dns.port(),
        records.join("\n")
    );
    page(lab)?;
    let www = until(lab, |www| {
        www.last_boot.iter().any(|step| step.what == "first byte")
    })?;
    println!("Its one boot, from the query on:\n{}", waterfall(&www));
    println!("Nobody asks any more ...");
    until(lab, |www| www.state == "asleep" && www.deaths == 1)?;
    println!("$ xl list\n{}", lab.run(&["xl", "list"])?);

    println!("Without a query: the SYN wakes it.");
    page(lab)?;
    let www = until(lab, |www| {
        www.births == 2 && www.last_boot.iter().any(|step| step.what == "first byte")
    })?;
    println!("{}", waterfall(&www));
    Ok(())
}

fn page(lab: &Lab) -> Result<()> {
    let http = lab.http()?;
    let start = Instant::now();
    let (status, page) = ask::http(http, "/", BOUND)?;
    ensure!(status == 200, "GET / gives {status}");
    println!(
        "$ curl http://{http}/\n{}\n(after {} ms)\n",
        page.trim(),
        start.elapsed().as_millis()
    );
    Ok(())
}

/// Waits until the status of the service meets a condition.
fn until(lab: &Lab, is_wanted: impl Fn(&Service) -> bool) -> Result<Service> {
    let end = Instant::now() + BOUND;
    loop {
        let told = lab.exec(&[HATCH, "summon", "status", "--json"])?;
        if told.success() {
            let status: Status = serde_json::from_str(&told.text())
                .with_context(|| format!("no status: {:?}", told.text()))?;
            let www = status.services.into_iter().next().context("no service")?;
            if is_wanted(&www) {
                return Ok(www);
            }
        }
        if Instant::now() > end {
            bail!(
                "the service did not get into the expected state: {}",
                told.text()
            );
        }
        thread::sleep(TICK);
    }
}

/// A line for each step, with a bar at its time.
fn waterfall(www: &Service) -> String {
    const WIDTH: u64 = 60;
    let end = www.last_boot.iter().map(|step| step.to_us).max();
    let end = end.unwrap_or(1).max(1);
    let mut text = format!("{:>10} {:>9}\n", "from us", "took us");
    for step in &www.last_boot {
        let at = |us: u64| us * (WIDTH - 1) / end;
        let (from, to) = (at(step.from_us), at(step.to_us));
        let bar = match step.from_us == step.to_us {
            true => "|".to_owned(),
            false => "#".repeat(usize::try_from(to - from + 1).unwrap_or(1)),
        };
        let gap = " ".repeat(usize::try_from(from).unwrap_or(0));
        text.push_str(&format!(
            "{:>10} {:>9}  {:20} {gap}{bar}\n",
            step.from_us,
            step.to_us.saturating_sub(step.from_us),
            step.what
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_where_the_steps_were() {
        let step = |what: &str, from_us, to_us| Step {
            what: what.to_owned(),
            from_us,
            to_us,
        };
        let www = Service {
            state: "running".into(),
            births: 1,
            deaths: 0,
            last_boot: vec![step("query", 0, 0), step("memory", 50, 100)],
        };
        let text = waterfall(&www);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("query                |"), "{text}");
        assert_eq!(lines[2].matches('#').count(), 31, "{text}");
    }
}

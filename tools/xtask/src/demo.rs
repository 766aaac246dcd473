//! `cargo xtask demo`: sets up the lab, boots a guest and shows its answers.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use mayfly_lab::ask::{self, Rtype};
use mayfly_lab::{Lab, linux};
use serde::Deserialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::progress::Progress;
use crate::{guest, host, lab, pack, summon};

/// The demo's lab.
const NAME: &str = "demo";
/// The time limit for the guest's answers.
const BOUND: Duration = Duration::from_secs(60);
const LINUX_CONFIG: &str = include_str!("../../examples/linux.cfg");

#[derive(Args)]
pub(crate) struct Demo {
    /// End after the first answers instead of waiting for Ctrl-C
    #[arg(long)]
    once: bool,
    /// Do not ask before sudo
    #[arg(long)]
    yes: bool,
    /// Serve this site: a folder with `zones/*.zone` and `www/`
    #[arg(long, value_name = "DIR")]
    site: Option<PathBuf>,
    /// Show a service that sleeps until a DNS query or a SYN comes
    #[arg(long, conflicts_with_all = ["site", "payload"])]
    summon: bool,
    /// The guest to boot
    #[arg(long, value_enum, default_value_t)]
    payload: Payload,
    #[command(flatten)]
    machine: lab::Machine,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Payload {
    /// The unikernel
    #[default]
    Mayfly,
    /// A Debian cloud kernel with busybox's web server, or with NSD and nginx for a site
    Linux,
}

pub(crate) fn run(demo: &Demo) -> Result<()> {
    let (interrupt, interrupted) = mpsc::channel();
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // The main thread may be busy with anything, so the lab is found by name and taken down here.
            if let Ok(lab) = Lab::attach(NAME) {
                eprintln!("\ntaking the lab down");
                let _ = lab.down();
            }
            if interrupt.send(()).is_err() {
                std::process::exit(130);
            }
        }
    });
    host::ensure_qemu(demo.yes)?;
    let progress = Progress::new();
    let start = Instant::now();
    if let Ok(stale) = Lab::attach(NAME) {
        progress.step("taking the last demo's lab down");
        stale.down()?;
    }
    if demo.summon {
        return summon::run(NAME, &demo.machine, demo.once, &progress, &interrupted);
    }
    let Prepared { files, questions } = payload(demo, &progress)?;
    let lab = Lab::up(&demo.machine.options(NAME), &|step| progress.step(step))?;
    progress.say("Xen and dom0 are up");
    progress.step("creating the guest");
    for (path, content) in &files {
        lab.put(path, 0o644, content)?;
    }
    lab.run(&["xl", "create", "/guest/config"])?;
    let domain = lab.run(&[
        "xl",
        "domid",
        if demo.payload == Payload::Linux {
            "linux"
        } else {
            "mayfly"
        },
    ])?;
    progress.say(&format!("xl has created domain {}", domain.trim()));
    progress.step("waiting for the guest");
    if demo.payload == Payload::Mayfly {
        lab.xenstore_wait(
            &format!("/local/domain/{}/data/mayfly/ready", domain.trim()),
            BOUND,
        )
        .with_context(|| {
            format!(
                "the guest does not get ready; its lines:\n{}",
                guest_lines(&lab)
            )
        })?;
    }
    let answers = answers(&lab, demo, &questions)?;
    progress.say(&format!(
        "the first answers came {:.0} s after the start",
        start.elapsed().as_secs_f64()
    ));
    progress.finish();
    print!("{answers}");
    if demo.once {
        return lab.down();
    }
    println!(
        "\nIt runs until Ctrl-C. Look inside with `cargo xtask lab exec --name {NAME} xl list`."
    );
    // By then, the handler has taken the lab down.
    let _ = interrupted.recv();
    Ok(())
}

/// A DNS query: a name and a type.
type Question = (String, Rtype);

/// A guest to boot.
struct Prepared {
    /// The guest's files in dom0, by path.
    files: Vec<(&'static str, Vec<u8>)>,
    /// The queries to show: the address in the built-in zone, or the SOA of each zone of the site.
    questions: Vec<Question>,
}

fn soa(name: String) -> Question {
    (name, Rtype::SOA)
}

/// Builds the guest and packs its site.
fn payload(demo: &Demo, progress: &Progress) -> Result<Prepared> {
    Ok(match demo.payload {
        Payload::Mayfly => {
            progress.step("building the guest");
            let path = guest::build(guest::MAYFLY)?;
            let mut files = vec![("/guest/mayfly", fs::read(path)?)];
            let mut config = mayfly_lab::example_with("boot");
            let mut questions = vec![("mayfly.test".into(), Rtype::A)];
            if let Some(site) = &demo.site {
                progress.step("packing the site");
                let (pack, zones) = pack::pack_with_zones(site)?;
                questions = zones.into_iter().map(soa).collect();
                progress.say(&format!("the pack has {} bytes", pack.len()));
                config.push_str(&site_lines(pack.len(), 8));
                files.push(("/guest/site.mfs", pack));
            }
            files.push(("/guest/config", config.into()));
            Prepared { files, questions }
        }
        Payload::Linux => {
            let report = |step: &str| progress.step(step);
            let mut config = LINUX_CONFIG.to_owned();
            let mut questions = Vec::new();
            let guest = match &demo.site {
                None => linux::guest(&report)?,
                Some(site) => {
                    let address = mayfly_lab::GUEST;
                    config.push_str(&format!(
                        "memory = 512\nextra = \"console=hvc0 quiet address={address}/24\"\n"
                    ));
                    // NSD serves a zone under the name of its file.
                    let zones = linux::zones(site)?.into_iter();
                    questions = zones.map(|(origin, _)| soa(origin)).collect();
                    linux::server(site, &[], &report)?
                }
            };
            let files = vec![
                ("/guest/vmlinuz", fs::read(guest.kernel)?),
                ("/guest/ramdisk", guest.ramdisk),
                ("/guest/config", config.into()),
            ];
            Prepared { files, questions }
        }
    })
}

/// Lines that add a pack to a guest of the example configuration: `xl` uses the last of two lines with the same key.
/// The pack takes memory in addition to the `memory` MiB of the guest.
fn site_lines(bytes: usize, memory: usize) -> String {
    let memory = memory + bytes.div_ceil(1 << 20);
    format!("ramdisk = \"/guest/site.mfs\"\nmemory = {memory}\n")
}

/// Queries the guest. Returns the interesting parts of the answers as text.
fn answers(lab: &Lab, demo: &Demo, questions: &[Question]) -> Result<String> {
    let (http, dns) = (lab.http()?, lab.dns()?);
    let (status, page) = ask::http(http, "/", BOUND)?;
    // A site may have zones only.
    let expected = status == 200 || demo.site.is_some() && status == 404;
    ensure!(expected, "GET / gives {status}");
    let page = page.lines().take(3).collect::<Vec<_>>().join("\n");
    let mut text = String::new();
    if demo.payload == Payload::Mayfly {
        let (status, boot) = ask::http(http, "/.mayfly/boot", BOUND)?;
        ensure!(status == 200, "GET /.mayfly/boot gives {status}");
        text.push_str(&timeline(&boot)?);
    }
    for (name, rtype) in questions {
        let records = ask::dns(dns, name, *rtype, BOUND)?;
        ensure!(!records.is_empty(), "DNS gives no {rtype} of {name}");
        text.push_str(&format!(
            "\n$ dig @{} -p {} {name} {rtype}\n{}\n",
            dns.ip(),
            dns.port(),
            records.join("\n")
        ));
    }
    text.push_str(&format!("\n$ curl http://{http}/\n{page}\n"));
    Ok(text)
}

/// `GET /.mayfly/boot`.
#[derive(Deserialize)]
struct Boot {
    tsc_khz: u64,
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    phase: String,
    ns: u64,
}

/// The boot timeline as a table; the times are those of the emulated machine.
fn timeline(json: &str) -> Result<String> {
    let boot: Boot = serde_json::from_str(json).context("GET /.mayfly/boot is not the timeline")?;
    ensure!(!boot.events.is_empty(), "the timeline is empty");
    let width = boot
        .events
        .iter()
        .map(|event| event.phase.len())
        .max()
        .unwrap_or_default();
    let mut text = format!(
        "\n{:width$}  {:>12}  {:>12}   (TSC at {} kHz)\n",
        "phase", "since entry", "step", boot.tsc_khz
    );
    let mut before = 0;
    for event in &boot.events {
        let micros = |ns: u64| format!("{}.{:03} us", ns / 1000, ns % 1000);
        text.push_str(&format!(
            "{:width$}  {:>12}  {:>12}\n",
            event.phase,
            micros(event.ns),
            micros(event.ns.saturating_sub(before))
        ));
        before = event.ns;
    }
    Ok(text)
}

/// The lines that guests wrote to I/O port 0xe9.
fn guest_lines(lab: &Lab) -> String {
    let log = lab.serial().unwrap_or_default();
    let lines: BTreeMap<usize, &str> = log
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("(d"))
        .collect();
    lines.into_values().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::timeline;

    #[test]
    fn a_pack_has_memory_of_its_own() {
        assert_eq!(
            super::site_lines((1 << 20) + 1, 8),
            "ramdisk = \"/guest/site.mfs\"\nmemory = 10\n"
        );
    }

    #[test]
    fn the_timeline_is_a_table() {
        let json = r#"{"tsc_khz":1000000,"entry_tsc":5,"events":[{"phase":"entry","tsc":5,"ns":0},{"phase":"first tx","tsc":9,"ns":1500}]}"#;
        let table = timeline(json).unwrap();
        assert!(table.contains("first tx      1.500 us"), "{table}");
        assert!(timeline(r#"{"tsc_khz":1,"events":[]}"#).is_err());
        assert!(timeline("no").is_err());
    }
}

//! The lab with the guests to be measured.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mayfly_lab::{Lab, Options, Placed, Report, linux, static_program};
use serde::Serialize;

use super::super::job::{self, HATCH, forget};
use super::load::{Load, PAUSE, PAUSE_PATH, Sample};
use super::site::{self, FILES, LARGE, SMALL};
use crate::guest::{MAYFLY, build};
use crate::pack;

/// The memory of every guest, in MiB: NSD needs some 300 for the large zone.
const MEMORY: u32 = 512;
/// The time limit for a guest to serve: NSD reads a million names on an emulated machine.
const READY: Duration = Duration::from_secs(300);
const STAMP: &str = "/bench/stamp";

/// The server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Server {
    /// The project's guest, on netback.
    Mayfly,
    /// The same on `hatch switch`.
    Switched,
    /// Linux with NSD and nginx, on netback.
    Linux,
}

impl Server {
    /// The servers that have a guest with a site of this size.
    pub(super) fn of(size: Size) -> &'static [Self] {
        match size {
            Size::Small => &[Self::Mayfly, Self::Switched, Self::Linux],
            Size::Large => &[Self::Mayfly, Self::Linux],
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Mayfly => "mayfly",
            Self::Switched => "switched",
            Self::Linux => "linux",
        }
    }
}

/// The size of the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Size {
    /// A zone of 1,000 names, and the files.
    Small,
    /// A zone of 1,000,000 names.
    Large,
}

impl Size {
    pub(super) fn questions(self) -> &'static str {
        match self {
            Self::Small => "/bench/small.questions",
            Self::Large => "/bench/large.questions",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Large => "large",
        }
    }

    fn origin(self) -> String {
        format!("{}.test", self.name())
    }

    fn names(self) -> u32 {
        match self {
            Self::Small => SMALL,
            Self::Large => LARGE,
        }
    }
}

/// A guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Peer {
    pub(super) server: Server,
    pub(super) size: Size,
}

impl Peer {
    pub(super) fn name(self) -> String {
        format!("{}-{}", self.server.name(), self.size.name())
    }

    /// The path of its module in dom0.
    fn ramdisk(self) -> String {
        let server = match self.server {
            Server::Mayfly | Server::Switched => Server::Mayfly,
            Server::Linux => Server::Linux,
        };
        format!("/guest/{}", Self { server, ..self }.name())
    }

    /// The command that creates it.
    pub(super) fn create(self) -> String {
        let path = config_path(self);
        match self.server {
            Server::Mayfly => format!("{HATCH} create --network netback {path} > /dev/null"),
            Server::Switched => format!("{HATCH} create --network switch {path} > /dev/null"),
            Server::Linux => format!("xl create -q {path}"),
        }
    }

    pub(super) fn address(self) -> String {
        let last = match (self.server, self.size) {
            (Server::Mayfly, Size::Small) => 80,
            (Server::Linux, Size::Small) => 81,
            (Server::Mayfly, Size::Large) => 82,
            (Server::Linux, Size::Large) => 83,
            (Server::Switched, Size::Small) => 84,
            (Server::Switched, Size::Large) => 85,
        };
        format!("10.0.2.{last}")
    }

    /// Its configuration. If there are two CPUs, dom0 has the first, and the guests share the second.
    fn config(self, cpus: u32) -> String {
        let address = self.address();
        let (kernel, extra) = match self.server {
            Server::Mayfly | Server::Switched => {
                ("mayfly", format!("ip={address}/24 gw=10.0.2.2 rrl=off"))
            }
            Server::Linux => (
                "vmlinuz",
                format!("console=hvc0 quiet pci=off address={address}/24"),
            ),
        };
        let (name, ramdisk) = (self.name(), self.ramdisk());
        let pin = if cpus > 1 { "cpus = \"1\"\n" } else { "" };
        format!(
            "name = \"{name}\"\ntype = \"pvh\"\nkernel = \"/guest/{kernel}\"\nramdisk = \"{ramdisk}\"\nmemory = {MEMORY}\n\
             vcpus = 1\n{pin}extra = \"{extra}\"\nvif = [ \"bridge=xenbr0,script=vif-mayfly\" ]\n\
             tsc_mode = \"native\"\non_crash = \"preserve\"\n"
        )
    }
}

/// All files for dom0, which are made once.
pub(super) struct Files(pub(super) Vec<(String, u32, Vec<u8>)>);

impl Files {
    /// Makes the sites, their packs and the Linux guests' initramfs.
    ///
    /// # Errors
    /// The errors of building, packing and downloading.
    pub(super) fn make(sizes: &[Size], cpus: u32, report: Report<'_>) -> Result<Self> {
        let mut files = Vec::new();
        let mut add = |path: String, mode, content| files.push((path, mode, content));
        report("building the guest");
        add("/guest/mayfly".into(), 0o644, read(&build(MAYFLY)?)?);
        report("building the measuring program");
        add(
            STAMP.into(),
            0o755,
            read(&static_program("mayfly-stamp", "stamp")?)?,
        );
        for program in ["hatch", "hatch-switch"] {
            let Placed {
                path,
                mode,
                content,
            } = job::hatch(program, report)?;
            add(path, mode, content);
        }
        add(PAUSE_PATH.into(), 0o644, PAUSE.into());
        let scratch = tempfile::tempdir()?;
        for &size in sizes {
            let origin = size.origin();
            report(&format!("packing {origin}"));
            let folder = scratch.path().join(size.name());
            let site = site::write(&folder, &origin, size.names(), size == Size::Small)?;
            let questions = site::questions(&origin, size.names())?;
            add(size.questions().into(), 0o644, questions.into());
            let ramdisk = |server| Peer { server, size }.ramdisk();
            add(ramdisk(Server::Mayfly), 0o644, pack::pack(&site)?);
            let guest = linux::server(&site, &[], report)?;
            add(ramdisk(Server::Linux), 0o644, guest.ramdisk);
            add("/guest/vmlinuz".into(), 0o644, read(&guest.kernel)?);
            for &server in Server::of(size) {
                let peer = Peer { server, size };
                add(config_path(peer), 0o644, peer.config(cpus).into());
            }
        }
        Ok(Self(files))
    }
}

/// The options of a lab with `cpus` CPUs.
pub(super) fn options(name: &str, cpus: u32) -> Options {
    Options {
        cpus,
        memory: 4608,
        dom0_memory: 1536,
        load: true,
        ..Options::named(name)
    }
}

pub(super) fn config_path(peer: Peer) -> String {
    format!("/guest/{}.cfg", peer.name())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A lab whose guests all serve.
pub(super) struct Bed {
    name: String,
    lab: Lab,
    domains: Vec<(Peer, String)>,
}

impl Bed {
    /// Starts the lab and the guests, and waits until each guest serves.
    ///
    /// # Errors
    /// The errors of the lab; a guest that does not serve in time.
    pub(super) fn up(files: &Files, peers: &[Peer], report: Report<'_>) -> Result<Self> {
        let name = format!("serve-{}", std::process::id());
        let options = Options {
            xen_arguments: vec!["dom0_max_vcpus=1".into(), "dom0_vcpus_pin".into()],
            ..options(&name, 2)
        };
        let lab = Lab::up(&options, report)?;
        report("creating the guests");
        for (path, mode, content) in &files.0 {
            lab.put(path, *mode, content)?;
        }
        let mut bed = Self {
            name,
            lab,
            domains: Vec::new(),
        };
        bed.lab.shell(&switch())?;
        for &peer in peers {
            bed.lab.shell(&peer.create())?;
            let domain = bed.lab.run(&["xl", "domid", &peer.name()])?;
            bed.domains.push((peer, domain.trim().to_owned()));
        }
        for &peer in peers {
            report(&format!("waiting for {}", peer.name()));
            bed.wait(peer)?;
        }
        bed.same_files(peers)?;
        Ok(bed)
    }

    fn wait(&self, peer: Peer) -> Result<()> {
        let start = Instant::now();
        let serves = serves(peer);
        loop {
            let output = self.lab.exec(&["sh", "-c", &serves])?;
            if output.success() {
                return Ok(());
            }
            let domain = self.domain(peer)?;
            let listed = self.lab.run(&["xl", "list", domain])?;
            let state = listed
                .lines()
                .last()
                .and_then(|line| line.split_whitespace().nth(4));
            let crashed = state.is_some_and(|state| state.contains('c'));
            ensure!(
                !crashed && start.elapsed() < READY,
                "{} does not serve: {} {}; {listed}; the guest says:\n{}",
                peer.name(),
                output.text(),
                output.error_text(),
                self.lines(domain)?
            );
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    /// The lines that a guest wrote to I/O port 0xe9.
    fn lines(&self, domain: &str) -> Result<String> {
        let log = self.lab.serial()?;
        let from = format!("(d{domain})");
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&from)).collect();
        Ok(lines.join("\n"))
    }

    /// Checks that the guests serve the same bytes.
    fn same_files(&self, peers: &[Peer]) -> Result<()> {
        for file in FILES {
            let mut sums = Vec::new();
            for peer in peers.iter().filter(|peer| peer.size == Size::Small) {
                let url = format!("http://{}/{}", peer.address(), file.name);
                sums.push(self.lab.shell(&format!("wget -q -O - {url} | sha256sum"))?);
            }
            ensure!(
                sums.windows(2).all(|two| two.first() == two.last()),
                "the guests serve different {}",
                file.name
            );
        }
        Ok(())
    }

    /// Takes the lab down, and removes its logs.
    ///
    /// # Errors
    /// QEMU does not end.
    pub(super) fn down(self) -> Result<()> {
        let name = self.name;
        self.lab.down()?;
        forget(&name)
    }

    fn domain(&self, peer: Peer) -> Result<&str> {
        let found = self.domains.iter().find(|(p, _)| *p == peer);
        Ok(&found.context("no such guest")?.1)
    }

    /// Runs a load against a guest.
    ///
    /// # Errors
    /// The load's program fails or does not end; the errors of the lab.
    pub(super) fn run(&self, peer: Peer, load: &Load, seconds: u32) -> Result<Sample> {
        let script = script(peer, self.domain(peer)?, load, seconds);
        let bound = Duration::from_secs(u64::from(seconds) * 4 + 60);
        let output = self.lab.exec_with(&["sh", "-c", &script], &[], bound)?;
        let text = output.text();
        ensure!(output.success(), "{text} {}", output.error_text());
        sample(load, &text)
    }

    /// Samples the addresses at which a guest executes under a load. Returns each address with its number of samples.
    ///
    /// # Errors
    /// The errors of [`Bed::run`].
    pub(super) fn profile(&self, peer: Peer, load: &Load, seconds: u32) -> Result<Vec<(u64, u64)>> {
        let domain = self.domain(peer)?;
        let command = load.command(&peer.address(), seconds + 2);
        let script =
            format!("({command}) > /dev/null & sleep 1; {STAMP} profile {domain} {seconds}; wait");
        let bound = Duration::from_secs(u64::from(seconds) * 4 + 60);
        let output = self.lab.exec_with(&["sh", "-c", &script], &[], bound)?;
        let lines = output.text();
        let samples = lines.lines().map(|line| {
            let (address, count) = line.split_once(' ').context("no sample")?;
            Ok((u64::from_str_radix(address, 16)?, count.parse()?))
        });
        samples.collect()
    }
}

/// The shell script for one run of a load. [`sample`] parses its output.
pub(super) fn script(peer: Peer, domain: &str, load: &Load, seconds: u32) -> String {
    let look = format!("{STAMP} cpu 0 {domain}; read up idle < /proc/uptime; echo $up");
    let command = load.command(&peer.address(), seconds);
    format!("ulimit -n 8192; {look}; {command}; {look}")
}

/// Parses the output of one run.
pub(super) fn sample(load: &Load, text: &str) -> Result<Sample> {
    let lines: Vec<&str> = text.lines().collect();
    let number = |index: Option<usize>| -> Result<f64> {
        let line = index
            .and_then(|index| lines.get(index))
            .context("too few lines")?;
        line.trim()
            .parse()
            .with_context(|| format!("{line:?} is no time: {text}"))
    };
    // dom0's and the guest's CPU time in ns, and the seconds since boot: before, and after.
    let spent = |index: usize| -> Result<f64> {
        let after = (lines.len() + index).checked_sub(3);
        Ok(number(after)? - number(Some(index))?)
    };
    let (dom0, guest, seconds) = (spent(0)?, spent(1)?, spent(2)?);
    let mut sample = load.sample(text)?;
    ensure!(sample.answers > 0, "nothing was answered:\n{text}");
    #[allow(clippy::cast_precision_loss)]
    let answers = sample.answers as f64;
    sample.guest_us = guest / 1e3 / answers;
    sample.dom0_us = dom0 / 1e3 / answers;
    sample.guest_busy = guest / 1e9 / seconds;
    Ok(sample)
}

/// A script that starts `hatch switch`, and waits until it listens.
pub(super) fn switch() -> String {
    format!(
        "{HATCH} switch --bridge xenbr0 </dev/null >/run/switch.log 2>&1 &\n\
         for i in $(seq 100); do {HATCH} switch status > /dev/null 2>&1 && break; usleep 100000; done"
    )
}

/// A command that succeeds when a guest serves: it queries the last name of its zone, and gets a page.
pub(super) fn serves(peer: Peer) -> String {
    let address = peer.address();
    let name = format!("n{:06}.{}", peer.size.names() - 1, peer.size.origin());
    format!("nslookup -type=a {name} {address} && wget -q -O /dev/null http://{address}/index.html")
}

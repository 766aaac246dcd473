//! Prepares the measuring job for dom0.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mayfly_lab::{GUEST, Lab, Options, Placed, Report, Xenstored, hatch_programs, static_program};
use mayfly_stamp as stamp;
use mayfly_stamp::{Job, Maker, Neighbour, Ready};
use mayfly_toolstack::paths::mac_text;

use super::serve::site;
use super::vmlinux;
use crate::guest::{MAYFLY, NULL, build};
use crate::pack;

/// The setting that selects the smallest hotplug script. Without it, `xl` uses Xen's own vif-bridge.
const SCRIPT: &str = ",script=vif-mayfly";
/// The configuration that the end-to-end tests use as well.
pub(super) const STAMP: &str = "/bench/stamp";
pub(crate) const HATCH: &str = "/bench/hatch";
const JOB: &str = "/bench/job.json";
/// The command in dom0 that carries out a plan.
pub(crate) const COMMAND: [&str; 2] = [STAMP, JOB];
/// The time limit of a single wait in dom0, in seconds of dom0.
pub(super) const BOUND_S: u64 = 60;
/// The time limit of a run, in seconds of the host.
pub(crate) const RUN: Duration = Duration::from_secs(3600);

/// Memory of a guest with a pack, in MiB: the same for both, so that only the pack differs.
const SITE_MEMORY: u32 = 256;

/// The guests that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// The project's guest.
    Mayfly,
    /// The project's guest with a pack of one zone of 1,000 names.
    MayflySmall,
    /// The project's guest with a pack of one zone of 1,000,000 names.
    MayflyLarge,
    /// The do-nothing guest, which shows the cost of Xen and `xl`.
    Null,
    /// The trimmed Linux guest.
    Linux,
}

/// The maker of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum By {
    /// `xl` with Xen's own hotplug script, vif-bridge.
    XlBridge,
    /// `xl` with the smallest hotplug script.
    Xl,
    /// `hatch`.
    Hatch,
    /// `hatch`, from a pool.
    Pool,
}

impl By {
    pub(crate) const ALL: [Self; 4] = [Self::XlBridge, Self::Xl, Self::Hatch, Self::Pool];

    fn maker(self) -> Maker {
        match self {
            Self::XlBridge | Self::Xl => Maker::Xl,
            Self::Hatch => Maker::Hatch,
            Self::Pool => Maker::Pool,
        }
    }
}

/// A guest and its maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Subject {
    pub(crate) kind: Kind,
    pub(crate) by: By,
}

impl Subject {
    /// A guest made by `xl` as in the end-to-end tests.
    pub(crate) fn by_xl(kind: Kind) -> Self {
        Self { kind, by: By::Xl }
    }

    /// All combinations of these guests and makers; an empty list means all. Only guests that can take over a connected
    /// network come from a pool.
    pub(crate) fn all(kinds: &[Kind], by: &[By]) -> Vec<Self> {
        let kinds = if kinds.is_empty() { &Kind::ALL } else { kinds };
        let by = if by.is_empty() { &By::ALL } else { by };
        let pairs = by
            .iter()
            .flat_map(|&by| kinds.iter().map(move |&kind| Self { kind, by }));
        pairs
            .filter(|subject| subject.by != By::Pool || subject.kind == Kind::Mayfly)
            .collect()
    }

    pub(crate) fn label(self) -> String {
        let by = match self.by {
            By::XlBridge => "xl, vif-bridge",
            By::Xl => "xl",
            By::Hatch => "hatch",
            By::Pool => "pool",
        };
        format!("{}, {by}", self.kind.name())
    }
}

impl Kind {
    const ALL: [Self; 3] = [Self::Mayfly, Self::Null, Self::Linux];

    /// The origin of the zone in the guest's pack, and its number of names.
    fn zone(self) -> Option<(&'static str, u32)> {
        match self {
            Self::MayflySmall => Some(("small.test", site::SMALL)),
            Self::MayflyLarge => Some(("large.test", site::LARGE)),
            _ => None,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Mayfly => "mayfly",
            Self::MayflySmall => "mayfly-small",
            Self::MayflyLarge => "mayfly-large",
            Self::Null => "null",
            Self::Linux => "linux",
        }
    }

    fn guest(self, by: By) -> stamp::Guest {
        let (last, address, ready) = match self {
            Self::Mayfly | Self::MayflySmall | Self::MayflyLarge => (0x80, GUEST, Ready::Http),
            Self::Null => (0x81, Ipv4Addr::new(10, 0, 2, 81), Ready::Shutdown),
            Self::Linux => (0x82, Ipv4Addr::new(10, 0, 2, 82), Ready::Http),
        };
        stamp::Guest {
            label: Subject { kind: self, by }.label(),
            name: self.name().into(),
            maker: by.maker(),
            config: match by {
                By::XlBridge => format!("/bench/{}-bridge.cfg", self.name()),
                _ => format!("/bench/{}.cfg", self.name()),
            },
            console: self == Self::Linux,
            mac: [0x00, 0x16, 0x3e, 0, 0, last],
            address,
            ready,
            timeline: self == Self::Mayfly || self.zone().is_some(),
        }
    }

    /// The guest's configuration: mayfly's own, or one that differs only in the guest.
    fn config(self) -> Result<String> {
        let mac = mac_text(&self.guest(By::Xl).mac);
        let example = mayfly_lab::example_with("boot");
        ensure!(
            example.contains("vif = [ \""),
            "the example configuration has changed its shape"
        );
        let config = example.replace("vif = [ \"", &format!("vif = [ \"mac={mac},"));
        if self == Self::Mayfly {
            return Ok(config);
        }
        let mut lines: Vec<String> = config
            .lines()
            .filter(|line| {
                !["name", "kernel", "extra"]
                    .iter()
                    .any(|key| line.starts_with(key))
            })
            .map(String::from)
            .collect();
        lines.push(format!("name = \"{}\"", self.name()));
        if self.zone().is_some() {
            lines.retain(|line| !line.starts_with("memory"));
            lines.push("kernel = \"/guest/mayfly\"".into());
            lines.push(format!("memory = {SITE_MEMORY}"));
            lines.push(format!("ramdisk = \"/guest/{}.mfs\"", self.name()));
            lines.extend(
                config
                    .lines()
                    .filter(|l| l.starts_with("extra"))
                    .map(String::from),
            );
            return Ok(lines.join("\n") + "\n");
        }
        lines.push(format!("kernel = \"/guest/{}\"", self.name()));
        if self == Self::Linux {
            lines.retain(|line| !line.starts_with("memory"));
            lines.push("memory = 128".into());
            lines.push("ramdisk = \"/guest/linux-initramfs\"".into());
            // arp_notify: without it, Linux sends nothing on the network until it is asked.
            lines.push(
                "extra = \"quiet pci=off cryptomgr.notests ipv6.disable=1 random.trust_cpu=on sysctl.net.ipv4.conf.all.arp_notify=1\"".into(),
            );
        }
        Ok(lines.join("\n") + "\n")
    }

    /// The guest's files in dom0.
    pub(super) fn files(self, report: Report<'_>) -> Result<Vec<Placed>> {
        let config = self.config()?;
        let bridge = config.replace(SCRIPT, "");
        ensure!(
            bridge != config,
            "the example configuration has no {SCRIPT}"
        );
        let mut files = vec![
            placed(&self.guest(By::XlBridge).config, bridge),
            placed(&self.guest(By::Xl).config, config),
        ];
        let mut guest = |content| files.push(placed(&format!("/guest/{}", self.name()), content));
        report(&format!("building {}", self.name()));
        match self {
            Self::Mayfly => guest(read(&build(MAYFLY)?)?),
            Self::MayflySmall | Self::MayflyLarge => {
                let (origin, names) = self.zone().context("a guest without a zone")?;
                files.push(placed("/guest/mayfly", read(&build(MAYFLY)?)?));
                let scratch = tempfile::tempdir()?;
                let folder = site::write(&scratch.path().join("site"), origin, names, false)?;
                files.push(placed(
                    &format!("/guest/{}.mfs", self.name()),
                    pack::pack(&folder)?,
                ));
            }
            Self::Null => guest(read(&build(NULL)?)?),
            Self::Linux => {
                let init = read(&static_program("linux-guest", "linux-guest")?)?;
                let linux = mayfly_lab::linux::with_init(init, report)?;
                guest(vmlinux::extract(&read(&linux.kernel)?)?);
                files.push(placed("/guest/linux-initramfs", linux.ramdisk));
            }
        }
        Ok(files)
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

pub(super) fn placed(path: &str, content: impl Into<Vec<u8>>) -> Placed {
    Placed {
        path: path.into(),
        mode: 0o644,
        content: content.into(),
    }
}

/// The plan of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) subjects: Vec<Subject>,
    /// Whether instructions are counted, on the deterministic lab, or time is measured.
    pub(crate) counted: bool,
    /// The number of births of each guest, of which the first is dropped later.
    pub(crate) births: u32,
    /// Traced births of each guest.
    pub(crate) traced: u32,
    pub(crate) neighbour: Neighbour,
}

impl Plan {
    /// Runs the plan in a lab of its own.
    ///
    /// # Errors
    /// The errors of building the guests, of the lab and of dom0.
    pub(crate) fn run(&self, name: &str, report: Report<'_>) -> Result<stamp::Report> {
        let mut files = self.files(report)?;
        if self.subjects.iter().any(|s| s.by.maker() != Maker::Xl) {
            files.push(hatch("hatch", report)?);
        }
        let read = |output: &str| stamp::Report::from_console(output);
        let lab = Dom0::usual(self.counted, Xenstored::C);
        measure(name, lab, files, &COMMAND, read, report)
    }

    /// The files in dom0, without hatch: the guests, and the measuring program with its job.
    ///
    /// # Errors
    /// A program or guest cannot be built.
    pub(crate) fn files(&self, report: Report<'_>) -> Result<Vec<Placed>> {
        let mut files = Vec::new();
        let mut kinds: Vec<Kind> = Vec::new();
        for subject in &self.subjects {
            if !kinds.contains(&subject.kind) {
                kinds.push(subject.kind);
            }
        }
        for kind in kinds {
            files.extend(kind.files(report)?);
        }
        files.push(measuring(report)?);
        let job = Job {
            guests: self.subjects.iter().map(|s| s.kind.guest(s.by)).collect(),
            plain: self.births,
            traced: self.traced,
            bound_s: BOUND_S,
            neighbour: self.neighbour,
            trace_pages: 1024,
        };
        files.push(placed(JOB, serde_json::to_vec(&job)?));
        Ok(files)
    }
}

/// `hatch`, or a program behind it, for dom0.
///
/// # Errors
/// The program cannot be built.
pub(super) fn hatch(program: &str, report: Report<'_>) -> Result<Placed> {
    report("building hatch");
    let programs = hatch_programs(false)?;
    let built = programs.iter().find(|path| path.ends_with(program));
    Ok(Placed {
        path: format!("/bench/{program}"),
        mode: 0o755,
        content: read(built.with_context(|| format!("{program} is not built"))?)?,
    })
}

/// The measuring program, for dom0.
///
/// # Errors
/// The program cannot be built.
pub(super) fn measuring(report: Report<'_>) -> Result<Placed> {
    report("building the measuring program");
    Ok(Placed {
        path: STAMP.into(),
        mode: 0o755,
        content: read(&static_program("mayfly-stamp", "stamp")?)?,
    })
}

/// The lab of a measurement.
#[derive(Clone, Copy)]
pub(super) struct Dom0 {
    /// Whether instructions are counted, on the deterministic lab, or time is measured.
    pub(super) counted: bool,
    pub(super) xenstored: Xenstored,
    pub(super) cpus: u32,
    /// Memory of the machine, in MiB.
    pub(super) memory: u32,
}

impl Dom0 {
    /// The usual lab. If time is measured, it has two CPUs: dom0 and the guest run at the same time, as they would on
    /// real hardware.
    pub(super) fn usual(counted: bool, xenstored: Xenstored) -> Self {
        Self {
            counted,
            xenstored,
            cpus: if counted { 1 } else { 2 },
            memory: Options::named("").memory,
        }
    }
}

/// Runs the measuring program in a lab of its own, and reads what it printed.
///
/// # Errors
/// The errors of the lab and of dom0.
pub(super) fn measure<T>(
    name: &str,
    dom0: Dom0,
    files: Vec<Placed>,
    command: &[&str],
    read: impl Fn(&str) -> Result<T, String>,
    report: Report<'_>,
) -> Result<T> {
    let name = format!("{name}-{}", std::process::id());
    let Dom0 {
        xenstored,
        cpus,
        memory,
        ..
    } = dom0;
    let output = if dom0.counted {
        let lab = Lab::up(
            &Options {
                files,
                xenstored,
                cpus,
                memory,
                ..Options::counted(&name, command)
            },
            report,
        )?;
        report("counting");
        lab.wait_off(RUN)?
    } else {
        let lab = Lab::up(
            &Options {
                files,
                xenstored,
                cpus,
                memory,
                ..Options::named(&name)
            },
            report,
        )?;
        report("timing");
        let output = lab.exec_with(command, &[], RUN)?;
        lab.down()?;
        output.text()
    };
    let result = read(&output).map_err(|e| anyhow::anyhow!("in dom0: {e}"))?;
    forget(&name)?;
    Ok(result)
}

/// Removes the logs of a stopped lab after a successful run.
pub(crate) fn forget(name: &str) -> Result<()> {
    let log = mayfly_lab::log_path(name)?;
    let folder = log.parent().context("a log in no folder")?;
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_differ_in_little() {
        let mayfly = Kind::Mayfly.config().unwrap();
        let null = Kind::Null.config().unwrap();
        assert!(mayfly.contains("mac=00:16:3e:00:00:80,"));
        assert!(null.contains("mac=00:16:3e:00:00:81,"));
        assert!(null.contains("name = \"null\"") && !null.contains("name = \"mayfly\""));
        let memory = |config: &str| {
            config
                .lines()
                .find(|line| line.starts_with("memory"))
                .map(String::from)
        };
        assert_eq!(memory(&mayfly), memory(&null));
        assert_eq!(
            memory(&Kind::Linux.config().unwrap()),
            Some("memory = 128".into())
        );
    }
}

//! A real Xen, its dom0 and real guests on a machine without Xen hardware: QEMU emulates AMD's SVM with nested paging in software.
//!
//! [`Lab::up`] downloads Debian's Xen, kernel and tools (once, without installing them), packs dom0 into an initramfs,
//! starts QEMU and waits until dom0 has a xenstored and a bridge. A [`Lab`] then runs commands in dom0, moves files and reads
//! the serial log; it is taken down when it is dropped, unless it is [detached](Lab::detach).
//!
//! Everything the lab writes is under `target/lab`: the packages, and one folder for each lab with its initramfs, its state
//! (`state.json`) and the logs of the serial port (`serial.log`: Xen, dom0 and what guests write to port 0xe9) and of QEMU (`qemu.log`).
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use mayfly_lab::{Lab, Options};
//! let lab = Lab::up(&Options::named("example"), &|step| eprintln!("{step}"))?;
//! lab.put("/guest/mayfly", 0o644, &std::fs::read("target/guest/mayfly")?)?;
//! println!("{}", lab.run(&["xl", "list"])?);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

pub mod ask;
mod cargo;
mod client;
mod image;
pub mod linux;
pub mod nsd;
mod packages;
mod qemu;
mod running;
mod verify;

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

/// The example configuration, with `endpoints` added to the guest's command line: the guest then also serves those of
/// its own pages. Tests and measurements read them.
#[must_use]
pub fn example_with(endpoints: &str) -> String {
    let words = format!("extra = \"endpoints={endpoints} ");
    include_str!("../../examples/mayfly.cfg").replacen("extra = \"", &words, 1)
}

pub use cargo::{
    MAPPED_AT, TARGET, hatch_programs, locked, mapped_hatch, replace, static_program, watched,
};
pub use client::{Chunk, Output};
pub use mayfly_agent::{BRIDGE, Xenstored};
pub use packages::{Set, host_command, unpacked};
pub use qemu::{CODE_LOG, Forward, Protocol, installed as qemu_installed};
pub use running::{Lab, list, log_path};
pub use verify::verify_saved;

/// Address of the guest that the lab's default ports lead to.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 80);
/// Address of dom0 on the lab's bridge.
pub const DOM0: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
/// IPv6 address of dom0 on the lab's bridge, in a /64.
pub const DOM0_V6: &str = "fd00:2::15";

/// A callback that is told of every step as it begins.
pub type Report<'a> = &'a dyn Fn(&str);

/// A file that dom0 has from the start.
#[derive(Clone, Debug)]
pub struct Placed {
    /// Absolute path in dom0.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Its content.
    pub content: Vec<u8>,
}

/// The options of a lab.
#[derive(Clone, Debug)]
pub struct Options {
    /// The name of the lab and of its folder; two labs of one name cannot be up at once.
    pub name: String,
    /// The xenstored that dom0 runs.
    pub xenstored: Xenstored,
    /// Whether dom0 runs xenconsoled.
    pub xenconsoled: bool,
    /// Memory of the machine, in MiB.
    pub memory: u32,
    /// Memory of dom0, in MiB.
    pub dom0_memory: u32,
    /// The number of emulated CPUs. With more than one, on a busy host, Xen was seen to leave a runnable dom0 waiting
    /// for minutes. dom0 then runs without Xen's spinlocks, because the fault was seen with them.
    pub cpus: u32,
    /// Whether the lab is deterministic: one instruction takes one virtual nanosecond, and two runs of the same inputs
    /// give the same serial log. There is no network card and no agent, so dom0 runs `autorun` only; `cpus` should be
    /// 1.
    pub counted: bool,
    /// Program that dom0 runs once it is up, its output on the serial console; dom0 powers off after it.
    pub autorun: Option<Vec<String>>,
    /// Whether dom0 has dnsperf and wrk.
    pub load: bool,
    /// Whether dom0 has systemd, which can be started in namespaces of its own.
    pub systemd: bool,
    /// Files that are in dom0 from the start.
    pub files: Vec<Placed>,
    /// Whether the frames that pass the network card on the bridge are captured for [`Lab::captured`].
    pub capture: bool,
    /// Addresses of a program. Its code there is written to [`CODE_LOG`] in the lab's folder, in the order in which it
    /// first runs.
    pub code: Option<Range<u64>>,
    /// Ports of the host that lead into the lab, besides those of [`Lab::http`] and [`Lab::dns`].
    pub forwards: Vec<(Protocol, SocketAddrV4)>,
    /// Additional arguments on Xen's command line.
    pub xen_arguments: Vec<String>,
    /// Additional arguments on dom0's command line.
    pub dom0_arguments: Vec<String>,
    /// The time from the machine's start until dom0 must be ready.
    pub bound: Duration,
}

impl Options {
    /// The usual lab: C xenstored, xenconsoled, one CPU, 3 GiB of which dom0 has one.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            xenstored: Xenstored::C,
            xenconsoled: true,
            memory: 3072,
            dom0_memory: 1024,
            cpus: 1,
            counted: false,
            autorun: None,
            load: false,
            systemd: false,
            files: Vec::new(),
            capture: false,
            code: None,
            forwards: Vec::new(),
            xen_arguments: Vec::new(),
            dom0_arguments: Vec::new(),
            bound: Duration::from_secs(120),
        }
    }

    /// A deterministic lab that runs one program and powers off.
    #[must_use]
    pub fn counted(name: &str, autorun: &[&str]) -> Self {
        Self {
            counted: true,
            autorun: Some(autorun.iter().map(|&word| word.to_owned()).collect()),
            bound: Duration::from_secs(300),
            ..Self::named(name)
        }
    }
}

/// The folder of this workspace.
#[must_use]
pub fn workspace() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().and_then(Path::parent).unwrap_or(here)
}

/// `target/lab`, which is created if it is missing.
fn cache() -> Result<PathBuf> {
    let folder = workspace().join("target/lab");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    Ok(folder)
}

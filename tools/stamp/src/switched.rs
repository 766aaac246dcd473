//! Guests that this process makes on `hatch switch`, which it runs.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use mayfly_stamp::density::Job;
use mayfly_switch::control::SwitchConnection;
use mayfly_toolstack::builder::{CreateAs, Image, Newborn, Ready, Toolstack, WantedOnSwitch};
use mayfly_toolstack::config::{self, Overrides};
use mayfly_toolstack::paths::mac_text;

use crate::birth::HATCH;
use crate::sys::ticks;

/// The socket of `hatch switch`.
const SOCKET: &str = "/run/hatch/switch.sock";
/// The time that a guest has for its first frames before it is introduced to xenstored.
const FIRST_ANSWER: Duration = Duration::from_millis(4);

/// The time in which xenstored and xenconsoled end what a birth or a death has begun.
pub(crate) const SETTLED: Duration = Duration::from_millis(50);

/// A switch that runs; dropping it ends it.
pub(crate) struct Switch(Child);

impl Switch {
    /// Starts it, and waits until it listens.
    pub(crate) fn start(bridge: &str, bound: Duration) -> Result<Self> {
        let child = Command::new(HATCH)
            .args(["switch", "--bridge", bridge])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot run the switch")?;
        let this = Self(child);
        let end = Instant::now() + bound;
        while SwitchConnection::open(Path::new(SOCKET), bound).is_err() {
            ensure!(Instant::now() < end, "there is no switch");
            sleep(FIRST_ANSWER);
        }
        Ok(this)
    }
}

/// The memory of all processes of the switch, in KiB.
pub(crate) fn memory() -> Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        // A process may be gone by now.
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim() == "hatch-switch" {
            let status = fs::read_to_string(path.join("status"))?;
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = line.and_then(|line| line.split_whitespace().next());
            all += kib.context("no VmRSS")?.parse::<u64>()?;
        }
    }
    ensure!(all > 0, "no process of the switch was found");
    Ok(all)
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that makes guests on a switch and keeps what it needs for the next one.
pub(crate) struct Resident<'a> {
    job: &'a Job,
    toolstack: Toolstack,
    connection: SwitchConnection,
    image: Option<Image>,
}

/// A guest that runs.
pub(crate) struct Born {
    newborn: Newborn,
    /// The ticks from its first step until it was unpaused.
    pub(crate) took: u64,
}

impl<'a> Resident<'a> {
    /// Connects to the switch, which has to run.
    pub(crate) fn new(job: &'a Job, bound: Duration) -> Result<Self> {
        let toolstack = Toolstack::open(bound)?;
        Ok(Self {
            job,
            connection: toolstack.switch()?,
            toolstack,
            image: None,
        })
    }

    /// Makes the guest with this number and address, and lets it run. xenstored does not know it yet.
    pub(crate) fn bear(&mut self, number: u32, address: Ipv4Addr) -> Result<Born> {
        let [.., high, low] = number.to_be_bytes();
        let overrides = Overrides {
            name: Some(format!("mayfly-{number}")),
            memory: Some(self.job.memory.into()),
            extra: Some(format!("ip={address}/{}", self.job.prefix)),
            mac: Some(mac_text(&[0x00, 0x16, 0x3e, 0x01, high, low])),
            ..Overrides::default()
        };
        let guest = config::load(Path::new(&self.job.config), &overrides);
        let guest = guest.map_err(|problems| anyhow!("{problems}"))?;
        let image = match &mut self.image {
            Some(image) => &*image,
            none => none.insert(Image::open_and_keep(&guest.kernel)?),
        };
        self.toolstack.make_mark_ahead()?;
        let config = guest.config(self.toolstack.next_uuid()?);
        let wanted = WantedOnSwitch {
            config: &config,
            image,
            ramdisk: None,
            is_guarded: true,
            is_declared: false,
        };
        let start = ticks();
        let mut until = start;
        // From there on the guest runs, and on one CPU this process does not.
        let ready: Ready<'_> = &mut |_| {
            until = ticks();
            Ok(())
        };
        let running = CreateAs::Running;
        let newborn = (self.toolstack).bear(wanted, &mut self.connection, running, ready)?;
        Ok(Born {
            newborn,
            took: until - start,
        })
    }

    /// Introduces a guest to xenstored, once it had the time to answer; gives its domid, and the ticks that it took.
    pub(crate) fn introduce(&mut self, born: Born) -> Result<(u16, u64)> {
        sleep(FIRST_ANSWER);
        let start = ticks();
        let domid = self.toolstack.introduce(born.newborn)?.domid;
        Ok((domid, ticks() - start))
    }

    /// Destroys a guest; gives the ticks that it took.
    pub(crate) fn destroy(&mut self, domid: u16) -> Result<u64> {
        let start = ticks();
        self.toolstack.destroy(domid, false)?;
        Ok(ticks() - start)
    }
}

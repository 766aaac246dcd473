//! Guests that this process makes on `hatch switch`, which it runs.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use mayfly_stamp::density::Job;
use mayfly_switch::control::SwitchConnection;
use mayfly_toolstack::builder::{CreateAs, Image, Toolstack, WantedOnSwitch};
use mayfly_toolstack::config::{self, Overrides};
use mayfly_toolstack::paths::mac_text;

use crate::birth::HATCH;
use crate::sys::ticks;
use crate::wait::Bound;

/// The socket of `hatch switch`.
const SOCKET: &str = "/run/hatch/switch.sock";
/// The time that a guest has for its first frames before it is introduced to xenstored.
const FIRST_ANSWER: Duration = Duration::from_millis(4);

/// The pause after each program.
const SETTLED: Duration = Duration::from_millis(200);

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

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The guests that were made.
pub(crate) struct Resident {
    toolstack: Toolstack,
    domains: Vec<u16>,
    _switch: Switch,
}

/// The number of times that each program is run; the first is dropped.
const ROUNDS: usize = 6;

/// Runs each program that is about one guest on the switch some times. Returns the name of each and the ticks.
pub(crate) fn programs(config: &str, bound: Bound) -> Result<Vec<(String, Vec<u64>)>> {
    let _switch = Switch::start("xenbr0", bound.0)?;
    let words: [&[&str]; 3] = [
        &["create", "--no-pool", "--network", "switch", config],
        &["list"],
        &["destroy", "mayfly"],
    ];
    let mut all = words.map(|words| (words[0].to_owned(), Vec::new()));
    for round in 0..ROUNDS {
        for (words, (_, took)) in words.iter().zip(&mut all) {
            let start = ticks();
            bound.run(&[&[HATCH], *words].concat())?;
            if round > 0 {
                took.push(ticks() - start);
            }
            // The guest, the kernel and xenstored end what they have begun.
            sleep(SETTLED);
        }
    }
    Ok(all.into())
}

impl Resident {
    /// Makes a guest for each address; gives the ticks from the start of each until it was unpaused.
    pub(crate) fn make(
        job: &Job,
        addresses: impl Iterator<Item = Ipv4Addr>,
        bound: Duration,
    ) -> Result<(Self, Vec<u64>)> {
        let mut this = Self {
            _switch: Switch::start("xenbr0", bound)?,
            toolstack: Toolstack::open(bound)?,
            domains: Vec::new(),
        };
        let mut connection = this.toolstack.switch()?;
        let mut took = Vec::new();
        let mut image = None;
        for (number, address) in (1u32..).zip(addresses) {
            let [.., high, low] = number.to_be_bytes();
            let overrides = Overrides {
                name: Some(format!("mayfly-{number}")),
                memory: Some(job.memory.into()),
                extra: Some(format!("ip={address}/24")),
                mac: Some(mac_text(&[0x00, 0x16, 0x3e, 0x01, high, low])),
                ..Overrides::default()
            };
            let guest = config::load(Path::new(&job.config), &overrides);
            let guest = guest.map_err(|problems| anyhow!("{problems}"))?;
            let image = match &mut image {
                Some(image) => &*image,
                none => none.insert(Image::open_and_keep(&guest.kernel)?),
            };
            this.toolstack.make_mark_ahead()?;
            let config = guest.config(this.toolstack.next_uuid()?);
            let wanted = WantedOnSwitch {
                config: &config,
                image,
                ramdisk: None,
                is_guarded: true,
                is_declared: false,
            };
            let start = ticks();
            let toolstack = &mut this.toolstack;
            let mut until = start;
            let newborn =
                toolstack.bear(wanted, &mut connection, CreateAs::Running, &mut |_| {
                    // From here on the guest runs, and on one CPU this process does not.
                    until = ticks();
                    Ok(())
                })?;
            took.push(until - start);
            sleep(FIRST_ANSWER);
            this.domains.push(toolstack.introduce(newborn)?.domid);
        }
        Ok((this, took))
    }

    /// Destroys all of them; gives the ticks that each took.
    pub(crate) fn destroy(&mut self) -> Result<Vec<u64>> {
        let mut took = Vec::new();
        for domid in std::mem::take(&mut self.domains) {
            let start = ticks();
            self.toolstack.destroy(domid, false)?;
            took.push(ticks() - start);
        }
        Ok(took)
    }
}

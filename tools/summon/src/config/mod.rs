//! The file of `hatch summon`: TOML, of which all problems are named with their lines.
//!
//! `tools/examples/summon.toml` has every key, with its default. `[daemon]` and `[daemon.limits]` may be left out but for
//! `daemon.listen`; each `[[services]]` is one guest. A key that is not known, a value that can't be, what two services can't both
//! have: nothing is started from such a file. An image or a site that is not there is a warning only, as it
//! must fail no other service, and may be there when it is needed.

mod read;
mod service;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use mayfly_commands::SOCKET;
pub use smoltcp::wire::{Ipv4Cidr, Ipv6Cidr};

use mayfly_toolstack::builder::{Image, Ramdisk};
use mayfly_toolstack::config::{Problems, read_text};

/// All that a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// What is of no one service.
    pub daemon: Daemon,
    /// At least one, with names, hosts, addresses and MAC addresses of their own.
    pub services: Vec<Service>,
    /// Master files of zones, by the zones' names: what they have beside the services' addresses.
    pub zones: BTreeMap<String, PathBuf>,
}

/// What is of no one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// The bridge of services that name none.
    pub bridge: String,
    /// Where DNS queries are answered, over UDP and TCP; nowhere, if there is none.
    pub listen: Vec<SocketAddr>,
    /// Where the page and Prometheus' text are served.
    pub status: Option<SocketAddr>,
    /// Where `hatch summon status` asks.
    pub socket: PathBuf,
    /// Seconds that a DNS answer may be kept for.
    pub ttl: u32,
    /// Who is asked for what the file has no zone for. Without it such a query is refused.
    pub forward: Option<SocketAddr>,
    /// The networks of the clients for whom it is asked; nobody else's queries are forwarded.
    pub forward_for: Vec<IpNet>,
    /// How far it may go.
    pub limits: Limits,
    /// Guests that are kept ready for whoever is asked for next.
    pub pool: usize,
    /// What services say that say nothing of it themselves.
    pub on_change: OnChange,
    /// Whether guests are kept from sending in others' names: see [`super::guard`].
    pub guard: bool,
    /// What serves the network of services that do not say it.
    pub network: Network,
    /// What the DNS server calls itself (RFC 5001).
    pub nsid: Option<String>,
}

/// How far the daemon may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Births in a second, in the long run.
    pub births_per_second: u32,
    /// Births at once, after a quiet time.
    pub burst: u32,
    /// Births in ten seconds that the clients of one network, a /24 or a /56, may cause.
    pub births_per_prefix: u32,
    /// Guests at a time.
    pub running: usize,
    /// MiB of all guests together.
    pub memory: u64,
    /// Services that may wait for room.
    pub queue: usize,
    /// How long a guest may run, however busy, when others wait for its place.
    pub turn: Duration,
    /// Frames that are held for a service while it is being made.
    pub held_frames: usize,
    /// Their octets.
    pub held_octets: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            births_per_second: 10,
            burst: 20,
            births_per_prefix: 20,
            running: 100,
            memory: 1024,
            queue: 100,
            turn: Duration::from_secs(300),
            held_frames: 64,
            held_octets: 64 * 1024,
        }
    }
}

/// A service: one guest, and who it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its guest's name.
    pub name: String,
    /// Host names that lead to it: in lower case, without a dot at the end, below `zone` or its apex.
    pub hosts: Vec<String>,
    /// The zone of its hosts, written likewise.
    pub zone: String,
    /// The guest's image.
    pub image: PathBuf,
    /// Its site, as `hatch pack` makes it.
    pub site: Option<PathBuf>,
    /// MiB of its memory, with the site in it.
    pub memory: u64,
    /// Its IPv4 address and its network's prefix.
    pub ipv4: Option<Ipv4Cidr>,
    /// Its IPv6 address and its network's prefix.
    pub ipv6: Option<Ipv6Cidr>,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Its MAC address: without one in the file, what `hatch create` gives to a guest of this name.
    pub mac: [u8; 6],
    /// Its bridge.
    pub bridge: String,
    /// What goes to its command line behind the addresses.
    pub cmdline: String,
    /// How long nobody has to have asked before it goes; at least twice the TTL.
    pub idle: Duration,
    /// How long it may be there without a packet although a connection is open.
    pub idle_hard: Option<Duration>,
    /// How long its guest may say nothing at its start, before that counts as a failure.
    pub start_timeout: Duration,
    /// How long a guest of it lives at most.
    pub lifetime: Option<Duration>,
    /// Addresses that DNS tells in place of its own: those that lead to it from outside.
    pub answer: Vec<IpAddr>,
    /// What serves its network.
    pub network: Network,
    /// What becomes of it then.
    pub asleep: Asleep,
    /// Whether it is there only when it is asked for, and not always.
    pub on_demand: bool,
    /// What becomes of its guest when its image or its site is replaced.
    pub on_change: OnChange,
}

/// What becomes of a guest whose image or site is replaced. The next one is made of the new ones in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// It stays as long as it would have.
    #[default]
    Keep,
    /// It goes as soon as nobody uses it, and is made again if it is always there.
    RestartWhenIdle,
}

/// What serves a guest's network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// The kernel of dom0, by a vif.
    #[default]
    Netback,
    /// `hatch switch`, which has to run.
    Switch,
}

/// What becomes of a guest that nobody asks for any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asleep {
    /// It is destroyed.
    #[default]
    Destroy,
    /// It is destroyed, and is made from the pool the next time.
    Pool,
    /// It stands still, with its memory, as long as there is room for it.
    Suspend,
}

impl Config {
    /// Reads a file. What it names is not looked at.
    ///
    /// # Errors
    /// All that is wrong, in the order of the file.
    pub fn load(path: &Path) -> Result<Self, Problems> {
        Ok(read::file(&path.display().to_string(), &read_text(path)?)?.config)
    }

    /// Reads a file, and looks at the images and sites that it names: what is the matter with them comes as warnings.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn check(path: &Path) -> Result<(Self, Problems), Problems> {
        let source = path.display().to_string();
        let read::Read { config, named } = read::file(&source, &read_text(path)?)?;
        let mut warnings = Problems::of(&source);
        for (line, what, file) in named {
            let trouble = match what {
                Named::Image => Image::open(&file).err().map(|error| error.to_string()),
                Named::Zone => std::fs::metadata(&file)
                    .err()
                    .map(|error| error.to_string()),
                Named::Site => Ramdisk::open(&file).err().map(|error| error.to_string()),
            };
            if let Some(trouble) = trouble {
                warnings.add(line, format!("{}: {trouble}", file.display()));
            }
        }
        Ok((config, warnings))
    }
}

/// What a file is named as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Image,
    Site,
    Zone,
}

impl Service {
    /// The guest's command line: its addresses, its gateway, and what the file adds.
    #[must_use]
    pub fn command_line(&self) -> String {
        let addresses = [
            self.ipv4.map(|address| format!("ip={address}")),
            self.ipv6.map(|address| format!("ip={address}")),
            self.gateway.map(|address| format!("gw={address}")),
            Some(self.cmdline.clone()).filter(|words| !words.is_empty()),
            // The daemon asks the guest for its open connections before it removes it.
            (!self.names_endpoints()).then(|| "endpoints=healthz,metrics".into()),
        ];
        addresses
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// Whether the file says which of the guest's own pages are served.
    fn names_endpoints(&self) -> bool {
        (self.cmdline.split_ascii_whitespace()).any(|word| word.starts_with("endpoints="))
    }
}

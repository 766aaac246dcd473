//! The file of `hatch summon`, in TOML. All problems are reported with their lines.
//!
//! `tools/examples/summon.toml` has every key with its default. Only `daemon.listen` is needed in `[daemon]`, and
//! nothing in `[daemon.limits]`. Each `[[services]]` is one guest. The daemon does not start from a file with an
//! unknown key, an invalid value, or a conflict between two services. A missing image or site is only a warning: other
//! services must not fail because of it, and the file may exist by the time it is needed.

mod read;
mod service;
mod table;
mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

pub use mayfly_commands::SOCKET;
pub use mayfly_toolstack::builder::{NetbackThreads, Network};
pub use smoltcp::wire::{Ipv4Cidr, Ipv6Cidr};

use mayfly_toolstack::builder::{Image, Ramdisk};
use mayfly_toolstack::config::{ConfigProblems, read_text};

/// The content of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummonConfig {
    /// The settings of the daemon.
    pub daemon: DaemonConfig,
    /// The services, at least one. Their names, hosts, addresses and MAC addresses differ.
    pub services: Vec<Service>,
    /// Master files with the zones' other records, by the zones' names.
    pub zones: BTreeMap<String, PathBuf>,
}

/// The settings of the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonConfig {
    /// The bridge of services without a bridge of their own.
    pub bridge: String,
    /// The addresses for DNS queries, over UDP and TCP. May be empty.
    pub listen: Vec<SocketAddr>,
    /// The address of the page and of Prometheus' text.
    pub status: Option<SocketAddr>,
    /// The socket for `hatch summon status` and other commands.
    pub socket: PathBuf,
    /// The TTL of DNS answers in seconds.
    pub ttl: u32,
    /// The resolver for names outside of the file's zones. Without one, such queries are refused.
    pub forward: Option<SocketAddr>,
    /// The networks of clients whose queries are forwarded. Others are refused.
    pub forward_for: Vec<IpNet>,
    /// The limits of the daemon.
    pub limits: SummonLimits,
    /// The number of guests made ahead, for each image and size.
    pub pool: usize,
    /// The default of [`Service::on_change`].
    pub on_change: OnChange,
    /// Whether guests are kept from sending with others' addresses: see [`super::guard`].
    pub guard: bool,
    /// The back end of the networks of services that name none. Without one, it is chosen when the daemon starts.
    pub network: Option<Network>,
    /// The scheduling of netback's threads of guests.
    pub netback_threads: NetbackThreads,
    /// The DNS server's name for itself (RFC 5001).
    pub nsid: Option<String>,
}

/// The limits of the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SummonLimits {
    /// Births in a second, in the long run.
    pub births_per_second: u32,
    /// Births at the same time, after a quiet time.
    pub burst: u32,
    /// Births in ten seconds that the clients of one network (/24 or /56) may cause.
    pub births_per_prefix: u32,
    /// Guests at the same time.
    pub running: usize,
    /// The memory of all guests together, in MiB.
    pub memory: u64,
    /// Services that may wait for room.
    pub queue: usize,
    /// The time after which a guest makes room for waiting services, even if it is busy.
    pub turn: Duration,
    /// Frames held for a service while its guest is being made.
    pub held_frames: usize,
    /// The bytes of these frames.
    pub held_bytes: usize,
}

impl Default for SummonLimits {
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
            held_bytes: 64 * 1024,
        }
    }
}

/// A service, which has one guest at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The guest's name.
    pub name: String,
    /// Host names that lead to it: in lower case, without a dot at the end, in `zone`.
    pub hosts: Vec<String>,
    /// The zone of its hosts, in the same form.
    pub zone: String,
    /// The guest's image.
    pub image: PathBuf,
    /// Its packed site.
    pub site: Option<PathBuf>,
    /// Its memory in MiB, with room for the site.
    pub memory: u64,
    /// Its IPv4 address with the prefix length of its network.
    pub ipv4: Option<Ipv4Cidr>,
    /// Its IPv6 address with the prefix length of its network.
    pub ipv6: Option<Ipv6Cidr>,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Its MAC address: the file's, else the one that `hatch create` gives to a guest of this name.
    pub mac: [u8; 6],
    /// Its bridge.
    pub bridge: String,
    /// More words for its command line.
    pub cmdline: String,
    /// The time without a packet after which it sleeps if it has no connection; at least twice the TTL.
    pub idle: Duration,
    /// The time without a packet after which it sleeps even if a connection is open.
    pub idle_hard: Option<Duration>,
    /// The time in which a new guest must send something. Otherwise it has failed.
    pub start_timeout: Duration,
    /// The longest life of a guest.
    pub lifetime: Option<Duration>,
    /// The addresses in DNS answers in place of its own, for clients outside of an address translator.
    pub answer: Vec<IpAddr>,
    /// The back end of its network. If the file names none, it is netback until [`SummonConfig::choose_networks`].
    pub network: Network,
    /// Whether the file names the back end.
    pub is_network_named: bool,
    /// The state of its guest while it sleeps.
    pub asleep: Asleep,
    /// Whether its guest runs only on demand. Otherwise it always runs.
    pub on_demand: bool,
    /// The treatment of its guest when its image or site is replaced.
    pub on_change: OnChange,
}

/// The treatment of a guest whose image or site is replaced. The next guest always uses the new files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnChange {
    /// It goes on.
    #[default]
    Keep,
    /// It is removed as soon as it is not in use, and made again if it always runs.
    RestartWhenIdle,
}

/// The state of a service's guest while the service sleeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Asleep {
    /// It is destroyed.
    #[default]
    Destroy,
    /// It is destroyed, and the next one comes from the pool.
    Pool,
    /// It is paused and keeps its memory, as long as others do not need that.
    Suspend,
}

impl SummonConfig {
    /// Reads a file. Does not check the images and sites that it names.
    ///
    /// # Errors
    /// All problems, in the order of the file.
    pub fn load(path: &Path) -> Result<Self, ConfigProblems> {
        Ok(read::file(&path.display().to_string(), &read_text(path)?)?.config)
    }

    /// Reads a file and checks the images and sites that it names. Problems with these are warnings.
    ///
    /// # Errors
    /// Those of [`SummonConfig::load`].
    pub fn check(path: &Path) -> Result<(Self, ConfigProblems), ConfigProblems> {
        let source = path.display().to_string();
        let read::ReadFile { config, named } = read::file(&source, &read_text(path)?)?;
        let mut warnings = ConfigProblems::of(&source);
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

    /// Chooses the back ends of services for which the file names none.
    pub fn choose_networks(&mut self, mut choose: impl FnMut(&Service) -> Network) {
        for service in &mut self.services {
            if !service.is_network_named {
                service.network = choose(service);
            }
        }
    }
}

/// The role of a file that the configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Image,
    Site,
    Zone,
}

impl Service {
    /// The guest's command line: its addresses, its gateway, and the file's words.
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

//! The boot order from the first request to xenstored until the guest runs, over any [`Hypervisor`]. The guest's
//! `main.rs` and the tests call the same function, [`boot`].
//!
//! The boot waits only once: for the answers to the first burst of xenstore requests, and with a bound. It does nothing
//! that the first answer to a client does not need.

use core::cell::RefCell;
use core::fmt;

use mayfly_drivers::grant::GrantTable;
use mayfly_drivers::netfront::{self, NetFront, Notice};
use mayfly_drivers::xenstore::Xenstore;
use mayfly_drivers::{Errno, Hypervisor, SystemTime};
use mayfly_handoff::network::Preconnected;
use mayfly_site::pack::OpenError;
use mayfly_site::{BuiltIn, Pack, Site};

use crate::cmdline::{self, CmdlineError, GuestConfig};
use crate::guest::{Guest, instant};
use crate::line::Line;
use crate::nic::Nic;
use crate::report::{Memory, Report, WithReport};
use crate::secrets::Entropy;
use crate::stack::{Served, Sizing, Snapshot, Stack};
use crate::timeline::{BootPhase, Timeline};

/// The time that xenstored has to answer the first burst, in ns. After that the guest ends with an error.
pub const XENSTORE_PATIENCE_NS: u64 = 10_000_000_000;

/// The machine that the guest boots on.
pub struct Machine<'a, H: Hypervisor> {
    /// Xen.
    pub xen: &'a H,
    /// The connection to xenstored, not used so far.
    pub store: Xenstore<'a, H>,
    /// The command line.
    pub cmdline: &'a [u8],
    /// The packed site, if there is one.
    pub pack: Option<&'a [u8]>,
    /// The network, if the toolstack has connected it.
    pub network: Option<&'a Preconnected>,
    /// The numbers of buffers and connections that the memory has room for.
    pub sizing: &'a Sizing,
    /// Reads the figures of memory.
    pub memory: &'a dyn Fn() -> Memory,
    /// Reads the machine's own sources of the secrets. (The toolstack may hand over another one.)
    pub entropy: &'a dyn Fn() -> Entropy,
    /// The TSC's frequency.
    pub tsc_khz: u64,
    /// The boot timeline, in which phases are stamped.
    pub timeline: &'a Timeline,
}

/// The reason for which a guest cannot boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure<'a> {
    /// The command line has an error.
    Cmdline(CmdlineError<'a>),
    /// The packed site cannot be read.
    Pack(OpenError),
    /// Xen refused to map the grant table.
    Grants(Errno),
    /// There is no network interface, or the toolstack has connected it wrongly.
    Network(Notice),
}

impl fmt::Display for Failure<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cmdline(error) => write!(f, "{error}"),
            Self::Pack(error) => write!(f, "site pack (module 0): {error}"),
            Self::Grants(error) => write!(f, "grant table: {error}"),
            Self::Network(why) => f.write_str(why.as_str()),
        }
    }
}

/// Boots the guest and calls `run` with it. `run` is a closure, because the guest borrows local variables of this
/// function.
///
/// # Errors
/// The reason for which the guest cannot boot. Then `run` was not called.
pub fn boot<'a, H: Hypervisor, T>(
    machine: Machine<'a, H>,
    run: impl FnOnce(Guest<'_, H, WithReport<'_, Site<'a>>>) -> T,
) -> Result<T, Failure<'a>> {
    let Machine {
        xen,
        mut store,
        network,
        sizing,
        timeline,
        ..
    } = machine;
    // Step 3 of the boot order in ARCHITECTURE.md: the configuration, then the grant table.
    let config = configuration(xen, machine.cmdline)?;
    let site = site(machine.pack, &config)?;

    let mut front = front_end(xen, network, sizing)?;
    timeline.stamp(BootPhase::GrantTable);

    // Step 4: ask xenstored for the back end and the MAC address. Or take over the network that the toolstack has
    // connected.
    if let Some(network) = network {
        front.adopt(network).map_err(Failure::Network)?;
        timeline.stamp(BootPhase::Preconnected);
    } else {
        front.start(&mut store);
        timeline.stamp(BootPhase::XenstoreSent);
    }

    // Make the stack and the services, while xenstored works on the first burst.
    let snapshot = RefCell::new(Snapshot::default());
    let report = Report::new(timeline, machine.tsc_khz, machine.memory, &snapshot);
    let pages = WithReport::new(site.clone(), &report, config.endpoints);
    let mut nic = Nic::new(front, timeline);
    let now = instant(xen.now());
    report.began.set(now);
    let served = Served {
        zones: site,
        pages: &pages,
        timeline,
        snapshot: &snapshot,
    };
    let root = || {
        let (root, is_random) = (machine.entropy)().root(network);
        if !is_random {
            print(
                xen,
                format_args!(
                    "neither the CPU nor the toolstack gives random numbers: secrets can be guessed"
                ),
            );
        }
        root
    };
    let stack = Stack::new(&mut nic, &config, &root(), sizing, served, now);

    // Step 5: grant and publish the rings.
    if network.is_none() {
        let patience = SystemTime(xen.now().0.saturating_add(XENSTORE_PATIENCE_NS));
        (nic.front().discover(&mut store, patience)).map_err(Failure::Network)?;
        timeline.stamp(BootPhase::XenstoreAnswered);
        nic.front().connect(&mut store).map_err(Failure::Network)?;
        timeline.stamp(BootPhase::RingsPosted);
    }

    // Step 6: queue the first frame, before a back end looks at the rings.
    let mut guest = Guest::new(xen, store, nic, stack, &report, config.console, &root);
    guest.link_up(xen.now());
    Ok(run(guest))
}

fn print(xen: &impl Hypervisor, text: fmt::Arguments<'_>) {
    xen.debug_write(Line::new(text).as_bytes());
}

fn configuration<'a>(xen: &impl Hypervisor, cmdline: &'a [u8]) -> Result<GuestConfig, Failure<'a>> {
    cmdline::parse(cmdline, &mut |word| {
        print(xen, format_args!("command line: {word}: unknown, ignored"));
    })
    .map_err(Failure::Cmdline)
}

fn site<'a>(pack: Option<&'a [u8]>, config: &GuestConfig) -> Result<Site<'a>, Failure<'a>> {
    match pack {
        None => Ok(Site::BuiltIn(BuiltIn::new(config.ipv4(), config.ipv6()))),
        Some(bytes) => Pack::open(bytes).map(Site::Pack).map_err(Failure::Pack),
    }
}

fn front_end<'a, H: Hypervisor>(
    xen: &'a H,
    network: Option<&Preconnected>,
    sizing: &Sizing,
) -> Result<NetFront<'a, H>, Failure<'static>> {
    let grants = match network {
        None => GrantTable::new(xen),
        Some(network) => GrantTable::used_below(xen, network.free),
    };
    let buffers = netfront::BufferCounts {
        rx_buffers: sizing.rx_pages,
        tx_buffers: sizing.tx_pages,
    };
    let grants = grants.map_err(Failure::Grants)?;
    Ok(NetFront::new(xen, grants, buffers))
}

//! Reads the data that the domain builder has left in memory (start info, command line, modules) and finds the free
//! RAM.

use core::fmt;
use core::ops::Range;

use mayfly_boot::layout;
use mayfly_boot::memory::{MemoryRange, gap_above_ram, is_free, is_ram, largest_free};
use mayfly_boot::start_info::{self, PhysicalMemory, StartInfo};
use mayfly_drivers::Errno;
use mayfly_drivers::abi::PAGE_SIZE;
use mayfly_handoff::network::{self, Preconnected};

use super::hypercall;
use super::network::NetworkPages;
use super::ram::Ram;

/// Memory with the domain builder's data.
struct BuilderMemory {
    /// The addresses of the image. No pointer of the builder may lead there.
    image: Range<u64>,
}

impl PhysicalMemory<'static> for BuilderMemory {
    fn bytes(&self, address: u64, len: usize) -> Option<&'static [u8]> {
        let end = address.checked_add(len as u64)?;
        let in_reach = address >= PAGE_SIZE as u64 && end <= 1 << 32;
        let in_image = address < self.image.end && end > self.image.start;
        if !in_reach || in_image {
            return None;
        }
        let base = core::ptr::with_exposed_provenance(usize::try_from(address).ok()?);
        // SAFETY: mapped by the static page tables, outside the image, and what
        // a start info names is kept out of `Ram` by `read`, so nothing writes it.
        Some(unsafe { core::slice::from_raw_parts(base, len) })
    }
}

/// An error in the domain builder's data, or in the RAM that it leaves.
pub(crate) enum BuilderError {
    StartInfo(start_info::StartInfoError),
    MemoryMap(Errno),
    TooSmall(u64),
    /// The number of modules, which is too great.
    Modules(usize),
    /// A module outside of the free memory.
    Module(Range<u64>),
    /// An error in the structure that describes the connected network.
    Network(network::HandoffError),
    /// The shared pages of the network are not in the guest's free memory.
    NetworkPages(Range<u64>),
}

impl fmt::Display for BuilderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StartInfo(error) => write!(f, "{error}"),
            Self::MemoryMap(error) => write!(f, "XENMEM_memory_map: {error}"),
            Self::Modules(count) => write!(f, "start info: {count} modules are too many"),
            Self::Module(range) => write!(
                f,
                "start info: module at {:#x}..{:#x} is not readable memory",
                range.start, range.end
            ),
            Self::Network(error) => write!(f, "preconnected network: {error}"),
            Self::NetworkPages(range) => write!(
                f,
                "preconnected network: pages at {:#x}..{:#x} are not free memory",
                range.start, range.end
            ),
            Self::TooSmall(free) => write!(f, "memory is too small: {} KiB are free", free / 1024),
        }
    }
}

/// The result of [`read`], for the boot.
pub(crate) struct Left {
    pub(crate) info: StartInfo<'static>,
    pub(crate) ram: Ram,
    /// The packed site, if there is one, where the toolstack has put it.
    pub(crate) pack: Option<&'static [u8]>,
    /// The network, if the toolstack has connected it.
    pub(crate) network: Option<Preconnected>,
    /// Its pages.
    pub(crate) network_pages: NetworkPages,
}

/// The modules, by their content.
#[derive(Default)]
struct Modules {
    pack: Option<&'static [u8]>,
    network: Option<Preconnected>,
}

impl Modules {
    /// Tells the modules apart: the network's structure begins with its magic number; the first other module is the
    /// pack.
    fn read(
        memory: &BuilderMemory,
        info: &StartInfo<'static>,
        map: impl Iterator<Item = MemoryRange> + Clone,
    ) -> Result<Self, BuilderError> {
        let mut this = Self::default();
        for (number, range) in info.modules().enumerate() {
            let length = usize::try_from(range.end - range.start).ok();
            let bytes = length
                .filter(|_| is_ram(map.clone(), &range))
                .and_then(|length| memory.bytes(range.start, length))
                .ok_or(BuilderError::Module(range))?;
            if this.network.is_none() && Preconnected::is_one(bytes) {
                this.network = Some(Preconnected::parse(bytes).map_err(BuilderError::Network)?);
            } else if this.pack.is_none() {
                this.pack = Some(bytes);
            } else {
                let length = bytes.len();
                hypercall::debug_print(format_args!("module {number} ({length} bytes): ignored"));
            }
        }
        Ok(this)
    }

    /// The pages of the network; empty without one.
    fn network_pages(&self) -> Range<u64> {
        let Some(network) = &self.network else {
            return 0..0;
        };
        let start = network.first.0.saturating_mul(PAGE_SIZE as u64);
        start..start.saturating_add((network.pages() * PAGE_SIZE) as u64)
    }
}

/// How RAM is divided.
struct Division {
    free: Range<u64>,
    gap: Range<u64>,
    /// Whether the network's pages lie in RAM that nothing else occupies.
    has_network: bool,
}

impl Division {
    fn find(
        map: impl Iterator<Item = MemoryRange> + Clone,
        occupied: &mut Occupied,
        network: Range<u64>,
    ) -> Self {
        let has_network = is_free(map.clone(), occupied, &network);
        occupied[NETWORK] = network;
        Self {
            free: largest_free(map.clone(), occupied),
            gap: gap_above_ram(map, occupied),
            has_network,
        }
    }
}

/// The greatest number of modules, all of which must be kept out of the free RAM.
const MODULES: usize = 8;
/// The index of the network's pages in the list of used ranges: after the image, four parts of the start info, and the
/// modules.
const NETWORK: usize = 5 + MODULES;
type Occupied = [Range<u64>; NETWORK + 1];

/// Reads the start info and takes the largest free run of RAM.
pub(crate) fn read(start_info: u32) -> Result<Left, BuilderError> {
    let image = layout::image();
    let memory = BuilderMemory {
        image: image.clone(),
    };
    let info = StartInfo::parse(&memory, start_info.into()).map_err(BuilderError::StartInfo)?;
    let count = info.modules().count();
    if count > MODULES {
        return Err(BuilderError::Modules(count));
    }
    let mut entries = [0; 20 * 32];
    let count = match info.memory_map().next() {
        Some(_) => 0,
        None => hypercall::memory_map(&mut entries).map_err(BuilderError::MemoryMap)?,
    };
    // One of the two memory maps is empty.
    let asked = start_info::e820(entries.get(..20 * count).unwrap_or(&[]));
    let map = info.memory_map().chain(asked);
    let modules = Modules::read(&memory, &info, map.clone())?;
    let network = modules.network_pages();
    let mut occupied: Occupied = [const { 0..0 }; NETWORK + 1];
    let taken = core::iter::once(image)
        .chain(info.occupied.clone())
        .chain(info.modules());
    for (slot, range) in occupied.iter_mut().zip(taken) {
        *slot = range;
    }
    let division = Division::find(map, &mut occupied, network.clone());
    if modules.network.is_some() && !division.has_network {
        return Err(BuilderError::NetworkPages(network));
    }
    let Division { free, gap, .. } = division;
    let size = free.end - free.start;
    let pack = modules.pack.map_or(0, |pack| pack.len() as u64);
    // SAFETY: `largest_free` gives whole pages of RAM, above the first MiB and
    // below 4 GiB, so identity mapped, that neither the image nor anything the
    // start info names lies in; `gap` is outside of all RAM. The boot path calls this once.
    let ram = unsafe { Ram::take(free, gap, pack) }.ok_or(BuilderError::TooSmall(size))?;
    // SAFETY: `is_free` found them to be RAM between 1 MiB and 4 GiB that nothing else occupies, and
    // `largest_free` then left them out.
    let network_pages = unsafe { NetworkPages::new(network) };
    Ok(Left {
        info,
        ram,
        pack: modules.pack,
        network: modules.network,
        network_pages,
    })
}

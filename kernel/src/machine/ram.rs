//! Guest RAM: pages for rings, bytes for sockets, a small heap for the rest; and
//! places above it for Xen's own frames.
//!
//! Ownership: [`take`] is called once, with the RAM that neither the image
//! nor the domain builder's data occupies (`mayfly_boot::memory`). From then on
//! this file alone decides who gets which part, and gives each part once.

use core::alloc::{GlobalAlloc, Layout};
use core::cell::{Cell, RefCell};
use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;

use alloc::vec::Vec;
use linked_list_allocator::Heap;
use mayfly::report::Memory;
use mayfly::stack::Sizing;
use mayfly_boot::layout;
use mayfly_boot::memory::{gap_above_ram, is_free, largest_free};
use mayfly_boot::start_info::{self, MemoryRange, PhysicalMemory, StartInfo};
use mayfly_drivers::abi::PAGE_SIZE;
use mayfly_drivers::{Errno, Gfn, SharedPage, TransmitPages};
use mayfly_handoff::network::{self, Preconnected};
use spin::Mutex;

use super::xen;

struct GuestHeap(Mutex<Heap>);

#[global_allocator]
static HEAP: GuestHeap = GuestHeap(Mutex::new(Heap::empty()));

// SAFETY: `Heap` gives out disjoint blocks of the region that `Ram::take` gave
// it, aligned as asked; the lock makes each call exclusive.
unsafe impl GlobalAlloc for GuestHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match self.0.lock().allocate_first_fit(layout) {
            Ok(block) => block.as_ptr(),
            Err(()) => core::ptr::null_mut(),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if let Some(block) = NonNull::new(block) {
            // SAFETY: by this function's contract the block came from `alloc` with this layout.
            unsafe { self.0.lock().deallocate(block, layout) }
        }
    }
}

/// The RAM that is left after the heap: pages from the bottom, bytes from the top.
pub(crate) struct Ram {
    end: u64,
    gap: Cell<u64>,
    gap_end: u64,
    bottom: Cell<u64>,
    top: Cell<u64>,
    sizing: Sizing,
    /// What there was at first, and of that what a packed site occupies.
    size: u64,
    pack: u64,
    /// The pages that the toolstack has shared and nobody has asked for yet.
    preconnected: RefCell<Range<u64>>,
    freed: RefCell<Vec<SharedPage>>,
}

impl Ram {
    /// Takes `free` and sets up the heap in it; `None` when it is too small for the heap.
    ///
    /// # Safety
    /// `free` is page-aligned RAM, identity mapped read-write, not page 0, in
    /// use by nothing; `gap` is pages that are neither RAM nor in use; and this
    /// is the only call.
    unsafe fn take(free: Range<u64>, gap: Range<u64>) -> Option<Self> {
        let sizing = Sizing::for_memory(free.end - free.start);
        let heap_start = free.end.checked_sub(sizing.heap as u64)? & !15;
        if heap_start <= free.start {
            return None;
        }
        let block = core::ptr::with_exposed_provenance_mut(usize::try_from(heap_start).ok()?);
        // SAFETY: the top of `free`, which by contract is ours; it is given to
        // nothing else, for `top` starts below it.
        unsafe { HEAP.0.lock().init(block, sizing.heap) };
        Some(Self {
            end: free.end.max(gap.end),
            gap: Cell::new(gap.start),
            gap_end: gap.end,
            bottom: Cell::new(free.start),
            top: Cell::new(heap_start),
            sizing,
            size: free.end - free.start,
            pack: 0,
            preconnected: RefCell::new(0..0),
            freed: RefCell::new(Vec::new()),
        })
    }

    /// How much of what it is enough for.
    pub(crate) fn sizing(&self) -> Sizing {
        self.sizing
    }

    /// How much memory there is, and how much of it is in use.
    pub(crate) fn memory(&self) -> Memory {
        let heap = HEAP.0.lock();
        Memory {
            ram: self.size,
            ram_free: self.available(),
            heap: heap.size() as u64,
            heap_free: heap.free() as u64,
            pack: self.pack,
        }
    }

    /// Bytes not given out yet.
    fn available(&self) -> u64 {
        self.top.get() - self.bottom.get()
    }

    /// Where it ends: nothing of ours lies above.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// A page, its content whatever it held.
    pub(crate) fn page(&self) -> Option<SharedPage> {
        if let Some(page) = self.freed.borrow_mut().pop() {
            return Some(page);
        }
        let address = self.bottom.get();
        if self.available() < PAGE_SIZE as u64 {
            return None;
        }
        self.bottom.set(address + PAGE_SIZE as u64);
        // SAFETY: RAM between `bottom` and `top`, given to nobody; moving
        // `bottom` above it keeps it so.
        Some(unsafe { shared_page(address) })
    }

    /// A page that the toolstack has shared. They are given in their order.
    pub(crate) fn preconnected_page(&self, gfn: Gfn) -> Option<SharedPage> {
        let mut pages = self.preconnected.borrow_mut();
        if pages.is_empty() || gfn.0.checked_mul(PAGE_SIZE as u64)? != pages.start {
            return None;
        }
        let address = pages.start;
        pages.start += PAGE_SIZE as u64;
        // SAFETY: by `take`, RAM that no Rust object lies in and that `bottom` to `top` leaves out;
        // moving `start` above it gives it once.
        Some(unsafe { shared_page(address) })
    }

    /// Consecutive pages for good, which other domains will only read.
    pub(crate) fn transmit_pages(&self, count: usize) -> Option<TransmitPages> {
        let start = self.bottom.get();
        let end = start.checked_add(count.checked_mul(PAGE_SIZE)? as u64)?;
        if end > self.top.get() {
            return None;
        }
        self.bottom.set(end);
        let base = core::ptr::with_exposed_provenance_mut(usize::try_from(start).ok()?);
        // SAFETY: RAM between `bottom` and `top`, given to nobody; moving `bottom` above it keeps
        // it so. RAM always holds some value. Only `grant_transmit` grants these pages, to be read.
        NonNull::new(base).map(|base| unsafe { TransmitPages::from_raw(base, count) })
    }

    /// A place for a frame that Xen is going to map there.
    pub(crate) fn place_for_xen(&self) -> Option<SharedPage> {
        let address = self.gap.get();
        if address >= self.gap_end {
            return self.page();
        }
        self.gap.set(address + PAGE_SIZE as u64);
        // SAFETY: below 4 GiB and not RAM, so no Rust object lies there; the
        // next call gives the next page.
        Some(unsafe { shared_page(address) })
    }

    /// Takes a page back for the next [`Ram::page`].
    pub(crate) fn give_back(&self, page: SharedPage) {
        self.freed.borrow_mut().push(page);
    }

    /// `len` bytes for good, their content whatever they held: nothing is
    /// spent on zeroing what a ring buffer overwrites.
    pub(crate) fn bytes(&self, len: usize) -> Option<&'static mut [u8]> {
        let start = self.top.get().checked_sub(len as u64)? & !15;
        if start < self.bottom.get() {
            return None;
        }
        self.top.set(start);
        let base = core::ptr::with_exposed_provenance_mut(usize::try_from(start).ok()?);
        // SAFETY: between `bottom` and `top`, so RAM that was given to nobody;
        // moving `top` below it keeps it so. RAM always holds some value.
        Some(unsafe { core::slice::from_raw_parts_mut(base, len) })
    }
}

/// The page at a physical address.
///
/// # Safety
/// The page-aligned, non-zero address lies below 4 GiB, so that it is identity
/// mapped, and no Rust object lies in the page; the caller hands it out once.
pub(super) unsafe fn shared_page(address: u64) -> SharedPage {
    const { assert!(size_of::<usize>() == size_of::<u64>()) };
    #[allow(
        clippy::cast_possible_truncation,
        reason = "asserted: both are 64 bits"
    )]
    let base = core::ptr::with_exposed_provenance_mut::<u8>(address as usize);
    let base = NonNull::new(base).unwrap_or(NonNull::dangling());
    // SAFETY: by this function's contract.
    unsafe { SharedPage::from_raw(base) }
}

/// What the domain builder left in memory.
struct BuilderMemory {
    /// Where the image lies; nothing in it is the builder's to point at.
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
        // a start info names is kept out of `Ram` by `take`, so nothing writes it.
        Some(unsafe { core::slice::from_raw_parts(base, len) })
    }
}

/// Why there is no RAM to use.
pub(crate) enum Error {
    StartInfo(start_info::Error),
    MemoryMap(Errno),
    TooSmall(u64),
    /// So many modules.
    Modules(usize),
    /// A module that is nowhere, or somewhere else than in free memory.
    Module(Range<u64>),
    /// What the toolstack says of the network that it has connected is wrong.
    Network(network::Error),
    /// The pages that it has shared are not the guest's free memory.
    NetworkPages(Range<u64>),
}

impl fmt::Display for Error {
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

/// What the boot path gets.
pub(crate) struct Taken {
    pub(crate) info: StartInfo<'static>,
    pub(crate) ram: Ram,
    /// A packed site, where the toolstack has put it.
    pub(crate) pack: Option<&'static [u8]>,
    /// A network that is connected already.
    pub(crate) network: Option<Preconnected>,
}

/// What the modules are.
#[derive(Default)]
struct Modules {
    pack: Option<&'static [u8]>,
    network: Option<Preconnected>,
}

impl Modules {
    /// The toolstack's structure is recognised by what it starts with; the first other module is the site's pack.
    fn read(memory: &BuilderMemory, info: &StartInfo<'static>) -> Result<Self, Error> {
        let mut this = Self::default();
        for (number, range) in info.modules().enumerate() {
            let length = usize::try_from(range.end - range.start).ok();
            let octets = length
                .and_then(|length| memory.bytes(range.start, length))
                .ok_or(Error::Module(range))?;
            if this.network.is_none() && Preconnected::is_one(octets) {
                this.network = Some(Preconnected::parse(octets).map_err(Error::Network)?);
            } else if this.pack.is_none() {
                this.pack = Some(octets);
            } else {
                let length = octets.len();
                xen::debug_print(format_args!("module {number} ({length} bytes): ignored"));
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

/// What is RAM for what.
struct Places {
    free: Range<u64>,
    gap: Range<u64>,
    /// Whether the network's pages lie in RAM that nothing else occupies.
    has_network: bool,
}

impl Places {
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

/// Modules beyond this many can't be kept out of the way.
const MODULES: usize = 8;
/// The network's pages, behind the image, four parts of the start info, and the modules.
const NETWORK: usize = 5 + MODULES;
type Occupied = [Range<u64>; NETWORK + 1];

/// Reads the start info and takes the largest run of RAM that nothing occupies.
pub(crate) fn take(start_info: u32) -> Result<Taken, Error> {
    let image = layout::image();
    let memory = BuilderMemory {
        image: image.clone(),
    };
    let info = StartInfo::parse(&memory, start_info.into()).map_err(Error::StartInfo)?;
    let count = info.modules().count();
    if count > MODULES {
        return Err(Error::Modules(count));
    }
    let modules = Modules::read(&memory, &info)?;
    let network = modules.network_pages();
    let mut occupied: Occupied = [const { 0..0 }; NETWORK + 1];
    let taken = core::iter::once(image)
        .chain(info.occupied.clone())
        .chain(info.modules());
    for (slot, range) in occupied.iter_mut().zip(taken) {
        *slot = range;
    }
    let mut entries = [0; 20 * 32];
    let places = if info.memory_map().next().is_some() {
        Places::find(info.memory_map(), &mut occupied, network.clone())
    } else {
        let count = xen::memory_map(&mut entries).map_err(Error::MemoryMap)?;
        let map = start_info::e820(entries.get(..20 * count).unwrap_or(&[]));
        Places::find(map, &mut occupied, network.clone())
    };
    if modules.network.is_some() && !places.has_network {
        return Err(Error::NetworkPages(network));
    }
    let Places { free, gap, .. } = places;
    let size = free.end - free.start;
    // SAFETY: `largest_free` gives whole pages of RAM, above the first MiB and
    // below 4 GiB, so identity mapped, that neither the image nor anything the
    // start info names lies in; `gap` is outside of all RAM. The boot path calls this once.
    let mut ram = unsafe { Ram::take(free, gap) }.ok_or(Error::TooSmall(size))?;
    ram.pack = modules.pack.map_or(0, |pack| pack.len() as u64);
    ram.preconnected = RefCell::new(network);
    Ok(Taken {
        info,
        ram,
        pack: modules.pack,
        network: modules.network,
    })
}

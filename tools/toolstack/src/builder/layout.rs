//! The layout of a guest's memory.
//!
//! ```text
//! 0                    low memory: free, as libxl leaves it to PVH guests
//! the image            at the addresses that its headers name
//! information          start info, memory map, modules, the network's structure, command line
//! module               a packed site or an initramfs
//! ...                  free
//! top of RAM           transmit ring, receive ring, receive buffers
//! 0xfeff8000           special pages, as libxl has them; the first is for ACPI tables
//! ```
//!
//! The layout is decided before a domain exists, from the configuration and the image's headers.

use std::ops::Range;

use mayfly_handoff::network;
use mayfly_handoff::sizing::Buffers;

use super::image::{Headers, RAM_MAX};
use super::start_info as abi;
use mayfly_xen::MapEntry;

const PAGE: u64 = 4096;
/// `HVM_BELOW_4G_RAM_END` of libxl less its special pages: X86_HVM_END_SPECIAL_REGION - X86_HVM_NR_SPECIAL_PAGES.
const SPECIAL_FIRST: u64 = 0xfeff8;
const SPECIAL_PAGES: u64 = 8;
/// The special pages of a guest, whoever made it.
pub(crate) const SPECIAL: Range<u64> = SPECIAL_FIRST..SPECIAL_FIRST + SPECIAL_PAGES;
/// The page of the ACPI tables. libxl uses this special page for a pager, which no guest of hatch has.
pub(crate) const ACPI_GFN: u64 = SPECIAL_FIRST;
/// SPECIALPAGE_XENSTORE, SPECIALPAGE_IDENT_PT and SPECIALPAGE_CONSOLE (tools/libs/guest/xg_dom_x86.c).
pub(crate) const XENSTORE_GFN: u64 = SPECIAL_FIRST + 4;
pub(crate) const IDENT_PT_GFN: u64 = SPECIAL_FIRST + 6;
pub(crate) const CONSOLE_GFN: u64 = SPECIAL_FIRST + 7;

/// The longest command line, in bytes. MAX_GUEST_CMDLINE of xen.h is 1024, and for other guests; this is the limit of
/// Linux and of the guest.
pub const CMDLINE_MAX: usize = 4095;
/// Offsets in the pages of information, in bytes. The command line has space for the longest one, so that another can
/// be written into a guest that has not started.
pub(crate) const INFO_MEMMAP: u64 = 64;
pub(crate) const INFO_MODULES: u64 = 192;
pub(crate) const INFO_NETWORK: u64 = 256;
pub(crate) const INFO_CMDLINE: u64 = 512;
pub(crate) const INFO_PAGES: u64 = 2;
const _: () = assert!(INFO_NETWORK + network::SIZE as u64 <= INFO_CMDLINE);
const _: () = assert!(INFO_CMDLINE + (CMDLINE_MAX as u64) < INFO_PAGES * PAGE);

/// An error of the layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The memory size is 0, or more than fits below the devices.
    #[error("a guest has 1 to 3840 MiB of memory, not {0}")]
    Memory(u64),
    /// The image does not fit into the guest's memory.
    #[error("the image{} and its buffers need {needs} MiB of memory, and the guest has {has}", if *.module { ", its module" } else { "" })]
    TooSmall {
        /// The MiB that are needed.
        needs: u64,
        /// The MiB that the guest has.
        has: u64,
        /// Whether there is a module.
        module: bool,
    },
    /// The command line is too long, or has a NUL in it.
    #[error("the command line {0}")]
    CommandLine(&'static str),
}

/// The rings of a network that is connected beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rings {
    /// The gfn of the first page: transmit ring, receive ring, receive buffers.
    pub first: u64,
    /// The number of receive buffers, a power of two.
    pub buffers: u32,
}

impl Rings {
    /// The gfn of the transmit ring.
    #[must_use]
    pub fn tx(&self) -> u64 {
        self.first
    }

    /// The gfn of the receive ring.
    #[must_use]
    pub fn rx(&self) -> u64 {
        self.first + 1
    }

    /// The gfns of the receive buffers.
    #[must_use]
    pub fn buffers(&self) -> Range<u64> {
        let first = self.first + network::RINGS as u64;
        first..first + u64::from(self.buffers)
    }
}

/// The layout of a guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The number of pages of RAM, which begins at address 0.
    pub ram_pages: u64,
    /// The gfns of the image's pages.
    pub image: Range<u64>,
    /// The physical address of the pages of information, at whose start the start info is.
    pub info: u64,
    /// The physical addresses of the module.
    pub module: Option<Range<u64>>,
    /// The rings, if the network is connected beforehand.
    pub rings: Option<Rings>,
    /// Whether there are ACPI tables: only for an image without mayfly's note, which may be any operating system.
    pub acpi: bool,
}

impl Layout {
    /// Lays out a guest with `memory` MiB of memory.
    ///
    /// # Errors
    /// It does not fit.
    pub fn new(
        memory: u64,
        image: &Headers,
        module: Option<u64>,
        preconnected: bool,
    ) -> Result<Self, LayoutError> {
        if memory == 0 || memory > RAM_MAX >> 20 {
            return Err(LayoutError::Memory(memory));
        }
        let ram = memory << 20;
        let acpi = image.preconnected.is_none();
        let loaded = image.memory();
        let image = loaded.start / PAGE..loaded.end.div_ceil(PAGE);
        let info = image.end * PAGE;
        let after_info = info + INFO_PAGES * PAGE;
        let module = module.map(|size| after_info..after_info.saturating_add(size));
        let used = module.as_ref().map_or(after_info, |module| {
            module.end.saturating_add(PAGE - 1) & !(PAGE - 1)
        });
        let too_small = |needs: u64| LayoutError::TooSmall {
            needs: needs.div_ceil(1 << 20),
            has: memory,
            module: module.is_some(),
        };
        let free = ram.checked_sub(used).ok_or_else(|| too_small(used))?;
        let rings = preconnected.then(|| {
            let buffers = Buffers::for_memory(free).posted();
            Rings {
                first: (ram / PAGE).saturating_sub(network::RINGS as u64 + u64::from(buffers)),
                buffers,
            }
        });
        if let Some(rings) = rings
            && rings.first * PAGE < used
        {
            return Err(too_small(used + (ram - rings.first * PAGE)));
        }
        Ok(Self {
            ram_pages: ram / PAGE,
            image,
            info,
            module,
            rings,
            acpi,
        })
    }

    /// The same layout with a module of this size in bytes, in free memory.
    ///
    /// # Errors
    /// It does not fit.
    pub fn with_module(&self, module: Option<u64>) -> Result<Self, LayoutError> {
        let start = self.info + INFO_PAGES * PAGE;
        let module = module.map(|size| start..start.saturating_add(size));
        let end = self.rings.map_or(self.ram_pages, |rings| rings.first) * PAGE;
        let needs = module
            .as_ref()
            .map_or(0, |module| module.end.saturating_sub(end));
        if needs > 0 {
            let has = self.ram_pages * PAGE;
            return Err(LayoutError::TooSmall {
                needs: has.saturating_add(needs).div_ceil(1 << 20),
                has: has >> 20,
                module: true,
            });
        }
        Ok(Self {
            module,
            ..self.clone()
        })
    }

    /// The memory map: RAM, ACPI tables, and the special pages as reserved.
    #[must_use]
    pub fn memory_map(&self) -> Vec<MapEntry> {
        let entry = |first: u64, pages: u64, kind| MapEntry {
            start: first * PAGE,
            size: pages * PAGE,
            kind,
        };
        let tables = u64::from(self.acpi);
        let mut map = vec![
            entry(0, self.ram_pages, abi::XEN_HVM_MEMMAP_TYPE_RAM),
            entry(ACPI_GFN, tables, abi::XEN_HVM_MEMMAP_TYPE_ACPI),
            entry(
                SPECIAL_FIRST + tables,
                SPECIAL_PAGES - tables,
                abi::XEN_HVM_MEMMAP_TYPE_RESERVED,
            ),
        ];
        map.retain(|entry| entry.size > 0);
        map
    }

    /// RAM as extents: for each order the first gfns of its extents, the largest order first.
    #[must_use]
    pub fn extents(&self) -> Vec<(u32, Vec<u64>)> {
        let mut all = Vec::new();
        let mut next = 0;
        // 1 GiB, 2 MiB, 4 KiB.
        for order in [18, 9, 0] {
            let count = (self.ram_pages - next) >> order;
            if count > 0 {
                all.push((order, (0..count).map(|n| next + (n << order)).collect()));
                next += count << order;
            }
        }
        all
    }
}

/// The size of the pool for a guest's page tables (p2m), in bytes, where it needs more than the 1 MiB that every domain
/// has: a page for each 2 MiB that the guest may split, and some more.
#[must_use]
pub(crate) fn paging_pool(ram_pages: u64) -> Option<u64> {
    const GIVEN: u64 = 1 << 20;
    let needs = (ram_pages / 512 + 64) * PAGE;
    (needs > GIVEN).then(|| needs.next_multiple_of(1 << 20))
}

/// Checks a command line.
///
/// # Errors
/// It is too long, or has a NUL in it.
pub fn check_cmdline(cmdline: &str) -> Result<(), LayoutError> {
    if cmdline.len() > CMDLINE_MAX {
        return Err(LayoutError::CommandLine("has more than 4095 bytes"));
    }
    if cmdline.contains('\0') {
        return Err(LayoutError::CommandLine("has a NUL in it"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::image::Segment;

    fn image(memory: Range<u64>) -> Headers {
        let segment = Segment {
            memory,
            offset: 0x1000,
            size: 0x100,
            is_scratch: false,
        };
        Headers {
            segments: vec![segment],
            entry: 0x10_0000,
            preconnected: Some(1),
        }
    }

    fn mayfly() -> Headers {
        image(0x10_0000..0x16_2118)
    }

    #[test]
    fn a_guest_of_8_mib() {
        let layout = Layout::new(8, &mayfly(), None, true).unwrap();
        assert_eq!(layout.image, 0x100..0x163);
        assert_eq!(layout.info, 0x16_3000);
        let rings = layout.rings.unwrap();
        assert_eq!((rings.first, rings.buffers), (2048 - 258, 256));
        assert_eq!(
            (rings.tx(), rings.rx(), rings.buffers()),
            (1790, 1791, 1792..2048)
        );
        assert_eq!(layout.extents(), [(9, vec![0, 512, 1024, 1536])]);
        assert_eq!(paging_pool(layout.ram_pages), None);
    }

    #[test]
    fn a_guest_that_says_nothing_of_itself_gets_acpi_tables() {
        let mut headers = mayfly();
        let map = |headers: &Headers| Layout::new(8, headers, None, false).unwrap().memory_map();
        assert_eq!(map(&headers).len(), 2);
        headers.preconnected = None;
        let map: Vec<_> = map(&headers)
            .iter()
            .map(|entry| (entry.start, entry.size, entry.kind))
            .collect();
        assert_eq!(
            map,
            [
                (0, 8 << 20, 1),
                (0xfeff_8000, 0x1000, 3),
                (0xfeff_9000, 0x7000, 2)
            ]
        );
    }

    #[test]
    fn a_module_goes_into_free_memory() {
        let layout = Layout::new(8, &mayfly(), None, true).unwrap();
        let with = layout.with_module(Some(0x1234)).unwrap();
        assert_eq!(with.module, Some(0x16_5000..0x16_6234));
        assert_eq!((with.rings, with.info), (layout.rings, layout.info));
        let free = 1790 * PAGE - 0x16_5000;
        assert!(layout.with_module(Some(free)).is_ok());
        assert_eq!(
            layout.with_module(Some(free + 1)),
            Err(LayoutError::TooSmall {
                needs: 9,
                has: 8,
                module: true
            })
        );
        assert!(layout.with_module(Some(u64::MAX)).is_err());
    }

    #[test]
    fn a_small_guest_has_fewer_buffers() {
        for (memory, least, most) in [
            (2, 8, 64),
            (3, 64, 128),
            (4, 128, 256),
            (8, 256, 256),
            (3840, 256, 256),
        ] {
            let layout = Layout::new(memory, &mayfly(), None, true).unwrap();
            let rings = layout.rings.unwrap();
            assert!(rings.buffers.is_power_of_two());
            assert!(
                (least..=most).contains(&rings.buffers),
                "{memory}: {}",
                rings.buffers
            );
            assert_eq!(rings.buffers().end, layout.ram_pages);
        }
    }

    #[test]
    fn nothing_lies_over_anything_else() {
        for memory in 1..64 {
            for module in [None, Some(1), Some(4096), Some(5 << 20)] {
                let Ok(layout) = Layout::new(memory, &mayfly(), module, true) else {
                    continue;
                };
                let rings = layout.rings.unwrap();
                let image = layout.image.start * PAGE..layout.image.end * PAGE;
                let info = layout.info..layout.info + INFO_PAGES * PAGE;
                let mut places = vec![image, info];
                places.extend(layout.module.clone());
                places.push(rings.first * PAGE..layout.ram_pages * PAGE);
                assert!(
                    places.windows(2).all(|pair| pair[0].end <= pair[1].start),
                    "{memory} {module:?}: {places:x?}"
                );
            }
        }
    }

    #[test]
    fn what_does_not_fit_says_how_much_would() {
        let Err(LayoutError::TooSmall {
            needs,
            has: 8,
            module: true,
        }) = Layout::new(8, &mayfly(), Some(20 << 20), true)
        else {
            panic!("it fits");
        };
        assert!(Layout::new(needs + 1, &mayfly(), Some(20 << 20), true).is_ok());
        assert!(matches!(
            Layout::new(1, &mayfly(), None, false),
            Err(LayoutError::TooSmall {
                needs: 2,
                has: 1,
                module: false
            })
        ));
        assert!(matches!(
            Layout::new(8, &mayfly(), Some(u64::MAX), true),
            Err(LayoutError::TooSmall { .. })
        ));
        for memory in [0, 3841, u64::MAX] {
            assert_eq!(
                Layout::new(memory, &mayfly(), None, true),
                Err(LayoutError::Memory(memory))
            );
        }
    }

    #[test]
    fn extents_cover_ram_once_and_are_aligned() {
        for memory in [1, 2, 3, 7, 1024, 1025, 2051, 3840] {
            let high = image(0..0x1000);
            let layout = Layout::new(memory, &high, None, false).unwrap();
            let mut next = 0;
            for (order, gfns) in layout.extents() {
                for gfn in gfns {
                    assert_eq!((gfn, gfn % (1 << order)), (next, 0));
                    next += 1 << order;
                }
            }
            assert_eq!(next, memory * 256);
        }
    }

    #[test]
    fn command_lines() {
        assert_eq!(check_cmdline(&"x".repeat(CMDLINE_MAX)), Ok(()));
        assert!(check_cmdline(&"x".repeat(CMDLINE_MAX + 1)).is_err());
        assert!(check_cmdline("a\0b").is_err());
    }
}

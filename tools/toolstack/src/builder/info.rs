//! The pages that EBX points to in a new guest: `struct hvm_start_info` and everything that it points to.
//!
//! Source: Xen 4.17 arch-x86/hvm/start_info.h, version 1 of the structure.

use mayfly_handoff::network::Preconnected;
use zerocopy::IntoBytes;

use super::layout::{ACPI_GFN, INFO_CMDLINE, INFO_MEMMAP, INFO_MODULES, INFO_NETWORK, Layout};
use super::start_info as abi;
use mayfly_xen::PAGE_SIZE;

/// The number of pages that are needed with a command line: of [`super::layout::INFO_PAGES`], those after them stay as they are.
pub(crate) fn pages(cmdline: &str) -> u64 {
    // With its NUL.
    (INFO_CMDLINE + cmdline.len() as u64 + 1).div_ceil(PAGE_SIZE as u64)
}

/// The contents of the pages.
pub(crate) fn encode(layout: &Layout, cmdline: &str, network: Option<&Preconnected>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(pages(cmdline)).unwrap_or(0) * PAGE_SIZE];
    let mut put = |at: u64, part: &[u8]| {
        let at = usize::try_from(at).unwrap_or(usize::MAX);
        if let Some(place) = bytes.get_mut(at..at.saturating_add(part.len())) {
            place.copy_from_slice(part);
        }
    };
    let mut modules = Vec::new();
    if let Some(module) = &layout.module {
        modules.push((module.start, module.end - module.start));
    }
    if let Some(network) = network {
        let structure = network.encode();
        modules.push((layout.info + INFO_NETWORK, structure.len() as u64));
        put(INFO_NETWORK, &structure);
    }
    let map = layout.memory_map();
    let count = |many: usize| u32::try_from(many).unwrap_or(0);
    let start_info = abi::hvm_start_info {
        magic: abi::XEN_HVM_START_MAGIC_VALUE,
        version: 1,
        flags: 0,
        nr_modules: count(modules.len()),
        modlist_paddr: if modules.is_empty() {
            0
        } else {
            layout.info + INFO_MODULES
        },
        cmdline_paddr: layout.info + INFO_CMDLINE,
        rsdp_paddr: if layout.acpi {
            ACPI_GFN * PAGE_SIZE as u64
        } else {
            0
        },
        memmap_paddr: layout.info + INFO_MEMMAP,
        memmap_entries: count(map.len()),
        reserved: 0,
    };
    put(0, start_info.as_bytes());
    let mut at = INFO_MEMMAP;
    for entry in map {
        let entry = abi::hvm_memmap_table_entry {
            addr: entry.start,
            size: entry.size,
            type_: entry.kind,
            reserved: 0,
        };
        put(at, entry.as_bytes());
        at += size_of_val(&entry) as u64;
    }
    let mut at = INFO_MODULES;
    for (paddr, size) in modules {
        let entry = abi::hvm_modlist_entry {
            paddr,
            size,
            cmdline_paddr: 0,
            reserved: 0,
        };
        put(at, entry.as_bytes());
        at += size_of_val(&entry) as u64;
    }
    // The length was checked against the space; the rest is NULs.
    put(INFO_CMDLINE, cmdline.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::image::{Headers, Segment};
    use crate::builder::layout::CMDLINE_MAX;
    use mayfly_boot::memory::MEMMAP_RAM;
    use mayfly_boot::start_info::{PhysicalMemory, StartInfo};
    use mayfly_drivers::{DomId, EventPort, Gfn, GrantRef};
    use mayfly_handoff::network::{self, PATH_MAX, Random};

    struct Ram {
        base: u64,
        bytes: Vec<u8>,
    }

    impl<'a> PhysicalMemory<'a> for &'a Ram {
        fn bytes(&self, address: u64, len: usize) -> Option<&'a [u8]> {
            let at = usize::try_from(address.checked_sub(self.base)?).ok()?;
            self.bytes.get(at..at.checked_add(len)?)
        }
    }

    fn structure(layout: &Layout) -> Preconnected {
        let mut backend = [0; PATH_MAX];
        let path = b"/local/domain/0/backend/vif/7/0";
        backend[..path.len()].copy_from_slice(path);
        Preconnected {
            first: Gfn(layout.rings.unwrap().first),
            rx_buffers: layout.rings.unwrap().buffers as usize,
            tx_ring: GrantRef(8),
            rx_ring: GrantRef(9),
            rx_first: GrantRef(10),
            free: GrantRef(266),
            tx_port: EventPort::try_new(3).unwrap(),
            rx_port: EventPort::try_new(4).unwrap(),
            store_port: EventPort::try_new(1).unwrap(),
            store: Gfn(0xf_effc),
            domain: DomId(0),
            mac: [0, 0x16, 0x3e, 1, 2, 3],
            backend,
            random: Some(Random([7; 32])),
        }
    }

    fn layout(module: Option<u64>) -> Layout {
        let segment = Segment {
            memory: 0x10_0000..0x16_2118,
            offset: 0x1000,
            size: 0x100,
            is_scratch: false,
        };
        let headers = Headers {
            segments: vec![segment],
            entry: 0x10_0000,
            preconnected: Some(1),
        };
        Layout::new(8, &headers, module, true).unwrap()
    }

    #[test]
    fn the_guest_reads_what_was_written() {
        for module in [None, Some(0x1234)] {
            for cmdline in [
                String::new(),
                "ip=10.0.2.80/24".to_owned(),
                "x".repeat(CMDLINE_MAX),
            ] {
                let layout = layout(module);
                let network = structure(&layout);
                let ram = Ram {
                    base: layout.info,
                    bytes: encode(&layout, &cmdline, Some(&network)),
                };
                let info = StartInfo::parse(&&ram, layout.info).unwrap();
                assert_eq!(info.version, 1);
                assert_eq!(info.cmdline, cmdline.as_bytes());
                let modules: Vec<_> = info.modules().collect();
                assert_eq!(modules.len(), 1 + usize::from(module.is_some()));
                if module.is_some() {
                    assert_eq!(Some(&modules[0]), layout.module.as_ref());
                }
                let found = modules.last().unwrap();
                let bytes = (&ram).bytes(found.start, network::SIZE).unwrap();
                assert_eq!(Preconnected::parse(bytes), Ok(network));
                let map: Vec<_> = info.memory_map().collect();
                assert_eq!(map[0].range, 0..8 << 20);
                assert_eq!((map[0].kind, map[1].kind), (MEMMAP_RAM, 2));
                assert_eq!(map[1].range, 0xfeff_8000..0xff00_0000);
            }
        }
    }

    #[test]
    fn a_guest_without_modules_has_no_list_of_them() {
        let layout = Layout {
            rings: None,
            ..layout(None)
        };
        let ram = Ram {
            base: layout.info,
            bytes: encode(&layout, "", None),
        };
        let info = StartInfo::parse(&&ram, layout.info).unwrap();
        assert_eq!(info.modules().count(), 0);
    }
}

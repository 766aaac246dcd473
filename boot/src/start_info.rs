//! `struct hvm_start_info` (Xen `arch-x86/hvm/start_info.h`), read as bytes.
//!
//! The structure and all that it points to lie in guest memory. Here they are
//! only ever bytes that a [`PhysicalMemory`] hands out, so a truncated or lying
//! structure is an [`Error`] and nothing else.

use core::fmt;
use core::ops::Range;

/// Read access to guest memory by physical address.
pub trait PhysicalMemory<'a> {
    /// The `len` bytes at `address`, or `None` when they are not all readable memory.
    fn bytes(&self, address: u64, len: usize) -> Option<&'a [u8]>;
}

/// `XEN_HVM_START_MAGIC_VALUE`.
pub const MAGIC: u32 = 0x336e_c578;
/// A longer command line is refused: no toolstack passes more than this.
pub const CMDLINE_MAX: usize = 4096;
/// More entries than this in either table is a lie.
pub const ENTRIES_MAX: u32 = 128;

const HEADER_V0: usize = 40;
const HEADER_V1: usize = 56;
const MODULE_ENTRY: usize = 32;
const MEMMAP_ENTRY: usize = 24;

/// What is wrong with a start info.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Part of it, named here, is not readable memory.
    Unreadable(&'static str),
    /// The magic is another value.
    Magic(u32),
    /// A table, named here, claims this many entries.
    TooMany(&'static str, u32),
    /// The command line has no NUL within [`CMDLINE_MAX`] bytes.
    CmdlineUnterminated,
    /// A module or memory region does not fit the address space.
    Overflow(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(what) => write!(f, "start info: {what} is not readable memory"),
            Self::Magic(found) => write!(f, "start info: magic is {found:#x}, not {MAGIC:#x}"),
            Self::TooMany(what, n) => write!(f, "start info: {n} {what}, at most {ENTRIES_MAX}"),
            Self::CmdlineUnterminated => {
                write!(
                    f,
                    "start info: command line longer than {CMDLINE_MAX} bytes"
                )
            }
            Self::Overflow(what) => write!(f, "start info: {what} runs past the address space"),
        }
    }
}

/// One range of the memory map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryRange {
    /// Physical addresses.
    pub range: Range<u64>,
    /// `XEN_HVM_MEMMAP_TYPE_*`, the E820 types: 1 is RAM.
    pub kind: u32,
}

/// `XEN_HVM_MEMMAP_TYPE_RAM`.
pub const MEMMAP_RAM: u32 = 1;

/// What the domain builder told the guest; borrowed from guest memory.
#[derive(Debug, Clone)]
pub struct StartInfo<'a> {
    /// The structure's version; 0 carries no memory map.
    pub version: u32,
    /// The command line without its NUL; empty when there is none.
    pub cmdline: &'a [u8],
    modules: &'a [u8],
    memmap: &'a [u8],
    /// Where the structure, its tables and the command line lie: not free memory.
    pub occupied: [Range<u64>; 4],
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    match bytes.get(at..at + 4).and_then(|b| b.try_into().ok()) {
        Some(b) => u32::from_le_bytes(b),
        None => 0,
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    match bytes.get(at..at + 8).and_then(|b| b.try_into().ok()) {
        Some(b) => u64::from_le_bytes(b),
        None => 0,
    }
}

fn range_of(address: u64, len: usize) -> Range<u64> {
    address..address.saturating_add(len as u64)
}

/// A table of `count` entries of `size` bytes.
fn table<'a>(
    memory: &impl PhysicalMemory<'a>,
    what: &'static str,
    address: u64,
    count: u32,
    size: usize,
) -> Result<(&'a [u8], Range<u64>), Error> {
    if count == 0 {
        return Ok((&[], 0..0));
    }
    if count > ENTRIES_MAX {
        return Err(Error::TooMany(what, count));
    }
    let len = count as usize * size;
    let bytes = memory.bytes(address, len).ok_or(Error::Unreadable(what))?;
    Ok((bytes, range_of(address, len)))
}

/// The bytes up to a NUL, looked for in small steps so that a string at the
/// very end of memory is found too.
fn cstr<'a>(memory: &impl PhysicalMemory<'a>, address: u64) -> Result<&'a [u8], Error> {
    const STEP: usize = 64;
    let mut len = 0;
    while len < CMDLINE_MAX {
        let at = address
            .checked_add(len as u64)
            .ok_or(Error::Overflow("command line"))?;
        let readable = (1..=STEP)
            .rev()
            .find_map(|n| memory.bytes(at, n))
            .ok_or(Error::Unreadable("command line"))?;
        if let Some(nul) = readable.iter().position(|&b| b == 0) {
            return memory
                .bytes(address, len + nul)
                .ok_or(Error::Unreadable("command line"));
        }
        len += readable.len();
    }
    Err(Error::CmdlineUnterminated)
}

impl<'a> StartInfo<'a> {
    /// Reads the structure at `address`.
    ///
    /// # Errors
    /// Whatever does not hold; see [`Error`].
    pub fn parse(memory: &impl PhysicalMemory<'a>, address: u64) -> Result<Self, Error> {
        let v0 = memory
            .bytes(address, HEADER_V0)
            .ok_or(Error::Unreadable("header"))?;
        let magic = u32_at(v0, 0);
        if magic != MAGIC {
            return Err(Error::Magic(magic));
        }
        let version = u32_at(v0, 4);
        // Later versions only add to the end.
        let (header, header_len) = if version >= 1 {
            let v1 = memory
                .bytes(address, HEADER_V1)
                .ok_or(Error::Unreadable("header"))?;
            (v1, HEADER_V1)
        } else {
            (v0, HEADER_V0)
        };

        let cmdline_address = u64_at(header, 24);
        let cmdline = match cmdline_address {
            0 => &[][..],
            at => cstr(memory, at)?,
        };
        let (modules, modules_range) = table(
            memory,
            "modules",
            u64_at(header, 16),
            u32_at(header, 12),
            MODULE_ENTRY,
        )?;
        let (memmap, memmap_range) = if version >= 1 {
            table(
                memory,
                "memory map entries",
                u64_at(header, 40),
                u32_at(header, 48),
                MEMMAP_ENTRY,
            )?
        } else {
            (&[][..], 0..0)
        };
        let info = Self {
            version,
            cmdline,
            modules,
            memmap,
            occupied: [
                range_of(address, header_len),
                range_of(cmdline_address, cmdline.len() + 1),
                modules_range,
                memmap_range,
            ],
        };
        // Checked once here, so that the iterators below can be plain.
        for i in 0..info.modules.len() / MODULE_ENTRY {
            let entry = &info.modules[i * MODULE_ENTRY..];
            u64_at(entry, 0)
                .checked_add(u64_at(entry, 8))
                .ok_or(Error::Overflow("module"))?;
        }
        Ok(info)
    }

    /// Where the modules lie, in the builder's order.
    pub fn modules(&self) -> impl Iterator<Item = Range<u64>> + use<'a> {
        self.modules.chunks_exact(MODULE_ENTRY).map(|entry| {
            let start = u64_at(entry, 0);
            start..start.saturating_add(u64_at(entry, 8))
        })
    }

    /// The memory map; empty when the builder gave none, and then
    /// `XENMEM_memory_map` must be asked.
    pub fn memory_map(&self) -> impl Iterator<Item = MemoryRange> + Clone + use<'a> {
        self.memmap.chunks_exact(MEMMAP_ENTRY).map(|entry| {
            let start = u64_at(entry, 0);
            MemoryRange {
                range: start..start.saturating_add(u64_at(entry, 8)),
                kind: u32_at(entry, 16),
            }
        })
    }
}

/// Reads E820 entries of 20 bytes, as `XENMEM_memory_map` returns them.
pub fn e820(entries: &[u8]) -> impl Iterator<Item = MemoryRange> + Clone {
    entries.chunks_exact(20).map(|entry| {
        let start = u64_at(entry, 0);
        MemoryRange {
            range: start..start.saturating_add(u64_at(entry, 8)),
            kind: u32_at(entry, 16),
        }
    })
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec::Vec;

    const BASE: u64 = 0x10_0000;

    /// Memory of some bytes from `BASE` up.
    struct Ram(Vec<u8>);
    impl<'a> PhysicalMemory<'a> for &'a Ram {
        fn bytes(&self, address: u64, len: usize) -> Option<&'a [u8]> {
            let at = usize::try_from(address.checked_sub(BASE)?).ok()?;
            self.0.get(at..at.checked_add(len)?)
        }
    }

    fn put(ram: &mut [u8], at: usize, bytes: &[u8]) {
        ram[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A whole version 1 start info: one module, two map entries, a command line at the end.
    fn sample() -> Ram {
        let mut ram = std::vec![0u8; 0x200];
        put(&mut ram, 0, &MAGIC.to_le_bytes());
        put(&mut ram, 4, &1u32.to_le_bytes());
        put(&mut ram, 12, &1u32.to_le_bytes());
        put(&mut ram, 16, &(BASE + 0x40).to_le_bytes());
        put(&mut ram, 24, &(BASE + 0x1f8).to_le_bytes());
        put(&mut ram, 40, &(BASE + 0x80).to_le_bytes());
        put(&mut ram, 48, &2u32.to_le_bytes());
        put(&mut ram, 0x40, &0x30_0000u64.to_le_bytes());
        put(&mut ram, 0x48, &0x1000u64.to_le_bytes());
        put(&mut ram, 0x88, &0x80_0000u64.to_le_bytes());
        put(&mut ram, 0x90, &1u32.to_le_bytes());
        put(&mut ram, 0x98, &0xfeff_8000u64.to_le_bytes());
        put(&mut ram, 0xa0, &0x8000u64.to_le_bytes());
        put(&mut ram, 0xa8, &2u32.to_le_bytes());
        put(&mut ram, 0x1f8, b"ip=dhcp\0");
        Ram(ram)
    }

    #[test]
    fn a_whole_start_info_is_read() {
        let ram = sample();
        let info = StartInfo::parse(&&ram, BASE).unwrap();
        assert_eq!(info.version, 1);
        assert_eq!(info.cmdline, b"ip=dhcp");
        assert!(info.modules().eq(core::iter::once(0x30_0000..0x30_1000)));
        let map: Vec<_> = info.memory_map().collect();
        assert_eq!(map.len(), 2);
        assert_eq!(map[0].range, 0..0x80_0000);
        assert_eq!((map[0].kind, map[1].kind), (MEMMAP_RAM, 2));
        assert_eq!(info.occupied[0], BASE..BASE + 56);
        assert_eq!(info.occupied[1], BASE + 0x1f8..BASE + 0x200);
    }

    #[test]
    fn version_0_has_no_map_and_needs_no_bytes_behind_its_header() {
        let mut ram = sample();
        put(&mut ram.0, 4, &0u32.to_le_bytes());
        put(&mut ram.0, 12, &0u32.to_le_bytes());
        put(&mut ram.0, 24, &0u64.to_le_bytes());
        ram.0.truncate(HEADER_V0);
        let info = StartInfo::parse(&&ram, BASE).unwrap();
        assert_eq!(info.memory_map().count(), 0);
        assert_eq!(info.cmdline, b"");
    }

    #[test]
    fn every_truncation_is_an_error() {
        let whole = sample().0;
        for len in 0..whole.len() {
            let ram = Ram(whole[..len].to_vec());
            assert!(StartInfo::parse(&&ram, BASE).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn lies_are_named() {
        let cases: [(usize, &[u8], Error); 7] = [
            (0, &[0; 4], Error::Magic(0)),
            (12, &[0xff; 4], Error::TooMany("modules", u32::MAX)),
            (
                48,
                &129u32.to_le_bytes(),
                Error::TooMany("memory map entries", 129),
            ),
            (16, &[0xff; 8], Error::Unreadable("modules")),
            (24, &[0xff; 8], Error::Unreadable("command line")),
            (
                40,
                &0u64.to_le_bytes(),
                Error::Unreadable("memory map entries"),
            ),
            (0x48, &[0xff; 8], Error::Overflow("module")),
        ];
        for (at, bytes, error) in cases {
            let mut ram = sample();
            put(&mut ram.0, at, bytes);
            assert_eq!(StartInfo::parse(&&ram, BASE).unwrap_err(), error);
        }
    }

    #[test]
    fn a_command_line_without_end_is_refused() {
        let mut ram = sample();
        put(&mut ram.0, 24, &(BASE + 0x200).to_le_bytes());
        ram.0.resize(0x200 + CMDLINE_MAX + 1, b'x');
        assert_eq!(
            StartInfo::parse(&&ram, BASE).unwrap_err(),
            Error::CmdlineUnterminated
        );
    }

    /// A number of `len` bytes at `at`, as the header file has it: little-endian.
    fn number(ram: &[u8], at: usize, len: usize) -> u64 {
        let mut bytes = [0; 8];
        bytes[..len].copy_from_slice(&ram[at..at + len]);
        u64::from_le_bytes(bytes)
    }

    /// The bytes of `ram` from a physical address on; none when it is elsewhere.
    fn from(ram: &[u8], address: u64) -> Option<&[u8]> {
        ram.get(usize::try_from(address.checked_sub(BASE)?).ok()?..)
    }

    /// Whether a table that the fields at `count` and `address` speak of is one that may be read.
    fn refusal(
        ram: &[u8],
        what: &'static str,
        count: usize,
        address: usize,
        size: u64,
    ) -> Option<Error> {
        let n = number(ram, count, 4);
        if n > ENTRIES_MAX.into() {
            return Some(Error::TooMany(what, u32::try_from(n).unwrap()));
        }
        let room = from(ram, number(ram, address, 8)).map_or(0, <[u8]>::len) as u64;
        (n * size > room).then_some(Error::Unreadable(what))
    }

    /// What is given is what the structure says, and a refusal names what is wrong with it: for each value of each byte.
    #[test]
    fn a_changed_byte_changes_what_it_stands_for_or_is_refused() {
        let whole = sample().0;
        let (mut taken, mut refused) = (0, 0);
        for (at, value) in (0..whole.len()).flat_map(|at| (0..=255).map(move |value| (at, value))) {
            let mut ram = Ram(whole.clone());
            ram.0[at] = value;
            let bytes = &ram.0[..];
            let version = number(bytes, 4, 4);
            let text = from(bytes, number(bytes, 24, 8)).filter(|text| text.contains(&0));
            let modules = refusal(bytes, "modules", 12, 16, 32);
            let map = refusal(bytes, "memory map entries", 48, 40, 24).filter(|_| version >= 1);
            let info = match StartInfo::parse(&&ram, BASE) {
                Ok(info) => info,
                Err(error) => {
                    let is_right = match error {
                        Error::Magic(_) => number(bytes, 0, 4) != u64::from(MAGIC),
                        Error::Unreadable("command line") => {
                            number(bytes, 24, 8) != 0 && text.is_none()
                        }
                        Error::Unreadable("modules") | Error::TooMany("modules", _) => {
                            modules == Some(error)
                        }
                        Error::Unreadable("memory map entries")
                        | Error::TooMany("memory map entries", _) => map == Some(error),
                        Error::Overflow("module") => {
                            let list = from(bytes, number(bytes, 16, 8)).unwrap_or_default();
                            let count = usize::try_from(number(bytes, 12, 4)).unwrap();
                            list.chunks(32).take(count).any(|entry| {
                                let start = number(entry, 0, 8);
                                start.checked_add(number(entry, 8, 8)).is_none()
                            })
                        }
                        _ => false,
                    };
                    assert!(is_right, "byte {at:#x} is {value:#x}: {error:?}");
                    refused += 1;
                    continue;
                }
            };
            taken += 1;
            let is = std::format!("byte {at:#x} is {value:#x}: {info:?}");
            assert_eq!((modules, map), (None, None), "{is}");
            assert_eq!(number(bytes, 0, 4), u64::from(MAGIC), "{is}");
            assert_eq!(u64::from(info.version), version, "{is}");
            let text = text.map(|text| text.split(|byte| *byte == 0).next().unwrap());
            assert_eq!(info.cmdline, text.unwrap_or_default(), "{is}");
            let list = from(bytes, number(bytes, 16, 8)).unwrap_or_default();
            let expected = list
                .chunks(32)
                .take(usize::try_from(number(bytes, 12, 4)).unwrap());
            let expected = expected.map(|entry| {
                let start = number(entry, 0, 8);
                start..start + number(entry, 8, 8)
            });
            assert!(info.modules().eq(expected), "{is}");
            let count = if version >= 1 {
                number(bytes, 48, 4)
            } else {
                0
            };
            let list = from(bytes, number(bytes, 40, 8)).unwrap_or_default();
            let expected = list.chunks(24).take(usize::try_from(count).unwrap());
            let expected = expected.map(|entry| {
                let start = number(entry, 0, 8);
                let range = start..start.saturating_add(number(entry, 8, 8));
                let kind = u32::try_from(number(entry, 16, 4)).unwrap();
                MemoryRange { range, kind }
            });
            assert!(info.memory_map().eq(expected), "{is}");
        }
        assert!(
            taken > 1000 && refused > 1000,
            "{taken} taken, {refused} refused"
        );
    }
}

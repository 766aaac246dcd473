//! `struct hvm_start_info` (Xen `arch-x86/hvm/start_info.h`), read as bytes.
//!
//! The structure and all that it points to lie in guest memory. Here they are
//! only ever bytes that a [`PhysicalMemory`] hands out, so a truncated or lying
//! structure is an [`StartInfoError`] and nothing else.

use core::fmt;
use core::ops::Range;

use crate::memory::{MemoryRange, is_ram};

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

/// An error in a start info.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartInfoError {
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

impl fmt::Display for StartInfoError {
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

/// The domain builder's data for the guest, borrowed from guest memory.
#[derive(Debug, Clone)]
pub struct StartInfo<'a> {
    /// The structure's version; 0 carries no memory map.
    pub version: u32,
    /// The command line without its NUL; empty when there is none.
    pub cmdline: &'a [u8],
    modules: &'a [u8],
    memmap: &'a [u8],
    /// The addresses of the structure, its tables and the command line, which are not free memory.
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
) -> Result<(&'a [u8], Range<u64>), StartInfoError> {
    if count == 0 {
        return Ok((&[], 0..0));
    }
    if count > ENTRIES_MAX {
        return Err(StartInfoError::TooMany(what, count));
    }
    let len = count as usize * size;
    let bytes = memory
        .bytes(address, len)
        .ok_or(StartInfoError::Unreadable(what))?;
    Ok((bytes, range_of(address, len)))
}

/// The bytes up to a NUL, looked for in small steps so that a string at the
/// very end of memory is found too.
fn cstr<'a>(memory: &impl PhysicalMemory<'a>, address: u64) -> Result<&'a [u8], StartInfoError> {
    const STEP: usize = 64;
    let mut len = 0;
    while len < CMDLINE_MAX {
        let at = address
            .checked_add(len as u64)
            .ok_or(StartInfoError::Overflow("command line"))?;
        let readable = (1..=STEP)
            .rev()
            .find_map(|n| memory.bytes(at, n))
            .ok_or(StartInfoError::Unreadable("command line"))?;
        if let Some(nul) = readable.iter().position(|&b| b == 0) {
            return memory
                .bytes(address, len + nul)
                .ok_or(StartInfoError::Unreadable("command line"));
        }
        len += readable.len();
    }
    Err(StartInfoError::CmdlineUnterminated)
}

impl<'a> StartInfo<'a> {
    /// Reads the structure at `address`.
    ///
    /// # Errors
    /// [`StartInfoError`]: the first error that is found.
    pub fn parse(memory: &impl PhysicalMemory<'a>, address: u64) -> Result<Self, StartInfoError> {
        let v0 = memory
            .bytes(address, HEADER_V0)
            .ok_or(StartInfoError::Unreadable("header"))?;
        let magic = u32_at(v0, 0);
        if magic != MAGIC {
            return Err(StartInfoError::Magic(magic));
        }
        let version = u32_at(v0, 4);
        // Later versions only add to the end.
        let (header, header_len) = if version >= 1 {
            let v1 = memory
                .bytes(address, HEADER_V1)
                .ok_or(StartInfoError::Unreadable("header"))?;
            (v1, HEADER_V1)
        } else {
            (v0, HEADER_V0)
        };

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
        // From here on, only addresses in RAM are read, as the memory map has it.
        let memory = &InRam {
            memory,
            map: memmap,
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
                .ok_or(StartInfoError::Overflow("module"))?;
        }
        Ok(info)
    }

    /// The address ranges of the modules, in the builder's order.
    pub fn modules(&self) -> impl Iterator<Item = Range<u64>> + use<'a> {
        self.modules.chunks_exact(MODULE_ENTRY).map(|entry| {
            let start = u64_at(entry, 0);
            start..start.saturating_add(u64_at(entry, 8))
        })
    }

    /// The memory map; empty when the builder gave none, and then
    /// `XENMEM_memory_map` must be asked.
    pub fn memory_map(&self) -> impl Iterator<Item = MemoryRange> + Clone + use<'a> {
        memory_map(self.memmap)
    }
}

/// The entries of a start info's memory map.
fn memory_map(entries: &[u8]) -> impl Iterator<Item = MemoryRange> + Clone + use<'_> {
    entries.chunks_exact(MEMMAP_ENTRY).map(|entry| {
        let start = u64_at(entry, 0);
        MemoryRange {
            range: start..start.saturating_add(u64_at(entry, 8)),
            kind: u32_at(entry, 16),
        }
    })
}

/// Memory, of which only what the map has as RAM is read; all of it when there is no map.
struct InRam<'m, 'a, M> {
    memory: &'m M,
    map: &'a [u8],
}

impl<'a, M: PhysicalMemory<'a>> PhysicalMemory<'a> for InRam<'_, 'a, M> {
    fn bytes(&self, address: u64, len: usize) -> Option<&'a [u8]> {
        let is_readable =
            self.map.is_empty() || is_ram(memory_map(self.map), &range_of(address, len));
        is_readable.then(|| self.memory.bytes(address, len))?
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
mod tests;

extern crate std;
use super::*;
use crate::memory::MEMMAP_RAM;
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
    let cases: [(usize, &[u8], StartInfoError); 7] = [
        (0, &[0; 4], StartInfoError::Magic(0)),
        (12, &[0xff; 4], StartInfoError::TooMany("modules", u32::MAX)),
        (
            48,
            &129u32.to_le_bytes(),
            StartInfoError::TooMany("memory map entries", 129),
        ),
        (16, &[0xff; 8], StartInfoError::Unreadable("modules")),
        (24, &[0xff; 8], StartInfoError::Unreadable("command line")),
        (
            40,
            &0u64.to_le_bytes(),
            StartInfoError::Unreadable("memory map entries"),
        ),
        (0x48, &[0xff; 8], StartInfoError::Overflow("module")),
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
        StartInfoError::CmdlineUnterminated
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
) -> Option<StartInfoError> {
    let n = number(ram, count, 4);
    if n > ENTRIES_MAX.into() {
        return Some(StartInfoError::TooMany(what, u32::try_from(n).unwrap()));
    }
    let room = from(ram, number(ram, address, 8)).map_or(0, <[u8]>::len) as u64;
    (n * size > room).then_some(StartInfoError::Unreadable(what))
}

/// Whether the map has RAM for the whole of what lies at an address: the samples are small and one entry is RAM.
fn has_ram(ram: &[u8], address: u64) -> bool {
    let entries = from(ram, number(ram, 40, 8)).unwrap_or_default();
    let count = usize::try_from(number(ram, 48, 4)).unwrap();
    entries.chunks_exact(24).take(count).any(|entry| {
        let start = number(entry, 0, 8);
        number(entry, 16, 4) == 1
            && start <= address
            && address + 0x40 <= start.saturating_add(number(entry, 8, 8))
    })
}

#[test]
fn what_lies_outside_of_ram_is_not_read() {
    for (end, what) in [(0x141, "modules"), (0x100, "command line")] {
        let mut ram = sample();
        put(&mut ram.0, 16, &(BASE + 0x140).to_le_bytes());
        put(&mut ram.0, 24, &(BASE + 0x100).to_le_bytes());
        // It is there to be read, but the map says that RAM ends within it.
        put(&mut ram.0, 0x90, &2_u32.to_le_bytes());
        put(&mut ram.0, 0xa8, &1_u32.to_le_bytes());
        put(&mut ram.0, 0x98, &0_u64.to_le_bytes());
        put(&mut ram.0, 0xa0, &(BASE + end).to_le_bytes());
        let read = StartInfo::parse(&&ram, BASE);
        assert_eq!(read.unwrap_err(), StartInfoError::Unreadable(what));
    }
}

/// For each value of each byte, the result is what the structure contains, or an error that names the fault.
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
                    StartInfoError::Magic(_) => number(bytes, 0, 4) != u64::from(MAGIC),
                    StartInfoError::Unreadable("command line") => {
                        let at = number(bytes, 24, 8);
                        at != 0 && (text.is_none() || !has_ram(bytes, at))
                    }
                    StartInfoError::Unreadable("modules") if modules.is_none() => {
                        !has_ram(bytes, number(bytes, 16, 8))
                    }
                    StartInfoError::Unreadable("modules")
                    | StartInfoError::TooMany("modules", _) => modules == Some(error),
                    StartInfoError::Unreadable("memory map entries")
                    | StartInfoError::TooMany("memory map entries", _) => map == Some(error),
                    StartInfoError::Overflow("module") => {
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

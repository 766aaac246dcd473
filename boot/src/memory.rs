//! The memory map, and the RAM in it that is free for the guest.

use core::ops::Range;

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

/// The static page tables map this much.
const MAPPED: u64 = 1 << 32;
/// The low megabyte is left alone: toolstacks may put things there without saying so.
const LOW: u64 = 1 << 20;

/// The largest run of whole RAM pages between 1 MiB and 4 GiB that none of
/// `occupied` touches; empty when there is none.
///
/// Cost: linear in the map times quadratic in `occupied`; both are a handful.
pub fn largest_free(map: impl Iterator<Item = MemoryRange>, occupied: &[Range<u64>]) -> Range<u64> {
    let mut best = 0..0;
    for entry in map.filter(|entry| entry.kind == MEMMAP_RAM) {
        let ram = page_up(entry.range.start.max(LOW))..page_down(entry.range.end.min(MAPPED));
        // Walk upwards: from each start, up to the first thing in the way.
        let mut start = ram.start;
        while start < ram.end {
            let blocker = occupied
                .iter()
                .filter(|o| !o.is_empty() && page_up(o.end) > start)
                .min_by_key(|o| o.start);
            let end = blocker.map_or(ram.end, |o| page_down(o.start).clamp(start, ram.end));
            if end - start > best.end - best.start {
                best = start..end;
            }
            start = blocker.map_or(ram.end, |o| page_up(o.end));
        }
    }
    best
}

/// Pages right above RAM that no entry of the map covers and none of `occupied` touches, at most 16: a place
/// for frames of Xen's own. (Put over RAM, they would each cost a page of it, and
/// split the superpage that it is part of.) Empty when there is no such place.
pub fn gap_above_ram(
    map: impl Iterator<Item = MemoryRange> + Clone,
    occupied: &[Range<u64>],
) -> Range<u64> {
    /// From here up to 4 GiB toolstacks put devices and special pages.
    const DEVICES: u64 = 0xf000_0000;
    const PAGES: u64 = 16;
    let ram = map.clone().filter(|entry| entry.kind == MEMMAP_RAM);
    let below = |range: &Range<u64>| range.start < DEVICES;
    let top = ram.filter(|e| below(&e.range)).map(|e| e.range.end).max();
    let start = page_up(top.unwrap_or(DEVICES));
    let end = start.saturating_add(4096 * PAGES);
    let touches = |range: &Range<u64>| range.start < end && range.end > start;
    let covered = map.into_iter().any(|entry| touches(&entry.range));
    if end > DEVICES || covered || occupied.iter().any(touches) {
        return 0..0;
    }
    start..end
}

/// Whether a range is RAM between 1 MiB and 4 GiB that none of `occupied` touches.
pub fn is_free(
    mut map: impl Iterator<Item = MemoryRange>,
    occupied: &[Range<u64>],
    range: &Range<u64>,
) -> bool {
    let is_inside = |ram: &Range<u64>| {
        range.start >= ram.start.max(LOW) && range.end <= ram.end.min(MAPPED) && !range.is_empty()
    };
    map.any(|entry| entry.kind == MEMMAP_RAM && is_inside(&entry.range))
        && !occupied
            .iter()
            .any(|o| !o.is_empty() && o.start < range.end && o.end > range.start)
}

/// Whether each byte of a range is RAM, by one or several entries of the map. (Xen has nothing behind other addresses:
/// to read there ends the domain without a word.)
pub fn is_ram(map: impl Iterator<Item = MemoryRange> + Clone, range: &Range<u64>) -> bool {
    let mut at = range.start;
    while at < range.end {
        let ram = map.clone().filter(|entry| entry.kind == MEMMAP_RAM);
        let Some(end) = ram.map(|entry| entry.range).find(|ram| ram.contains(&at)) else {
            return false;
        };
        at = end.end;
    }
    true
}

fn page_up(address: u64) -> u64 {
    address.saturating_add(4095) & !4095
}

fn page_down(address: u64) -> u64 {
    address & !4095
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ram(range: Range<u64>) -> MemoryRange {
        MemoryRange {
            range,
            kind: MEMMAP_RAM,
        }
    }

    #[test]
    fn the_largest_gap_is_found() {
        let image = 0x10_0000..0x15_2345;
        let info = 0x15_3000..0x15_3038;
        let module = 0x20_0000..0x20_0001;
        let free = largest_free(
            [ram(0..0x40_0000)].into_iter(),
            &[image.clone(), info.clone(), module],
        );
        assert_eq!(free, 0x20_1000..0x40_0000);
        // A module at the end leaves the middle.
        let free = largest_free(
            [ram(0..0x40_0000)].into_iter(),
            &[image, info, 0x30_0000..0x40_0000],
        );
        assert_eq!(free, 0x15_4000..0x30_0000);
    }

    #[test]
    fn nothing_outside_ram_below_4g_or_in_the_low_megabyte_is_given() {
        assert!(largest_free([ram(0..0x10_0000)].into_iter(), &[]).is_empty());
        let high = largest_free([ram(0xf000_0000..0x2_0000_0000)].into_iter(), &[]);
        assert_eq!(high, 0xf000_0000..0x1_0000_0000);
        let reserved = MemoryRange {
            range: 0..0x80_0000,
            kind: 2,
        };
        assert!(largest_free([reserved].into_iter(), &[]).is_empty());
    }

    #[test]
    fn what_is_free_is_ram_and_nothing_else() {
        let map = [ram(0..0x80_0000)];
        let image = 0x10_0000..0x15_2345;
        let free = |range| is_free(map.iter().cloned(), core::slice::from_ref(&image), &range);
        assert!(free(0x70_0000..0x80_0000));
        assert!(free(0x15_3000..0x15_4000));
        assert!(!free(0x15_2000..0x15_4000));
        assert!(!free(0x0f_0000..0x0f_1000));
        assert!(!free(0x7f_f000..0x80_1000));
        assert!(!free(0x70_0000..0x70_0000));
    }

    #[test]
    fn ram_may_be_in_several_entries_and_has_no_holes() {
        let hole = MemoryRange {
            range: 0x40_0000..0x50_0000,
            kind: 2,
        };
        let map = [
            ram(0x20_0000..0x30_0000),
            ram(0..0x20_0000),
            hole,
            ram(0x50_0000..0x60_0000),
        ];
        let is_ram = |range| is_ram(map.iter().cloned(), &range);
        assert!(is_ram(0x10_0000..0x30_0000));
        assert!(is_ram(0x2f_ffff..0x30_0000));
        assert!(is_ram(0x50_0000..0x60_0000));
        assert!(!is_ram(0x2f_ffff..0x30_0001));
        assert!(!is_ram(0x30_0000..0x30_0001));
        assert!(!is_ram(0x48_0000..0x48_0001));
        assert!(!is_ram(0x3f_0000..0x51_0000));
        assert!(!is_ram(0x5f_0000..u64::MAX));
        // An empty range is RAM at any address.
        assert!(is_ram(0x48_0000..0x48_0000));
    }

    #[test]
    fn the_gap_is_right_above_ram_and_in_nobodys_way() {
        let reserved = |range| MemoryRange { range, kind: 2 };
        let special = reserved(0xfeff_8000..0xff00_0000);
        let gap = |map: &[MemoryRange]| gap_above_ram(map.iter().cloned(), &[]);
        assert_eq!(
            gap(&[ram(0..0x80_0000), special.clone()]),
            0x80_0000..0x81_0000
        );
        assert_eq!(gap(&[ram(0..0x7f_f001)]), 0x80_0000..0x81_0000);
        // There is no gap if the place is reserved, if RAM reaches up to the devices, or without RAM.
        assert!(gap(&[ram(0..0x80_0000), reserved(0x80_f000..0x81_0000)]).is_empty());
        assert!(gap(&[ram(0..0xefff_0000 + 1)]).is_empty());
        assert!(gap(&[ram(0..u64::MAX)]).is_empty());
        assert!(gap(&[special]).is_empty());
        let module = core::array::from_ref(&(0x80_1000..0x80_2000));
        assert!(gap_above_ram([ram(0..0x80_0000)].into_iter(), module).is_empty());
        // RAM above 4 GiB does not matter.
        let high = ram(1 << 32..2 << 32);
        assert_eq!(gap(&[ram(0..0x80_0000), high]), 0x80_0000..0x81_0000);
    }

    #[test]
    fn lying_ranges_do_no_harm() {
        let backwards = MemoryRange {
            range: Range {
                start: 0x80_0000,
                end: 0x20_0000,
            },
            kind: 1,
        };
        assert!(largest_free([backwards].into_iter(), &[]).is_empty());
        let end_of_space = 0x20_0000..u64::MAX;
        let free = largest_free([ram(0..u64::MAX)].into_iter(), &[end_of_space]);
        assert_eq!(free, 0x10_0000..0x20_0000);
        let over = 0..u64::MAX;
        assert!(largest_free([ram(0..u64::MAX)].into_iter(), &[over]).is_empty());
    }
}

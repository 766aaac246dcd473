//! Free memory as ranges of addresses. Pages are taken from the bottom and bytes from the top. A page that is given
//! back joins its neighbours and can be used for either again.
//!
//! This module does not access the memory itself.

use alloc::vec::Vec;
use core::ops::Range;

use mayfly_drivers::abi::PAGE_SIZE;

const PAGE: u64 = PAGE_SIZE as u64;

/// Disjoint ranges in ascending order, no two of which touch each other. Each begins at a page.
#[derive(Debug)]
pub struct Ranges {
    ranges: Vec<Range<u64>>,
}

impl Ranges {
    /// The free memory that consists of one range, which begins at a page.
    #[must_use]
    pub fn new(range: Range<u64>) -> Self {
        let mut ranges = Vec::with_capacity(4);
        ranges.push(range);
        Self { ranges }
    }

    /// The number of free bytes.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.ranges
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }

    /// Takes `count` consecutive pages, from the lowest range that has them, and gives the address of
    /// the first.
    #[inline]
    pub fn take_pages(&mut self, count: usize) -> Option<u64> {
        let length = PAGE.checked_mul(count as u64)?;
        let mut ranges = self.ranges.iter_mut();
        let at = ranges.position(|range| range.end - range.start >= length)?;
        let range = self.ranges.get_mut(at)?;
        let address = range.start;
        range.start += length;
        if range.is_empty() {
            self.ranges.remove(at);
        }
        Some(address)
    }

    /// Takes `length` bytes, from the top of the highest range that has them, and gives their address,
    /// which is a multiple of 16.
    pub fn take_bytes(&mut self, length: usize) -> Option<u64> {
        let fits = |range: &Range<u64>| {
            let start = range.end.checked_sub(length as u64)? & !15;
            (start >= range.start).then_some(start)
        };
        let (at, start) = self
            .ranges
            .iter()
            .enumerate()
            .rev()
            .find_map(|(at, range)| fits(range).map(|start| (at, start)))?;
        let range = self.ranges.get_mut(at)?;
        range.end = start;
        if range.is_empty() {
            self.ranges.remove(at);
        }
        Some(start)
    }

    /// Gives a page back. Does nothing if the page is free already.
    pub fn give_back(&mut self, page: u64) {
        let end = page.saturating_add(PAGE);
        let at = self.ranges.partition_point(|range| range.start < page);
        let below = at.checked_sub(1).and_then(|at| self.ranges.get(at));
        let below_end = below.map_or(0, |range| range.end);
        let above_start = self.ranges.get(at).map_or(u64::MAX, |range| range.start);
        if below_end > page || above_start < end {
            return;
        }
        match (at.checked_sub(1), below_end == page, above_start == end) {
            (Some(below), true, true) => {
                let above = self.ranges.remove(at);
                self.set(below, |range| range.end = above.end);
            }
            (Some(below), true, false) => self.set(below, |range| range.end = end),
            (_, _, true) => self.set(at, |range| range.start = page),
            (_, _, false) => self.ranges.insert(at, page..end),
        }
    }

    fn set(&mut self, at: usize, change: impl FnOnce(&mut Range<u64>)) {
        if let Some(range) = self.ranges.get_mut(at) {
            change(range);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn pages_from_the_bottom_and_bytes_from_the_top() {
        let mut ranges = Ranges::new(0x10_0000..0x20_0008);
        assert_eq!(ranges.take_pages(1), Some(0x10_0000));
        assert_eq!(ranges.take_pages(3), Some(0x10_1000));
        assert_eq!(ranges.take_bytes(100), Some(0x1f_ffa0));
        assert_eq!(ranges.free(), 0x1f_ffa0 - 0x10_4000);
        assert_eq!(ranges.take_pages(1000), None);
        assert_eq!(ranges.take_bytes(1 << 20), None);
        assert_eq!(ranges.take_bytes(0xf_bfa0), Some(0x10_4000));
        assert_eq!((ranges.free(), ranges.take_pages(1)), (0, None));
        assert_eq!(ranges.take_bytes(1), None);
    }

    #[test]
    fn pages_that_come_back_in_any_order_serve_bytes_again() {
        for seed in 0..20_u64 {
            let mut ranges = Ranges::new(0x10_0000..0x20_0000);
            let mut pages: Vec<u64> = core::iter::from_fn(|| ranges.take_pages(1)).collect();
            assert_eq!((pages.len(), ranges.take_bytes(16)), (256, None));
            // A shuffle that depends on the seed.
            let mut state = seed;
            for at in (1..pages.len()).rev() {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(seed | 1);
                let other = usize::try_from((state >> 33) % (at as u64 + 1)).unwrap();
                pages.swap(at, other);
            }
            for &page in &pages {
                ranges.give_back(page);
                ranges.give_back(page);
            }
            assert_eq!(ranges.ranges, vec![0x10_0000..0x20_0000]);
            assert_eq!(ranges.take_bytes(1 << 20), Some(0x10_0000));
        }
    }

    #[test]
    fn pages_from_elsewhere_are_a_range_of_their_own() {
        let mut ranges = Ranges::new(0x10_0000..0x10_1000);
        for page in [0x8_2000, 0x8_0000, 0x8_1000, 0x30_0000] {
            ranges.give_back(page);
        }
        assert_eq!(ranges.take_bytes(0x2800), Some(0x8_0800));
        // A remainder smaller than a page is not given out as a page.
        assert_eq!(ranges.take_pages(1), Some(0x10_0000));
        assert_eq!(ranges.take_pages(1), Some(0x30_0000));
        assert_eq!((ranges.free(), ranges.take_pages(1)), (0x800, None));
        ranges.give_back(0x8_1000);
        assert_eq!(ranges.free(), 0x1800);
    }
}

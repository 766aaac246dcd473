//! Memory shared with another domain or with Xen: copied in and out, never borrowed.
//!
//! This is the only file of the crate with `unsafe`. The code above it sees only words and copies: no reference into
//! memory that another domain can write ever leaves this file. So the other side can change a byte in the page at any
//! time, but never a value that we have already checked. Memory that another domain can only read ([`TransmitPages`])
//! is treated as ordinary memory.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::abi::PAGE_SIZE;

/// One 4 KiB page of shared memory, owned: the holder is its only user in this domain.
///
/// All accesses are atomic, so a concurrent write by the other side changes the data but is never undefined behaviour.
/// Offsets are in bytes; an access outside the page panics.
#[derive(Debug)]
pub struct SharedPage {
    base: NonNull<u8>,
}

/// The words from which on they are copied by one instruction.
#[cfg(target_arch = "x86_64")]
const LONG: usize = 16;

/// Copies words, each as a whole.
///
/// # Safety
/// Both places have `count` words, those at `from` may be read and those at `to` written, and they do not overlap.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
unsafe fn copy_words(from: *const u64, to: *mut u64, count: usize) {
    // SAFETY: by the caller; the direction flag is clear, as the ABI has it.
    unsafe {
        core::arch::asm!(
            "rep movsq",
            inout("rcx") count => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags)
        );
    }
}

/// Bytes to the next word.
#[inline(always)]
fn unaligned(offset: usize) -> usize {
    offset.wrapping_neg() & 7
}

macro_rules! cell {
    ($name:ident, $atomic:ty) => {
        #[inline(always)]
        fn $name(&self, offset: usize) -> &$atomic {
            const SIZE: usize = size_of::<$atomic>();
            assert!(offset.is_multiple_of(SIZE) && offset <= PAGE_SIZE - SIZE);
            // SAFETY: by `from_raw` the page is mapped for as long as `self` lives, and by
            // the assertion the cell is aligned and lies inside it.
            let cell = unsafe { self.base.add(offset) };
            // SAFETY: as above; all accesses on our side are atomic, and the
            // other side is not part of this program's abstract machine.
            unsafe { <$atomic>::from_ptr(cell.as_ptr().cast()) }
        }
    };
}

impl SharedPage {
    /// Takes the page at `base`.
    ///
    /// # Safety
    /// `base` is 4 KiB aligned and mapped readable and writable for as long as
    /// the value lives (readable alone, if nobody writes), and nothing else in this program reaches the page but
    /// through `SharedPage`s.
    #[must_use]
    pub const unsafe fn from_raw(base: NonNull<u8>) -> Self {
        Self { base }
    }

    /// The page's address, for the hypervisor to translate into a gfn.
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.base
    }

    cell!(cell16, AtomicU16);
    cell!(cell32, AtomicU32);
    cell!(cell64, AtomicU64);

    /// Loads a word; later accesses stay later.
    #[inline(always)]
    #[must_use]
    pub fn load_acquire(&self, offset: usize) -> u32 {
        self.cell32(offset).load(Ordering::Acquire)
    }

    /// Loads a word again after all earlier loads (a sequence lock's second look).
    #[inline(always)]
    #[must_use]
    pub fn reload_after(&self, offset: usize) -> u32 {
        core::sync::atomic::fence(Ordering::Acquire);
        self.cell32(offset).load(Ordering::Relaxed)
    }

    /// Stores a word; earlier accesses stay earlier.
    #[inline(always)]
    pub fn store_release(&self, offset: usize, value: u32) {
        self.cell32(offset).store(value, Ordering::Release);
    }

    /// Stores a word and makes it visible before any later load (`xen_mb`).
    #[inline(always)]
    pub fn store_fence(&self, offset: usize, value: u32) {
        self.cell32(offset).store(value, Ordering::Release);
        core::sync::atomic::fence(Ordering::SeqCst);
    }

    /// Loads a 64-bit word without ordering.
    #[inline(always)]
    #[must_use]
    pub fn load64(&self, offset: usize) -> u64 {
        self.cell64(offset).load(Ordering::Relaxed)
    }

    /// Stores a 64-bit word without ordering.
    #[inline(always)]
    pub fn store64(&self, offset: usize, value: u64) {
        self.cell64(offset).store(value, Ordering::Relaxed);
    }

    /// Clears the bits of `mask` in a 64-bit word and returns the old value.
    #[inline(always)]
    pub fn fetch_clear64(&self, offset: usize, mask: u64) -> u64 {
        self.cell64(offset).fetch_and(!mask, Ordering::AcqRel)
    }

    /// Replaces a 16-bit word if it still is `current`, and returns the old value.
    ///
    /// # Errors
    /// The value found, when it is not `current`.
    #[inline(always)]
    pub fn compare_exchange16(&self, offset: usize, current: u16, new: u16) -> Result<u16, u16> {
        self.cell16(offset)
            .compare_exchange(current, new, Ordering::AcqRel, Ordering::Acquire)
    }

    /// Loads a 16-bit word; later accesses stay later.
    #[inline(always)]
    #[must_use]
    pub fn load16(&self, offset: usize) -> u16 {
        self.cell16(offset).load(Ordering::Acquire)
    }

    /// Stores a 16-bit word; earlier accesses stay earlier.
    #[inline(always)]
    pub fn store16(&self, offset: usize, value: u16) {
        self.cell16(offset).store(value, Ordering::Release);
    }

    /// Copies a value out, word by word; `offset` and the size of `T` are multiples of four.
    ///
    /// Another size does not compile:
    /// ```compile_fail,E0080
    /// let _: fn(&mayfly_drivers::SharedPage, usize) -> [u8; 6] = mayfly_drivers::SharedPage::read;
    /// ```
    #[inline(always)]
    #[must_use]
    pub fn read<T: FromBytes + IntoBytes>(&self, offset: usize) -> T {
        const { assert!(size_of::<T>().is_multiple_of(4)) };
        let mut value = T::new_zeroed();
        for (i, chunk) in value.as_mut_bytes().chunks_exact_mut(4).enumerate() {
            let word = self.cell32(offset + 4 * i).load(Ordering::Relaxed);
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        value
    }

    /// Copies a value in, word by word; `offset` and the size of `T` are multiples of four.
    ///
    /// Another size does not compile:
    /// ```compile_fail,E0080
    /// let _: fn(&mayfly_drivers::SharedPage, usize, &[u8; 6]) = mayfly_drivers::SharedPage::write;
    /// ```
    #[inline(always)]
    pub fn write<T: IntoBytes + Immutable>(&self, offset: usize, value: &T) {
        const { assert!(size_of::<T>().is_multiple_of(4)) };
        for (i, chunk) in value.as_bytes().chunks_exact(4).enumerate() {
            let word = u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]]);
            self.cell32(offset + 4 * i).store(word, Ordering::Relaxed);
        }
    }

    /// The page as words.
    #[inline(always)]
    fn words(&self) -> &[AtomicU64; PAGE_SIZE / 8] {
        // SAFETY: by `from_raw` the page is mapped while `self` lives, and aligned; all accesses on our side
        // are atomic, and the other side is not part of this program's abstract machine.
        unsafe { self.base.cast().as_ref() }
    }

    /// Copies bytes out, from any offset.
    pub fn copy_out(&self, offset: usize, to: &mut [u8]) {
        assert!(offset <= PAGE_SIZE && to.len() <= PAGE_SIZE - offset);
        let (head, rest) = to.split_at_mut(unaligned(offset).min(to.len()));
        self.copy_out_of_word(offset, head);
        let at = offset + head.len();
        let (words, tail) = rest.as_chunks_mut::<8>();
        let from = self.words().get(at / 8..).unwrap_or(&[]);
        #[cfg(target_arch = "x86_64")]
        if words.len() >= LONG && words.len() <= from.len() {
            // SAFETY: both have this many words. Assembly is not part of the abstract machine either, so that the other
            // side may write at the same time.
            unsafe { copy_words(from.as_ptr().cast(), words.as_mut_ptr().cast(), words.len()) };
            return self.copy_out_of_word(at + 8 * words.len(), tail);
        }
        for (word, from) in words.iter_mut().zip(from) {
            *word = from.load(Ordering::Relaxed).to_le_bytes();
        }
        self.copy_out_of_word(at + 8 * words.len(), tail);
    }

    /// Copies bytes in, to any offset.
    pub fn copy_in(&self, offset: usize, from: &[u8]) {
        assert!(offset <= PAGE_SIZE && from.len() <= PAGE_SIZE - offset);
        let (head, rest) = from.split_at(unaligned(offset).min(from.len()));
        self.copy_into_word(offset, head);
        let at = offset + head.len();
        let (words, tail) = rest.as_chunks::<8>();
        let to = self.words().get(at / 8..).unwrap_or(&[]);
        #[cfg(target_arch = "x86_64")]
        if words.len() >= LONG && words.len() <= to.len() {
            // SAFETY: as in `copy_out`; the words of the page are atomic, so a shared reference is enough to write them.
            unsafe {
                copy_words(
                    words.as_ptr().cast(),
                    to.as_ptr().cast_mut().cast(),
                    words.len(),
                )
            };
            return self.copy_into_word(at + 8 * words.len(), tail);
        }
        for (word, to) in words.iter().zip(to) {
            to.store(u64::from_le_bytes(*word), Ordering::Relaxed);
        }
        self.copy_into_word(at + 8 * words.len(), tail);
    }

    /// Copies bytes out of a single word.
    fn copy_out_of_word(&self, offset: usize, to: &mut [u8]) {
        if !to.is_empty() {
            let word = self.cell64(offset & !7).load(Ordering::Relaxed);
            let skip = offset & 7;
            to.copy_from_slice(&word.to_le_bytes()[skip..skip + to.len()]);
        }
    }

    /// Copies bytes into a single word. Its other bytes are kept: they may be ours from an earlier call.
    fn copy_into_word(&self, offset: usize, from: &[u8]) {
        if !from.is_empty() {
            let cell = self.cell64(offset & !7);
            let mut word = cell.load(Ordering::Relaxed).to_le_bytes();
            let skip = offset & 7;
            word[skip..skip + from.len()].copy_from_slice(from);
            cell.store(u64::from_le_bytes(word), Ordering::Relaxed);
        }
    }

    /// Zeroes the page, so that the other side never sees older content.
    pub fn zero(&self) {
        for offset in (0..PAGE_SIZE).step_by(8) {
            self.store64(offset, 0);
        }
    }

    /// A second handle on the same page, for the other side of the fake.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    pub fn alias(&self) -> Self {
        Self { base: self.base }
    }

    /// A zeroed page of ordinary memory, never freed.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    #[allow(clippy::expect_used, reason = "host-side test code")]
    pub fn leak() -> Self {
        Self::leak_many(1).next().expect("one page")
    }

    /// Zeroed, consecutive pages of ordinary memory, never freed. They are the guest's memory in tests.
    #[cfg(any(test, feature = "fake"))]
    pub fn leak_many(count: usize) -> impl Iterator<Item = Self> {
        #[derive(Clone)]
        #[repr(align(4096))]
        struct Page(#[allow(dead_code, reason = "only its address is used")] [u8; PAGE_SIZE]);
        let pages = std::vec![Page([0; PAGE_SIZE]); count].leak();
        let base = NonNull::from(pages).cast::<u8>();
        (0..count).map(move |index| {
            // SAFETY: inside the pages that were just leaked.
            let page = unsafe { base.add(index * PAGE_SIZE) };
            // SAFETY: leaked, so mapped for good; whoever asks for a second handle asks for an alias.
            unsafe { Self::from_raw(page) }
        })
    }
}

/// Consecutive pages in which frames are composed. Other domains may be granted read access to them, never write
/// access.
///
/// Memory that another domain cannot write may be borrowed as ordinary bytes. If the other domain reads them while they
/// are written, it reads garbage, which harms only itself.
#[derive(Debug)]
pub struct TransmitPages {
    base: NonNull<u8>,
    count: usize,
}

impl TransmitPages {
    /// Takes `count` pages at `base`.
    ///
    /// # Safety
    /// `base` is 4 KiB aligned, `count` pages from there are mapped readable and writable for the
    /// rest of the program and hold some value, nothing else in this program reaches them, and
    /// no other domain is ever granted to write them.
    #[must_use]
    pub const unsafe fn from_raw(base: NonNull<u8>, count: usize) -> Self {
        Self { base, count }
    }

    /// `count` pages of a slab that [`SharedPage::leak_many`] made, from `first` on.
    #[cfg(any(test, feature = "fake"))]
    #[must_use]
    pub(crate) fn in_slab(first: &SharedPage, count: usize) -> Self {
        Self {
            base: first.base,
            count,
        }
    }

    /// The number of pages.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// A page's address, for the hypervisor to translate into a gfn.
    #[must_use]
    pub fn address(&self, page: usize) -> NonNull<u8> {
        assert!(page < self.count);
        // SAFETY: inside the pages, by the assertion.
        unsafe { self.base.add(page * PAGE_SIZE) }
    }

    /// The first `len` bytes from a page on.
    #[inline]
    pub fn bytes(&mut self, page: usize, len: usize) -> &mut [u8] {
        let start = self.address(page);
        assert!(len <= (self.count - page) * PAGE_SIZE);
        // SAFETY: inside the pages, by the assertions, which are ours alone by `from_raw`.
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn copies_at_any_offset_and_length_touch_nothing_else() {
        let page = SharedPage::leak();
        for offset in [0, 1, 7, 8, 9, 2043, 4061] {
            for len in 0..=35 {
                page.zero();
                let data: vec::Vec<u8> = (1..=len).collect();
                page.copy_in(offset, &data);
                let mut all = vec![0; PAGE_SIZE];
                page.copy_out(0, &mut all);
                assert_eq!(&all[offset..offset + data.len()], &data[..]);
                assert_eq!(all.iter().filter(|&&b| b != 0).count(), data.len());
                let mut back = vec![0; data.len()];
                page.copy_out(offset, &mut back);
                assert_eq!(back, data);
            }
        }
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn a_copy_past_the_page_is_refused() {
        SharedPage::leak().copy_in(4090, &[0; 7]);
    }
}

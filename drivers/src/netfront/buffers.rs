//! The pages in which frames are composed.
//!
//! The back end can read them and not write them. Each is granted when it is first used and stays
//! granted as long as the link lives, so no frame costs a grant operation.

use alloc::vec::Vec;

use super::types::LinkError;
use crate::abi::{NET_TX_RING_SIZE, PAGE_SIZE, XEN_NETIF_NR_SLOTS_MIN};
use crate::grant::{GrantError, GrantTable};
use crate::{DomId, GrantRef, Hypervisor, TransmitPages};

/// The greatest number of pages of a frame. (Its length must also fit 16 bits.)
const FRAME_PAGES: usize = 16;
const _: () = assert!(FRAME_PAGES <= XEN_NETIF_NR_SLOTS_MIN);

/// Pages in one word of a [`PageSet`]. A frame's pages lie in one word.
const WORD: usize = u64::BITS as usize;

/// A set of the buffers' pages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct PageSet([u64; NET_TX_RING_SIZE as usize / WORD]);

/// The bits of `count` pages in the word that they lie in.
#[inline]
fn bits(page: usize, count: usize) -> u64 {
    (u64::MAX >> (WORD - count.clamp(1, WORD))) << (page % WORD)
}

impl PageSet {
    /// The first `count` pages.
    fn first(count: usize) -> Self {
        let mut set = Self::default();
        for (index, word) in set.0.iter_mut().enumerate() {
            let here = count.saturating_sub(WORD * index).min(WORD);
            if here > 0 {
                *word = bits(0, here);
            }
        }
        set
    }

    /// Adds `count` pages that lie in one word.
    #[inline]
    fn insert(&mut self, page: usize, count: usize) {
        if let Some(word) = self.0.get_mut(page / WORD) {
            *word |= bits(page, count);
        }
    }

    /// Takes out `count` pages that lie in one word.
    #[inline]
    pub(super) fn remove(&mut self, page: usize, count: usize) {
        if let Some(word) = self.0.get_mut(page / WORD) {
            *word &= !bits(page, count);
        }
    }

    /// Whether a page is in the set.
    #[inline]
    fn contains(&self, page: usize) -> bool {
        let word = self.0.get(page / WORD);
        word.is_some_and(|word| word & bits(page, 1) != 0)
    }

    /// Adds a page if it is in `all` and not yet in the set; returns whether it did.
    #[inline]
    pub(super) fn return_page(&mut self, page: usize, all: &Self) -> bool {
        let returns = all.contains(page) && !self.contains(page);
        if returns {
            self.insert(page, 1);
        }
        returns
    }

    /// The pages that are in both sets.
    pub(super) fn and(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word &= other;
        }
        self
    }

    /// The pages that are in either set.
    pub(super) fn or(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
        self
    }

    /// The pages of this set that are not in `other`.
    pub(super) fn without(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word &= !other;
        }
        self
    }

    /// The number of pages in the set.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The first of `count` consecutive pages.
    #[inline]
    pub(super) fn find(&self, count: usize) -> Option<usize> {
        if count <= 1 {
            // The lowest pages, which are used the most, are in the cache.
            let (index, word) = self.0.iter().enumerate().find(|(_, word)| **word != 0)?;
            return Some(WORD * index + word.trailing_zeros() as usize);
        }
        // Search from the other end, so that short frames leave long runs alone.
        self.0.iter().enumerate().rev().find_map(|(index, &word)| {
            // A bit stays set if the pages above it are in the set as well.
            let run = (1..count).fold(word, |run, above| run & word >> above);
            (run != 0).then(|| WORD * index + WORD - 1 - run.leading_zeros() as usize)
        })
    }
}

/// The pages that frames are composed in. They outlive a link.
#[derive(Debug)]
pub(super) struct Buffers {
    pages: TransmitPages,
    /// The grant of each page that has one.
    grants: Vec<Option<GrantRef>>,
    /// Pages that an earlier back end still has mapped.
    held: PageSet,
    /// Pages for which no grant was left.
    ungranted: PageSet,
    /// Whether each page is zeroed before it is granted.
    scrub: bool,
}

impl Buffers {
    /// Takes `count` consecutive pages from the kernel, 256 at most.
    pub(super) fn new(xen: &impl Hypervisor, count: usize) -> Result<Self, LinkError> {
        let count = count.clamp(1, NET_TX_RING_SIZE as usize);
        let pages = xen.transmit_pages(count).ok_or(LinkError::NoMemory)?;
        let mut grants = Vec::with_capacity(count);
        grants.resize(count, None);
        Ok(Self {
            pages,
            grants,
            held: PageSet::default(),
            ungranted: PageSet::default(),
            scrub: false,
        })
    }

    /// The number of pages of the longest frame that may be sent; a quarter of the buffers at most, so that several
    /// frames fit at once.
    pub(super) fn frame_pages(&self) -> usize {
        let most = (self.grants.len() / 4).clamp(1, FRAME_PAGES);
        if self.held == PageSet::default() && self.ungranted == PageSet::default() {
            return most;
        }
        // The pages that cannot be used may have left short runs only.
        let usable = self.usable();
        let longest = (1..=most).rev().find(|&run| usable.find(run).is_some());
        longest.unwrap_or(1)
    }

    /// The grant of a page, made if it has none yet.
    pub(super) fn grant(
        &mut self,
        xen: &impl Hypervisor,
        grants: &mut GrantTable,
        domain: DomId,
        page: usize,
    ) -> Result<GrantRef, GrantError> {
        match self.grants.get(page) {
            Some(Some(grant)) => return Ok(*grant),
            Some(None) => {}
            None => return Err(GrantError::Frame),
        }
        if self.scrub {
            self.pages.bytes(page, PAGE_SIZE).fill(0);
        }
        let grant = grants.grant_transmit(xen, domain, &self.pages, page)?;
        if let Some(slot) = self.grants.get_mut(page) {
            *slot = Some(grant);
        }
        Ok(grant)
    }

    /// Grants all usable pages, or as many as the grant table has entries for.
    pub(super) fn grant_all(
        &mut self,
        xen: &impl Hypervisor,
        grants: &mut GrantTable,
        domain: DomId,
    ) -> Result<(), GrantError> {
        (0..self.grants.len()).try_for_each(|page| self.grant(xen, grants, domain, page).map(drop))
    }

    /// The grant of a page, if it has one.
    #[inline]
    pub(super) fn granted(&self, page: usize) -> Option<GrantRef> {
        self.grants.get(page).copied().flatten()
    }

    /// Gives up the pages without a grant, because no grant is left.
    pub(super) fn give_up_ungranted(&mut self) {
        for (page, _) in self.grants.iter().enumerate().filter(|(_, g)| g.is_none()) {
            self.ungranted.insert(page, 1);
        }
    }

    /// Ends all grants. A page that is still mapped is held back until it is unmapped.
    pub(super) fn revoke(&mut self, grants: &mut GrantTable) {
        for (page, grant) in self.grants.iter().enumerate() {
            if grant.is_some() {
                self.held.insert(page, 1);
            }
        }
        self.scrub = true;
        self.reclaim(grants);
    }

    /// Returns held pages that are no longer mapped, and allows another attempt to grant pages that have no grant.
    pub(super) fn reclaim(&mut self, grants: &mut GrantTable) {
        self.ungranted = PageSet::default();
        if self.held == PageSet::default() {
            return;
        }
        for (page, slot) in self.grants.iter_mut().enumerate() {
            if self.held.contains(page) && slot.is_none_or(|grant| grants.end(grant).is_ok()) {
                *slot = None;
                self.held.remove(page, 1);
            }
        }
    }

    /// Whether any page can be used.
    pub(super) fn has_any(&self) -> bool {
        self.usable() != PageSet::default()
    }

    /// The number of pages that are held back.
    pub(super) fn held(&self) -> usize {
        self.held.len()
    }

    /// The usable pages.
    pub(super) fn usable(&self) -> PageSet {
        let all = PageSet::first(self.grants.len());
        all.without(&self.held).without(&self.ungranted)
    }

    /// The first `length` bytes from a page on.
    #[inline]
    pub(super) fn bytes(&mut self, page: usize, length: usize) -> &mut [u8] {
        self.pages.bytes(page, length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_in_one_word_from_either_end() {
        let mut set = PageSet::first(100);
        assert_eq!((set.len(), set.find(1)), (100, Some(0)));
        assert_eq!(set.find(16), Some(84));
        assert_eq!(set.find(37), Some(27), "not across the words");
        set.remove(84, 16);
        assert_eq!(set.find(16), Some(68));
        assert!(set.return_page(90, &PageSet::first(100)));
        assert!(!set.return_page(90, &PageSet::first(100)), "it is there");
        assert!(!set.return_page(100, &PageSet::first(100)));
        assert!(!set.return_page(usize::MAX, &PageSet::first(256)));
        assert_eq!(PageSet::first(256).find(64), Some(192));
        assert_eq!(PageSet::default().find(1), None);
    }
}

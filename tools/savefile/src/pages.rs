//! The record PAGE_DATA: pages of the guest, in batches.

use crate::error::Error;
use crate::format;
use crate::read::Fields;

/// The size of a page in bytes.
pub const PAGE: usize = 4096;
/// The number of pages that a batch of a writer has at most.
pub const PFNS_MAX: usize = 1024;

/// A page of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavedPage<'a> {
    /// Its gfn.
    pub gfn: u64,
    /// Its content; `None` if it was never written, or is all zeros.
    pub content: Option<&'a [u8]>,
}

/// The pages of a record, whose lengths were checked.
#[derive(Debug, Clone, Copy)]
pub struct SavedPages<'a> {
    entries: &'a [u8],
    content: &'a [u8],
}

impl<'a> SavedPages<'a> {
    /// Checks the body of a record. Its pages are below `end`.
    pub(crate) fn parse(body: &'a [u8], end: u64, at: u64) -> Result<Self, Error> {
        let invalid = |what: String| Error::invalid(at, format!("PAGE_DATA {what}"));
        let short = || invalid("is shorter than its entries".to_owned());
        let mut fields = Fields(body);
        let count = fields.u32().ok_or_else(short)?;
        let reserved = fields.u32().ok_or_else(short)?;
        if count == 0 || reserved != 0 {
            return Err(invalid(format!(
                "has {count} pages, and {reserved:#x} is reserved"
            )));
        }
        let length = usize::try_from(count)
            .ok()
            .and_then(|count| count.checked_mul(8));
        let entries = length
            .and_then(|length| fields.slice(length))
            .ok_or_else(short)?;
        let mut filled = 0_usize;
        for entry in numbers(entries) {
            let (kind, gfn) = (entry >> format::TYPE_SHIFT, entry & format::PFN_MASK);
            if entry != kind << format::TYPE_SHIFT | gfn {
                return Err(invalid(format!("has reserved bits in {entry:#x}")));
            }
            match kind {
                format::NOTAB => filled += 1,
                format::XALLOC | format::XTAB | format::BROKEN => {}
                _ => {
                    return Err(invalid(format!(
                        "has a page of type {kind:#x}, as PV guests do"
                    )));
                }
            }
            if gfn >= end && matches!(kind, format::NOTAB | format::XALLOC) {
                let what = format!("has page {gfn:#x}, and the guest's end at {end:#x}");
                return Err(invalid(what));
            }
        }
        let content = fields.0;
        if filled.checked_mul(PAGE) != Some(content.len()) {
            let length = content.len();
            return Err(invalid(format!("has {length} bytes for {filled} pages")));
        }
        Ok(Self { entries, content })
    }

    /// The pages that the guest has. Frames without a page are left out.
    pub fn iter(&self) -> impl Iterator<Item = SavedPage<'a>> + use<'a> {
        let mut contents = self.content.chunks_exact(PAGE);
        numbers(self.entries).filter_map(move |entry| {
            let gfn = entry & format::PFN_MASK;
            match entry >> format::TYPE_SHIFT {
                format::NOTAB => Some(SavedPage {
                    gfn,
                    content: contents.next(),
                }),
                format::XALLOC => Some(SavedPage { gfn, content: None }),
                _ => None,
            }
        })
    }
}

fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + use<'_> {
    let (numbers, _) = bytes.as_chunks();
    numbers.iter().map(|number| u64::from_le_bytes(*number))
}

/// Pages that are to be written as one record.
#[derive(Debug, Default)]
pub struct PageBatch {
    pub(crate) entries: Vec<u8>,
    pub(crate) content: Vec<u8>,
}

impl PageBatch {
    /// The number of its pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() / 8
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it has [`PFNS_MAX`] pages.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len() >= PFNS_MAX
    }

    /// Adds a page of zeros, which the file has no content of.
    pub fn zeros(&mut self, gfn: u64) {
        self.entry(format::XALLOC, gfn);
    }

    /// Adds a page; its content has to be copied into the slice.
    pub fn page(&mut self, gfn: u64) -> &mut [u8] {
        self.entry(format::NOTAB, gfn);
        let start = self.content.len();
        self.content.resize(start + PAGE, 0);
        self.content.get_mut(start..).unwrap_or_default()
    }

    fn entry(&mut self, kind: u64, gfn: u64) {
        let entry = kind << format::TYPE_SHIFT | gfn & format::PFN_MASK;
        self.entries.extend(entry.to_le_bytes());
    }
}

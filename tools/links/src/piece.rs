//! The pieces of a frame that the kernel gathers: bytes of this process, and of pages that a guest shares with it.

use std::ops::Range;

use mayfly_drivers::SharedPage;
use mayfly_drivers::abi::PAGE_SIZE;

/// A piece of a frame. The kernel reads it when the frame is written, and copies it then.
#[derive(Clone, Copy, Debug)]
pub enum Piece<'a> {
    /// Bytes of this process.
    Bytes(&'a [u8]),
    /// Bytes of a page that the guest may change until they are copied.
    Shared(&'a SharedPage, Extent),
}

/// A range of bytes within a page.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    offset: usize,
    length: usize,
}

impl<'a> Piece<'a> {
    /// Bytes of a page; `None` if the range is not within it.
    #[must_use]
    pub fn of_page(page: &'a SharedPage, range: Range<usize>) -> Option<Self> {
        let length = range.end.checked_sub(range.start)?;
        let extent = Extent {
            offset: range.start,
            length,
        };
        (range.end <= PAGE_SIZE).then_some(Self::Shared(page, extent))
    }

    /// The number of bytes.
    #[must_use]
    pub fn length(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Shared(_, extent) => extent.length,
        }
    }

    /// Copies the bytes. What does not fit is left out.
    pub fn copy_to(&self, to: &mut [u8]) {
        let length = self.length().min(to.len());
        let to = to.get_mut(..length).unwrap_or_default();
        match self {
            Self::Bytes(bytes) => to.copy_from_slice(bytes.get(..length).unwrap_or_default()),
            Self::Shared(page, extent) => page.copy_out(extent.offset, to),
        }
    }

    /// The piece's address and length, valid for as long as what it borrows.
    pub(crate) fn vector(&self) -> libc::iovec {
        match self {
            Self::Bytes(bytes) => libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            },
            Self::Shared(page, extent) => libc::iovec {
                iov_base: page.address().as_ptr().wrapping_add(extent.offset).cast(),
                iov_len: extent.length,
            },
        }
    }
}

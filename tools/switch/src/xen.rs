//! The traits through which the switch uses Xen and bridges; dom0's devices implement them, and fakes in tests.

use std::io;

use mayfly_drivers::SharedPage;
pub use mayfly_links::Piece;

/// The size of a page, in bytes.
pub(crate) const PAGE: usize = mayfly_drivers::abi::PAGE_SIZE;

/// The access to pages of a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read only, as for transmit buffers, which guests may grant read-only.
    Read,
    /// Read and write.
    Write,
}

/// The direction of a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the guest's pages to the buffer.
    FromGuest,
    /// From the buffer to the guest's pages.
    ToGuest,
}

/// One part of a copy: bytes in one page of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The page's grant reference.
    pub reference: u32,
    /// The offset in the page, in bytes.
    pub offset: u16,
    /// The number of bytes; `offset + length` is at most a page.
    pub length: u16,
    /// The offset in the buffer, in bytes.
    pub at: usize,
    /// Whether Xen has copied them.
    pub is_done: bool,
}

/// Pages of a guest that are mapped for as long as this lives.
pub trait Pages {
    /// A page, by its index in the list of grant references.
    fn page(&self, index: usize) -> Option<&SharedPage>;
}

/// Grants and event channels (Linux `xen/gntdev.h` and `xen/evtchn.h`).
pub trait Xen {
    /// Mapped pages.
    type Mapping: Pages;

    /// Maps granted pages of a domain.
    ///
    /// # Errors
    /// A page is not granted, or the kernel has no memory.
    fn map(&self, domain: u16, references: &[u32], access: Access) -> io::Result<Self::Mapping>;

    /// Copies all segments in one call, and sets [`Segment::is_done`] of each.
    ///
    /// # Errors
    /// The call itself failed: nothing was copied.
    fn copy(
        &self,
        domain: u16,
        direction: Direction,
        segments: &mut [Segment],
        buffer: &mut [u8],
    ) -> io::Result<()>;

    /// Binds to an event channel that a domain has allocated for dom0, and returns the local port.
    ///
    /// # Errors
    /// There is no such event channel.
    fn bind(&self, domain: u16, port: u32) -> io::Result<u32>;

    /// Closes a port. It can fail only if the port does not exist any more.
    fn unbind(&self, port: u32);

    /// Notifies the other end. It can fail only if the port does not exist any more.
    fn notify(&self, port: u32);

    /// Unmasks these ports, each of which has had an event.
    fn unmask(&self, ports: &[u32]);
}

/// A port on a bridge: each read and write is one frame, after a header of [`crate::vnet::SIZE`] bytes.
pub trait Wire {
    /// Reads frames, header first, at most one into each buffer. Calls `done` for each, in their order, with the index of
    /// its buffer and the length of both; a frame that is longer than its buffer is cut. Returns whether there may be
    /// more.
    ///
    /// # Errors
    /// The port does not exist any more, or was set down.
    fn read(
        &mut self,
        buffers: &mut [&mut [u8]],
        done: &mut dyn FnMut(usize, usize),
    ) -> io::Result<bool>;

    /// Sends frames to the bridge, each after its header, in their order; a frame is all of its pieces together. Calls `done` for each, with its index and
    /// whether the bridge has taken it.
    fn write(&mut self, frames: &[&[Piece<'_>]], done: &mut dyn FnMut(usize, bool));
}

//! The traits through which the switch uses Xen and bridges; dom0's devices implement them, and fakes in tests.

use std::io;

use mayfly_drivers::SharedPage;

/// Bytes of a page.
pub(crate) const PAGE: usize = mayfly_drivers::abi::PAGE_SIZE;

/// Whether pages of a guest are only read, or written as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Read, as transmit buffers are, which guests may grant for reading alone.
    Read,
    /// Read and written.
    Write,
}

/// Which way a copy goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the guest's pages into our buffer.
    FromGuest,
    /// From our buffer into the guest's pages.
    ToGuest,
}

/// One part of a copy: bytes that lie in one page of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// The page's grant reference.
    pub reference: u32,
    /// Where the bytes begin in the page.
    pub offset: u16,
    /// How many they are; `offset + length` is at most a page.
    pub length: u16,
    /// Where they begin in our buffer.
    pub at: usize,
    /// Whether Xen has copied them.
    pub is_done: bool,
}

/// Pages of a guest that are mapped for as long as this lives.
pub trait Pages {
    /// One of them, in the order in which their grants were named.
    fn page(&self, index: usize) -> Option<&SharedPage>;
}

/// Grants and event channels (Linux `xen/gntdev.h` and `xen/evtchn.h`).
pub trait Xen {
    /// Pages that are mapped.
    type Mapping: Pages;

    /// Maps granted pages of a domain.
    ///
    /// # Errors
    /// One of them is not granted, or the kernel has no room.
    fn map(&self, domain: u16, references: &[u32], access: Access) -> io::Result<Self::Mapping>;

    /// Copies all segments in one call, and says of each whether it was done.
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

    /// Binds to an event channel that a domain has left unbound for us, and gives our own port.
    ///
    /// # Errors
    /// There is no such channel.
    fn bind(&self, domain: u16, port: u32) -> io::Result<u32>;

    /// Gives a port up. It can fail only if the port is not there any more.
    fn unbind(&self, port: u32);

    /// Notifies the other end. It can fail only if the port is not there any more.
    fn notify(&self, port: u32);

    /// Lets events of these ports come again, each of which has come before.
    fn unmask(&self, ports: &[u32]);
}

/// A port on a bridge: a frame for each read and write, behind a header of [`crate::vnet::SIZE`] bytes.
pub trait Wire {
    /// Reads a frame into the buffer, header first, and gives the length of both; nothing when none is there.
    ///
    /// # Errors
    /// The port is not there any more, or was set down.
    fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>>;

    /// Gives a frame to the bridge, with its header.
    ///
    /// # Errors
    /// The bridge does not take it.
    fn write(&self, frame: &[u8]) -> io::Result<()>;
}

//! Compression pointers (RFC 1035 section 4.1.4).

/// The first offset that a pointer cannot express.
pub(super) const POINTER_END: usize = 0x4000;

/// The owner of a record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner<'z> {
    /// The name that is at this offset of the message.
    At(usize),
    /// A name in wire form.
    Name(&'z [u8]),
}

/// Whether a pointer can express an offset.
pub(super) fn can_point_to(at: usize) -> bool {
    at < POINTER_END
}

/// The offset in a pointer of these two bytes.
pub(super) fn target_of(high: u8, low: u8) -> usize {
    usize::from(u16::from_be_bytes([high & 0x3f, low]))
}

/// The pointer to an offset.
pub(super) fn pointer(at: usize) -> [u8; 2] {
    // All offsets given here are below `POINTER_END`.
    (u16::try_from(at).unwrap_or(0) | 0xc000).to_be_bytes()
}

//! The ELF note by which an image says that its guest takes a connected network ([`crate::network`]).
//!
//! The image's entry code puts [`NOTE`] into its section `.note.mayfly`, which the linker script gives a `PT_NOTE`
//! segment. A toolstack looks there for a note of this name and type, and compares the version.
//! In an image with the note, the flag [`SCRATCH`] of a segment has its meaning.

/// The name of the note, without the NUL that terminates it in the ELF file.
pub const NAME: &[u8] = b"mayfly";
/// The type of the note.
pub const TYPE: u32 = 1;
/// The version of [`crate::network::Preconnected`] that the guest knows: the note's descriptor, 32 bits little endian.
pub const VERSION: u32 = 1;

/// The flag (`p_flags`, in `PF_MASKOS`) of a `PT_LOAD` segment without contents in the file that need not be zeroed: the
/// guest writes there before it reads. Other loaders zero it, which does no harm.
pub const SCRATCH: u32 = 0x0010_0000;

/// A note as it is stored in the file (ELF gABI, "Note Section"): sizes, type, name and descriptor. The name is padded
/// with NULs to a multiple of 4 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Note {
    name_size: u32,
    descriptor_size: u32,
    note_type: u32,
    name: [u8; PADDED],
    version: u32,
}

const NAME_SIZE: usize = NAME.len() + 1;
const PADDED: usize = NAME_SIZE.next_multiple_of(4);
// The linker script asserts the size of all notes together.
const _: () = assert!(size_of::<Note>() == 24 && align_of::<Note>() == 4);

/// The note of a guest that knows [`VERSION`].
#[allow(clippy::cast_possible_truncation, reason = "seven bytes")]
pub const NOTE: Note = Note {
    name_size: NAME_SIZE as u32,
    descriptor_size: size_of::<u32>() as u32,
    note_type: TYPE,
    name: padded(),
    version: VERSION,
};

const fn padded() -> [u8; PADDED] {
    let mut name = [0; PADDED];
    let (text, _) = name.split_at_mut(NAME.len());
    text.copy_from_slice(NAME);
    name
}

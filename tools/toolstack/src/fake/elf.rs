//! Builds an ELF image byte by byte.

/// A file with an ELF header, three program headers (code, data, notes) and space for the bytes.
pub struct Elf {
    /// The file's contents.
    pub bytes: Vec<u8>,
}

/// The offset of program header `n`, in bytes.
pub(crate) fn program(n: usize) -> usize {
    64 + n * 56
}

/// The offset of the notes, in bytes.
pub(crate) const NOTES: usize = 0x200;

impl Elf {
    /// An image whose headers are right: it takes a network that is connected beforehand.
    #[must_use]
    pub fn new() -> Self {
        let mut elf = Self {
            bytes: vec![0; 0x2000],
        };
        elf.put(0, b"\x7fELF\x02\x01\x01");
        elf.put16(16, 2); // ET_EXEC
        elf.put16(18, 62); // EM_X86_64
        elf.put32(20, 1);
        elf.put64(32, 64); // e_phoff
        elf.put16(52, 64);
        elf.put16(54, 56);
        elf.put16(56, 3);
        elf.program(0, 1, 5, 0x1000, 0x10_0000, 0x800, 0x800);
        elf.program(1, 1, 6, 0x1800, 0x10_1000, 0x100, 0x5000);
        elf.program(2, 4, 4, NOTES as u64, 0x10_0000, 44, 44);
        elf.note(NOTES, b"Xen\0", 18, 0x10_0010);
        elf.note(NOTES + 20, b"mayfly\0\0", 1, 1);
        elf.put32(NOTES + 20, 7);
        elf
    }

    pub(crate) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn put16(&mut self, at: usize, value: u16) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn put32(&mut self, at: usize, value: u32) {
        self.put(at, &value.to_le_bytes());
    }

    pub(crate) fn put64(&mut self, at: usize, value: u64) {
        self.put(at, &value.to_le_bytes());
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of a program header")]
    pub(crate) fn program(
        &mut self,
        n: usize,
        kind: u32,
        flags: u32,
        offset: u64,
        address: u64,
        file: u64,
        memory: u64,
    ) {
        let at = program(n);
        self.put32(at, kind);
        self.put32(at + 4, flags);
        for (n, value) in [offset, address, address, file, memory, 4]
            .into_iter()
            .enumerate()
        {
            self.put64(at + 8 + n * 8, value);
        }
    }

    /// Writes a note of four bytes; `name` is padded to a multiple of four.
    pub(crate) fn note(&mut self, at: usize, name: &[u8], kind: u32, value: u32) {
        self.put32(at, u32::try_from(name.len()).unwrap_or(u32::MAX));
        self.put32(at + 4, 4);
        self.put32(at + 8, kind);
        self.put(at + 12, name);
        self.put32(at + 12 + name.len(), value);
    }
}

impl Default for Elf {
    fn default() -> Self {
        Self::new()
    }
}

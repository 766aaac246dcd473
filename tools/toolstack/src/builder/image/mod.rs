//! A guest's image: an ELF file with a PVH entry point.
//!
//! Only the program headers and the notes are read. Nothing in them is trusted: sizes, offsets and addresses are
//! checked against the file and against each other here, and against the guest's memory by [`super::layout`].

use std::fs::{File, Metadata};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use mayfly_handoff::note;
use mayfly_xen::PAGE_SIZE;
use object::elf::{FileHeader32, FileHeader64, PF_X, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, FileKind, ReadCache, ReadRef};

use crate::host::Pages;

/// `XEN_ELFNOTE_PHYS32_ENTRY` (elfnote.h).
const PHYS32_ENTRY: u32 = 18;
/// The most program headers that an image may have.
const SEGMENTS_MAX: usize = 64;
/// The most bytes of an image's contents that are kept in memory.
const KEPT_MAX: u64 = 64 << 20;
/// The end of a guest's RAM, below the devices and special pages (libxl's HVM_BELOW_4G_RAM_END).
pub const RAM_MAX: u64 = 0xf000_0000;

/// An error in a guest's image.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file can't be read.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// The file is not an ELF file for x86, or is a compressed kernel.
    #[error("it is not an ELF file for x86{0}")]
    NotElf(&'static str),
    /// The headers contradict the file or each other.
    #[error("its ELF headers are wrong: {0}")]
    Headers(String),
    /// The file has no PVH entry.
    #[error("it has no Xen note of type 18 (XEN_ELFNOTE_PHYS32_ENTRY), and so no PVH entry")]
    NoEntry,
    /// The file has no segment to load.
    #[error("it has no segment to load")]
    Empty,
}

/// A part of the file and its place in the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// The physical addresses. The part beyond the file's bytes is zeroed.
    pub memory: Range<u64>,
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// The size in the file, in bytes.
    pub size: u64,
    /// Whether the guest writes to this memory before it reads it, so that nothing of it has to be zeroed
    /// ([`note::SCRATCH`]).
    pub is_scratch: bool,
}

/// The data of an image's headers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// The segments to be loaded, in the order of their addresses, without overlap.
    pub segments: Vec<Segment>,
    /// The entry point, a physical address.
    pub entry: u32,
    /// The version of the structure ([`mayfly_handoff::network`]) in which the image takes a connected network, if it
    /// does.
    pub preconnected: Option<u32>,
}

impl Headers {
    /// Reads and checks the headers.
    ///
    /// # Errors
    /// The first error found.
    pub fn parse<'data>(file: impl ReadRef<'data>) -> Result<Self, ImageError> {
        match FileKind::parse(file) {
            Ok(FileKind::Elf64) => parse::<FileHeader64<Endianness>>(file),
            Ok(FileKind::Elf32) => parse::<FileHeader32<Endianness>>(file),
            // A bzImage has the signature of its setup header.
            _ if file.read_bytes_at(0x202, 4) == Ok(b"HdrS") => Err(ImageError::NotElf(
                " (a compressed Linux kernel is not unpacked here: extract its vmlinux)",
            )),
            _ => Err(ImageError::NotElf("")),
        }
    }

    /// The addresses from the first segment to the end of the last one.
    #[must_use]
    pub fn memory(&self) -> Range<u64> {
        let start = self.segments.first().map_or(0, |first| first.memory.start);
        start..self.segments.last().map_or(start, |last| last.memory.end)
    }

    /// The segments that have contents, be these zeros.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = &Segment> {
        let segments = self.segments.iter();
        segments.filter(|segment| !segment.is_scratch)
    }

    /// The gfns of their pages, in order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = u64> {
        let page = PAGE_SIZE as u64;
        let mut next = 0;
        self.loaded().flat_map(move |segment| {
            // Two segments may share a page.
            let first = (segment.memory.start / page).max(next);
            next = segment.memory.end.div_ceil(page).max(first);
            first..next
        })
    }
}

fn wrong(what: impl Into<String>) -> ImageError {
    ImageError::Headers(what.into())
}

fn parse<'data, Elf: FileHeader<Endian = Endianness>>(
    file: impl ReadRef<'data>,
) -> Result<Headers, ImageError> {
    let header = Elf::parse(file).map_err(|error| wrong(error.to_string()))?;
    let endian = header.endian().map_err(|error| wrong(error.to_string()))?;
    if endian != Endianness::Little
        || !matches!(
            header.e_machine(endian),
            object::elf::EM_X86_64 | object::elf::EM_386
        )
    {
        return Err(ImageError::NotElf(", but for another CPU"));
    }
    let programs = header
        .program_headers(endian, file)
        .map_err(|error| wrong(error.to_string()))?;
    if programs.len() > SEGMENTS_MAX {
        return Err(wrong(format!(
            "{} program headers, at most {SEGMENTS_MAX}",
            programs.len()
        )));
    }
    let file_size = file.len().map_err(|()| wrong("the file has no length"))?;
    let mut segments = Vec::new();
    let mut code = Vec::new();
    let mut numbers = NoteNumbers::default();
    for program in programs {
        if program.p_type(endian) == PT_LOAD {
            let segment = load(program, endian, file_size)?;
            if segment.memory.is_empty() {
                continue;
            }
            if program.p_flags(endian) & PF_X == PF_X {
                code.push(segment.memory.clone());
            }
            segments.push(segment);
        }
        numbers.read(program, endian, file)?;
    }
    let NoteNumbers {
        entry,
        preconnected,
    } = numbers;
    segments.sort_by_key(|segment| segment.memory.start);
    let overlap = segments
        .windows(2)
        .any(|pair| matches!(pair, [a, b] if a.memory.end > b.memory.start));
    if overlap {
        return Err(wrong("segments overlap"));
    }
    if segments.is_empty() {
        return Err(ImageError::Empty);
    }
    let entry = entry.ok_or(ImageError::NoEntry)?;
    if !code.iter().any(|code| code.contains(&u64::from(entry))) {
        return Err(wrong(format!(
            "the PVH entry, {entry:#x}, is in no segment of code"
        )));
    }
    if preconnected.is_none() {
        // In another image the flag has another meaning, or none.
        for segment in &mut segments {
            segment.is_scratch = false;
        }
    }
    Ok(Headers {
        segments,
        entry,
        preconnected,
    })
}

/// The numbers that an image's notes give.
#[derive(Default)]
struct NoteNumbers {
    /// The PVH entry.
    entry: Option<u32>,
    /// The version of mayfly's structure of a connected network.
    preconnected: Option<u32>,
}

impl NoteNumbers {
    /// Reads the notes of a program header, if it has any.
    fn read<'data, P: ProgramHeader<Endian = Endianness>>(
        &mut self,
        program: &P,
        endian: Endianness,
        file: impl ReadRef<'data>,
    ) -> Result<(), ImageError> {
        let notes = program.notes(endian, file);
        let Some(mut notes) = notes.map_err(|error| wrong(error.to_string()))? else {
            return Ok(());
        };
        while let Some(note) = notes.next().map_err(|error| wrong(error.to_string()))? {
            let known = match (note.name(), note.n_type(endian).0) {
                (b"Xen", PHYS32_ENTRY) => &mut self.entry,
                (note::NAME, note::TYPE) => &mut self.preconnected,
                _ => continue,
            };
            let number =
                number(note.desc()).ok_or_else(|| wrong("a note that is no 32-bit number"))?;
            if known.replace(number).is_some() {
                return Err(wrong("the same note twice"));
            }
        }
        Ok(())
    }
}

/// The number in a note. Xen takes four bytes or eight.
fn number(desc: &[u8]) -> Option<u32> {
    match desc.len() {
        4 => Some(u32::from_le_bytes(desc.try_into().ok()?)),
        8 => u32::try_from(u64::from_le_bytes(desc.try_into().ok()?)).ok(),
        _ => None,
    }
}

fn load<P: ProgramHeader<Endian = Endianness>>(
    program: &P,
    endian: Endianness,
    file_size: u64,
) -> Result<Segment, ImageError> {
    let start: u64 = program.p_paddr(endian).into();
    let [offset, size, memory_size]: [u64; 3] = [
        program.p_offset(endian).into(),
        program.p_filesz(endian).into(),
        program.p_memsz(endian).into(),
    ];
    if size > memory_size {
        return Err(wrong(format!(
            "a segment has {size:#x} bytes in the file and {memory_size:#x} in memory"
        )));
    }
    if offset.checked_add(size).is_none_or(|end| end > file_size) {
        return Err(wrong(format!(
            "a segment reaches beyond the file ({offset:#x} + {size:#x}, of {file_size:#x})"
        )));
    }
    let end = start.checked_add(memory_size).filter(|end| *end <= RAM_MAX);
    let end = end.ok_or_else(|| {
        wrong(format!(
            "a segment reaches beyond {RAM_MAX:#x} ({start:#x} + {memory_size:#x})"
        ))
    })?;
    Ok(Segment {
        memory: start..end,
        offset,
        size,
        is_scratch: size == 0 && program.p_flags(endian).0 & note::SCRATCH != 0,
    })
}

/// An image: the data of its headers, and the open file that each guest is loaded from.
#[derive(Debug)]
pub struct Image {
    headers: Headers,
    source: Source,
    /// The contents of the loaded segments, if they are kept.
    contents: Option<Vec<Vec<u8>>>,
}

/// A file that is read again for each guest, and its state when it was opened.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: File,
    state: FileState,
}

/// The identity of a file's contents: a file that was replaced or written to differs in one of these fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileState {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileState {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl Source {
    fn open(path: &Path) -> io::Result<(Self, Metadata)> {
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let source = Self {
            path: path.to_owned(),
            file,
            state: FileState::of(&metadata),
        };
        Ok((source, metadata))
    }

    /// Whether the file at a path is this one, unchanged since it was opened.
    fn is_at(&self, path: &Path) -> bool {
        std::fs::metadata(path).is_ok_and(|now| FileState::of(&now) == self.state)
    }

    /// Fails if the open file was written to: the data read from it may be old in part.
    fn check(&self) -> io::Result<()> {
        match FileState::of(&self.file.metadata()?) == self.state {
            true => Ok(()),
            false => Err(io::Error::other(format!(
                "{} was changed since it was opened",
                self.path.display()
            ))),
        }
    }
}

impl Image {
    /// Opens a file and checks that it is an image.
    ///
    /// # Errors
    /// The first error found.
    pub fn open(path: &Path) -> Result<Self, ImageError> {
        let (source, metadata) = Source::open(path)?;
        if !metadata.is_file() {
            return Err(ImageError::NotElf(", nor any ordinary file"));
        }
        let cache = ReadCache::new(&source.file);
        let headers = Headers::parse(&cache)?;
        Ok(Self {
            headers,
            source,
            contents: None,
        })
    }

    /// The same, with the contents in memory: for a process that makes many guests, as copying them is quicker than reading
    /// the file each time. Those of more than [`KEPT_MAX`] bytes stay in the file.
    ///
    /// # Errors
    /// As [`Self::open`]'s.
    pub fn open_and_keep(path: &Path) -> Result<Self, ImageError> {
        let mut image = Self::open(path)?;
        let sizes = image.headers.loaded().map(|segment| segment.size);
        if sizes.fold(0, u64::saturating_add) <= KEPT_MAX {
            let read = |segment: &Segment| {
                let mut bytes = vec![0; usize::try_from(segment.size).unwrap_or(0)];
                image
                    .source
                    .file
                    .read_exact_at(&mut bytes, segment.offset)?;
                Ok(bytes)
            };
            let contents: io::Result<_> = image.headers.loaded().map(read).collect();
            let contents = contents?;
            image.check()?;
            image.contents = Some(contents);
        }
        Ok(image)
    }

    /// Copies the contents of the segment of this number, of those that are loaded, to an offset of mapped pages.
    pub(crate) fn copy(
        &self,
        (number, segment): (usize, &Segment),
        pages: &dyn Pages,
        at: usize,
    ) -> io::Result<()> {
        let kept = self.contents.as_ref().and_then(|all| all.get(number));
        match kept {
            Some(bytes) => pages.write(at, bytes),
            None => {
                let size = usize::try_from(segment.size).unwrap_or(usize::MAX);
                pages.read_file(at, size, self.source.file.as_fd(), segment.offset)
            }
        }
    }

    /// Whether the file at a path is this image, unchanged since it was opened.
    #[must_use]
    pub fn is_at(&self, path: &Path) -> bool {
        self.source.is_at(path)
    }

    /// Whether the file at the image's path is still this image.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.is_at(&self.source.path)
    }

    /// The data of its headers.
    #[must_use]
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    /// Whether the guest takes a network that this builder connected.
    #[must_use]
    pub fn takes_preconnected(&self) -> bool {
        self.headers.preconnected == Some(note::VERSION)
    }

    /// Fails if the file was changed since it was opened, and something was read from it since.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.contents {
            Some(_) => Ok(()),
            None => self.source.check(),
        }
    }
}

/// A file that the guest gets unchanged as its PVH module: a packed site, or a Linux guest's initramfs.
#[derive(Debug)]
pub struct Ramdisk {
    source: Source,
}

impl Ramdisk {
    /// Opens a file.
    ///
    /// # Errors
    /// It can't be read, or is empty.
    pub fn open(path: &Path) -> io::Result<Self> {
        let (source, metadata) = Source::open(path)?;
        if !metadata.is_file() || metadata.len() == 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is empty or no ordinary file",
            ));
        }
        Ok(Self { source })
    }

    /// Its size, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.source.state.size
    }

    /// Whether the file at its path is still this one, unchanged since it was opened.
    #[must_use]
    pub fn is_current(&self) -> bool {
        self.source.is_at(&self.source.path)
    }

    /// The file.
    pub(crate) fn file(&self) -> &File {
        &self.source.file
    }

    /// Fails if the file was changed since it was opened.
    pub(crate) fn check(&self) -> io::Result<()> {
        self.source.check()
    }
}

#[cfg(test)]
mod tests;

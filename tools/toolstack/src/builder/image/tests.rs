//! Valid images, and images with wrong headers.

use super::*;
use crate::fake::elf::{Elf, NOTES, program};

impl Elf {
    fn parse(&self) -> Result<Headers, ImageError> {
        Headers::parse(self.bytes.as_slice())
    }
}

#[test]
fn an_image() {
    let headers = Elf::new().parse().unwrap();
    assert_eq!((headers.entry, headers.preconnected), (0x10_0010, Some(1)));
    assert_eq!(
        headers.segments,
        [
            Segment {
                memory: 0x10_0000..0x10_0800,
                offset: 0x1000,
                size: 0x800,
                is_scratch: false,
            },
            Segment {
                memory: 0x10_1000..0x10_6000,
                offset: 0x1800,
                size: 0x100,
                is_scratch: false,
            },
        ]
    );
    assert_eq!(headers.memory(), 0x10_0000..0x10_6000);
}

#[test]
fn a_scratch_segment_has_memory_and_no_contents() {
    let scratch = |bytes_in_file| {
        let mut elf = Elf::new();
        elf.put16(56, 4);
        let flags = 6 | note::SCRATCH;
        elf.program(3, 1, flags, 0x1900, 0x10_6000, bytes_in_file, 0x3000);
        elf
    };
    let headers = scratch(0).parse().unwrap();
    assert_eq!(headers.memory(), 0x10_0000..0x10_9000);
    assert_eq!(
        headers.pages().collect::<Vec<_>>(),
        [0x100, 0x101, 0x102, 0x103, 0x104, 0x105]
    );
    // One with contents is loaded, and so is one of another kernel, whose flag may mean anything.
    let headers = scratch(1).parse().unwrap();
    assert_eq!(headers.pages().last(), Some(0x108));
    let mut other = scratch(0);
    other.put64(program(2) + 32, 20);
    assert_eq!(other.parse().unwrap().pages().last(), Some(0x108));
}

#[test]
fn a_page_of_two_segments_is_one_page() {
    let mut elf = Elf::new();
    elf.put64(program(1) + 16, 0x10_0800);
    elf.put64(program(1) + 24, 0x10_0800);
    let headers = elf.parse().unwrap();
    assert_eq!(
        headers.pages().collect::<Vec<_>>(),
        [0x100, 0x101, 0x102, 0x103, 0x104, 0x105]
    );
}

#[test]
fn an_image_that_takes_no_connected_network() {
    let mut elf = Elf::new();
    elf.put64(program(2) + 32, 20);
    assert_eq!(elf.parse().unwrap().preconnected, None);
}

#[test]
fn lies_are_named() {
    type Lie = (fn(&mut Elf), &'static str);
    let lies: [Lie; 14] = [
        (|elf| elf.put(0, b"ELF\x7f"), "not an ELF file"),
        (|elf| elf.put(5, &[2]), "not an ELF file"),
        (|elf| elf.put16(18, 183), "another CPU"),
        (|elf| elf.put16(56, 65), "65 program headers"),
        (|elf| elf.put64(32, u64::MAX), "headers are wrong"),
        (|elf| elf.put64(program(0) + 32, 0x900), "in the file and"),
        (
            |elf| elf.put64(program(0) + 8, u64::MAX),
            "reaches beyond the file",
        ),
        (
            |elf| elf.put64(program(0) + 8, 0x1900),
            "reaches beyond the file",
        ),
        (
            |elf| elf.put64(program(1) + 40, u64::MAX),
            "reaches beyond 0xf0000000",
        ),
        (
            |elf| elf.put64(program(1) + 24, 0xf000_0000),
            "reaches beyond 0xf0000000",
        ),
        (
            |elf| elf.put64(program(1) + 24, 0x10_0400),
            "segments overlap",
        ),
        (|elf| elf.put32(NOTES + 8, 17), "no PVH entry"),
        (
            |elf| elf.put32(NOTES + 16, 0x10_1000),
            "in no segment of code",
        ),
        (
            |elf| elf.note(NOTES + 20, b"Xen\0", 18, 0),
            "the same note twice",
        ),
    ];
    for (lie, said) in lies {
        let mut elf = Elf::new();
        lie(&mut elf);
        let error = elf.parse().expect_err(said).to_string();
        assert!(error.contains(said), "{error} has no {said}");
    }
}

#[test]
fn nothing_to_load_and_a_compressed_kernel() {
    let mut elf = Elf::new();
    elf.put32(program(0), 0);
    elf.put32(program(1), 0);
    assert!(matches!(elf.parse(), Err(ImageError::Empty)));
    let mut kernel = vec![0; 0x1000];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let error = Headers::parse(kernel.as_slice()).unwrap_err().to_string();
    assert!(error.contains("extract its vmlinux"), "{error}");
    assert!(Headers::parse([].as_slice()).is_err());
}

#[test]
fn the_same_through_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, Elf::new().bytes).unwrap();
    assert_eq!(
        *Image::open(&path).unwrap().headers(),
        Elf::new().parse().unwrap()
    );
    assert!(Image::open(folder.path()).is_err());
    assert!(matches!(
        Image::open(&folder.path().join("none")),
        Err(ImageError::Io(_))
    ));
    std::fs::write(&path, b"").unwrap();
    assert!(Ramdisk::open(&path).is_err());
}

#[test]
fn a_file_that_was_replaced_or_written_to_is_another() {
    let folder = tempfile::tempdir().unwrap();
    let (path, other) = (folder.path().join("image"), folder.path().join("other"));
    std::fs::write(&path, Elf::new().bytes).unwrap();
    let image = Image::open(&path).unwrap();
    let pack = Ramdisk::open(&path).unwrap();
    assert!(image.is_current() && pack.is_current());
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert!(image.is_at(&link), "another name of the same file");
    assert!(!image.is_at(&other));
    // Replaced by a rename: the open file is unchanged, but is not the one at the path any more.
    std::fs::write(&other, Elf::new().bytes).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert!(!image.is_current() && !pack.is_current());
    // (Its ctime has changed with the name.)
    let image = Image::open(&path).unwrap();
    let pack = Ramdisk::open(&path).unwrap();
    image.check().unwrap();
    pack.check().unwrap();
    // Written in place: the data read from it may be of both versions.
    let mut longer = Elf::new().bytes;
    longer.push(0);
    std::fs::write(&path, longer).unwrap();
    assert!(!image.is_current() && !pack.is_current());
    let said = image.check().unwrap_err().to_string();
    assert!(said.ends_with("was changed since it was opened"), "{said}");
    assert!(pack.check().is_err());
    std::fs::remove_file(&path).unwrap();
    assert!(!image.is_current());
}

proptest::proptest! {
    #![proptest_config(mayfly_seeds::cases(256))]

    #[test]
    fn any_change_is_read_or_refused(changes: Vec<(u16, u8)>, length: u16) {
        let mut elf = Elf::new();
        for (at, value) in changes {
            // Head, program headers and notes.
            let at = usize::from(at) % (NOTES + 44);
            elf.bytes[at] = value;
        }
        elf.bytes.truncate(0x2000 - usize::from(length) % 0x100);
        if let Ok(headers) = elf.parse() {
            let file = elf.bytes.len() as u64;
            assert!(headers.segments.iter().all(|segment| segment.offset + segment.size <= file));
            assert!(headers.segments.iter().all(|segment| segment.memory.end <= RAM_MAX));
            assert!(headers.segments.iter().all(|segment| segment.size <= segment.memory.end - segment.memory.start));
            assert!(headers.segments.windows(2).all(|pair| pair[0].memory.end <= pair[1].memory.start));
        }
    }
}

//! Memory that guests have granted to dom0, through `/dev/xen/gntdev`: mapped, or copied by Xen.
//!
//! ABI: Linux `include/uapi/xen/gntdev.h`. Only pages that a guest has granted can be reached. A mapped page keeps a
//! dead guest from being fully destroyed, so it must be unmapped.
#![allow(
    unsafe_code,
    reason = "system calls that no crate wraps, and mapped memory"
)]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use mayfly_drivers::SharedPage;
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use super::abi::PAGE_SIZE;

/// `_IOC(_IOC_NONE, 'G', number, size)`.
#[allow(clippy::cast_possible_truncation, reason = "the structs are small")]
const fn ioctl(number: u32, size: usize) -> libc::Ioctl {
    ((size as u32) << 16 | (b'G' as u32) << 8 | number) as libc::Ioctl
}
/// The ioctl number encodes the size of the struct with one reference, however many there are.
const IOCTL_GNTDEV_MAP_GRANT_REF: libc::Ioctl =
    ioctl(0, size_of::<MapHeader>() + size_of::<Reference>());
const IOCTL_GNTDEV_UNMAP_GRANT_REF: libc::Ioctl = ioctl(1, size_of::<Unmap>());
const IOCTL_GNTDEV_GRANT_COPY: libc::Ioctl = ioctl(8, size_of::<Copy>());

/// The greatest number of references that are mapped at a time.
pub const MAP_MAX: usize = 256;

/// `struct ioctl_gntdev_map_grant_ref`, without its references.
#[repr(C)]
#[derive(Clone, Copy)]
struct MapHeader {
    count: u32,
    pad: u32,
    index: u64,
}
const _: () = assert!(size_of::<MapHeader>() == 16);

/// `struct ioctl_gntdev_grant_ref`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Reference {
    domid: u32,
    reference: u32,
}

#[repr(C)]
struct Map {
    header: MapHeader,
    references: [Reference; MAP_MAX],
}

/// `struct ioctl_gntdev_unmap_grant_ref`.
#[repr(C)]
struct Unmap {
    index: u64,
    count: u32,
    pad: u32,
}
const _: () = assert!(size_of::<Unmap>() == 16);

/// `struct ioctl_gntdev_grant_copy`.
#[repr(C)]
struct Copy {
    count: u32,
    pad: u32,
    segments: *mut CopySegment,
}
const _: () = assert!(size_of::<Copy>() == 16);

/// `struct gntdev_grant_copy_segment`. Each end is a local address, or a reference, an offset and a domain.
#[repr(C)]
#[derive(Clone, Copy)]
struct CopySegment {
    source: u64,
    dest: u64,
    len: u16,
    flags: u16,
    status: i16,
    pad: u16,
}
const _: () = assert!(size_of::<CopySegment>() == 24);

/// `GNTCOPY_source_gref` and `GNTCOPY_dest_gref` (Xen's `grant_table.h`).
const SOURCE_IS_GRANT: u16 = 1;
const DEST_IS_GRANT: u16 = 2;
/// `GNTST_okay`, and a status that Xen never gives.
const OKAY: i16 = 0;
const NOT_REACHED: i16 = 1;

/// A part of a copy: bytes within one granted page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantCopy {
    /// The page's grant reference.
    pub reference: u32,
    /// The offset of the bytes in the page.
    pub offset: u16,
    /// The number of bytes.
    pub length: u16,
    /// The offset of the bytes in the local buffer.
    pub at: usize,
}

/// Access to granted memory.
#[derive(Clone, Debug)]
pub struct Gntdev {
    device: Arc<File>,
}

impl Gntdev {
    /// Opens the device.
    ///
    /// # Errors
    /// It is not there, or not for us.
    pub fn open() -> io::Result<Self> {
        let path = "/dev/xen/gntdev";
        let device = File::options()
            .read(true)
            .write(true)
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        Ok(Self {
            device: Arc::new(device),
        })
    }

    /// Opens the device anew in the place of this one, with the same number. Mappings of a process that has ended and
    /// that this one descends from end with that; they are [abandoned](GrantMapping::abandon) before.
    ///
    /// # Errors
    /// The kernel's, or mappings are left.
    pub fn renewed(self) -> io::Result<Self> {
        let in_use = || io::Error::other("granted pages are mapped");
        let old = Arc::into_inner(self.device).ok_or_else(in_use)?;
        let mut number = OwnedFd::from(old);
        let new = Self::open()?;
        rustix::io::dup3(&new.device, &mut number, rustix::io::DupFlags::CLOEXEC)?;
        Ok(Self {
            device: Arc::new(number.into()),
        })
    }

    /// Maps granted pages of a domain, at most [`MAP_MAX`]. Pages that are granted read-only can be mapped only if
    /// `is_written` is false, and must not be written then.
    ///
    /// # Errors
    /// A page is not granted, or the kernel is out of memory.
    pub fn map(
        &self,
        domain: u16,
        references: &[u32],
        is_written: bool,
    ) -> io::Result<GrantMapping> {
        let count = u32::try_from(references.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        if references.is_empty() || references.len() > MAP_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let nobody = Reference {
            domid: domain.into(),
            reference: 0,
        };
        let mut map = Map {
            header: MapHeader {
                count,
                pad: 0,
                index: 0,
            },
            references: [nobody; MAP_MAX],
        };
        for (place, reference) in map.references.iter_mut().zip(references) {
            place.reference = *reference;
        }
        // SAFETY: the kernel reads `count` references behind the header, which `map` has, and writes the index into it.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                IOCTL_GNTDEV_MAP_GRANT_REF,
                &raw mut map,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let mut mapping = GrantMapping {
            device: self.device.clone(),
            index: map.header.index,
            count,
            start: None,
            pages: Vec::new(),
        };
        let rights = if is_written {
            ProtFlags::READ | ProtFlags::WRITE
        } else {
            ProtFlags::READ
        };
        // SAFETY: a new mapping at an address of the kernel's choice, which only `mapping` knows; its `drop` ends it.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                references.len() * PAGE_SIZE,
                rights,
                MapFlags::SHARED,
                &*self.device,
                mapping.index,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::InvalidData)?;
        mapping.start = Some(start);
        // SAFETY: the mapping that was just made. A child does not get it, so that it holds no page of a guest. (Without that, this depends on the kind
        // of dom0.)
        unsafe {
            madvise(
                start.as_ptr().cast(),
                references.len() * PAGE_SIZE,
                Advice::LinuxDontFork,
            )
        }?;
        for page in 0..references.len() {
            // SAFETY: within the pages that were just mapped.
            let base = unsafe { start.add(page * PAGE_SIZE) };
            // SAFETY: mapped for as long as `mapping` lives, which lends its pages and drops them before it unmaps. Nobody else in this process knows
            // the address. Who maps for reading alone does not write.
            mapping.pages.push(unsafe { SharedPage::from_raw(base) });
        }
        Ok(mapping)
    }

    /// Copies from granted pages into a buffer, in one call. Returns for each part whether it was done.
    ///
    /// # Errors
    /// A part does not fit the buffer or its page.
    pub fn copy_from(
        &self,
        domain: u16,
        parts: &[GrantCopy],
        buffer: &mut [u8],
        done: impl FnMut(usize, bool),
    ) -> io::Result<()> {
        self.copy(domain, parts, buffer, SOURCE_IS_GRANT, done)
    }

    /// Copies from a buffer into granted pages, in one call. Returns for each part whether it was done.
    ///
    /// # Errors
    /// A part does not fit the buffer or its page.
    pub fn copy_to(
        &self,
        domain: u16,
        parts: &[GrantCopy],
        buffer: &mut [u8],
        done: impl FnMut(usize, bool),
    ) -> io::Result<()> {
        self.copy(domain, parts, buffer, DEST_IS_GRANT, done)
    }

    fn copy(
        &self,
        domain: u16,
        parts: &[GrantCopy],
        buffer: &mut [u8],
        flags: u16,
        mut done: impl FnMut(usize, bool),
    ) -> io::Result<()> {
        let base = buffer.as_mut_ptr();
        let mut segments = Vec::with_capacity(parts.len());
        for part in parts {
            let end = part.at.checked_add(part.length.into());
            let in_page = usize::from(part.offset) + usize::from(part.length) <= PAGE_SIZE;
            if end.is_none_or(|end| end > buffer.len()) || !in_page {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let ours = base.wrapping_add(part.at) as u64;
            let theirs =
                u64::from(part.reference) | u64::from(part.offset) << 32 | u64::from(domain) << 48;
            let (source, dest) = if flags == SOURCE_IS_GRANT {
                (theirs, ours)
            } else {
                (ours, theirs)
            };
            segments.push(CopySegment {
                source,
                dest,
                len: part.length,
                flags,
                status: NOT_REACHED,
                pad: 0,
            });
        }
        let mut copy = Copy {
            count: u32::try_from(segments.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            pad: 0,
            segments: segments.as_mut_ptr(),
        };
        // SAFETY: `segments` has `count` entries, whose status the kernel writes; each of their addresses of ours lies in `buffer` with its length, which
        // was checked above, and `buffer` is borrowed for writing during the call.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                IOCTL_GNTDEV_GRANT_COPY,
                &raw mut copy,
            )
        };
        for (index, segment) in segments.iter().enumerate() {
            done(index, result == 0 && segment.status == OKAY);
        }
        Ok(())
    }
}

impl AsFd for Gntdev {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Pages of a guest, mapped until this is dropped. They are accessed by copying only.
#[derive(Debug)]
pub struct GrantMapping {
    device: Arc<File>,
    index: u64,
    count: u32,
    start: Option<NonNull<u8>>,
    pages: Vec<SharedPage>,
}

impl GrantMapping {
    /// One of the pages, in the order of their references.
    #[must_use]
    pub fn page(&self, index: usize) -> Option<&SharedPage> {
        self.pages.get(index)
    }

    /// Forgets a mapping of the process that this one is a child of. It does not exist here, and something else may have
    /// got its address.
    pub fn abandon(mut self) {
        self.start = None;
    }
}

impl Drop for GrantMapping {
    fn drop(&mut self) {
        self.pages.clear();
        if let Some(start) = self.start {
            // SAFETY: the mapping that this object owns; the pages that knew its address are gone, and were only ever lent.
            let _ = unsafe { munmap(start.as_ptr().cast(), self.count as usize * PAGE_SIZE) };
        }
        let mut unmap = Unmap {
            index: self.index,
            count: self.count,
            pad: 0,
        };
        // SAFETY: the kernel reads one struct of this size, and forgets the references of this index, which are mapped nowhere any more.
        unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                IOCTL_GNTDEV_UNMAP_GRANT_REF,
                &raw mut unmap,
            )
        };
    }
}

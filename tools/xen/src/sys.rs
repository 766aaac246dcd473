//! Hypercalls through `/dev/xen/privcmd`, and mappings of foreign pages.
//!
//! ABI: Linux `xen/privcmd.h` and `/dev/xen/hypercall` (5.0 and later). Memory of another domain is copied in and out
//! through [`Mapping`], which hands out no reference, because the other domain or a back end may change it at any time.
#![allow(unsafe_code, reason = "the one file of this crate that has to")]

use std::cell::Cell;
use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::AtomicU8;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use super::abi::{MULTICALL, PAGE_SIZE};

/// `_IOC(_IOC_NONE, 'P', number, size)`.
#[allow(clippy::cast_possible_truncation, reason = "the structs are small")]
const fn ioctl<T>(number: u32) -> libc::Ioctl {
    ((size_of::<T>() as u32) << 16 | (b'P' as u32) << 8 | number) as libc::Ioctl
}
const IOCTL_PRIVCMD_HYPERCALL: libc::Ioctl = ioctl::<Hypercall>(0);
const IOCTL_PRIVCMD_MMAPBATCH_V2: libc::Ioctl = ioctl::<MmapBatch>(4);
const IOCTL_PRIVCMD_MMAP_RESOURCE: libc::Ioctl = ioctl::<MmapResource>(7);

/// `privcmd_hypercall_t`.
#[repr(C)]
struct Hypercall {
    op: u64,
    arg: [u64; 5],
}
const _: () = assert!(size_of::<Hypercall>() == 48);

/// `privcmd_mmapbatch_v2_t`.
#[repr(C)]
struct MmapBatch {
    num: u32,
    dom: u16,
    pad: u16,
    addr: u64,
    arr: *const u64,
    err: *mut i32,
}
const _: () = assert!(size_of::<MmapBatch>() == 32);

/// `privcmd_mmap_resource_t`.
#[repr(C)]
struct MmapResource {
    dom: u16,
    pad: u16,
    kind: u32,
    id: u32,
    idx: u32,
    num: u64,
    addr: u64,
}
const _: () = assert!(size_of::<MmapResource>() == 32);

/// The number of pages for hypercalls: one for the argument, the others for the data that it points to. Each costs when it is mapped and
/// unmapped, and most calls have little data.
const PAGES: usize = 4;
/// The number of bytes that an argument may point to in any case; [`Privcmd::make_room`] makes it more.
pub(crate) const DATA_MAX: usize = (PAGES - 1) * PAGE_SIZE;

/// The interface to Xen in dom0.
pub(crate) struct Privcmd {
    device: File,
    /// Pages of `/dev/xen/hypercall`. The kernel never moves them, so Xen can write to them at any time during a call.
    buffer: *mut u8,
    /// Their number, at least [`PAGES`].
    pages: usize,
    /// The address at which the next mapping is asked for.
    next: Cell<usize>,
}

/// The size of the part of an address space that one page table maps.
const TABLE: usize = 512 * PAGE_SIZE;
/// The distance of the first mapping from a word of the program's data. The kernel chooses another place if the data goes further.
const GAP: usize = 128 * 1024;

/// The address above the program's data at which mappings are asked for. There they share the data's page table; at an address of the
/// kernel's choice they would need tables of their own, each of which costs a PV dom0 some 50,000 instructions.
fn above_data() -> usize {
    static DATA: AtomicU8 = AtomicU8::new(0);
    (&raw const DATA).addr().next_multiple_of(PAGE_SIZE) + GAP
}

/// The address to ask for, of which the kernel need not take notice, and the one for the next mapping.
fn place(next: usize, length: usize) -> (*mut c_void, usize) {
    let end = next.saturating_add(length);
    match next / TABLE == (end - 1) / TABLE {
        true => (ptr::without_provenance_mut(next), end),
        false => (ptr::null_mut(), next),
    }
}

fn open(path: &str) -> io::Result<File> {
    let file = File::options().read(true).write(true).open(path);
    file.map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}

/// Maps pages for hypercalls, at this address if it is free. The caller unmaps them.
fn buffer(at: *mut c_void, pages: usize) -> io::Result<*mut u8> {
    let device = open("/dev/xen/hypercall")?;
    let (length, rights) = (pages * PAGE_SIZE, ProtFlags::READ | ProtFlags::WRITE);
    // SAFETY: a new mapping where nothing was mapped before; only the caller learns its address.
    let buffer = unsafe { mmap(at, length, rights, MapFlags::SHARED, &device, 0) }?;
    Ok(buffer.cast())
}

impl Privcmd {
    pub(crate) fn open() -> io::Result<Self> {
        let device = open("/dev/xen/privcmd")?;
        let (at, next) = place(above_data(), PAGES * PAGE_SIZE);
        Ok(Self {
            device,
            buffer: buffer(at, PAGES)?,
            pages: PAGES,
            next: Cell::new(next),
        })
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Makes room for as many bytes of data as an argument shall point to. [`Self::data_address`] may be another one
    /// afterwards.
    pub(crate) fn make_room(&mut self, bytes: usize) -> io::Result<()> {
        let pages = 1 + bytes.div_ceil(PAGE_SIZE);
        if pages > self.pages {
            let larger = buffer(ptr::null_mut(), pages)?;
            let smaller = std::mem::replace(&mut self.buffer, larger);
            let length = std::mem::replace(&mut self.pages, pages) * PAGE_SIZE;
            // SAFETY: the mapping that this object owned, to which nothing refers any more.
            unsafe { munmap(smaller.cast(), length) }?;
        }
        Ok(())
    }

    /// The number of bytes that an argument may point to.
    fn room(&self) -> usize {
        (self.pages - 1) * PAGE_SIZE
    }

    /// The address at which [`Self::hypercall`] puts the data that an argument points to.
    pub(crate) fn data_address(&self) -> u64 {
        self.buffer.wrapping_add(PAGE_SIZE) as u64
    }

    /// Makes a hypercall `op` with `command`, if it takes one, and the address of a copy of `argument`, which is copied
    /// back afterwards. `data` is copied to [`Self::data_address`], to which `argument` may point.
    ///
    /// Each operation that is called this way reads and writes only its argument and the data that the argument points
    /// to.
    pub(super) fn hypercall(
        &mut self,
        op: u64,
        command: Option<u64>,
        argument: &mut [u8],
        data: &[u8],
    ) -> io::Result<i32> {
        if argument.len() > PAGE_SIZE || data.len() > self.room() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let address = self.buffer as u64;
        // SAFETY: `argument` fits the first page, which nothing refers to but `&mut self`.
        unsafe { ptr::copy_nonoverlapping(argument.as_ptr(), self.buffer, argument.len()) };
        // SAFETY: `data` fits the other pages, and they are as much ours.
        unsafe {
            ptr::copy_nonoverlapping(
                data.as_ptr(),
                self.buffer.wrapping_add(PAGE_SIZE),
                data.len(),
            )
        };
        let arg = match command {
            Some(command) => [command, address, 0, 0, 0],
            None => [address, 0, 0, 0, 0],
        };
        let result = self.ask(op, arg)?;
        // SAFETY: as for the copy in the other direction.
        unsafe { ptr::copy_nonoverlapping(self.buffer, argument.as_mut_ptr(), argument.len()) };
        Ok(result)
    }

    /// Makes a hypercall, whose arguments may point into the pages for hypercalls.
    fn ask(&mut self, op: u64, arg: [u64; 5]) -> io::Result<i32> {
        let mut call = Hypercall { op, arg };
        // SAFETY: the ioctl reads `call`; Xen reads and writes the pages of `buffer`, which live and are not borrowed.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                IOCTL_PRIVCMD_HYPERCALL,
                &raw mut call,
            )
        };
        match result {
            0.. => Ok(result),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Makes `count` hypercalls in one. `list` returns their entries, and behind these all that they point to, for the
    /// address at which it will be: `size` bytes. They are returned as Xen left them. Each call is one that
    /// [`Self::hypercall`] may make.
    ///
    /// # Errors
    /// None of them, or not all, were made.
    pub(super) fn multicall(
        &mut self,
        count: usize,
        size: usize,
        list: impl FnOnce(u64) -> Vec<u8>,
    ) -> io::Result<Vec<u8>> {
        self.make_room(size.saturating_sub(PAGE_SIZE))?;
        let address = self.buffer as u64;
        let mut list = list(address);
        let length = list.len().min(size);
        // SAFETY: `size` bytes fit the pages, whose number was made sufficient; nothing refers to them but `&mut self`.
        unsafe { ptr::copy_nonoverlapping(list.as_ptr(), self.buffer, length) };
        self.ask(MULTICALL, [address, count as u64, 0, 0, 0])?;
        // SAFETY: as for the copy in the other direction; the call is over.
        unsafe { ptr::copy_nonoverlapping(self.buffer, list.as_mut_ptr(), length) };
        Ok(list)
    }

    /// Copies out the data that a call has written at [`Self::data_address`].
    pub(super) fn data(&self, into: &mut [u8]) {
        let length = into.len().min(self.room());
        // SAFETY: no more than the pages hold, and no call is under way: those take `&mut self`.
        unsafe {
            ptr::copy_nonoverlapping(
                self.buffer.wrapping_add(PAGE_SIZE),
                into.as_mut_ptr(),
                length,
            )
        };
    }

    /// Maps pages of a domain, in the order given.
    pub(super) fn map(&self, domain: u16, gfns: &[u64]) -> io::Result<Mapping> {
        let mapping = self.reserve(gfns.len())?;
        let mut errors = vec![0; gfns.len()];
        let mut batch = MmapBatch {
            num: u32::try_from(gfns.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            dom: domain,
            pad: 0,
            addr: mapping.start as u64,
            arr: gfns.as_ptr(),
            err: errors.as_mut_ptr(),
        };
        // SAFETY: both arrays have `num` entries and live; the addresses from `addr` on are `mapping`'s own, in which
        // nothing was mapped before.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                IOCTL_PRIVCMD_MMAPBATCH_V2,
                &raw mut batch,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        match errors.iter().find(|error| **error != 0) {
            Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
            None => Ok(mapping),
        }
    }

    /// Maps frames of a resource of a domain (XENMEM_acquire_resource).
    pub(super) fn map_resource(
        &self,
        domain: u16,
        kind: u32,
        id: u32,
        frames: usize,
    ) -> io::Result<Mapping> {
        let mapping = self.reserve(frames)?;
        let mut resource = MmapResource {
            dom: domain,
            pad: 0,
            kind,
            id,
            idx: 0,
            num: frames as u64,
            addr: mapping.start as u64,
        };
        // SAFETY: the addresses from `addr` on are `mapping`'s own, in which nothing was mapped before.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                IOCTL_PRIVCMD_MMAP_RESOURCE,
                &raw mut resource,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(mapping)
    }

    /// Reserves addresses at which pages can be mapped.
    fn reserve(&self, pages: usize) -> io::Result<Mapping> {
        let length = pages
            .checked_mul(PAGE_SIZE)
            .filter(|length| *length > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        let (at, next) = place(self.next.get(), length);
        self.next.set(next);
        // SAFETY: a new mapping where nothing was mapped before; `Mapping` owns it.
        let start = unsafe { mmap(at, length, rights, MapFlags::SHARED, &self.device, 0) }?;
        Ok(Mapping {
            start: start.cast(),
            length,
        })
    }
}

impl Drop for Privcmd {
    fn drop(&mut self) {
        // SAFETY: the mapping that this object owns, to which nothing refers any more.
        let _ = unsafe { munmap(self.buffer.cast(), self.pages * PAGE_SIZE) };
    }
}

/// Mapped pages of another domain. They are accessed by copying only.
#[derive(Debug)]
pub struct Mapping {
    start: *mut u8,
    length: usize,
}

/// The error of an access outside of a mapping.
fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "outside of the mapped pages")
}

impl Mapping {
    /// The address of `length` bytes at `offset`, all of which are mapped.
    fn at(&self, offset: usize, length: usize) -> io::Result<*mut u8> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(self.start.wrapping_add(offset)),
            _ => Err(outside()),
        }
    }

    /// Copies bytes out.
    pub fn read(&self, offset: usize, into: &mut [u8]) -> io::Result<()> {
        let from = self.at(offset, into.len())?;
        // SAFETY: mapped, readable, and in no Rust object: the pages are the other domain's. Whoever writes there
        // meanwhile changes only bytes.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
        Ok(())
    }

    /// Whether a page of them, counted from 0, is all zeros.
    pub fn is_zero(&self, page: usize) -> io::Result<bool> {
        let start = page.checked_mul(PAGE_SIZE).ok_or_else(outside)?;
        let start = self.at(start, PAGE_SIZE)?.cast::<[u64; 8]>();
        for part in 0..PAGE_SIZE / size_of::<[u64; 8]>() {
            // SAFETY: within the page, which is mapped, aligned, and in no Rust object; as in `read`.
            let [a, b, c, d, e, f, g, h] = unsafe { start.wrapping_add(part).read() };
            if a | b | c | d | e | f | g | h != 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Copies bytes in.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let to = self.at(offset, bytes.len())?;
        // SAFETY: mapped, writable, and in no Rust object: the pages are the other domain's. Who else may write there is a
        // guest that does not run yet or a back end that gets to see them later; in any case these are only bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Zeroes bytes.
    pub fn zero(&self, offset: usize, length: usize) -> io::Result<()> {
        let to = self.at(offset, length)?;
        // SAFETY: as in `write`.
        unsafe { ptr::write_bytes(to, 0, length) };
        Ok(())
    }

    /// Reads a part of a file directly into the pages.
    pub fn read_file(
        &self,
        offset: usize,
        length: usize,
        file: BorrowedFd<'_>,
        position: u64,
    ) -> io::Result<()> {
        let mut done = 0;
        while done < length {
            let to = self.at(offset + done, length - done)?;
            let position = i64::try_from(position + done as u64).map_err(|_| outside())?;
            // SAFETY: as in `write`, where the kernel is the one who copies.
            let got = unsafe { libc::pread(file.as_raw_fd(), to.cast(), length - done, position) };
            match usize::try_from(got) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(got) => done += got,
                Err(_) => {
                    let error = io::Error::last_os_error();
                    if error.kind() != io::ErrorKind::Interrupted {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping that this object owns; it has handed out no pointer.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}

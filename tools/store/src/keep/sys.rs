//! Memory that processes of one program share, and the system calls around it that no safe crate offers.
#![allow(
    unsafe_code,
    reason = "shared memory, and processes that are copies of one another"
)]

use std::io;
use std::mem::{MaybeUninit, offset_of, size_of};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use rustix::process::Pid;

/// The offset of the `struct mmsghdr` through which bytes are received and sent.
const CALL: usize = 0;
/// The offset of its field for the number of bytes, which the kernel writes.
const CALL_LENGTH: usize = CALL + offset_of!(libc::mmsghdr, msg_len);
/// What that field has before the kernel writes it.
const UNKNOWN: u32 = u32::MAX;
/// The first offset behind the structure.
pub(super) const FREE: usize = CALL + size_of::<libc::mmsghdr>();
const _: () = assert!(FREE.is_multiple_of(8));

/// Anonymous memory that a process shares with all processes that descend from it. Offsets are in bytes; an access
/// outside the memory panics.
///
/// Only copies go in and out. All processes that have it run this program, and at any time only one of them, the
/// worker, writes the parts that are not atomic words.
#[derive(Debug)]
pub(super) struct Memory {
    base: NonNull<u8>,
    length: usize,
}

impl Memory {
    /// Returns new memory, all of it zero.
    pub(super) fn new(length: usize) -> io::Result<Self> {
        let rights = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice, which only the value below knows; its `drop` ends it.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), length, rights, MapFlags::SHARED) }?;
        let base = NonNull::new(base.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, length })
    }

    /// Returns the address of `length` bytes.
    fn at(&self, offset: usize, length: usize) -> *mut u8 {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= self.length), "{offset}");
        // SAFETY: within the mapping, as was just checked.
        unsafe { self.base.as_ptr().add(offset) }
    }

    /// Returns a word, whose offset is a multiple of 8.
    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8));
        // SAFETY: the mapping begins at a page, so the word is aligned and lies in it; it lives as long as `self`, and is used only as an atomic one.
        unsafe { AtomicU64::from_ptr(self.at(offset, 8).cast()) }
    }

    /// Returns a half word, whose offset is a multiple of 4.
    pub(super) fn half(&self, offset: usize) -> &AtomicU32 {
        assert!(offset.is_multiple_of(4));
        // SAFETY: as in `word`.
        unsafe { AtomicU32::from_ptr(self.at(offset, 4).cast()) }
    }

    pub(super) fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let to = self.at(offset, bytes.len());
        // SAFETY: both are that long and do not overlap, as `bytes` is no part of the mapping, of which no reference is ever given out but to atomic
        // words. This process alone writes here (see the type).
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    pub(super) fn copy_out(&self, offset: usize, into: &mut [u8]) {
        let from = self.at(offset, into.len());
        // SAFETY: as in `copy_in`, in the other direction; nobody writes these bytes meanwhile.
        unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), into.len()) };
    }

    /// Receives at most `most` bytes from a socket to `offset`, without waiting. Returns their number, 0 at the end of
    /// the stream.
    ///
    /// The kernel writes the number into this memory within the same system call that takes the bytes from the socket
    /// (`recvmmsg(2)`, `msg_len`). So a process that is killed has either received and told, or neither.
    pub(super) fn receive(
        &self,
        socket: BorrowedFd<'_>,
        offset: usize,
        most: usize,
    ) -> io::Result<usize> {
        let part = libc::iovec {
            iov_base: self.at(offset, most).cast(),
            iov_len: most,
        };
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        self.call(libc::SYS_recvmmsg, socket, part, flags)
    }

    /// Sends bytes on a socket, without waiting, and returns the number of those that it took. That number gets into
    /// this memory as with [`Memory::receive`].
    pub(super) fn send(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        let part = libc::iovec {
            iov_base: bytes.as_ptr().cast_mut().cast(),
            iov_len: bytes.len(),
        };
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        self.call(libc::SYS_sendmmsg, socket, part, flags)
    }

    /// Forgets the last call, so that [`Memory::last_call`] returns `None` until the next one is done.
    pub(super) fn begin_call(&self) {
        self.half(CALL_LENGTH).store(UNKNOWN, Ordering::Release);
    }

    /// Returns the number of bytes of the last call, whichever process has made it.
    pub(super) fn last_call(&self) -> Option<usize> {
        let length = self.half(CALL_LENGTH).load(Ordering::Acquire);
        (length != UNKNOWN)
            .then_some(length)
            .and_then(|length| usize::try_from(length).ok())
    }

    fn call(
        &self,
        number: libc::c_long,
        socket: BorrowedFd<'_>,
        mut part: libc::iovec,
        flags: libc::c_int,
    ) -> io::Result<usize> {
        // SAFETY: all bits zero are a valid header: null pointers and lengths of 0.
        let mut header: libc::mmsghdr = unsafe { MaybeUninit::zeroed().assume_init() };
        header.msg_hdr.msg_iov = &raw mut part;
        header.msg_hdr.msg_iovlen = 1;
        header.msg_len = UNKNOWN;
        let place: *mut libc::mmsghdr = self.at(CALL, size_of::<libc::mmsghdr>()).cast();
        // SAFETY: within the mapping and aligned, as the mapping begins at a page; no reference to these bytes exists.
        unsafe { place.write(header) };
        let no_time: *mut libc::timespec = ptr::null_mut();
        // SAFETY: the header and its one part live during the call. The part is writable memory of this mapping for a receiving call, and bytes that
        // are only read for a sending one.
        let done = unsafe { libc::syscall(number, socket.as_raw_fd(), place, 1, flags, no_time) };
        match self.last_call() {
            Some(length) if done == 1 => Ok(length),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping that this value owns, and to which no reference outlives it.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

/// A process after it was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Copied {
    /// This is the process as it was; the copy has this number.
    Original(Pid),
    /// This is the copy.
    Copy,
}

/// Copies this process, as fork(2) does.
pub(super) fn copy_process() -> io::Result<Copied> {
    // SAFETY: this process has one thread, so the copy has every thread that it could wait for.
    copied(unsafe { libc::fork() }.into())
}

/// Copies this process. The copy has the same parent, and the same table of file descriptors: what one opens or closes
/// is open or closed for both, and for the one when the other has ended.
pub(super) fn copy_process_with_descriptors() -> io::Result<Copied> {
    let flags = libc::CLONE_FILES | libc::CLONE_PARENT | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and without a stack this is fork(2): the copy goes on with a copy of the memory. This process has one thread, and no
    // handlers that the C library would call around a fork.
    copied(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) })
}

fn copied(number: i64) -> io::Result<Copied> {
    match i32::try_from(number).ok().and_then(Pid::from_raw) {
        Some(process) if number > 0 => Ok(Copied::Original(process)),
        _ if number == 0 => Ok(Copied::Copy),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Has the kernel forget the children of this process when they end, so that none stays as a zombie. That holds for a
/// program too that this process executes.
pub(super) fn forget_children() {
    // SAFETY: the disposition of one signal; no handler of this program is replaced, as it has none for this one.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

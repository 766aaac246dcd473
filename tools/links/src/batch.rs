//! Many frames in one system call, through io_uring(7).
//!
//! A system call of a PV dom0 passes through Xen, and after each of them the kernel may let another process run. With
//! many frames in one call, the receivers find more of them at a time.
#![allow(
    unsafe_code,
    reason = "the kernel is given the addresses of frames and buffers, which it uses during the call"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::register::Restriction;
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;

use super::Piece;

/// The most frames in one system call.
const ENTRIES: usize = 64;
/// The index of the link in the ring's list of files.
const LINK: types::Fixed = types::Fixed(0);
/// The number of calls in a row that may fail while the kernel still has frames.
const PATIENCE: u32 = 1000;
/// The number of a request to cancel another one. The others are numbered from 0 on.
const CANCEL: u64 = u64::MAX;

/// The result of each request, as the kernel has it: negative for an error.
type Results = [Option<i32>; ENTRIES];

/// A ring through which frames are passed to one link, and read from it.
///
/// It takes no other requests. A filter of system calls (seccomp(2)) does not see the requests of a ring, which could
/// otherwise open, rename and remove files for a process that may not.
pub struct Batch {
    ring: IoUring,
    /// The pieces of the frames that are being passed, kept to reuse its memory.
    vectors: Vec<libc::iovec>,
    /// Whether the link's reads can be told to return when there is no frame. If not, they wait, and are cancelled.
    has_nowait: bool,
}

impl Batch {
    /// A ring for a link: a TAP, or a socket in tests. The ring keeps the link open.
    ///
    /// # Errors
    /// The kernel has no io_uring, or not for us (`kernel.io_uring_disabled`, seccomp).
    pub fn of(link: &impl AsFd) -> io::Result<Self> {
        let entries = u32::try_from(ENTRIES).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ring = IoUring::builder().setup_r_disabled().build(entries)?;
        let file = link.as_fd().as_raw_fd();
        let submitter = ring.submitter();
        submitter.register_files(&[file])?;
        submitter.register_restrictions(&mut [
            Restriction::sqe_op(opcode::Write::CODE),
            Restriction::sqe_op(opcode::Writev::CODE),
            Restriction::sqe_op(opcode::Read::CODE),
            Restriction::sqe_op(opcode::AsyncCancel::CODE),
            Restriction::sqe_flags_allowed(Flags::FIXED_FILE.bits()),
        ])?;
        submitter.register_enable_rings()?;
        Ok(Self {
            ring,
            vectors: Vec::new(),
            has_nowait: true,
        })
    }

    /// Passes frames to the kernel, each after its header if the link has one, and calls `done` for each, in their
    /// order, with whether the kernel has taken it. Returns the number of those calls. If that is less than the number
    /// of frames, the ring failed and must not be used again; the kernel has nothing of the other frames.
    pub fn write(&mut self, frames: &[&[Piece<'_>]], mut done: impl FnMut(usize, bool)) -> usize {
        let mut first = 0;
        for some in frames.chunks(ENTRIES) {
            let mut results = [None; ENTRIES];
            let passed = self.pass(some, &mut results);
            for (index, result) in results.iter().take(passed).enumerate() {
                done(first + index, result.is_some_and(|result| result >= 0));
            }
            first += passed;
            if passed != some.len() {
                break;
            }
        }
        first
    }

    /// Passes at most [`ENTRIES`] frames. Returns the number of those that the kernel has seen, all of which it is done
    /// with: it looks at them in their order, so these are the first ones.
    fn pass(&mut self, frames: &[&[Piece<'_>]], results: &mut Results) -> usize {
        self.vectors.clear();
        let pieces = frames.iter().copied().flatten();
        self.vectors.extend(pieces.map(Piece::vector));
        let mut vectors = self.vectors.as_slice();
        let mut queue = self.ring.submission();
        for (index, frame) in (0..).zip(frames) {
            let (its, others) = vectors.split_at(frame.len());
            vectors = others;
            let count = u32::try_from(its.len()).unwrap_or(0);
            let write = match its {
                [one] if let Ok(length) = u32::try_from(one.iov_len) => {
                    opcode::Write::new(LINK, one.iov_base.cast_const().cast(), length).build()
                }
                its => opcode::Writev::new(LINK, its.as_ptr(), count).build(),
            };
            // SAFETY: the kernel reads the vectors and the pieces, which are borrowed until this function returns, and it
            // returns only when the kernel is done with all that it has seen. What it has not seen, it never sees: the
            // caller drops the ring, whose queue is read in system calls only. There is room: the queue was empty.
            let is_queued = unsafe { queue.push(&write.user_data(index)) }.is_ok();
            debug_assert!(is_queued);
        }
        drop(queue);
        self.run(frames.len(), results, false)
    }

    /// Reads the frames that there are, at most one into each of the first [`ENTRIES`] buffers, and calls `done` for
    /// each, in their order, with the index of its buffer and its length. Returns whether the ring can be used again.
    ///
    /// # Errors
    /// The link is gone or was set down.
    pub fn read(
        &mut self,
        buffers: &mut [&mut [u8]],
        mut done: impl FnMut(usize, usize),
    ) -> io::Result<bool> {
        loop {
            let mut results = [None; ENTRIES];
            let count = buffers.len().min(ENTRIES);
            let seen = self.fill(buffers, &mut results);
            let is_usable = seen == count;
            let has_nowait = self.has_nowait;
            let mut error = None;
            for (index, result) in results.iter().take(seen).flatten().enumerate() {
                match usize::try_from(*result) {
                    Ok(length) => done(index, length),
                    Err(_) => match Errno::from_raw_os_error(result.wrapping_neg()) {
                        Errno::AGAIN | Errno::CANCELED | Errno::INTR => {}
                        Errno::OPNOTSUPP if has_nowait => self.has_nowait = false,
                        other => error = Some(other),
                    },
                }
            }
            match error {
                Some(error) => return Err(error.into()),
                None if is_usable && self.has_nowait != has_nowait => {}
                None => return Ok(is_usable),
            }
        }
    }

    /// Reads into at most [`ENTRIES`] buffers. Returns the number of those that the kernel has seen, all of which it is
    /// done with.
    fn fill(&mut self, buffers: &mut [&mut [u8]], results: &mut Results) -> usize {
        let flags = if self.has_nowait { libc::RWF_NOWAIT } else { 0 };
        let mut queue = self.ring.submission();
        let mut count = 0;
        for (index, buffer) in (0..).zip(buffers.iter_mut().take(ENTRIES)) {
            let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
            let read = opcode::Read::new(LINK, buffer.as_mut_ptr(), length).rw_flags(flags);
            // SAFETY: the kernel writes to the buffer, which is borrowed until this function returns, and it returns only
            // when the kernel is done with all that it has seen. What it has not seen, it never sees: the caller drops the
            // ring, whose queue is read in system calls only. There is room: the queue was empty.
            let is_queued = unsafe { queue.push(&read.build().user_data(index)) }.is_ok();
            debug_assert!(is_queued);
            count += 1;
        }
        drop(queue);
        self.run(count, results, true)
    }

    /// Has the kernel work through the `count` requests in the queue, and waits until it is done with those that it has
    /// seen. Returns their number. With `is_bounded`, requests that the kernel does not finish at once are cancelled.
    fn run(&mut self, count: usize, results: &mut Results, is_bounded: bool) -> usize {
        let (mut seen, mut ended, mut failures) = (0, 0, 0);
        // The first requests, that end by themselves or were cancelled.
        let mut ending = if is_bounded { 0 } else { count };
        while ended < count {
            let wanted = if ending < count { 0 } else { count - ended };
            match self.ring.submit_and_wait(wanted) {
                // Requests to cancel are counted as well, after the others.
                Ok(more) => (seen, failures) = ((seen + more).min(count), 0),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
                Err(_) if seen == ended => break,
                // The kernel still has addresses of frames, so this process cannot go on without its answer.
                Err(_) if failures == PATIENCE => std::process::abort(),
                Err(_) => failures += 1,
            }
            for entry in self.ring.completion() {
                let index = usize::try_from(entry.user_data()).unwrap_or(ENTRIES);
                if let Some(place) = results.get_mut(index) {
                    ended += usize::from(place.is_none());
                    *place = Some(entry.result());
                }
            }
            let waiting = results.iter().enumerate().take(seen).skip(ending);
            let waiting = waiting.filter(|(_, result)| result.is_none());
            let mut queue = self.ring.submission();
            for (index, _) in waiting {
                let cancel: Entry = opcode::AsyncCancel::new(index as u64).build();
                // SAFETY: the request has no address. There is room: of each request that the queue has, none is here.
                let is_queued = unsafe { queue.push(&cancel.user_data(CANCEL)) }.is_ok();
                debug_assert!(is_queued);
            }
            drop(queue);
            ending = ending.max(seen);
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::fs::File;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::UnixDatagram;

    use mayfly_drivers::SharedPage;

    use super::*;

    /// A ring and the socket at the other end; `None` where the kernel has no io_uring for us.
    fn ring() -> Option<(Batch, UnixDatagram)> {
        let (link, other) = UnixDatagram::pair().unwrap();
        match Batch::of(&link) {
            Ok(batch) => Some((batch, other)),
            Err(error) => {
                eprintln!("not tested: {error}");
                None
            }
        }
    }

    #[test]
    fn frames_arrive_in_their_order() {
        let Some((mut batch, other)) = ring() else {
            return;
        };
        // More than the ring has entries, in calls that fill it and that do not; the socket's queue is short.
        let (sent, received) = std::sync::mpsc::channel();
        let reader = std::thread::spawn(move || {
            for _ in 0..3 * (ENTRIES + 3) {
                let mut buffer = [0; 8];
                let length = other.recv(&mut buffer).unwrap();
                sent.send(buffer[..length].to_vec()).unwrap();
            }
        });
        let page = SharedPage::leak();
        page.copy_in(4000, &[7; 96]);
        let frame = |n: usize| vec![u8::try_from(n).unwrap(); n % 5 + 1];
        let mut frames: Vec<Vec<u8>> = (0..ENTRIES + 3).map(frame).collect();
        let shared = Piece::of_page(&page, 4094..4096).unwrap();
        let pieces: Vec<Vec<Piece<'_>>> = frames
            .iter()
            .enumerate()
            .map(|(n, frame)| match n % 3 {
                0 => vec![Piece::Bytes(frame), shared],
                _ => vec![Piece::Bytes(frame)],
            })
            .collect();
        let slices: Vec<&[Piece<'_>]> = pieces.iter().map(Vec::as_slice).collect();
        for _ in 0..3 {
            let mut done = Vec::new();
            let count = batch.write(&slices, |index, taken| done.push((index, taken)));
            assert_eq!(count, slices.len());
            let all: Vec<_> = (0..slices.len()).map(|index| (index, true)).collect();
            assert_eq!(done, all);
        }
        reader.join().unwrap();
        for (_, frame) in frames.iter_mut().enumerate().filter(|(n, _)| n % 3 == 0) {
            frame.extend([7, 7]);
        }
        let arrived: Vec<_> = received.iter().collect();
        assert_eq!(arrived, [&frames[..], &frames, &frames].concat());
    }

    #[test]
    fn a_frame_that_is_refused_does_not_hold_up_the_others() {
        let Some((mut batch, other)) = ring() else {
            return;
        };
        // Longer than a datagram may be.
        let long = vec![0; 64 << 20];
        let mut done = Vec::new();
        let frames = [&b"one"[..], &long, b"three"].map(|frame| [Piece::Bytes(frame)]);
        let frames = frames.each_ref().map(|pieces| &pieces[..]);
        assert_eq!(batch.write(&frames, |_, taken| done.push(taken)), 3);
        assert_eq!(done, [true, false, true]);
        for expected in [&b"one"[..], b"three"] {
            let mut buffer = [0; 8];
            let length = other.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }

    /// Reads into `count` buffers of 4 bytes; returns the buffers that have frames, and whether the ring is usable.
    fn read(batch: &mut Batch, count: usize) -> (Vec<(usize, Vec<u8>)>, bool) {
        let mut buffers = vec![[0; 4]; count];
        let mut slices: Vec<&mut [u8]> = buffers.iter_mut().map(|buffer| &mut buffer[..]).collect();
        let mut done = Vec::new();
        let is_usable = batch
            .read(&mut slices, |index, length| done.push((index, length)))
            .unwrap();
        let frame = |(index, length): (usize, usize)| (index, buffers[index][..length].to_vec());
        (done.into_iter().map(frame).collect(), is_usable)
    }

    #[test]
    fn frames_are_read_as_far_as_there_are_any() {
        // A link that can be told not to wait, and one whose reads have to be cancelled.
        for has_nowait in [true, false] {
            let Some((mut batch, other)) = ring() else {
                return;
            };
            batch.has_nowait = has_nowait;
            for round in 0..3 {
                assert_eq!(read(&mut batch, 5), (vec![], true));
                for frame in [&b"one"[..], b"longer", b""] {
                    other.send(frame).unwrap();
                }
                let expected = [(0, &b"one"[..]), (1, b"long"), (2, b"")];
                let expected = expected.map(|(index, frame)| (index, frame.to_vec()));
                assert_eq!(read(&mut batch, 5), (expected.to_vec(), true), "{round}");
            }
            // More buffers than the ring has entries.
            other.send(b"last").unwrap();
            let expected = vec![(0, b"last".to_vec())];
            assert_eq!(read(&mut batch, ENTRIES + 1), (expected, true));
            assert_eq!(batch.has_nowait, has_nowait);
            assert_eq!(batch.write(&[&[Piece::Bytes(b"back")]], |_, _| {}), 1);
            assert_eq!(other.recv(&mut [0; 8]).unwrap(), 4);
        }
    }

    #[test]
    fn the_ring_takes_no_other_requests() {
        let Some((mut batch, other)) = ring() else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = ["old", "new"].map(|name| folder.path().join(name));
        std::fs::write(&old, "").unwrap();
        let names = [&old, &new].map(|path| CString::new(path.as_os_str().as_bytes()).unwrap());
        let [from, to] = names.each_ref().map(|name| name.as_ptr());
        let here = types::Fd(libc::AT_FDCWD);
        let requests = [
            opcode::OpenAt::new(here, from).build(),
            opcode::RenameAt::new(here, from, here, to).build(),
            opcode::UnlinkAt::new(here, from).build(),
            opcode::Socket::new(libc::AF_UNIX, libc::SOCK_STREAM, 0).build(),
        ];
        for request in requests {
            // SAFETY: the names live until the kernel has refused the request, which it does at once.
            unsafe { batch.ring.submission().push(&request) }.unwrap();
            batch.ring.submit_and_wait(1).unwrap();
            let result = batch.ring.completion().next().unwrap().result();
            assert_eq!(result, -libc::EACCES);
        }
        assert!(old.exists() && !new.exists());
        assert_eq!(batch.write(&[&[Piece::Bytes(b"back")]], |_, _| {}), 1);
        assert_eq!(other.recv(&mut [0; 8]).unwrap(), 4);
    }

    #[test]
    fn a_link_that_is_gone_is_an_error() {
        if ring().is_none() {
            return;
        }
        // Like a link that is gone, a file that is only written to cannot be read.
        let file = File::options().write(true).open("/dev/null").unwrap();
        let mut batch = Batch::of(&file).unwrap();
        let mut buffer = [0; 4];
        let read = batch.read(&mut [&mut buffer], |_, _| {});
        assert_eq!(read.unwrap_err().raw_os_error(), Some(libc::EBADF));
    }
}

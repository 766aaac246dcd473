//! Many frames in one system call, through io_uring(7).
//!
//! A system call of a PV dom0 passes through Xen, and after each of them the kernel may let another process run. With
//! many frames in one call, the receivers find more of them at a time.
#![allow(
    unsafe_code,
    reason = "the kernel is given the addresses of frames, which it reads during the call"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use io_uring::{IoUring, opcode, types};
use rustix::io::Errno;

use super::Piece;

/// The most frames in one system call.
const ENTRIES: usize = 64;
/// The index of the link in the ring's list of files.
const LINK: types::Fixed = types::Fixed(0);
/// The number of calls in a row that may fail while the kernel still has frames.
const PATIENCE: u32 = 1000;

/// A ring through which frames are passed to one link.
pub struct Batch {
    ring: IoUring,
    /// The pieces of the frames that are being passed, kept to reuse its memory.
    vectors: Vec<libc::iovec>,
}

impl Batch {
    /// A ring for a link: a TAP, or a socket in tests. The ring keeps the link open.
    ///
    /// # Errors
    /// The kernel has no io_uring, or not for us (`kernel.io_uring_disabled`, seccomp).
    pub fn of(link: &impl AsFd) -> io::Result<Self> {
        let entries = u32::try_from(ENTRIES).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ring = IoUring::new(entries)?;
        let file = link.as_fd().as_raw_fd();
        ring.submitter().register_files(&[file])?;
        Ok(Self {
            ring,
            vectors: Vec::new(),
        })
    }

    /// Passes frames to the kernel, each after its header if the link has one, and calls `done` for each, in their
    /// order, with whether the kernel has taken it. Returns the number of those calls. If that is less than the number
    /// of frames, the ring failed and must not be used again; the kernel has nothing of the other frames.
    pub fn write(&mut self, frames: &[&[Piece<'_>]], mut done: impl FnMut(usize, bool)) -> usize {
        let mut first = 0;
        for some in frames.chunks(ENTRIES) {
            let mut taken = [false; ENTRIES];
            let passed = self.pass(some, &mut taken);
            for (index, taken) in taken.iter().take(passed).enumerate() {
                done(first + index, *taken);
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
    fn pass(&mut self, frames: &[&[Piece<'_>]], taken: &mut [bool; ENTRIES]) -> usize {
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
        let (mut seen, mut ended, mut failures) = (0, 0, 0);
        while ended < frames.len() {
            match self.ring.submit_and_wait(frames.len() - ended) {
                Ok(more) => (seen, failures) = (seen + more, 0),
                Err(error) if Errno::from_io_error(&error) == Some(Errno::INTR) => {}
                Err(_) if seen == ended => break,
                // The kernel still has addresses of frames, so this process cannot go on without its answer.
                Err(_) if failures == PATIENCE => std::process::abort(),
                Err(_) => failures += 1,
            }
            for entry in self.ring.completion() {
                ended += 1;
                let index = usize::try_from(entry.user_data()).unwrap_or(ENTRIES);
                if let Some(place) = taken.get_mut(index) {
                    *place = entry.result() >= 0;
                }
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
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
}

//! Waiting for the first of several descriptors.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits until one of the descriptors can be read, or the time is over; returns which can be read.
pub(crate) fn readable<const N: usize>(
    fds: &[BorrowedFd<'_>; N],
    timeout: Option<Duration>,
) -> io::Result<[bool; N]> {
    let mut polled = fds.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let is_any = wait(&mut polled, timeout)?;
    Ok(polled.map(|fd| is_any && !fd.revents().is_empty()))
}

/// Waits until some of the sources are ready, or until the deadline. A source is a value and the descriptor that it stands for; returns the
/// values of those that are ready. A signal ends the wait as well.
///
/// # Errors
/// The kernel has no memory for so many.
pub fn ready<'f, S>(
    sources: impl IntoIterator<Item = (S, BorrowedFd<'f>, PollFlags)>,
    until: Option<Instant>,
) -> io::Result<Vec<S>> {
    let polled = |(source, fd, flags)| (source, PollFd::from_borrowed_fd(fd, flags));
    let (sources, mut polled): (Vec<S>, Vec<_>) = sources.into_iter().map(polled).unzip();
    let timeout = until.map(|at| {
        // Rounded up: a wait that ends too early would only begin again.
        at.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
    });
    let is_any = wait(&mut polled, timeout)?;
    let is_ready = polled.iter().map(|fd| is_any && !fd.revents().is_empty());
    let sources = sources.into_iter().zip(is_ready);
    Ok(sources
        .filter_map(|(source, is)| is.then_some(source))
        .collect())
}

/// Whether any of them is ready.
fn wait(polled: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<bool> {
    let timeout = timeout
        .map(Timespec::try_from)
        .transpose()
        .map_err(io::Error::other)?;
    match poll(polled, timeout.as_ref()) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn who_is_ready_is_named_and_nobody_when_time_is_over() {
        let (one, mut other) = UnixStream::pair().unwrap();
        let (two, _kept) = UnixStream::pair().unwrap();
        let sources = || {
            [
                ("one", one.as_fd(), PollFlags::IN),
                ("two", two.as_fd(), PollFlags::IN),
            ]
        };
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(ready(sources(), Some(soon)).unwrap().is_empty());
        assert!(Instant::now() >= soon);
        other.write_all(b"x").unwrap();
        assert_eq!(ready(sources(), None).unwrap(), ["one"]);
        let both = sources().map(|(name, fd, _)| (name, fd, PollFlags::OUT));
        assert_eq!(ready(both, None).unwrap(), ["one", "two"]);
    }
}

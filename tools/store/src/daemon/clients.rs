//! Connections over the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::SendFlags;

use crate::core::ConnectionId;

/// A process of dom0 that is connected to the socket.
pub(super) struct Client {
    stream: UnixStream,
    /// The events of the socket that the loop waits for.
    waits_for: epoll::EventFlags,
}

impl Client {
    pub(super) fn new(stream: UnixStream, id: ConnectionId, epoll: &OwnedFd) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let waits_for = epoll::EventFlags::IN;
        epoll::add(
            epoll,
            stream.as_fd(),
            epoll::EventData::new_u64(id),
            waits_for,
        )?;
        Ok(Self { stream, waits_for })
    }

    /// Reads bytes. Returns their number, 0 at the end of the stream, `None` if there are none yet.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        later(rustix::io::read(&self.stream, buffer))
    }

    /// Sends bytes. Returns the number of bytes sent, `None` if the socket takes none now.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        later(rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL))
    }

    /// Sets the events that the loop waits for: requests, room to send, or both.
    pub(super) fn wait_for(
        &mut self,
        id: ConnectionId,
        requests: bool,
        room: bool,
        epoll: &OwnedFd,
    ) -> io::Result<()> {
        let mut flags = epoll::EventFlags::empty();
        flags.set(epoll::EventFlags::IN, requests);
        flags.set(epoll::EventFlags::OUT, room);
        if flags != self.waits_for {
            let data = epoll::EventData::new_u64(id);
            epoll::modify(epoll, self.stream.as_fd(), data, flags)?;
            self.waits_for = flags;
        }
        Ok(())
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn later(result: Result<usize, Errno>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

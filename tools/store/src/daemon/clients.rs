//! Connections over the socket.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::event::epoll;

use crate::core::ConnectionId;

/// A process of dom0 that is connected to the socket.
pub(super) struct Client {
    stream: UnixStream,
    /// The events of the socket that the loop waits for.
    waits_for: epoll::EventFlags,
}

impl Client {
    pub(super) fn new(stream: UnixStream, id: ConnectionId, epoll: &OwnedFd) -> io::Result<Self> {
        let mut client = Self::of(stream);
        client.wait_anew(id, epoll)?;
        Ok(client)
    }

    /// A client that no epoll set knows yet.
    pub(super) fn of(stream: UnixStream) -> Self {
        Self {
            stream,
            waits_for: epoll::EventFlags::empty(),
        }
    }

    /// Waits for requests alone, in an epoll set that does not know the client yet.
    pub(super) fn wait_anew(&mut self, id: ConnectionId, epoll: &OwnedFd) -> io::Result<()> {
        self.stream.set_nonblocking(true)?;
        self.waits_for = epoll::EventFlags::IN;
        let data = epoll::EventData::new_u64(id);
        Ok(epoll::add(epoll, &self.stream, data, self.waits_for)?)
    }

    /// Gives the socket's number without closing it.
    pub(super) fn into_number(self) -> i32 {
        self.stream.into_raw_fd()
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

/// Returns `None` if a socket has no bytes yet, or no room.
pub(super) fn later(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(length) => Ok(Some(length)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

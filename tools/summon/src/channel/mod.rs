//! The socket between the two processes of `hatch summon`.
//!
//! It is a pair of `SOCK_SEQPACKET` sockets. A packet has one message or more, each encoded by `postcard`. A message of
//! the maker may have one file descriptor attached. The front's messages have none: the kernel closes descriptors that
//! the front attaches.
//!
//! Neither end waits for the other. Packets for which the kernel has no room are queued here, `QUEUE_MAX` at most.

mod message;
#[cfg(test)]
mod tests;
mod way;

use std::collections::VecDeque;
use std::io::{IoSlice, IoSliceMut};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use message::{FrontTable, GuestReport, ServiceAddresses, Stance, ToFront, ToMaker, Wake};
pub use way::FrontSender;

/// The longest packet in bytes.
pub const PACKET_MAX: usize = 4096;
/// The longest message in bytes. A longer one is malformed.
pub const MESSAGE_MAX: usize = 256;
/// The greatest number of descriptors of one packet.
const DESCRIPTORS: usize = 8;
/// The greatest number of packets that wait for room in the kernel.
const QUEUE_MAX: usize = 256;

/// The reason why the channel cannot be used any more.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The other end is gone.
    #[error("it has ended")]
    Ended,
    /// The other end does not read.
    #[error("it does not read its messages")]
    Stuck,
    /// The other end has sent something that is no message.
    #[error("it has sent a malformed message")]
    Malformed,
    /// An error of the kernel.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Makes the two ends.
///
/// # Errors
/// No file descriptor is left.
pub fn pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        flags,
        None,
    )?)
}

/// A packet that waits to be sent.
#[derive(Default)]
struct Packet {
    bytes: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

/// The sending side of an end.
pub struct Sender<M> {
    socket: OwnedFd,
    queue: VecDeque<Packet>,
    messages: PhantomData<M>,
}

impl<M: Serialize> Sender<M> {
    /// The sending side of this end of a pair.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket,
            queue: VecDeque::new(),
            messages: PhantomData,
        }
    }

    /// Queues a message. [`Self::flush`] sends it.
    ///
    /// # Errors
    /// Too many packets wait already. Then the message is lost.
    pub fn push(&mut self, message: &M, descriptor: Option<OwnedFd>) -> Result<(), ChannelError> {
        let mut buffer = [0; MESSAGE_MAX];
        // The longest possible message is shorter: the tests show it.
        let bytes =
            postcard::to_slice(message, &mut buffer).map_err(|_| ChannelError::Malformed)?;
        let has_room = |packet: &Packet| {
            packet.bytes.len() + bytes.len() <= PACKET_MAX && packet.descriptors.len() < DESCRIPTORS
        };
        if !self.queue.back().is_some_and(has_room) {
            if self.queue.len() >= QUEUE_MAX {
                return Err(ChannelError::Stuck);
            }
            self.queue.push_back(Packet::default());
        }
        if let Some(packet) = self.queue.back_mut() {
            packet.bytes.extend_from_slice(bytes);
            packet.descriptors.extend(descriptor);
        }
        Ok(())
    }

    /// Sends the waiting messages, as far as there is room.
    ///
    /// # Errors
    /// The other end is gone.
    pub fn flush(&mut self) -> Result<(), ChannelError> {
        while let Some(packet) = self.queue.front() {
            match send(&self.socket, packet) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(Errno::AGAIN | Errno::NOBUFS) => break,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN) => {
                    return Err(ChannelError::Ended);
                }
                Err(error) => return Err(ChannelError::Io(error.into())),
            }
        }
        Ok(())
    }

    /// Whether messages wait for room.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.queue.is_empty()
    }
}

impl<M> AsFd for Sender<M> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn send(socket: &OwnedFd, packet: &Packet) -> rustix::io::Result<()> {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    if packet.descriptors.is_empty() {
        // The front's seccomp filter allows only this call.
        return rustix::net::send(socket, &packet.bytes, flags).map(drop);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<BorrowedFd<'_>> = packet.descriptors.iter().map(AsFd::as_fd).collect();
    control.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(socket, &[IoSlice::new(&packet.bytes)], &mut control, flags).map(drop)
}

/// Receives the messages of one packet, if there is one. Attached descriptors are not taken.
///
/// # Errors
/// The other end is gone, or has sent a malformed message.
pub fn receive<M: DeserializeOwned>(socket: impl AsFd) -> Result<Option<Vec<M>>, ChannelError> {
    let mut bytes = [0; PACKET_MAX + 1];
    match recv(socket, &mut bytes, RecvFlags::DONTWAIT) {
        Ok((_, length)) => messages(bytes.get(..length).unwrap_or_default()).map(Some),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(Errno::CONNRESET) => Err(ChannelError::Ended),
        Err(error) => Err(ChannelError::Io(error.into())),
    }
}

/// Receives the messages of one packet and the attached descriptors, in their order.
///
/// # Errors
/// Those of [`receive`].
#[allow(clippy::type_complexity, reason = "messages, and descriptors")]
pub fn receive_with<M: DeserializeOwned>(
    socket: impl AsFd,
) -> Result<Option<(Vec<M>, VecDeque<OwnedFd>)>, ChannelError> {
    let mut bytes = [0; PACKET_MAX + 1];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let length = match recvmsg(socket, &mut parts, &mut control, flags) {
        Ok(message) => message.bytes,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(Errno::CONNRESET) => return Err(ChannelError::Ended),
        Err(error) => return Err(ChannelError::Io(error.into())),
    };
    let mut descriptors = VecDeque::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    let messages = messages(bytes.get(..length).unwrap_or_default())?;
    Ok(Some((messages, descriptors)))
}

/// Decodes the messages of a packet. An empty packet means that the other end is gone.
fn messages<M: DeserializeOwned>(mut bytes: &[u8]) -> Result<Vec<M>, ChannelError> {
    if bytes.is_empty() {
        return Err(ChannelError::Ended);
    }
    if bytes.len() > PACKET_MAX {
        return Err(ChannelError::Malformed);
    }
    let mut messages = Vec::new();
    while !bytes.is_empty() {
        let part = bytes.get(..MESSAGE_MAX).unwrap_or(bytes);
        let (message, left) =
            postcard::take_from_bytes(part).map_err(|_| ChannelError::Malformed)?;
        let taken = part.len() - left.len();
        if taken == 0 {
            return Err(ChannelError::Malformed);
        }
        messages.push(message);
        bytes = bytes.get(taken..).unwrap_or_default();
    }
    Ok(messages)
}

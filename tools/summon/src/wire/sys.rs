//! A packet socket bound to a link, which no safe crate offers.
//!
//! ABI: Linux `linux/if_packet.h`.
#![allow(unsafe_code)]
// Constants of the ABI fit their fields, but their types in `libc` are wider.
#![allow(clippy::cast_possible_truncation)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// A packet socket that gets every frame of one link, in both directions, and does not block.
///
/// # Errors
/// There is no such link, or no permission.
pub fn packet_socket(link: u32) -> io::Result<OwnedFd> {
    let socket = unbound()?;
    bind(&socket, link)?;
    Ok(socket)
}

/// A packet socket that is not bound to a link yet. With protocol 0 it receives nothing until then.
///
/// # Errors
/// There is no permission.
pub(super) fn unbound() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        flags,
        None,
    )?)
}

/// Has such a socket get every frame of a link from now on.
///
/// # Errors
/// There is no such link.
pub(super) fn bind(socket: &OwnedFd, link: u32) -> io::Result<()> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(link).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a `sockaddr_ll` of that size, and is only read.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Has such a socket receive only what the link receives: of a vif, what its guest sends. An older kernel (before 4.20) gives
/// both directions.
pub(super) fn ignore_outgoing(socket: &OwnedFd) {
    let on: libc::c_int = 1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `on` is an `int` of that size, and is only read.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            libc::PACKET_IGNORE_OUTGOING,
            (&raw const on).cast(),
            size,
        )
    };
}

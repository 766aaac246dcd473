//! The two things that no safe crate offers: the time stamp counter, and binding a packet socket to an interface.
//!
//! ABI: Linux `linux/if_packet.h`.
#![allow(unsafe_code)]
// Constants of the ABI that fit, and whose types in `libc` are wider than the fields they go into.
#![allow(clippy::cast_possible_truncation)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The time stamp counter.
pub(crate) fn ticks() -> u64 {
    // SAFETY: RDTSC reads no memory; Linux leaves it to user programs unless one asks for the contrary with prctl.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// A packet socket that gets every frame of one interface, and does not block.
pub(crate) fn packet_socket(interface: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received before the socket is bound to its interface.
    // SAFETY: no memory is passed.
    let fd = unsafe {
        libc::socket(
            libc::AF_PACKET,
            libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
            0,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new, and nothing else owns it.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: i32::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput)?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let size = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: `address` is a `sockaddr_ll` of that size, and is only read.
    let result = unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), size) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(socket)
    }
}

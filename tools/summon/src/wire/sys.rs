//! The two descriptors that no safe crate offers without more: a port of our own, and a look at somebody else's.
//!
//! ABI: Linux `linux/if_tun.h`, `linux/if.h` and `linux/if_packet.h`.
#![allow(unsafe_code)]
// Constants of the ABI that fit, and whose types in `libc` are wider than the fields they go into.
#![allow(clippy::cast_possible_truncation)]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// `TUNSETIFF`: `_IOW('T', 202, int)`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
/// `IFNAMSIZ`.
const NAME_SIZE: usize = 16;

/// `struct ifreq`, as far as `TUNSETIFF` reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_SIZE],
    flags: libc::c_short,
    rest: [u8; 22],
}
const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// A network link whose other end is this descriptor: a frame for each read and write. It is gone when it is closed.
///
/// It offers nothing, so the kernel completes checksums and cuts segments before a frame is read.
pub(super) fn tap(name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let device = rustix::fs::open("/dev/net/tun", flags, rustix::fs::Mode::empty())?;
    let device = File::from(device);
    let mut request = InterfaceRequest {
        name: [0; NAME_SIZE],
        // Frames, without four octets before each.
        flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
        rest: [0; 22],
    };
    // The last octet stays NUL.
    let place = request.name.get_mut(..name.len().min(NAME_SIZE));
    match place {
        Some(place) if name.len() < NAME_SIZE => place.copy_from_slice(name.as_bytes()),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    }
    // SAFETY: the ioctl reads and writes one `struct ifreq`, which `request` is as large as, and which nothing else touches.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(device.into())
}

/// A packet socket that gets every frame of one link, in both directions, and does not block.
///
/// # Errors
/// There is no such link, or no permission.
pub fn packet_socket(link: u32) -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received before the socket is bound to its link.
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
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
    Ok(socket)
}

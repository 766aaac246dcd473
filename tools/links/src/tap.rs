//! A network link whose other end is a descriptor of ours: a port of a bridge that a process reads frames from and writes frames to.
//!
//! ABI: Linux `linux/if_tun.h`, `linux/if.h` and `linux/virtio_net.h`.
#![allow(unsafe_code, reason = "two ioctls that no crate wraps")]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// `_IOW('T', 202, int)` and `_IOW('T', 208, unsigned int)`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
/// `TUN_F_CSUM`, `TUN_F_TSO4`, `TUN_F_TSO6`, `TUN_F_TSO_ECN`.
const CSUM: libc::c_ulong = 1;
const SEGMENTS: libc::c_ulong = 2 | 4 | 8;
/// `IFNAMSIZ`.
const NAME_SIZE: usize = 16;

/// `struct ifreq`, as far as `TUNSETIFF` reads it.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_SIZE],
    flags: u16,
    rest: [u8; 22],
}
const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

/// What the kernel leaves to the process that reads frames, and takes from it: with the first two, each frame is behind a `struct virtio_net_hdr` of 10
/// bytes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offers {
    /// Frames as they are on a wire, without anything before them.
    Nothing,
    /// Checksums need not be complete.
    Checksums,
    /// And TCP need not be cut into segments.
    Segments,
}

/// The link. It is gone when this is dropped.
#[derive(Debug)]
pub struct Tap {
    device: File,
}

impl Tap {
    /// Makes it.
    ///
    /// # Errors
    /// The kernel has no `tun`, or somebody has a link of that name, or it is no name.
    pub fn open(name: &str, offers: Offers) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = File::from(rustix::fs::open("/dev/net/tun", flags, Mode::empty())?);
        let mut kind = libc::IFF_TAP | libc::IFF_NO_PI;
        if offers != Offers::Nothing {
            kind |= libc::IFF_VNET_HDR;
        }
        let mut request = InterfaceRequest {
            name: [0; NAME_SIZE],
            flags: u16::try_from(kind).map_err(|_| io::ErrorKind::InvalidInput)?,
            rest: [0; 22],
        };
        // The last byte stays NUL.
        match request.name.get_mut(..name.len()) {
            Some(place) if name.len() < NAME_SIZE => place.copy_from_slice(name.as_bytes()),
            _ => return Err(io::ErrorKind::InvalidInput.into()),
        }
        // SAFETY: the ioctl reads and writes one `struct ifreq`, which `request` is as large as, and which nothing else touches.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF, &raw mut request) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        let offload = match offers {
            Offers::Nothing => return Ok(Self { device }),
            Offers::Checksums => CSUM,
            Offers::Segments => CSUM | SEGMENTS,
        };
        // SAFETY: the ioctl takes a number, and touches no memory of ours.
        let result = unsafe { libc::ioctl(device.as_raw_fd(), TUNSETOFFLOAD, offload) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { device })
    }

    /// Reads a frame, and gives its length with that of the header, if there is one; nothing when no frame is there.
    ///
    /// # Errors
    /// The link is not there any more, or was set down.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.device, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a frame to the kernel, with the header before it, if there is one.
    ///
    /// # Errors
    /// It does not take it.
    pub fn write(&self, frame: &[u8]) -> io::Result<()> {
        rustix::io::write(&self.device, frame)?;
        Ok(())
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

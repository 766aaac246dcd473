//! A TAP link: a network link whose frames a process reads and writes by a descriptor. It can be a port of a bridge.
//!
//! ABI: Linux `linux/if_tun.h`, `linux/if.h` and `linux/virtio_net.h`.
#![allow(unsafe_code, reason = "two ioctls that no crate wraps")]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Piece;

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

/// The offloads between the kernel and the process that reads and writes frames. With `Checksums` and `Segments`, each
/// frame follows a `struct virtio_net_hdr` of 10 bytes, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offers {
    /// Frames are complete, as on a wire, without a header before them.
    Nothing,
    /// Checksums may be blank.
    Checksums,
    /// Checksums may be blank, and TCP frames may be larger than a segment.
    Segments,
}

/// A TAP link. Dropping this removes it.
#[derive(Debug)]
pub struct Tap {
    device: File,
}

impl Tap {
    /// Creates the link.
    ///
    /// # Errors
    /// The kernel has no `tun`; a link of that name exists; or the name is invalid.
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

    /// Reads a frame, after its header if there is one. Returns the length of both; `None` when there is no frame.
    ///
    /// # Errors
    /// The link is gone or was set down.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::io::read(&self.device, buffer) {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Passes a frame in pieces to the kernel, after its header if there is one.
    ///
    /// # Errors
    /// The kernel refuses the frame.
    pub fn write_pieces(&self, frame: &[Piece<'_>]) -> io::Result<()> {
        if let [Piece::Bytes(bytes)] = frame {
            return self.write(bytes);
        }
        let vectors: Vec<libc::iovec> = frame.iter().map(Piece::vector).collect();
        let count = libc::c_int::try_from(vectors.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: the kernel reads `count` vectors, and the pieces, which are borrowed during the call.
        let result = unsafe { libc::writev(self.device.as_raw_fd(), vectors.as_ptr(), count) };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Passes a frame to the kernel, after its header if there is one.
    ///
    /// # Errors
    /// The kernel refuses the frame.
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

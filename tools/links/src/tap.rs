//! A TAP link: a network link whose frames a process reads and writes by a descriptor. It can be a port of a bridge.
//!
//! ABI: Linux `linux/if_tun.h`, `linux/if.h` and `linux/virtio_net.h`.
#![allow(unsafe_code, reason = "system calls that no crate wraps")]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Piece;

/// `_IOW('T', 202, int)`, `_IOW('T', 208, unsigned int)` and `_IOR('T', 224, int)`.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETOFFLOAD: libc::Ioctl = 0x4004_54d0;
const TUNSETSTEERINGEBPF: libc::Ioctl = 0x8004_54e0;
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

/// The program by which the kernel chooses the queue of a frame (`struct bpf_insn` of `linux/bpf.h`, a word each): the
/// last four bytes of the target's MAC address, as a number. The kernel divides it by the number of queues, and takes
/// the rest; [`queue_of`] does the same.
const STEERING: [u64; 3] = [
    // r6 = r1, where the next one finds the frame.
    0x0000_0000_0000_16bf,
    // r0 = the word at offset 2, in the order of the network.
    0x0000_0002_0000_0020,
    // exit
    0x0000_0000_0000_0095,
];
/// `BPF_PROG_LOAD`, `BPF_PROG_TYPE_SOCKET_FILTER`.
const BPF_PROG_LOAD: libc::c_long = 5;
const SOCKET_FILTER: u32 = 1;

/// `union bpf_attr`, as far as `BPF_PROG_LOAD` needs it.
#[repr(C)]
struct ProgramLoad {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    version: u32,
    flags: u32,
}
const _: () = assert!(size_of::<ProgramLoad>() == 48);

/// The program in the kernel by which it chooses a frame's queue.
#[derive(Debug)]
pub struct Steering(OwnedFd);

impl Steering {
    /// Loads it.
    ///
    /// # Errors
    /// The kernel takes no program from us (`CAP_BPF`).
    pub fn load() -> io::Result<Self> {
        let load = ProgramLoad {
            kind: SOCKET_FILTER,
            count: u32::try_from(STEERING.len()).map_err(|_| io::ErrorKind::InvalidInput)?,
            instructions: STEERING.as_ptr().expose_provenance() as u64,
            license: c"MIT".as_ptr().expose_provenance() as u64,
            log: [0; 2],
            version: 0,
            flags: 0,
        };
        // SAFETY: the kernel reads `load`, and the instructions and the text that it points to, which are constants.
        let program = unsafe {
            libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_LOAD,
                &raw const load,
                size_of_val(&load),
            )
        };
        match libc::c_int::try_from(program) {
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(program) if program >= 0 => Ok(Self(unsafe { OwnedFd::from_raw_fd(program) })),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The queue by which the frames for a MAC address come, of this many.
#[must_use]
pub fn queue_of(mac: [u8; 6], queues: usize) -> usize {
    let [_, _, word @ ..] = mac;
    usize::try_from(u32::from_be_bytes(word)).unwrap_or(0) % queues.max(1)
}

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

/// A TAP link, or a queue of one. Dropping this removes it.
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
        Self::create(name, offers, 0)
    }

    /// Creates a link with several queues. A frame for a MAC address comes by the queue that [`queue_of`] gives; frames
    /// may be written to any. The link is removed with the last of its queues.
    ///
    /// # Errors
    /// As [`Tap::open`]'s; or the kernel is older than Linux 4.16.
    pub fn with_queues(
        name: &str,
        offers: Offers,
        queues: usize,
        steering: &Steering,
    ) -> io::Result<Vec<Self>> {
        let queues = (0..queues).map(|_| Self::create(name, offers, libc::IFF_MULTI_QUEUE));
        let queues = queues.collect::<io::Result<Vec<Self>>>()?;
        if let Some(one) = queues.first() {
            let program = steering.0.as_raw_fd();
            // SAFETY: the ioctl reads one number, which nothing else touches.
            let result = unsafe {
                libc::ioctl(
                    one.device.as_raw_fd(),
                    TUNSETSTEERINGEBPF,
                    &raw const program,
                )
            };
            if result < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(queues)
    }

    fn create(name: &str, offers: Offers, more: libc::c_int) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = File::from(rustix::fs::open("/dev/net/tun", flags, Mode::empty())?);
        let mut kind = libc::IFF_TAP | libc::IFF_NO_PI | more;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn neighbours_come_by_different_queues() {
        let mac = |last| [0, 0x16, 0x3e, 0, 1, last];
        let queues = [1, 2, 3, 4].map(|last| queue_of(mac(last), 3));
        assert_eq!(queues.len(), 4);
        assert_ne!(queues[0], queues[1]);
        assert_ne!(queues[1], queues[2]);
        assert_eq!(queues[0], queues[3]);
        assert_eq!(queue_of(mac(7), 1), 0);
        // Where there are TAPs for us, the kernel takes the program.
        if Path::new("/dev/net/tun").exists() {
            let name = format!("mayfly-q{}", std::process::id() % 1_000_000);
            let queues = Steering::load()
                .and_then(|steering| Tap::with_queues(&name, Offers::Checksums, 2, &steering));
            match queues {
                Ok(queues) => assert_eq!(queues.len(), 2),
                Err(error) => eprintln!("not tested: {error}"),
            }
        }
    }
}

//! Event channels of a process of dom0, through `/dev/xen/evtchn`.
//!
//! ABI: Linux `include/uapi/xen/evtchn.h`. A port that an event has come by stays masked until it is written back. All ports are closed with the
//! device, and the other end is then as it was before they were bound.
#![allow(unsafe_code, reason = "system calls that no crate wraps")]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

/// `_IOC(_IOC_NONE, 'E', number, size)`.
#[allow(clippy::cast_possible_truncation, reason = "the structs are small")]
const fn ioctl<T>(number: u32) -> libc::Ioctl {
    ((size_of::<T>() as u32) << 16 | (b'E' as u32) << 8 | number) as libc::Ioctl
}
const IOCTL_EVTCHN_BIND_INTERDOMAIN: libc::Ioctl = ioctl::<BindInterdomain>(1);
const IOCTL_EVTCHN_UNBIND: libc::Ioctl = ioctl::<Port>(3);
const IOCTL_EVTCHN_NOTIFY: libc::Ioctl = ioctl::<Port>(4);
const IOCTL_EVTCHN_RESET: libc::Ioctl = (b'E' as libc::Ioctl) << 8 | 5;

/// `struct ioctl_evtchn_bind_interdomain`.
#[repr(C)]
struct BindInterdomain {
    remote_domain: u32,
    remote_port: u32,
}
const _: () = assert!(size_of::<BindInterdomain>() == 8);

/// `struct ioctl_evtchn_unbind` and `struct ioctl_evtchn_notify`.
#[repr(C)]
struct Port {
    port: u32,
}
const _: () = assert!(size_of::<Port>() == 4);

/// Ports that are read at a time.
const BATCH: usize = 64;

/// The event channels of this process.
#[derive(Debug)]
pub struct Evtchn {
    device: File,
}

impl Evtchn {
    /// Opens the device. Reading never blocks.
    ///
    /// # Errors
    /// It is not there, or not for us.
    pub fn open() -> io::Result<Self> {
        let path = "/dev/xen/evtchn";
        let flags =
            i32::try_from(OFlags::NONBLOCK.bits()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let device = File::options()
            .read(true)
            .write(true)
            .custom_flags(flags)
            .open(path)
            .map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))?;
        Ok(Self { device })
    }

    fn call<T>(&self, number: libc::Ioctl, argument: &T) -> io::Result<u32> {
        // SAFETY: `number` encodes the size of `T`, of which the kernel reads one and writes nothing; it lives during the call.
        let result = unsafe {
            libc::ioctl(
                self.device.as_raw_fd(),
                number,
                std::ptr::from_ref(argument),
            )
        };
        u32::try_from(result).map_err(|_| io::Error::last_os_error())
    }

    /// Binds to a port that a domain has left unbound for dom0; gives our own.
    ///
    /// # Errors
    /// There is no such port.
    pub fn bind(&self, domain: u16, port: u32) -> io::Result<u32> {
        let argument = BindInterdomain {
            remote_domain: domain.into(),
            remote_port: port,
        };
        self.call(IOCTL_EVTCHN_BIND_INTERDOMAIN, &argument)
    }

    /// Closes a port of ours.
    ///
    /// # Errors
    /// It is none.
    pub fn unbind(&self, port: u32) -> io::Result<()> {
        self.call(IOCTL_EVTCHN_UNBIND, &Port { port }).map(drop)
    }

    /// Notifies the other end of a port of ours.
    ///
    /// # Errors
    /// It is none.
    pub fn notify(&self, port: u32) -> io::Result<()> {
        self.call(IOCTL_EVTCHN_NOTIFY, &Port { port }).map(drop)
    }

    /// Calls `each` with every port that an event has come by; it comes by none of them again before [`Evtchn::unmask`].
    ///
    /// # Errors
    /// More events have come than the kernel has room for. What was not read is lost, and all ports are open for new ones: whoever serves them
    /// has to look at all.
    pub fn take(&self, mut each: impl FnMut(u32)) -> io::Result<()> {
        let mut ports = [0_u32; BATCH];
        loop {
            match rustix::io::read(&self.device, ports.as_mut_bytes()) {
                Ok(length) => {
                    let read = ports.get(..length / size_of::<u32>()).unwrap_or_default();
                    read.iter().copied().for_each(&mut each);
                    if read.len() < BATCH {
                        return Ok(());
                    }
                    ports.zero();
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => {
                    if error == Errno::FBIG {
                        self.call(IOCTL_EVTCHN_RESET, &())?;
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// Lets events come by these ports again.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unmask(&self, ports: &[u32]) -> io::Result<()> {
        // The kernel takes a page at most, and ignores ports that are none.
        for some in ports.chunks(BATCH) {
            rustix::io::write(&self.device, some.as_bytes())?;
        }
        Ok(())
    }
}

impl AsFd for Evtchn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

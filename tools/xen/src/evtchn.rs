//! Event channels of a process of dom0, through `/dev/xen/evtchn`.
//!
//! ABI: Linux `include/uapi/xen/evtchn.h`. A port on which an event has come stays masked until it is written back.
//! Closing the device closes all ports; the other ends are then unbound again.
#![allow(unsafe_code, reason = "system calls that no crate wraps")]

use std::fs::File;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use rustix::fs::OFlags;
use rustix::io::Errno;
use zerocopy::{FromZeros, IntoBytes};

/// `_IOC(_IOC_NONE, 'E', number, size)`.
#[allow(clippy::cast_possible_truncation, reason = "the structs are small")]
const fn ioctl<T>(number: u32) -> libc::Ioctl {
    ((size_of::<T>() as u32) << 16 | (b'E' as u32) << 8 | number) as libc::Ioctl
}
const IOCTL_EVTCHN_BIND_VIRQ: libc::Ioctl = ioctl::<BindVirq>(0);
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

/// `struct ioctl_evtchn_bind_virq`.
#[repr(C)]
struct BindVirq {
    virq: u32,
}
const _: () = assert!(size_of::<BindVirq>() == 4);

/// `VIRQ_DOM_EXC` (Xen's `xen.h`).
const VIRQ_DOM_EXC: u32 = 3;

/// `struct ioctl_evtchn_unbind` and `struct ioctl_evtchn_notify`.
#[repr(C)]
struct Port {
    port: u32,
}
const _: () = assert!(size_of::<Port>() == 4);

/// The greatest number of ports of a domain (`EVTCHN_FIFO_NR_CHANNELS`).
const PORTS: u32 = 1 << 17;

/// The number of ports that are read at a time.
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
    /// The device does not exist, or access is denied.
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

    /// Goes on with the device that a predecessor in this process has opened, and with all ports that are bound there.
    /// From now on reading never blocks.
    ///
    /// # Errors
    /// The kernel's.
    pub fn inherit(device: OwnedFd) -> io::Result<Self> {
        let this = Self {
            device: device.into(),
        };
        this.never_block()?;
        Ok(this)
    }

    /// Has reading never block, whatever another process has set.
    ///
    /// # Errors
    /// The kernel's.
    pub fn never_block(&self) -> io::Result<()> {
        let flags = rustix::fs::fcntl_getfl(&self.device)?;
        Ok(rustix::fs::fcntl_setfl(
            &self.device,
            flags | OFlags::NONBLOCK,
        )?)
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

    /// Binds to a port that a domain has left unbound for dom0. Returns the local port.
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

    /// Binds to the news that a domain has shut down or gone; gives the port. Only one process of all can.
    ///
    /// # Errors
    /// Another one has.
    pub fn bind_domain_exceptions(&self) -> io::Result<u32> {
        let argument = BindVirq { virq: VIRQ_DOM_EXC };
        self.call(IOCTL_EVTCHN_BIND_VIRQ, &argument)
    }

    /// Closes a port of ours.
    ///
    /// # Errors
    /// The port is not bound.
    pub fn unbind(&self, port: u32) -> io::Result<()> {
        self.call(IOCTL_EVTCHN_UNBIND, &Port { port }).map(drop)
    }

    /// Closes a port that this device has bound and of which nobody knows, as its process ended in that moment.
    /// Returns whether there was one.
    pub fn unbind_unknown(&self, is_known: impl Fn(u32) -> bool) -> bool {
        let mut unknown = (1..PORTS).filter(|port| !is_known(*port));
        unknown.any(|port| self.unbind(port).is_ok())
    }

    /// Notifies the other end of a port of ours.
    ///
    /// # Errors
    /// The port is not bound.
    pub fn notify(&self, port: u32) -> io::Result<()> {
        self.call(IOCTL_EVTCHN_NOTIFY, &Port { port }).map(drop)
    }

    /// Calls `each` with every port on which an event has come. No further event comes on it before [`Evtchn::unmask`].
    ///
    /// # Errors
    /// The kernel's buffer overflowed. Unread events are lost, and all ports are unmasked, so the caller must check all
    /// of them.
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

    /// Unmasks these ports.
    ///
    /// # Errors
    /// The kernel's.
    pub fn unmask(&self, ports: &[u32]) -> io::Result<()> {
        // The kernel takes one page at most, and ignores unbound ports.
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

//! The ring by which dom0's own kernel speaks to a xenstored in dom0.
//!
//! ABI: Linux `drivers/xen/xenfs/xenstored.c`: `/proc/xen/xsd_kva` can be mapped, a page, and `/proc/xen/xsd_port` has the number of the kernel's event
//! channel as text.
#![allow(unsafe_code, reason = "mapped memory")]

use std::fs::{self, File};
use std::io;
use std::ptr::{self, NonNull};

use mayfly_drivers::SharedPage;
use rustix::mm::{MapFlags, ProtFlags, mmap};

use super::abi::PAGE_SIZE;

/// The kernel's ring.
#[derive(Debug)]
pub struct KernelRing {
    /// Its page, mapped as long as this process lives.
    pub page: SharedPage,
    /// The kernel's port, to be bound to.
    pub port: u32,
}

impl KernelRing {
    /// Maps the page. Each call makes another mapping that stays: call it once.
    ///
    /// # Errors
    /// xenfs is not mounted, or this is not dom0.
    pub fn open() -> io::Result<Self> {
        let named =
            |path| move |error: io::Error| io::Error::new(error.kind(), format!("{path}: {error}"));
        let path = "/proc/xen/xsd_kva";
        let file = File::options().read(true).write(true).open(path);
        let file = file.map_err(named(path))?;
        // SAFETY: a new mapping at an address of the kernel's choice, which only the `SharedPage` below knows.
        let start = unsafe {
            mmap(
                ptr::null_mut(),
                PAGE_SIZE,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                &file,
                0,
            )
        }?;
        let start = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::InvalidData)?;
        // SAFETY: mapped for reading and writing, aligned, and never unmapped; nothing else in this process knows the address. The other side is the
        // kernel.
        let page = unsafe { SharedPage::from_raw(start) };
        let path = "/proc/xen/xsd_port";
        let port = fs::read_to_string(path).map_err(named(path))?;
        let port = port.trim().parse().map_err(io::Error::other)?;
        Ok(Self { page, port })
    }
}

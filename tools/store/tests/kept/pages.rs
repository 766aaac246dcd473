//! Ring pages that several processes share.
#![allow(unsafe_code, reason = "files are mapped")]

use std::fs::File;
use std::ptr::{self, NonNull};

use mayfly_drivers::SharedPage;
use rustix::mm::{MapFlags, ProtFlags, mmap};

/// Maps the first 4 KiB of a file for as long as this process lives.
pub(crate) fn map(file: &File) -> SharedPage {
    let rights = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: a new mapping at an address of the kernel's choice.
    let start = unsafe { mmap(ptr::null_mut(), 4096, rights, MapFlags::SHARED, file, 0) };
    let start = NonNull::new(start.unwrap().cast()).unwrap();
    // SAFETY: mapped, aligned to a page and never unmapped; nothing else in this process knows the address.
    unsafe { SharedPage::from_raw(start) }
}

//! The structures that a PVH guest finds in memory when it starts, under the header's names (Xen 4.17:
//! `arch-x86/hvm/start_info.h`).
#![allow(non_camel_case_types, reason = "the header's names")]

use std::mem::size_of;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `XEN_HVM_START_MAGIC_VALUE`.
pub(super) const XEN_HVM_START_MAGIC_VALUE: u32 = 0x336e_c578;
/// `XEN_HVM_MEMMAP_TYPE_RAM`.
pub(super) const XEN_HVM_MEMMAP_TYPE_RAM: u32 = 1;
/// `XEN_HVM_MEMMAP_TYPE_RESERVED`.
pub(super) const XEN_HVM_MEMMAP_TYPE_RESERVED: u32 = 2;
/// `XEN_HVM_MEMMAP_TYPE_ACPI`.
pub(super) const XEN_HVM_MEMMAP_TYPE_ACPI: u32 = 3;

/// `struct hvm_start_info`, version 1.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct hvm_start_info {
    pub(super) magic: u32,
    pub(super) version: u32,
    pub(super) flags: u32,
    pub(super) nr_modules: u32,
    pub(super) modlist_paddr: u64,
    pub(super) cmdline_paddr: u64,
    pub(super) rsdp_paddr: u64,
    pub(super) memmap_paddr: u64,
    pub(super) memmap_entries: u32,
    pub(super) reserved: u32,
}
const _: () = assert!(size_of::<hvm_start_info>() == 56);

/// `struct hvm_modlist_entry`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct hvm_modlist_entry {
    pub(super) paddr: u64,
    pub(super) size: u64,
    pub(super) cmdline_paddr: u64,
    pub(super) reserved: u64,
}
const _: () = assert!(size_of::<hvm_modlist_entry>() == 32);

/// `struct hvm_memmap_table_entry`.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub(super) struct hvm_memmap_table_entry {
    pub(super) addr: u64,
    pub(super) size: u64,
    pub(super) type_: u32,
    pub(super) reserved: u32,
}
const _: () = assert!(size_of::<hvm_memmap_table_entry>() == 24);

//! The machine until the first Rust line, and what the domain builder left in memory.
//!
//! A PVH domain starts in 32-bit protected mode with `EBX` pointing at a
//! `struct hvm_start_info`. `entry.s` builds the first page table, enters long
//! mode and calls `mayfly_main`; [`start_info`] reads what the builder says, as
//! safe Rust over bytes; [`memory`] finds the RAM that is left. Only the
//! feature `guest` brings in what runs on the machine itself.
#![no_std]
#![deny(unsafe_code)]

#[cfg(feature = "guest")]
#[allow(unsafe_code, reason = "assembly")]
mod entry;
#[cfg(feature = "guest")]
#[allow(
    unsafe_code,
    reason = "descriptor tables are loaded and stubs named by address"
)]
pub mod exceptions;
#[cfg(feature = "guest")]
#[allow(unsafe_code, reason = "linker symbols are foreign statics")]
pub mod layout;
pub mod memory;
pub mod start_info;

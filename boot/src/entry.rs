//! Brings `entry.s` into the image.
//!
//! It runs before any Rust does, so its contract is with the domain builder (the
//! PVH entry state) and with `mayfly_main`, which it calls once, on the boot
//! stack, with interrupts off and the page tables below loaded.

core::arch::global_asm!(include_str!("entry.s"), options(att_syntax));

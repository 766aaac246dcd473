//! Brings `entry.s` into the image.
//!
//! It runs before any Rust does, so its contract is with the domain builder (the
//! PVH entry state) and with `mayfly_main`, which it calls once, on the boot
//! stack, with interrupts off and the page tables below loaded.

use mayfly_handoff::note::{NOTE, Note};

/// A toolstack may connect this guest's network before it runs.
#[used]
#[unsafe(link_section = ".note.mayfly")]
static TAKES_CONNECTED_NETWORK: Note = NOTE;

core::arch::global_asm!(include_str!("entry.s"), options(att_syntax));

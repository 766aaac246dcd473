//! Includes `mem.s` in the image: the memory functions that the compiler calls.
//!
//! They touch exactly the bytes that their callers own, as ISO C 7.24 defines
//! `memcpy`, `memmove`, `memset` and `memcmp`; `bcmp` is `memcmp`. `kernel/tests/mem.rs` runs them on the host.

core::arch::global_asm!(
    ".macro function name",
    ".global \\name",
    "\\name:",
    ".endm",
    include_str!("mem.s"),
    options(att_syntax)
);

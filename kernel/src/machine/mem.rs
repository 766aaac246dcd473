//! Brings `mem.s` into the image: the memory functions that the compiler calls.
//!
//! They touch exactly the bytes that their callers own, as ISO C 7.24 defines
//! `memcpy`, `memmove`, `memset` and `memcmp`; `bcmp` is `memcmp`.

core::arch::global_asm!(include_str!("mem.s"), options(att_syntax));

//! The linker script's symbols, as numbers. The one file that reads them.

use core::ops::Range;

unsafe extern "C" {
    static __text_start: u8;
    static __image_end: u8;
}

/// Physical addresses of the loaded image, `.bss` and stack included.
#[must_use]
pub fn image() -> Range<u64> {
    let start = &raw const __text_start;
    let end = &raw const __image_end;
    start.addr() as u64..end.addr() as u64
}

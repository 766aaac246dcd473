//! The symbols of the linker script as numbers. No other file reads them.

use core::ops::Range;

unsafe extern "C" {
    static __text_start: u8;
    static __image_end: u8;
    static __exception_stack_top: u8;
}

/// The end of the stack that exceptions run on; below it is an absent page.
#[must_use]
pub fn exception_stack_top() -> u64 {
    (&raw const __exception_stack_top).addr() as u64
}

/// Physical addresses of the loaded image, `.bss` and stack included.
#[must_use]
pub fn image() -> Range<u64> {
    let start = &raw const __text_start;
    let end = &raw const __image_end;
    start.addr() as u64..end.addr() as u64
}

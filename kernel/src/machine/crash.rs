//! Ends the domain after an error: prints one line, then SHUTDOWN_crash.
//!
//! The line goes to Xen's debug port, which needs no ring and no daemon, to
//! the console ring if there is room, and to `data/mayfly/error` in xenstore, whose
//! answer is waited for within a bound. Nothing here allocates.

use core::fmt;
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, Ordering};

use mayfly::line::Line;
use mayfly_boot::exceptions::ExceptionFrame;
use mayfly_drivers::ShutdownReason;

use super::hypercall;

/// Prints `mayfly: ` and the reason, and ends the domain.
pub(crate) fn crash(reason: fmt::Arguments<'_>) -> ! {
    static CRASHING: AtomicBool = AtomicBool::new(false);
    // A fault while reporting ends the domain without another word.
    if !CRASHING.swap(true, Ordering::Relaxed) {
        let line = Line::new(reason);
        hypercall::debug_write(line.as_bytes());
        hypercall::console_last_words(line.as_bytes());
        hypercall::xenstore_last_words(line.text());
    }
    hypercall::shutdown(ShutdownReason::Crash)
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(at) => crash(format_args!("panic at {at}: {}", info.message())),
        None => crash(format_args!("panic: {}", info.message())),
    }
}

/// Called by entry.s with the registers of whatever was interrupted.
#[unsafe(no_mangle)]
extern "C" fn mayfly_exception(frame: &ExceptionFrame) -> ! {
    crash(format_args!("{frame}"))
}

/// The precompiled `alloc` refers to the unwinder; with `panic = "abort"` nothing ever calls it.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    crash(format_args!("unwinding"))
}

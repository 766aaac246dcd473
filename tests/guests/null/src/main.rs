//! The do-nothing PVH guest. All of it is in `null.s`; the rest is what `rustc` asks of a program without `std`.
#![no_std]
#![no_main]

core::arch::global_asm!(include_str!("null.s"), options(att_syntax));

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}

//! The switch with two hostile guests and one honest guest that has to be served.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mayfly_switch::fake::script::run(bytes));

//! The switch, with two guests that do anything to what they share with it, and one that has to be served all the same.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| mayfly_switch::fake::script::run(bytes));

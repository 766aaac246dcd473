//! [`mayfly_fuzz_targets::store`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mayfly_fuzz_targets::store::run(data));

//! [`mayfly_fuzz_targets::pack`] under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| mayfly_fuzz_targets::pack::run(data));

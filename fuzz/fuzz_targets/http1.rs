#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| stockade_guard::fuzzing::http1(data));

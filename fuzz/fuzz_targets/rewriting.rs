#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway::http::fuzzing_rewriting::rewriting(data));

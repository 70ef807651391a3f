#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway::router::fuzzing::routes(data));

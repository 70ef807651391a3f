#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway::control::admin::fuzzing::form(data));

#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway::router::expressions::fuzzing::expression(data));

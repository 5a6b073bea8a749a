#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| syncline_transport_ws::fuzzing::compact_frames(bytes));

//! Any text as a number, and as the name of a format: converted, explained and printed, or refused
//! with an error, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flopwise_fuzz::convert(data));

//! Any text as a config.json: built and counted in every way, or refused, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flopwise_fuzz::build(data));

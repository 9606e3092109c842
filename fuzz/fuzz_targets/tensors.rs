//! Any bytes as a file of tensors: listed and read to the end, refused with an error, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flopwise_fuzz::read_tensors(data));

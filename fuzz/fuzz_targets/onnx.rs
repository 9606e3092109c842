//! Any bytes as an ONNX file: counted, refused with an error, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flopwise_fuzz::count(data));

//! Any bytes behind the magic of a GGUF file: listed, read, and built as a model, or refused with an
//! error, never a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flopwise_fuzz::read_gguf(data));

//! Any bytes as a file of PyTorch's, as the pickle in one, or as an index: listed and read, or refused
//! with an error; never a panic, and nothing is run.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flopwise_fuzz::read_checkpoint(data));

//! Any bytes as a .pt2 archive, and any JSON as the program in one: counted or refused, never a
//! panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if data.starts_with(b"PK") {
        flopwise_fuzz::count(data);
    } else {
        // Random bytes hardly ever make a valid archive; a whole one is made around them.
        flopwise_fuzz::count(&flopwise_fuzz::archive(data));
    }
});

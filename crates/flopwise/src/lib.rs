//! flopwise
#![forbid(unsafe_code)]
pub mod machine;
pub mod units;

//! flopwise
pub mod cost;
pub mod error;
pub mod graph;
pub mod import;
pub mod machine;
pub mod note;
pub mod units;

//! Number formats as data: one [`Format`] value describes one format.
//!
//! What this crate is not: it knows nothing of models, tensors or machines, and does no I/O.
//!
//! ```
//! use flopwise_formats::{Format, parse};
//! let format: Format = parse("bf16").unwrap();
//! assert_eq!(format, Format::BF16);
//! assert_eq!(format.bits, 16);
//! ```
#![forbid(unsafe_code)]

mod catalog;
mod format;
mod parse;

pub use catalog::ALL;
pub use format::{Format, Layout};
pub use parse::{UnknownFormat, parse};

//! Number formats as data, and what becomes of a value in them, exactly.
//!
//! ```
//! use flopwise_formats::{Format, codec::{self, Rules}, decimal};
//! let value = decimal::parse("0.052").unwrap().value;
//! let stored = codec::encode(Format::FP32, &value, Rules::IEEE);
//! assert_eq!(stored.code, 0x3D54FDF4);
//! assert_eq!(codec::decode(Format::FP32, stored.code).unwrap().to_string(),
//!     "0.05200000107288360595703125");
//! ```
//!
//! What this crate is not: it knows nothing of models or machines, does no I/O, and starts no
//! threads.
#![deny(unsafe_code)] // one call, in bulk/lanes.rs, into functions compiled for AVX2

mod catalog;
mod format;
mod parse;

pub mod block;
pub mod bulk;
pub mod codec;
pub mod decimal;
mod exact;
pub mod explain;
pub mod facts;
pub mod matmul;
pub mod stats;
pub mod steps;
pub mod system;

pub use catalog::{ALL, About, about};
pub use exact::{Exact, Rational};
pub use format::{CodeBook, Float, Format, Infinity, Layout, Nan};
pub use parse::{MAX_BIAS, UnknownFormat, parse};

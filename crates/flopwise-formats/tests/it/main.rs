//! The crate from outside, against what others computed.

// A test that reads data others made stops where those are not as expected.
#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod blocks;
mod bulk;
mod casts;
mod properties;
mod vectors;

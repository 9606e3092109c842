//! The crate from outside, against what others computed.

mod vectors;

//! The integration tests, one binary.

mod masks;
mod memory;
mod onnx;
mod pt2;
mod unknown;

//! The integration tests, one binary.

mod masks;
mod onnx;
mod pt2;

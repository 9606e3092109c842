//! The integration tests, one binary.

mod onnx;
mod pt2;

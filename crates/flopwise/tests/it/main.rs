//! The integration tests, one binary.

mod masks;
mod memory;
mod conventions;
mod onnx;
mod onnx_node_tests;
mod onnxruntime;
mod pt2;
mod unknown;

//! The integration tests, one binary.

mod architectures;
mod audit;
mod backward;
mod conventions;
mod deepseek_v4;
mod equivalence;
mod gguf;
mod kimi_k3;
mod masks;
mod memory;
mod onnx;
mod onnx_node_tests;
mod onnxruntime;
mod pt2;
mod published_dense;
mod published_moe;
mod published_other;
mod published_vision;
mod recurrent;
mod states;
mod unknown;

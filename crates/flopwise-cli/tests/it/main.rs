//! The integration tests, one binary: the built program from outside, and the tidiness of the
//! whole workspace.

#![allow(clippy::unwrap_used)] // a panic is how a test fails

mod bad_input;
mod checkpoints;
mod commands;
mod counting;
mod matmul;
mod measured;
mod memory;
mod numbers;
mod run;
mod tensors;
mod tidy;

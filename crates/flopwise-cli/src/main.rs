//! The `flopwise` command. Exit codes: 0 answered, 1 the answer is "no", 2 there is no answer.
//!
//! Not here: arithmetic. Each command asks the library one query and prints the report.

mod args;
mod commands;
mod output;
mod profiles;

use clap::Parser;
use std::process::ExitCode;

/// Reading and counting a large graph is millions of small allocations (100,000 nodes of ONNX: a
/// quarter less time than with the C library's).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether the question was answered as hoped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// Answered.
    Yes,
    /// Answered, and the answer is "no" (`--strict` and something could not be counted).
    No,
}

fn main() -> ExitCode {
    let args = args::Args::parse_from(args::typed());
    match commands::run(&args) {
        Ok(Outcome::Yes) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(1),
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&error);
            ExitCode::from(2)
        }
    }
}

//! What can be typed after `flopwise measure`.

use clap::{Args as ClapArgs, ValueEnum};
use flopwise_measure::{ElementFormat, Threads};
use std::path::PathBuf;

/// Longest edge of a product.
const MAX_EDGE: u64 = 1 << 20;
/// Most multiply-adds of one product: minutes on the fastest processors.
const MAX_MACS: u128 = 1 << 42;

#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  flopwise measure                            everything, in about a minute
  flopwise measure --quick                    clock, FP32 and main memory, in 5 seconds
  flopwise measure --gemm 4096x4096x4096 --format fp32,bf16
  flopwise measure --gemm 1x4096x4096,32x4096x4096 --library-path /opt/blas/libopenblas.so
  flopwise measure --gemm-from gpt2 --bind batch=1,seq=512
  flopwise measure --html machine.html        the roofline of all formats and levels
  flopwise measure --on this --explain fp32 peak   how a figure measured before came about

Matrix products are MxNxK: C (M x N) = A (M x K) x B (K x N). Ctrl-C keeps what is done.")]
pub(crate) struct MeasureArgs {
    /// Clock, FP32 and main memory only, in about 5 seconds
    #[arg(long, conflicts_with_all = ["format", "gemm", "gemm_from"])]
    pub(crate) quick: bool,
    /// Only these formats
    #[arg(long, value_name = "FORMAT", value_enum, value_delimiter = ',')]
    pub(crate) format: Vec<MeasuredFormat>,
    /// Only these matrix products, by every library found, beside the peaks of their formats
    #[arg(long, value_name = "MxNxK", value_parser = shape, value_delimiter = ',')]
    pub(crate) gemm: Vec<[u64; 3]>,
    /// Only the matrix products of this model, in FP32 and BF16 unless --format says otherwise
    #[arg(long, value_name = "MODEL", conflicts_with = "gemm")]
    pub(crate) gemm_from: Option<String>,
    /// Sizes of the model: batch=1,seq=512
    #[arg(long, value_name = "NAME=N", value_parser = super::binding, value_delimiter = ',', requires = "gemm_from")]
    pub(crate) bind: Vec<(String, i128)>,
    /// Operands in main memory when a product begins, not as the last product left them
    #[arg(long)]
    pub(crate) cold: bool,
    /// Elements between the end of one row of an operand and the start of the next
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1 << 16))]
    pub(crate) padding: u64,
    /// Numbers of threads (1 and all that this process may use, unless you say)
    #[arg(long, value_name = "N", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) threads: Vec<u32>,
    /// A library of matrix products, or a folder of them, beside those that are found
    #[arg(long, value_name = "PATH")]
    pub(crate) library_path: Vec<PathBuf>,
    /// Built-in matrix products only; no library is loaded
    #[arg(long, conflicts_with = "library_path")]
    pub(crate) no_libraries: bool,
    /// Show a profile that was measured before, `this` machine's or a file's, and measure nothing
    #[arg(long, value_name = "MACHINE", conflicts_with_all = ["quick", "format", "gemm", "gemm_from", "cold", "threads", "library_path", "no_libraries", "output"])]
    pub(crate) on: Option<String>,
    /// Show the working of the figures whose names hold these words, of all without words
    #[arg(long, value_name = "WORDS", num_args = 0.., conflicts_with = "html")]
    pub(crate) explain: Option<Vec<String>>,
    /// Write the profile here instead of into the user's data directory
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Also write one HTML page with the roofline
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Print one JSON object (docs/json.md)
    #[arg(long)]
    pub(crate) json: bool,
}

impl MeasureArgs {
    /// The formats wanted; all where nothing was said.
    pub(crate) fn formats(&self) -> Vec<ElementFormat> {
        match self.format.as_slice() {
            [] if self.gemm_from.is_some() => vec![ElementFormat::Fp32, ElementFormat::Bf16],
            [] => ElementFormat::ALL.to_vec(),
            formats => formats.iter().map(|format| format.element()).collect(),
        }
    }

    /// The thread counts wanted; one and all where nothing was said.
    pub(crate) fn thread_counts(&self) -> Vec<Threads> {
        match self.threads.as_slice() {
            [] => vec![Threads::One, Threads::All],
            counts => counts.iter().copied().map(Threads::Exactly).collect(),
        }
    }
}

/// Formats that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum MeasuredFormat {
    Fp64,
    Fp32,
    Bf16,
    Fp16,
    Int8,
    Int16,
}

impl MeasuredFormat {
    fn element(self) -> ElementFormat {
        match self {
            MeasuredFormat::Fp64 => ElementFormat::Fp64,
            MeasuredFormat::Fp32 => ElementFormat::Fp32,
            MeasuredFormat::Bf16 => ElementFormat::Bf16,
            MeasuredFormat::Fp16 => ElementFormat::Fp16,
            MeasuredFormat::Int8 => ElementFormat::Int8,
            MeasuredFormat::Int16 => ElementFormat::Int16,
        }
    }
}

/// `4096x4096x4096`.
fn shape(text: &str) -> Result<[u64; 3], String> {
    let edges: Option<Vec<u64>> = text.split('x').map(|edge| edge.trim().parse().ok()).collect();
    let Some(&[m, n, k]) = edges.as_deref() else {
        return Err("a product is MxNxK, such as 4096x4096x4096".to_owned());
    };
    if let Some(edge) = [m, n, k].into_iter().find(|edge| !(1..=MAX_EDGE).contains(edge)) {
        return Err(format!("{edge} is no edge of a product; 1 to {MAX_EDGE} is"));
    }
    match is_short([m, n, k]) {
        true => Ok([m, n, k]),
        false => Err("that product takes minutes; 2^42 multiply-adds are the most".to_owned()),
    }
}

/// Whether a product takes seconds at the most.
pub(crate) fn is_short(shape: [u64; 3]) -> bool {
    shape.iter().map(|edge| u128::from(*edge)).product::<u128>() <= MAX_MACS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_parse() {
        let check = |text: &str, expected: Result<[u64; 3], &str>| match (shape(text), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
            (found, expected) => panic!("{text}: {found:?}, not {expected:?}"),
        };
        check("1x4096x64", Ok([1, 4096, 64]));
        check("8 x 8 x 8", Ok([8, 8, 8]));
        check("0x1x1", Err("0 is no edge"));
        check("4096x4096", Err("MxNxK"));
        check("1x2x3x4", Err("MxNxK"));
        check("ax1x1", Err("MxNxK"));
        check("99999999999999999999x1x1", Err("MxNxK"));
        check("2097152x1x1", Err("no edge"));
        check("1048576x1048576x1048576", Err("2^42"));
    }
}

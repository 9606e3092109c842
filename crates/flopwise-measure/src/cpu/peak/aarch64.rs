//! Multiply-adds for 64-bit Arm in assembly: NEON and its extensions.
//!
//! Not here: outer products (`sme.rs`), what the instructions do (`twin.rs`), and SVE. Every
//! processor with SVE has NEON too, a lower bound where its vectors are wider than 128 bits.
//!
//! Every loop runs under an FPCR of zeros, nothing flushed to zero and nothing trapped, and puts
//! back what it found.

use super::frame::Frame;
use super::twin::{Arithmetic, Number};
use super::{Loop, MixLoop, PeakKernel, STEPS_PER_PASS};
use crate::bench::ElementFormat;
use std::arch::{asm, is_aarch64_feature_detected};
use std::mem::offset_of;

/// The features, of those that kernels here need, that this processor and system have.
pub(super) fn features() -> Vec<&'static str> {
    let mut features = Vec::new();
    macro_rules! detect {
        ($($feature:tt)+) => {
            $(if is_aarch64_feature_detected!($feature) {
                features.push($feature);
            })+
        };
    }
    detect!("neon" "fp16" "bf16" "dotprod" "i8mm");
    features
}

/// A loop: which features, how sums lie in a register, all accumulators, and for each list of them
/// the instruction of a step. Registers 30 and 31 hold the factors.
macro_rules! run {
    ($features:literal $sums:literal [$($all:literal)+]
     $([$($register:literal)+] $step:literal)+) => {{
        /// # Safety
        /// The features are there; `frame` is laid out for these accumulators; `n_passes` is not 0.
        #[target_feature(enable = $features)]
        unsafe fn run(n_passes: u64, frame: *mut Frame) {
            // SAFETY: reads and writes the frame only; every register that it changes is named or
            // among those that a call may change.
            unsafe {
                asm!(
                    "mrs x9, fpcr",
                    "msr fpcr, xzr",
                    "ldr q30, [{frame}, #{a}]",
                    "ldr q31, [{frame}, #{b}]",
                    $(concat!("ldr q", $all, ", [{frame}, #(16*", $all, ")]"),)+
                    ".p2align 5",
                    "2:",
                    ".rept {steps}",
                    $(concat!(".irp sum" $(, ",v", $register, $sums)+), $step, ".endr",)+
                    ".endr",
                    "subs x10, x10, #1",
                    "b.ne 2b",
                    $(concat!("str q", $all, ", [{frame}, #(16*", $all, ")]"),)+
                    "msr fpcr, x9",
                    frame = in(reg) frame,
                    out("x9") _,
                    inout("x10") n_passes => _,
                    a = const offset_of!(Frame, a),
                    b = const offset_of!(Frame, b),
                    steps = const STEPS_PER_PASS,
                    clobber_abi("C"),
                    options(nostack),
                );
            }
        }
        run
    }};
}

/// The loops of one kernel: four units of latency 4 (Neoverse V2, Apple) need 16 chains.
macro_rules! loops {
    ($features:literal $sums:literal $step:literal $($n_chains:literal $registers:tt)+) => {
        &[$(Loop {
            n_chains: $n_chains,
            run: run!($features $sums $registers $registers $step),
        }),+]
    };
    ($features:literal $sums:literal $step:literal) => {
        loops!($features $sums $step
            1 [0] 2 [0 1] 4 [0 1 2 3] 8 [0 1 2 3 4 5 6 7] 12 [0 1 2 3 4 5 6 7 8 9 10 11]
            16 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15]
            24 [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23])
    };
}

/// Twelve multiply-adds, then twelve additions.
macro_rules! mix {
    ($sums:literal $multiply_add:literal $add:literal) => {
        Some(MixLoop {
            n_chains: 24,
            run: run!("neon" $sums
                [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23]
                [0 1 2 3 4 5 6 7 8 9 10 11] $multiply_add
                [12 13 14 15 16 17 18 19 20 21 22 23] $add),
        })
    };
}

/// Bytes of a register.
const REGISTER_BYTES: usize = 16;

/// The fastest of each format first.
pub(super) const KERNELS: &[PeakKernel] = &[
    PeakKernel {
        format: ElementFormat::Fp64,
        isa: "neon",
        instruction: "fmla v.2d",
        needs: &["neon"],
        arithmetic: Arithmetic::Fused(Number::Fp64),
        register_bytes: REGISTER_BYTES,
        loops: loops!("neon" ".2d" "fmla \\sum, v30.2d, v31.2d"),
        add_mix: mix!(".2d" "fmla \\sum, v30.2d, v31.2d" "fadd \\sum, \\sum, v30.2d"),
    },
    PeakKernel {
        format: ElementFormat::Fp32,
        isa: "neon",
        instruction: "fmla v.4s",
        needs: &["neon"],
        arithmetic: Arithmetic::Fused(Number::Fp32),
        register_bytes: REGISTER_BYTES,
        loops: loops!("neon" ".4s" "fmla \\sum, v30.4s, v31.4s"),
        add_mix: mix!(".4s" "fmla \\sum, v30.4s, v31.4s" "fadd \\sum, \\sum, v30.4s"),
    },
    PeakKernel {
        format: ElementFormat::Bf16,
        isa: "neon-bf16",
        instruction: "bfmmla v.4s",
        needs: &["neon", "bf16"],
        arithmetic: Arithmetic::MatrixBf16,
        register_bytes: REGISTER_BYTES,
        loops: loops!("neon,bf16" ".4s" "bfmmla \\sum, v30.8h, v31.8h"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Bf16,
        isa: "neon-bf16-dot",
        instruction: "bfdot v.4s",
        needs: &["neon", "bf16"],
        arithmetic: Arithmetic::DotBf16,
        register_bytes: REGISTER_BYTES,
        loops: loops!("neon,bf16" ".4s" "bfdot \\sum, v30.8h, v31.8h"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp16,
        isa: "neon-fp16",
        instruction: "fmla v.8h",
        needs: &["neon", "fp16"],
        arithmetic: Arithmetic::Fused(Number::Fp16),
        register_bytes: REGISTER_BYTES,
        loops: loops!("neon,fp16" ".8h" "fmla \\sum, v30.8h, v31.8h"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "neon-i8mm",
        instruction: "smmla v.4s",
        needs: &["neon", "i8mm"],
        arithmetic: Arithmetic::MatrixInt8,
        register_bytes: REGISTER_BYTES,
        loops: loops!("neon,i8mm" ".4s" "smmla \\sum, v30.16b, v31.16b"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "neon-dotprod",
        instruction: "sdot v.4s",
        needs: &["neon", "dotprod"],
        arithmetic: Arithmetic::QuadInt8,
        register_bytes: REGISTER_BYTES,
        loops: loops!("neon,dotprod" ".4s" "sdot \\sum, v30.16b, v31.16b"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int16,
        isa: "neon",
        instruction: "smlal v.4s",
        needs: &["neon"],
        arithmetic: Arithmetic::LongInt16,
        register_bytes: REGISTER_BYTES,
        loops: loops!("neon" ".4s" "smlal \\sum, v30.4h, v31.4h"),
        add_mix: None,
    },
];

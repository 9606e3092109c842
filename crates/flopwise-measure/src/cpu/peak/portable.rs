//! Multiply-adds in plain Rust for processors without a kernel: the compiler chooses the
//! instructions, so their rate is a lower bound.
//!
//! Not here: any promise about width or fusion.

use super::frame::Frame;
use super::twin::{Arithmetic, Number};
use super::{Loop, PeakKernel, STEPS_PER_PASS};
use crate::bench::ElementFormat;

/// What a profile calls them.
pub(super) const ISA: &str = "portable";
/// Sums side by side: enough for any vectors that the compiler makes of them.
const N_CHAINS: usize = 32;

/// The last resort of FP64 and FP32.
pub(super) const KERNELS: &[PeakKernel] = &[
    PeakKernel {
        format: ElementFormat::Fp64,
        isa: ISA,
        instruction: "compiled multiplication and addition of f64",
        needs: &[],
        arithmetic: Arithmetic::Horner(Number::Fp64),
        register_bytes: 8,
        loops: &[Loop { n_chains: N_CHAINS, run: run_fp64 }],
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp32,
        isa: ISA,
        instruction: "compiled multiplication and addition of f32",
        needs: &[],
        arithmetic: Arithmetic::Horner(Number::Fp32),
        register_bytes: 4,
        loops: &[Loop { n_chains: N_CHAINS, run: run_fp32 }],
        add_mix: None,
    },
];

/// Multiplies the sum, since a loop that only adds a product loses the multiplication to the
/// optimiser, and rounds twice, since without the instruction a fused step is a library call.
macro_rules! portable {
    ($name:ident, $float:ty) => {
        /// # Safety
        /// `frame` is a frame of [`N_CHAINS`] accumulators of one float.
        unsafe fn $name(n_passes: u64, frame: *mut Frame) {
            // SAFETY: the caller's promise.
            let frame = unsafe { &mut *frame };
            let (bytes, _) = frame.accumulators.as_chunks_mut::<{ size_of::<$float>() }>();
            let mut sums: [$float; N_CHAINS] =
                std::array::from_fn(|idx| <$float>::from_le_bytes(bytes[idx]));
            let factor = |factors: &[u8]| {
                let first = factors.first_chunk().expect("a frame holds a kilobyte of factors");
                <$float>::from_le_bytes(*first)
            };
            let (a, b) = (factor(&frame.a), factor(&frame.b));
            for _ in 0..n_passes {
                for _ in 0..STEPS_PER_PASS {
                    for sum in &mut sums {
                        *sum = *sum * a + b; // the twin: `Arithmetic::Horner`
                    }
                }
                // A fixed point once reached must not be found out by the optimiser.
                sums = std::hint::black_box(sums);
            }
            for (bytes, sum) in bytes.iter_mut().zip(sums) {
                *bytes = sum.to_le_bytes();
            }
        }
    };
}
portable!(run_fp64, f64);
portable!(run_fp32, f32);

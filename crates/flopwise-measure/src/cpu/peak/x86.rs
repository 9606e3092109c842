//! Multiply-adds for x86-64 in assembly, so that no compiler can collapse, split or serialise
//! them: SSE2, AVX, AVX2, AVX-512 and the extensions of these.
//!
//! Not here: tiles (`amx.rs`), and what the instructions do (`twin.rs`).
//!
//! Every loop runs under the default MXCSR, nothing flushed to zero and nothing trapped, and puts
//! back what it found.

use super::frame::Frame;
use super::twin::{Arithmetic, Number};
use super::{Loop, MixLoop, PeakKernel, STEPS_PER_PASS};
use crate::bench::ElementFormat;
use std::arch::asm;
use std::mem::offset_of;

/// The features, of those that kernels here need, that this processor and system have.
pub(super) fn features() -> Vec<&'static str> {
    let mut features = Vec::new();
    macro_rules! detect {
        ($($feature:tt)+) => {
            $(if is_x86_feature_detected!($feature) {
                features.push($feature);
            })+
        };
    }
    detect!("sse2" "avx" "avx2" "fma" "avxvnni");
    detect!("avx512f" "avx512bw" "avx512vl" "avx512bf16" "avx512vnni" "avx512fp16");
    features
}

/// A loop: which features, registers of which kind, what loads and stores them, the two that hold
/// factors, what comes before and after, all accumulators, and for each list of accumulators the
/// instructions of a step.
macro_rules! run {
    ($features:literal $register:literal $bytes:literal $move:literal $a:literal $b:literal
     [$($before:literal)*] [$($after:literal)*]
     $all:literal $([$list:literal $($step:literal)+])+) => {{
        /// # Safety
        /// The features are there; `frame` is laid out for these accumulators; `n_passes` is not 0.
        #[target_feature(enable = $features)]
        unsafe fn run(n_passes: u64, frame: *mut Frame) {
            // SAFETY: reads and writes the frame only; every register that it changes is named or
            // among those that a call may change.
            unsafe {
                asm!(
                    "stmxcsr dword ptr [{frame} + {saved}]",
                    "ldmxcsr dword ptr [{frame} + {control}]",
                    concat!($move, " ", $register, $a, ", [{frame} + {a}]"),
                    concat!($move, " ", $register, $b, ", [{frame} + {b}]"),
                    $($before,)*
                    concat!(".irp i, ", $all),
                    concat!($move, " ", $register, "\\i, [{frame} + ", $bytes, "*\\i]"),
                    ".endr",
                    ".p2align 5",
                    "2:",
                    ".rept {steps}",
                    $(concat!(".irp i, ", $list), $($step,)+ ".endr",)+
                    ".endr",
                    "dec rcx",
                    "jnz 2b",
                    concat!(".irp i, ", $all),
                    concat!($move, " [{frame} + ", $bytes, "*\\i], ", $register, "\\i"),
                    ".endr",
                    $($after,)*
                    "ldmxcsr dword ptr [{frame} + {saved}]",
                    frame = in(reg) frame,
                    inout("rcx") n_passes => _,
                    a = const offset_of!(Frame, a),
                    b = const offset_of!(Frame, b),
                    control = const offset_of!(Frame, control),
                    saved = const offset_of!(Frame, saved_control),
                    steps = const STEPS_PER_PASS,
                    clobber_abi("sysv64"),
                    options(nostack),
                );
            }
        }
        run
    }};
}

/// The loops of one kernel, one for each number of chains.
macro_rules! loops {
    ($head:tt $steps:tt $($n_chains:literal $list:literal)+) => {
        &[$(Loop { n_chains: $n_chains, run: loops!(@ $head $steps $list) }),+]
    };
    (@ [$($head:tt)+] [$($step:literal)+] $list:literal) => {
        run!($($head)+ $list [$list $($step)+])
    };
}

/// 128-bit registers: 13 holds what the destructive instructions would overwrite.
macro_rules! xmm {
    ($($step:literal)+) => {
        loops!(["sse2" "xmm" "16" "movups" "14" "15" [] []] [$($step)+]
            1 "0" 2 "0,1" 4 "0,1,2,3" 8 "0,1,2,3,4,5,6,7" 12 "0,1,2,3,4,5,6,7,8,9,10,11")
    };
}

/// 256-bit registers, of which there are 16: 12 and 13 are free for steps of several instructions.
macro_rules! ymm {
    ($features:literal [$($before:literal)*] $($step:literal)+) => {
        loops!([$features "ymm" "32" "vmovups" "14" "15" [$($before)*] ["vzeroupper"]] [$($step)+]
            1 "0" 2 "0,1" 4 "0,1,2,3" 8 "0,1,2,3,4,5,6,7" 12 "0,1,2,3,4,5,6,7,8,9,10,11")
    };
}

/// 256- or 512-bit registers, of which AVX-512 has 32: 28 and 29 are free.
macro_rules! evex {
    ($features:literal $register:literal $bytes:literal [$($before:literal)*]
     $($step:literal)+) => {
        loops!([$features $register $bytes "vmovups" "30" "31" [$($before)*] ["vzeroupper"]]
            [$($step)+]
            1 "0" 2 "0,1" 4 "0,1,2,3" 8 "0,1,2,3,4,5,6,7" 12 "0,1,2,3,4,5,6,7,8,9,10,11"
            16 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15"
            24 "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23")
    };
}

/// Seven multiply-adds, then seven additions: the scheduler mixes them. 14 registers is all there
/// is.
macro_rules! ymm_mix {
    ($multiply_add:literal $add:literal) => {
        Some(MixLoop {
            n_chains: 14,
            run: run!("avx2,fma" "ymm" "32" "vmovups" "14" "15" [] ["vzeroupper"]
                "0,1,2,3,4,5,6,7,8,9,10,11,12,13"
                ["0,1,2,3,4,5,6" $multiply_add] ["7,8,9,10,11,12,13" $add]),
        })
    };
}

/// Twelve multiply-adds, then twelve additions.
macro_rules! zmm_mix {
    ($multiply_add:literal $add:literal) => {
        Some(MixLoop {
            n_chains: 24,
            run: run!("avx512f" "zmm" "64" "vmovups" "30" "31" [] ["vzeroupper"]
                "0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23"
                ["0,1,2,3,4,5,6,7,8,9,10,11" $multiply_add]
                ["12,13,14,15,16,17,18,19,20,21,22,23" $add]),
        })
    };
}

/// The fastest of each format first.
pub(super) const KERNELS: &[PeakKernel] = &[
    PeakKernel {
        format: ElementFormat::Fp64,
        isa: "avx512f",
        instruction: "vfmadd231pd zmm",
        needs: &["avx512f"],
        arithmetic: Arithmetic::Fused(Number::Fp64),
        register_bytes: 64,
        loops: evex!("avx512f" "zmm" "64" [] "vfmadd231pd zmm\\i, zmm30, zmm31"),
        add_mix: zmm_mix!("vfmadd231pd zmm\\i, zmm30, zmm31" "vaddpd zmm\\i, zmm\\i, zmm30"),
    },
    PeakKernel {
        format: ElementFormat::Fp64,
        isa: "avx2+fma",
        instruction: "vfmadd231pd ymm",
        needs: &["avx2", "fma"],
        arithmetic: Arithmetic::Fused(Number::Fp64),
        register_bytes: 32,
        loops: ymm!("avx2,fma" [] "vfmadd231pd ymm\\i, ymm14, ymm15"),
        add_mix: ymm_mix!("vfmadd231pd ymm\\i, ymm14, ymm15" "vaddpd ymm\\i, ymm\\i, ymm14"),
    },
    PeakKernel {
        format: ElementFormat::Fp64,
        isa: "avx",
        instruction: "vmulpd + vaddpd ymm",
        needs: &["avx"],
        arithmetic: Arithmetic::Split(Number::Fp64),
        register_bytes: 32,
        loops: ymm!("avx" [] "vmulpd ymm13, ymm14, ymm15" "vaddpd ymm\\i, ymm\\i, ymm13"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp64,
        isa: "sse2",
        instruction: "mulpd + addpd xmm",
        needs: &["sse2"],
        arithmetic: Arithmetic::Split(Number::Fp64),
        register_bytes: 16,
        loops: xmm!("movaps xmm13, xmm14" "mulpd xmm13, xmm15" "addpd xmm\\i, xmm13"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp32,
        isa: "avx512f",
        instruction: "vfmadd231ps zmm",
        needs: &["avx512f"],
        arithmetic: Arithmetic::Fused(Number::Fp32),
        register_bytes: 64,
        loops: evex!("avx512f" "zmm" "64" [] "vfmadd231ps zmm\\i, zmm30, zmm31"),
        add_mix: zmm_mix!("vfmadd231ps zmm\\i, zmm30, zmm31" "vaddps zmm\\i, zmm\\i, zmm30"),
    },
    PeakKernel {
        format: ElementFormat::Fp32,
        isa: "avx2+fma",
        instruction: "vfmadd231ps ymm",
        needs: &["avx2", "fma"],
        arithmetic: Arithmetic::Fused(Number::Fp32),
        register_bytes: 32,
        loops: ymm!("avx2,fma" [] "vfmadd231ps ymm\\i, ymm14, ymm15"),
        add_mix: ymm_mix!("vfmadd231ps ymm\\i, ymm14, ymm15" "vaddps ymm\\i, ymm\\i, ymm14"),
    },
    PeakKernel {
        format: ElementFormat::Fp32,
        isa: "avx",
        instruction: "vmulps + vaddps ymm",
        needs: &["avx"],
        arithmetic: Arithmetic::Split(Number::Fp32),
        register_bytes: 32,
        loops: ymm!("avx" [] "vmulps ymm13, ymm14, ymm15" "vaddps ymm\\i, ymm\\i, ymm13"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp32,
        isa: "sse2",
        instruction: "mulps + addps xmm",
        needs: &["sse2"],
        arithmetic: Arithmetic::Split(Number::Fp32),
        register_bytes: 16,
        loops: xmm!("movaps xmm13, xmm14" "mulps xmm13, xmm15" "addps xmm\\i, xmm13"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Bf16,
        isa: "avx512bf16",
        instruction: "vdpbf16ps zmm",
        needs: &["avx512f", "avx512bf16"],
        arithmetic: Arithmetic::PairBf16,
        register_bytes: 64,
        loops: evex!("avx512f,avx512bf16" "zmm" "64" [] "vdpbf16ps zmm\\i, zmm30, zmm31"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Bf16,
        isa: "avx512bf16+vl",
        instruction: "vdpbf16ps ymm",
        needs: &["avx512f", "avx512vl", "avx512bf16"],
        arithmetic: Arithmetic::PairBf16,
        register_bytes: 32,
        loops: evex!("avx512vl,avx512bf16" "ymm" "32" [] "vdpbf16ps ymm\\i, ymm30, ymm31"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp16,
        isa: "avx512fp16",
        instruction: "vfmadd231ph zmm",
        needs: &["avx512f", "avx512fp16"],
        arithmetic: Arithmetic::Fused(Number::Fp16),
        register_bytes: 64,
        loops: evex!("avx512f,avx512fp16" "zmm" "64" [] "vfmadd231ph zmm\\i, zmm30, zmm31"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "avx512vnni",
        instruction: "vpdpbusd zmm",
        needs: &["avx512f", "avx512vnni"],
        arithmetic: Arithmetic::QuadMixedInt8,
        register_bytes: 64,
        loops: evex!("avx512f,avx512vnni" "zmm" "64" [] "vpdpbusd zmm\\i, zmm30, zmm31"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "avx512vnni+vl",
        instruction: "vpdpbusd ymm",
        needs: &["avx512f", "avx512vl", "avx512vnni"],
        arithmetic: Arithmetic::QuadMixedInt8,
        register_bytes: 32,
        loops: evex!("avx512vl,avx512vnni" "ymm" "32" [] "vpdpbusd ymm\\i, ymm30, ymm31"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "avxvnni",
        instruction: "vpdpbusd ymm",
        needs: &["avx2", "avxvnni"],
        arithmetic: Arithmetic::QuadMixedInt8,
        register_bytes: 32,
        loops: ymm!("avx2,avxvnni" [] "{{vex}} vpdpbusd ymm\\i, ymm14, ymm15"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "avx512bw",
        instruction: "vpmaddubsw + vpmaddwd + vpaddd zmm",
        needs: &["avx512f", "avx512bw"],
        arithmetic: Arithmetic::QuadSaturatingInt8,
        register_bytes: 64,
        loops: evex!("avx512f,avx512bw" "zmm" "64"
            ["vpternlogd zmm28, zmm28, zmm28, 255" "vpsrlw zmm28, zmm28, 15"] // ones
            "vpmaddubsw zmm29, zmm30, zmm31" "vpmaddwd zmm29, zmm29, zmm28"
            "vpaddd zmm\\i, zmm\\i, zmm29"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "avx2",
        instruction: "vpmaddubsw + vpmaddwd + vpaddd ymm",
        needs: &["avx2"],
        arithmetic: Arithmetic::QuadSaturatingInt8,
        register_bytes: 32,
        loops: ymm!("avx2"
            ["vpcmpeqw ymm12, ymm12, ymm12" "vpsrlw ymm12, ymm12, 15"] // ones
            "vpmaddubsw ymm13, ymm14, ymm15" "vpmaddwd ymm13, ymm13, ymm12"
            "vpaddd ymm\\i, ymm\\i, ymm13"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int16,
        isa: "avx512vnni",
        instruction: "vpdpwssd zmm",
        needs: &["avx512f", "avx512vnni"],
        arithmetic: Arithmetic::PairInt16,
        register_bytes: 64,
        loops: evex!("avx512f,avx512vnni" "zmm" "64" [] "vpdpwssd zmm\\i, zmm30, zmm31"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int16,
        isa: "avx512vnni+vl",
        instruction: "vpdpwssd ymm",
        needs: &["avx512f", "avx512vl", "avx512vnni"],
        arithmetic: Arithmetic::PairInt16,
        register_bytes: 32,
        loops: evex!("avx512vl,avx512vnni" "ymm" "32" [] "vpdpwssd ymm\\i, ymm30, ymm31"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int16,
        isa: "avxvnni",
        instruction: "vpdpwssd ymm",
        needs: &["avx2", "avxvnni"],
        arithmetic: Arithmetic::PairInt16,
        register_bytes: 32,
        loops: ymm!("avx2,avxvnni" [] "{{vex}} vpdpwssd ymm\\i, ymm14, ymm15"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int16,
        isa: "avx512bw",
        instruction: "vpmaddwd + vpaddd zmm",
        needs: &["avx512f", "avx512bw"],
        arithmetic: Arithmetic::PairInt16,
        register_bytes: 64,
        loops: evex!("avx512f,avx512bw" "zmm" "64" []
            "vpmaddwd zmm29, zmm30, zmm31" "vpaddd zmm\\i, zmm\\i, zmm29"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int16,
        isa: "avx2",
        instruction: "vpmaddwd + vpaddd ymm",
        needs: &["avx2"],
        arithmetic: Arithmetic::PairInt16,
        register_bytes: 32,
        loops: ymm!("avx2" [] "vpmaddwd ymm13, ymm14, ymm15" "vpaddd ymm\\i, ymm\\i, ymm13"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int16,
        isa: "sse2",
        instruction: "pmaddwd + paddd xmm",
        needs: &["sse2"],
        arithmetic: Arithmetic::PairInt16,
        register_bytes: 16,
        loops: xmm!("movdqa xmm13, xmm14" "pmaddwd xmm13, xmm15" "paddd xmm\\i, xmm13"),
        add_mix: None,
    },
];

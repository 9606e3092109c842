//! Kernels for 64-bit Arm in assembly.
//!
//! Not here: SVE and SME; every such processor has NEON too.

use super::peak::{FACTORS, FmaKernel, fused_step};
use std::arch::asm;

/// The multiply-add kernels of this processor.
pub(super) fn fma_kernels() -> Vec<FmaKernel> {
    // NEON is part of every aarch64 target that has a hard float ABI.
    vec![FmaKernel {
        isa: "neon",
        backend: "asm-neon-fma",
        n_lanes: 4,
        n_accumulators: 24,
        n_steps: 4,
        run: fma_neon,
        step: fused_step,
    }]
}

/// 24 accumulators: four units x latency 4 (Neoverse V2, Apple) needs 16.
///
/// # Safety
/// `state` holds 96 floats; `n_passes` is not 0.
unsafe fn fma_neon(n_passes: u64, state: *mut f32) {
    // SAFETY: reads two floats of `FACTORS`, reads and writes the 96 floats of `state`.
    unsafe {
        asm!(
            "ld1r {{v30.4s}}, [{factors}]",
            "add {factors}, {factors}, #4",
            "ld1r {{v31.4s}}, [{factors}]",
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
            "ldr q\\i, [{state}, #(16*\\i)]",
            ".endr",
            ".p2align 5",
            "2:",
            ".rept 4",
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
            "fmla.4s v\\i, v30, v31",
            ".endr",
            ".endr",
            "subs {n_passes}, {n_passes}, #1",
            "b.ne 2b",
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23",
            "str q\\i, [{state}, #(16*\\i)]",
            ".endr",
            factors = inout(reg) FACTORS.as_ptr() => _,
            state = in(reg) state,
            n_passes = inout(reg) n_passes => _,
            out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _,
            out("v6") _, out("v7") _, out("v8") _, out("v9") _, out("v10") _, out("v11") _,
            out("v12") _, out("v13") _, out("v14") _, out("v15") _, out("v16") _, out("v17") _,
            out("v18") _, out("v19") _, out("v20") _, out("v21") _, out("v22") _, out("v23") _,
            out("v30") _, out("v31") _,
            options(nostack),
        );
    }
}

//! Outer products (SME) for 64-bit Arm in assembly, and whether the system lets them run.
//!
//! Not here: vectors other than 512 bits long, which is what Apple's and Arm's own cores have, and
//! what the instructions do (`twin.rs`).

use super::frame::Frame;
use super::twin::{Arithmetic, Number, OuterProduct};
use super::{Loop, PeakKernel, STEPS_PER_PASS};
use crate::bench::ElementFormat;
use std::arch::asm;
use std::mem::offset_of;

/// Bytes of a vector in streaming mode.
const VECTOR_BYTES: usize = 64;

/// The features, of those that kernels here need, that this processor and system have.
pub(super) fn features() -> Vec<&'static str> {
    let claimed = claimed_features();
    // The length may be read only where there is SME.
    if claimed.is_empty() || streaming_vector_bytes() != VECTOR_BYTES {
        return Vec::new();
    }
    claimed
}

/// What Linux says of the instructions (Documentation/arch/arm64/elf_hwcaps.rst).
#[cfg(any(target_os = "linux", target_os = "android"))]
fn claimed_features() -> Vec<&'static str> {
    const SME: u64 = 1 << 23;
    const CLAIMS: [(&str, u64); 5] = [
        ("sme-f64f64", 1 << 25),
        ("sme-i8i32", 1 << 26),
        ("sme-f16f32", 1 << 27),
        ("sme-b16f32", 1 << 28),
        ("sme-f32f32", 1 << 29),
    ];
    // SAFETY: looks a number up in what the system gave this process.
    let capabilities = unsafe { libc::getauxval(libc::AT_HWCAP2) };
    let is_there = |bit: u64| capabilities & SME != 0 && capabilities & bit != 0;
    CLAIMS.into_iter().filter(|(_, bit)| is_there(*bit)).map(|(name, _)| name).collect()
}

/// What macOS says of them.
#[cfg(target_os = "macos")]
fn claimed_features() -> Vec<&'static str> {
    let is_there = |name: &std::ffi::CStr| {
        let mut value = 0u32;
        let mut size = size_of::<u32>();
        // SAFETY: a name that ends, and a value of the size given.
        let answer = unsafe {
            let value = (&raw mut value).cast();
            libc::sysctlbyname(name.as_ptr(), value, &raw mut size, std::ptr::null_mut(), 0)
        };
        answer == 0 && value == 1
    };
    if !is_there(c"hw.optional.arm.FEAT_SME") {
        return Vec::new();
    }
    let claims = [
        ("sme-f64f64", c"hw.optional.arm.FEAT_SME_F64F64"),
        ("sme-i8i32", c"hw.optional.arm.SME_I8I32"),
        ("sme-f16f32", c"hw.optional.arm.SME_F16F32"),
        ("sme-b16f32", c"hw.optional.arm.SME_B16F32"),
        ("sme-f32f32", c"hw.optional.arm.SME_F32F32"),
    ];
    claims.into_iter().filter(|(_, name)| is_there(name)).map(|(name, _)| name).collect()
}

/// How other systems are asked is not known here.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos")))]
fn claimed_features() -> Vec<&'static str> {
    Vec::new()
}

fn streaming_vector_bytes() -> usize {
    let n_bytes: usize;
    // SAFETY: called only where there is SME; reads a length.
    unsafe {
        asm!(
            ".arch_extension sme",
            "rdsvl {n_bytes}, #1",
            ".arch_extension nosme",
            n_bytes = out(reg) n_bytes,
            options(nomem, nostack),
        );
    }
    n_bytes
}

/// A loop over so many tiles: elements of so many bytes and their suffix, the instruction, the
/// suffix of the factors. Vectors 0 and 1 hold these.
macro_rules! run {
    ($bytes:literal $sum:literal $load:literal $store:literal $step:literal $factor:literal
     [$($tile:literal)+]) => {{
        /// # Safety
        /// The instruction is there, vectors are 64 bytes long in streaming mode; `frame` is laid
        /// out for these tiles; `n_passes` is not 0.
        unsafe fn run(n_passes: u64, frame: *mut Frame) {
            // SAFETY: reads and writes the frame only; every register that it changes is named or
            // among those that a call may change; streaming mode and the array are left again.
            unsafe {
                asm!(
                    ".arch_extension sme",
                    ".arch_extension sme-f64f64",
                    "mrs x9, fpcr",
                    "msr fpcr, xzr",
                    "smstart",
                    "ptrue p0.b",
                    "add x11, {frame}, #{a_high}",
                    "add x11, x11, #{a_low}",
                    "ldr z0, [x11]",
                    "add x11, {frame}, #{b_high}",
                    "add x11, x11, #{b_low}",
                    "ldr z1, [x11]",
                    "mov x11, {frame}",
                    $(
                        "mov w12, #0",
                        "3:",
                        concat!($load, " {{za", $tile, "h.", $sum, "[w12, 0]}}, p0/z, [x11]"),
                        "add x11, x11, #64",
                        "add w12, w12, #1",
                        concat!("cmp w12, #(64/", $bytes, ")"),
                        "b.lt 3b",
                    )+
                    ".p2align 5",
                    "2:",
                    ".rept {steps}",
                    $(concat!(
                        $step, " za", $tile, ".", $sum, ", p0/m, p0/m",
                        ", z0.", $factor, ", z1.", $factor
                    ),)+
                    ".endr",
                    "subs x10, x10, #1",
                    "b.ne 2b",
                    "mov x11, {frame}",
                    $(
                        "mov w12, #0",
                        "3:",
                        concat!($store, " {{za", $tile, "h.", $sum, "[w12, 0]}}, p0, [x11]"),
                        "add x11, x11, #64",
                        "add w12, w12, #1",
                        concat!("cmp w12, #(64/", $bytes, ")"),
                        "b.lt 3b",
                    )+
                    "smstop",
                    "msr fpcr, x9",
                    ".arch_extension nosme-f64f64",
                    ".arch_extension nosme",
                    frame = in(reg) frame,
                    out("x9") _,
                    inout("x10") n_passes => _,
                    out("x11") _,
                    out("x12") _,
                    a_high = const offset_of!(Frame, a) & !0xfff,
                    a_low = const offset_of!(Frame, a) & 0xfff,
                    b_high = const offset_of!(Frame, b) & !0xfff,
                    b_low = const offset_of!(Frame, b) & 0xfff,
                    steps = const STEPS_PER_PASS,
                    clobber_abi("C"),
                    options(nostack),
                );
            }
        }
        run
    }};
}

/// Four tiles of 16 x 16 four-byte sums.
macro_rules! words {
    ($step:literal $factor:literal) => {
        &[
            Loop { n_chains: 1, run: run!("4" "s" "ld1w" "st1w" $step $factor [0]) },
            Loop { n_chains: 2, run: run!("4" "s" "ld1w" "st1w" $step $factor [0 1]) },
            Loop { n_chains: 4, run: run!("4" "s" "ld1w" "st1w" $step $factor [0 1 2 3]) },
        ]
    };
}

const fn outer(factor: Number, sum: Number, edge: usize, depth: usize) -> Arithmetic {
    Arithmetic::Outer(OuterProduct { factor, sum, edge, depth })
}

/// One kernel for each format.
pub(super) const KERNELS: &[PeakKernel] = &[
    PeakKernel {
        format: ElementFormat::Fp64,
        isa: "sme-f64f64",
        instruction: "fmopa za.d",
        needs: &["sme-f64f64"],
        arithmetic: outer(Number::Fp64, Number::Fp64, 8, 1),
        register_bytes: 8 * VECTOR_BYTES,
        loops: &[
            Loop { n_chains: 1, run: run!("8" "d" "ld1d" "st1d" "fmopa" "d" [0]) },
            Loop { n_chains: 2, run: run!("8" "d" "ld1d" "st1d" "fmopa" "d" [0 1]) },
            Loop { n_chains: 4, run: run!("8" "d" "ld1d" "st1d" "fmopa" "d" [0 1 2 3]) },
            Loop { n_chains: 8, run: run!("8" "d" "ld1d" "st1d" "fmopa" "d" [0 1 2 3 4 5 6 7]) },
        ],
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp32,
        isa: "sme",
        instruction: "fmopa za.s",
        needs: &["sme-f32f32"],
        arithmetic: outer(Number::Fp32, Number::Fp32, 16, 1),
        register_bytes: 16 * VECTOR_BYTES,
        loops: words!("fmopa" "s"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Bf16,
        isa: "sme-bf16",
        instruction: "bfmopa za.s",
        needs: &["sme-b16f32"],
        arithmetic: outer(Number::Bf16, Number::Fp32, 16, 2),
        register_bytes: 16 * VECTOR_BYTES,
        loops: words!("bfmopa" "h"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Fp16,
        isa: "sme-fp16",
        instruction: "fmopa za.s from fp16",
        needs: &["sme-f16f32"],
        arithmetic: outer(Number::Fp16, Number::Fp32, 16, 2),
        register_bytes: 16 * VECTOR_BYTES,
        loops: words!("fmopa" "h"),
        add_mix: None,
    },
    PeakKernel {
        format: ElementFormat::Int8,
        isa: "sme-int8",
        instruction: "smopa za.s",
        needs: &["sme-i8i32"],
        arithmetic: outer(Number::Int8, Number::Int32, 16, 4),
        register_bytes: 16 * VECTOR_BYTES,
        loops: words!("smopa" "b"),
        add_mix: None,
    },
];

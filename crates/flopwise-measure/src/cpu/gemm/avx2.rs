//! Micro-kernels for AVX2 with FMA: tiles of 6 rows and two registers, 12 accumulators of 16.
//!
//! Not here: AVX-512 (`avx512.rs`). BF16 has no instructions at this width: packing widens it to
//! FP32, which is exact. INT8 neither: packing widens it to 16 bits, two factors a lane, for
//! `vpmaddwd`, whose sums cannot overflow; `vpmaddubsw` multiplies twice as many but saturates.

use super::pack;
use super::single_row;
use super::tile::{Call, Tile, TileKernel};
use crate::bench::ElementFormat;
use std::arch::asm;

/// Those whose instructions this processor has.
pub(super) fn kernels() -> Vec<TileKernel> {
    match is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        true => vec![FP64, FP32, BF16, INT8],
        false => Vec::new(),
    }
}

const FP64: TileKernel = TileKernel {
    format: ElementFormat::Fp64,
    backend: "asm-avx2-fma",
    instruction: "vfmadd231pd ymm",
    n_columns: 8,
    step: 1,
    step_bytes: 8,
    reads_plain_a: true,
    tiles: &FP64_TILES,
    packing_tiles: Some(&FP64_PACKING_TILES),
    pack_row: pack::copy_row::<8>,
    pack_panel: pack::avx2::copy_panel_fp64,
    row_product: single_row::avx2::fp64,
};

const FP32: TileKernel = TileKernel {
    format: ElementFormat::Fp32,
    backend: "asm-avx2-fma",
    instruction: "vfmadd231ps ymm",
    n_columns: 16,
    step: 1,
    step_bytes: 4,
    reads_plain_a: true,
    tiles: &FP32_TILES,
    packing_tiles: Some(&FP32_PACKING_TILES),
    pack_row: pack::copy_row::<4>,
    pack_panel: pack::avx2::copy_panel_fp32,
    row_product: single_row::avx2::fp32,
};

const BF16: TileKernel = TileKernel {
    format: ElementFormat::Bf16,
    backend: "asm-avx2-fma-widened",
    reads_plain_a: false,
    packing_tiles: None,
    pack_row: pack::avx2::widen_row_bf16,
    pack_panel: pack::avx2::widen_panel_bf16,
    row_product: single_row::avx2::bf16,
    ..FP32
};

const INT8: TileKernel = TileKernel {
    format: ElementFormat::Int8,
    backend: "asm-avx2-int16",
    instruction: "vpmaddwd ymm",
    n_columns: 16,
    step: 2,
    step_bytes: 4,
    reads_plain_a: false,
    tiles: &INT16_TILES,
    packing_tiles: None,
    pack_row: pack::avx2::widen_row_u8,
    pack_panel: pack::avx2::widen_panel_s8,
    row_product: single_row::avx2::int8,
};

/// One row's two products of one step.
macro_rules! row {
    ($multiply:ident, $broadcast:literal, $row:literal, $low:literal, $high:literal,
     $address:literal, $step_bytes:literal, $step_idx:literal) => {
        concat!(
            ".if {rows} > ",
            $row,
            "\n",
            $broadcast,
            " ymm14, [",
            $address,
            " + ",
            $step_bytes,
            "*",
            $step_idx,
            "]\n",
            $multiply!($low, "ymm12"),
            $multiply!($high, "ymm13"),
            ".endif\n",
        )
    };
}

/// One step of all rows.
macro_rules! step {
    ($meanwhile:ident, $multiply:ident, $broadcast:literal, $step_bytes:literal,
     $step_idx:tt, $panel:literal) => {
        concat!(
            "vmovups ymm12, ymmword ptr [",
            $panel,
            "]\n",
            "vmovups ymm13, ymmword ptr [",
            $panel,
            " + 32]\n",
            $meanwhile!($step_idx),
            row!($multiply, $broadcast, 0, "ymm0", "ymm1", "rax", $step_bytes, $step_idx),
            row!($multiply, $broadcast, 1, "ymm2", "ymm3", "rax + r8", $step_bytes, $step_idx),
            row!($multiply, $broadcast, 2, "ymm4", "ymm5", "rax + 2*r8", $step_bytes, $step_idx),
            row!($multiply, $broadcast, 3, "ymm6", "ymm7", "rcx", $step_bytes, $step_idx),
            row!($multiply, $broadcast, 4, "ymm8", "ymm9", "rcx + r8", $step_bytes, $step_idx),
            row!($multiply, $broadcast, 5, "ymm10", "ymm11", "rcx + 2*r8", $step_bytes, $step_idx),
        )
    };
}

/// Beside the products, the rows of A that come next are asked for, and rows of B for later.
macro_rules! fetch_a {
    (begin) => {
        "mov r14, [r15 + 80]\nmov rdx, [r15 + 88]"
    };
    (0) => {
        "prefetcht0 [r13]\nprefetcht1 [r14]\n"
    };
    (1) => {
        "prefetcht1 [r14 + rdx]\n"
    };
    (2) => {
        "prefetcht0 [r13 + 64]\n"
    };
    (3) => {
        "lea r14, [r14 + 2*rdx]\n"
    };
    (past $n_steps:literal, $step_bytes:literal) => {
        concat!("add r13, 8*", $n_steps, "*", $step_bytes)
    };
}

/// Beside the products, the panel of B is stored as the next tiles read it, and rows of B that come
/// next are asked for.
macro_rules! pack_b {
    (begin) => {
        "mov r14, [r15 + 72]"
    };
    (0) => {
        pack_b!(0, "r13")
    };
    (1) => {
        pack_b!(1, "r13 + r10")
    };
    (2) => {
        pack_b!(2, "r13 + 2*r10")
    };
    (3) => {
        pack_b!(3, "r13 + r11")
    };
    (past $n_steps:literal, $step_bytes:literal) => {
        concat!("lea r13, [r13 + ", $n_steps, "*r10]\nadd r14, 64*", $n_steps)
    };
    ($step_idx:literal, $ahead:literal) => {
        concat!(
            "prefetcht0 [",
            $ahead,
            "]\n",
            "vmovups ymmword ptr [r14 + 64*",
            $step_idx,
            "], ymm12\n",
            "vmovups ymmword ptr [r14 + 64*",
            $step_idx,
            " + 32], ymm13\n",
        )
    };
}

macro_rules! multiply_fp32 {
    ($sum:literal, $b:literal) => {
        concat!("vfmadd231ps ", $sum, ", ymm14, ", $b, "\n")
    };
}

macro_rules! multiply_fp64 {
    ($sum:literal, $b:literal) => {
        concat!("vfmadd231pd ", $sum, ", ymm14, ", $b, "\n")
    };
}

macro_rules! multiply_int16 {
    ($sum:literal, $b:literal) => {
        concat!("vpmaddwd ymm15, ymm14, ", $b, "\nvpaddd ", $sum, ", ", $sum, ", ymm15\n")
    };
}

/// Takes the call apart, asks for the tile, which is needed when the sums are complete, and clears
/// the sums.
macro_rules! begin {
    () => {
        concat!(
            // rax, rcx: rows 0 and 3 of A; r8: its stride.
            "mov rax, [r15]\n",
            "mov r8, [r15 + 8]\n",
            "lea rcx, [r8 + 2*r8]\n",
            "add rcx, rax\n",
            // r9: the panel; r10, r11: one and three steps of it.
            "mov r9, [r15 + 16]\n",
            "mov r10, [r15 + 24]\n",
            "lea r11, [r10 + 2*r10]\n",
            "mov r13, [r15 + 56]\n",
            // The tile is needed when the sums are complete: asked for now.
            "mov rdx, [r15 + 32]\n",
            "mov rsi, [r15 + 40]\n",
            ".rept {rows}\n",
            "prefetcht0 [rdx]\n",
            "prefetcht0 [rdx + 63]\n",
            "add rdx, rsi\n",
            ".endr\n",
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11\n",
            "vxorps xmm\\i, xmm\\i, xmm\\i\n",
            ".endr\n",
        )
    };
}

/// Adds the tile to the sums if it is asked for, and stores them.
macro_rules! end {
    ($add:literal) => {
        concat!(
            "mov rax, [r15 + 32]\n",
            "mov r8, [r15 + 40]\n",
            "mov rcx, rax\n",
            "cmp qword ptr [r15 + 64], 0\n",
            "je 6f\n",
            ".irp i, 0,2,4,6,8,10\n",
            ".if {rows} > \\i/2\n",
            $add,
            " ymm\\i, ymm\\i, ymmword ptr [rcx]",
            "\n",
            "add rcx, r8\n",
            ".endif\n",
            ".endr\n",
            "mov rcx, rax\n",
            ".irp i, 1,3,5,7,9,11\n",
            ".if {rows} > \\i/2\n",
            $add,
            " ymm\\i, ymm\\i, ymmword ptr [rcx + 32]",
            "\n",
            "add rcx, r8\n",
            ".endif\n",
            ".endr\n",
            "6:\n",
            "mov rcx, rax\n",
            ".irp i, 0,2,4,6,8,10\n",
            ".if {rows} > \\i/2\n",
            "vmovups ymmword ptr [rcx], ymm\\i\n",
            "add rcx, r8\n",
            ".endif\n",
            ".endr\n",
            ".irp i, 1,3,5,7,9,11\n",
            ".if {rows} > \\i/2\n",
            "vmovups ymmword ptr [rax + 32], ymm\\i\n",
            "add rax, r8\n",
            ".endif\n",
            ".endr\n",
            "vzeroupper\n",
        )
    };
}

/// A micro-kernel of `ROWS` rows.
macro_rules! tile {
    ($name:ident, $meanwhile:ident, $multiply:ident, $broadcast:literal, $add:literal,
     $step_bytes:literal) => {
        /// # Safety
        /// As [`Tile`] says; AVX2 and FMA are there; `ROWS` is 1 to 6.
        #[target_feature(enable = "avx2,fma")]
        #[allow(clippy::too_many_lines)] // one piece of assembly
        unsafe fn $name<const ROWS: usize>(call: &Call) {
            // SAFETY: reads `ROWS` rows and a panel of `n_steps` steps, reads and writes `ROWS`
            // rows of 64 bytes of C: what the caller promises is there.
            unsafe {
                asm!(
                    begin!(),
                    $meanwhile!(begin),
                    "mov r12, [r15 + 48]",
                    "sub r12, 4",
                    "jb 3f",
                    ".p2align 5",
                    "2:",
                    step!($meanwhile, $multiply, $broadcast, $step_bytes, 0, "r9"),
                    step!($meanwhile, $multiply, $broadcast, $step_bytes, 1, "r9 + r10"),
                    step!($meanwhile, $multiply, $broadcast, $step_bytes, 2, "r9 + 2*r10"),
                    step!($meanwhile, $multiply, $broadcast, $step_bytes, 3, "r9 + r11"),
                    $meanwhile!(past 4, $step_bytes),
                    concat!("add rax, 4*", $step_bytes),
                    concat!("add rcx, 4*", $step_bytes),
                    "lea r9, [r9 + 4*r10]",
                    "sub r12, 4",
                    "jae 2b",
                    "3:",
                    "add r12, 4",
                    "jz 5f",
                    "4:",
                    step!($meanwhile, $multiply, $broadcast, $step_bytes, 0, "r9"),
                    concat!("add rax, ", $step_bytes),
                    concat!("add rcx, ", $step_bytes),
                    $meanwhile!(past 1, $step_bytes),
                    "add r9, r10",
                    "dec r12",
                    "jnz 4b",
                    "5:",
                    end!($add),
                    in("r15") call,
                    rows = const ROWS,
                    out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                    out("r12") _, out("r13") _, out("r14") _,
                    out("ymm0") _, out("ymm1") _, out("ymm2") _, out("ymm3") _, out("ymm4") _,
                    out("ymm5") _, out("ymm6") _, out("ymm7") _, out("ymm8") _, out("ymm9") _,
                    out("ymm10") _, out("ymm11") _, out("ymm12") _, out("ymm13") _, out("ymm14") _,
                    out("ymm15") _,
                    options(nostack),
                );
            }
        }
    };
}

tile!(fp32, fetch_a, multiply_fp32, "vbroadcastss", "vaddps", 4);
tile!(fp64, fetch_a, multiply_fp64, "vbroadcastsd", "vaddpd", 8);
tile!(int16, fetch_a, multiply_int16, "vpbroadcastd", "vpaddd", 4);
tile!(fp32_packing, pack_b, multiply_fp32, "vbroadcastss", "vaddps", 4);
tile!(fp64_packing, pack_b, multiply_fp64, "vbroadcastsd", "vaddpd", 8);

/// The tiles of 1 to 6 rows.
macro_rules! tiles {
    ($tile:ident) => {
        [$tile::<1>, $tile::<2>, $tile::<3>, $tile::<4>, $tile::<5>, $tile::<6>]
    };
}

const FP32_TILES: [Tile; 6] = tiles!(fp32);
const FP64_TILES: [Tile; 6] = tiles!(fp64);
const INT16_TILES: [Tile; 6] = tiles!(int16);
const FP32_PACKING_TILES: [Tile; 6] = tiles!(fp32_packing);
const FP64_PACKING_TILES: [Tile; 6] = tiles!(fp64_packing);

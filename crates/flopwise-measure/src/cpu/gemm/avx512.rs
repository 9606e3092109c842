//! Micro-kernels for AVX-512: tiles of 14 rows and two registers, 28 accumulators of 32.
//!
//! Not here: AVX2 (`avx2.rs`). BF16 multiplies pairs (`vdpbf16ps`), INT8 quads (`vpdpbusd`: factors
//! of A without sign, of B with sign, 32-bit sums, no correction and no saturation).

use super::pack;
use super::single_row;
use super::tile::{Call, Tile, TileKernel};
use crate::bench::ElementFormat;
use std::arch::asm;

/// Those whose instructions this processor has.
pub(super) fn kernels() -> Vec<TileKernel> {
    let mut kernels = Vec::new();
    if !(is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")) {
        return kernels;
    }
    kernels.extend([FP64, FP32]);
    if is_x86_feature_detected!("avx512bf16") {
        kernels.push(BF16);
    }
    if is_x86_feature_detected!("avx512vnni") {
        kernels.push(INT8);
    }
    kernels
}

const FP64: TileKernel = TileKernel {
    format: ElementFormat::Fp64,
    backend: "asm-avx512-fma",
    instruction: "vfmadd231pd zmm",
    n_columns: 16,
    step: 1,
    step_bytes: 8,
    reads_plain_a: true,
    tiles: &FP64_TILES,
    packing_tiles: Some(&FP64_PACKING_TILES),
    pack_row: pack::copy_row::<8>,
    pack_panel: pack::avx512::copy_panel_fp64,
    row_product: single_row::avx512::fp64,
};

const FP32: TileKernel = TileKernel {
    format: ElementFormat::Fp32,
    backend: "asm-avx512-fma",
    instruction: "vfmadd231ps zmm",
    n_columns: 32,
    step: 1,
    step_bytes: 4,
    reads_plain_a: true,
    tiles: &FP32_TILES,
    packing_tiles: Some(&FP32_PACKING_TILES),
    pack_row: pack::copy_row::<4>,
    pack_panel: pack::avx512::copy_panel_fp32,
    row_product: single_row::avx512::fp32,
};

const BF16: TileKernel = TileKernel {
    format: ElementFormat::Bf16,
    backend: "asm-avx512-bf16",
    instruction: "vdpbf16ps zmm",
    step: 2,
    tiles: &BF16_TILES,
    packing_tiles: None,
    pack_panel: pack::avx512::pair_panel_bf16,
    pack_row: pack::copy_row::<2>,
    row_product: single_row::avx512::bf16,
    ..FP32
};

const INT8: TileKernel = TileKernel {
    format: ElementFormat::Int8,
    backend: "asm-avx512-vnni",
    instruction: "vpdpbusd zmm",
    step: 4,
    tiles: &INT8_TILES,
    packing_tiles: None,
    pack_panel: pack::avx512::quad_panel_s8,
    pack_row: pack::copy_row::<1>,
    row_product: single_row::avx512::int8,
    ..FP32
};

/// One row's two products of one step; two registers take turns, so that the next row's factors
/// arrive during this row's products.
macro_rules! row {
    ($multiply:literal, $broadcast:literal, $row:literal, $low:literal, $high:literal,
     $factor:literal, $address:literal, $step_bytes:literal, $step_idx:literal) => {
        concat!(
            ".if {rows} > ",
            $row,
            "\n",
            $broadcast,
            " ",
            $factor,
            ", [",
            $address,
            " + ",
            $step_bytes,
            "*",
            $step_idx,
            "]\n",
            $multiply,
            " ",
            $low,
            ", ",
            $factor,
            ", zmm28\n",
            $multiply,
            " ",
            $high,
            ", ",
            $factor,
            ", zmm29\n",
            ".endif\n",
        )
    };
}

/// One step of all rows.
macro_rules! step {
    ($meanwhile:ident, $m:literal, $b:literal, $s:literal, $i:tt, $panel:literal) => {
        concat!(
            "vmovups zmm28, zmmword ptr [", $panel, "]\n",
            "vmovups zmm29, zmmword ptr [", $panel, " + 64]\n",
            $meanwhile!($i),
            row!($m, $b, 0, "zmm0", "zmm1", "zmm30", "rax", $s, $i),
            row!($m, $b, 1, "zmm2", "zmm3", "zmm31", "rax + r8", $s, $i),
            row!($m, $b, 2, "zmm4", "zmm5", "zmm30", "rax + 2*r8", $s, $i),
            row!($m, $b, 3, "zmm6", "zmm7", "zmm31", "rcx", $s, $i),
            row!($m, $b, 4, "zmm8", "zmm9", "zmm30", "rcx + r8", $s, $i),
            row!($m, $b, 5, "zmm10", "zmm11", "zmm31", "rcx + 2*r8", $s, $i),
            row!($m, $b, 6, "zmm12", "zmm13", "zmm30", "rdx", $s, $i),
            row!($m, $b, 7, "zmm14", "zmm15", "zmm31", "rdx + r8", $s, $i),
            row!($m, $b, 8, "zmm16", "zmm17", "zmm30", "rdx + 2*r8", $s, $i),
            row!($m, $b, 9, "zmm18", "zmm19", "zmm31", "rsi", $s, $i),
            row!($m, $b, 10, "zmm20", "zmm21", "zmm30", "rsi + r8", $s, $i),
            row!($m, $b, 11, "zmm22", "zmm23", "zmm31", "rsi + 2*r8", $s, $i),
            row!($m, $b, 12, "zmm24", "zmm25", "zmm30", "rdi", $s, $i),
            row!($m, $b, 13, "zmm26", "zmm27", "zmm31", "rdi + r8", $s, $i),
        )
    };
}

/// One of two rows of B for later, two lines each.
macro_rules! later_b {
    (0) => {
        "prefetcht1 [r14]\nprefetcht1 [r14 + 64]\nadd r14, [r15 + 88]\n"
    };
    (1) => {
        ""
    };
    (2) => {
        "prefetcht1 [r14]\nprefetcht1 [r14 + 64]\nadd r14, [r15 + 88]\n"
    };
    (3) => {
        ""
    };
}

/// Beside the products, the rows of A that come next are asked for, and rows of B for later.
macro_rules! fetch_a {
    (begin) => {
        "mov r14, [r15 + 80]"
    };
    ($step_idx:tt) => {
        concat!("prefetcht0 [r13 + 64*", $step_idx, "]\n", later_b!($step_idx))
    };
    (past $n_steps:literal, $step_bytes:literal) => {
        concat!("add r13, 64*", $n_steps)
    };
}

/// As [`fetch_a`], for steps of 8 bytes: 14 rows of them are two lines.
macro_rules! fetch_wide_a {
    (begin) => {
        "mov r14, [r15 + 80]"
    };
    ($step_idx:tt) => {
        concat!(
            "prefetcht0 [r13 + 128*",
            $step_idx,
            "]\n",
            "prefetcht0 [r13 + 128*",
            $step_idx,
            " + 64]\n",
        )
    };
    (past $n_steps:literal, $step_bytes:literal) => {
        concat!("add r13, 128*", $n_steps)
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
        concat!("lea r13, [r13 + ", $n_steps, "*r10]\nadd r14, 128*", $n_steps)
    };
    ($step_idx:literal, $ahead:literal) => {
        concat!(
            "prefetcht0 [",
            $ahead,
            "]\n",
            "prefetcht0 [",
            $ahead,
            " + 64]\n",
            "vmovups zmmword ptr [r14 + 128*",
            $step_idx,
            "], zmm28\n",
            "vmovups zmmword ptr [r14 + 128*",
            $step_idx,
            " + 64], zmm29\n",
        )
    };
}

/// Moves all rows of A on by so many bytes.
macro_rules! advance {
    ($bytes:expr) => {
        concat!(
            "add rax, ",
            $bytes,
            "\n",
            ".if {rows} > 3\nadd rcx, ",
            $bytes,
            "\n.endif\n",
            ".if {rows} > 6\nadd rdx, ",
            $bytes,
            "\n.endif\n",
            ".if {rows} > 9\nadd rsi, ",
            $bytes,
            "\n.endif\n",
            ".if {rows} > 12\nadd rdi, ",
            $bytes,
            "\n.endif\n",
        )
    };
}

/// Takes the call apart, asks for the tile, which is needed when the sums are complete, and clears
/// the sums.
macro_rules! begin {
    () => {
        concat!(
            // rax, rcx, rdx, rsi, rdi: rows 0, 3, 6, 9 and 12 of A; r8: its stride.
            "mov rax, [r15]\n",
            "mov r8, [r15 + 8]\n",
            "lea rcx, [r8 + 2*r8]\n",
            "lea rdx, [rax + 2*rcx]\n",
            "lea rsi, [rdx + rcx]\n",
            "lea rdi, [rdx + 2*rcx]\n",
            "add rcx, rax\n",
            // r9: the panel; r10, r11: one and three steps of it.
            "mov r9, [r15 + 16]\n",
            "mov r10, [r15 + 24]\n",
            "lea r11, [r10 + 2*r10]\n",
            // The tile is needed when the sums are complete: asked for now.
            "mov r12, [r15 + 32]\n",
            "mov r13, [r15 + 40]\n",
            ".rept {rows}\n",
            "prefetchw [r12]\n",
            "prefetchw [r12 + 64]\n",
            "prefetchw [r12 + 127]\n",
            "add r12, r13\n",
            ".endr\n",
            ".irp i, 0,1,2,3,4,5,6,7,8,9,10,11,12,13\n",
            "vpxord zmm\\i, zmm\\i, zmm\\i\n",
            ".endr\n",
            ".irp i, 14,15,16,17,18,19,20,21,22,23,24,25,26,27\n",
            "vpxord zmm\\i, zmm\\i, zmm\\i\n",
            ".endr\n",
            "mov r13, [r15 + 56]\n",
        )
    };
}

/// Adds the tile to the sums if it is asked for, and stores them.
macro_rules! end {
    ($add:literal) => {
        concat!(
            "mov rax, [r15 + 32]\n",
            "mov r8, [r15 + 40]\n",
            "cmp qword ptr [r15 + 64], 0\n",
            "je 6f\n",
            "mov rcx, rax\n",
            ".irp i, 0,2,4,6,8,10,12,14,16,18,20,22,24,26\n",
            ".if {rows} > \\i/2\n",
            $add,
            " zmm\\i, zmm\\i, zmmword ptr [rcx]",
            "\n",
            "add rcx, r8\n",
            ".endif\n",
            ".endr\n",
            "mov rcx, rax\n",
            ".irp i, 1,3,5,7,9,11,13,15,17,19,21,23,25,27\n",
            ".if {rows} > \\i/2\n",
            $add,
            " zmm\\i, zmm\\i, zmmword ptr [rcx + 64]",
            "\n",
            "add rcx, r8\n",
            ".endif\n",
            ".endr\n",
            "6:\n",
            "mov rcx, rax\n",
            ".irp i, 0,2,4,6,8,10,12,14,16,18,20,22,24,26\n",
            ".if {rows} > \\i/2\n",
            "vmovups zmmword ptr [rcx], zmm\\i\n",
            "add rcx, r8\n",
            ".endif\n",
            ".endr\n",
            ".irp i, 1,3,5,7,9,11,13,15,17,19,21,23,25,27\n",
            ".if {rows} > \\i/2\n",
            "vmovups zmmword ptr [rax + 64], zmm\\i\n",
            "add rax, r8\n",
            ".endif\n",
            ".endr\n",
            "vzeroupper\n",
        )
    };
}

/// A micro-kernel of `ROWS` rows.
macro_rules! tile {
    ($name:ident, $meanwhile:ident, $features:literal, $m:literal, $b:literal, $add:literal,
     $s:literal) => {
        /// # Safety
        /// As [`Tile`] says; the instructions are there; `ROWS` is 1 to 14.
        #[target_feature(enable = $features)]
        #[allow(clippy::too_many_lines)] // one piece of assembly
        unsafe fn $name<const ROWS: usize>(call: &Call) {
            // SAFETY: reads `ROWS` rows and a panel of `n_steps` steps, reads and writes `ROWS`
            // rows of 128 bytes of C: what the caller promises is there.
            unsafe {
                asm!(
                    begin!(),
                    $meanwhile!(begin),
                    "mov r12, [r15 + 48]",
                    "sub r12, 4",
                    "jb 3f",
                    ".p2align 6",
                    "2:",
                    step!($meanwhile, $m, $b, $s, 0, "r9"),
                    step!($meanwhile, $m, $b, $s, 1, "r9 + r10"),
                    step!($meanwhile, $m, $b, $s, 2, "r9 + 2*r10"),
                    step!($meanwhile, $m, $b, $s, 3, "r9 + r11"),
                    $meanwhile!(past 4, $s),
                    advance!(concat!("4*", $s)),
                    "lea r9, [r9 + 4*r10]",
                    "sub r12, 4",
                    "jae 2b",
                    "3:",
                    "add r12, 4",
                    "jz 5f",
                    "4:",
                    step!($meanwhile, $m, $b, $s, 0, "r9"),
                    advance!($s),
                    $meanwhile!(past 1, $s),
                    "add r9, r10",
                    "dec r12",
                    "jnz 4b",
                    "5:",
                    end!($add),
                    in("r15") call,
                    rows = const ROWS,
                    out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
                    out("r8") _, out("r9") _, out("r10") _, out("r11") _,
                    out("r12") _, out("r13") _, out("r14") _,
                    out("zmm0") _, out("zmm1") _, out("zmm2") _, out("zmm3") _, out("zmm4") _,
                    out("zmm5") _, out("zmm6") _, out("zmm7") _, out("zmm8") _, out("zmm9") _,
                    out("zmm10") _, out("zmm11") _, out("zmm12") _, out("zmm13") _, out("zmm14") _,
                    out("zmm15") _, out("zmm16") _, out("zmm17") _, out("zmm18") _, out("zmm19") _,
                    out("zmm20") _, out("zmm21") _, out("zmm22") _, out("zmm23") _, out("zmm24") _,
                    out("zmm25") _, out("zmm26") _, out("zmm27") _, out("zmm28") _, out("zmm29") _,
                    out("zmm30") _, out("zmm31") _,
                    options(nostack),
                );
            }
        }
    };
}

tile!(fp32, fetch_a, "avx512f", "vfmadd231ps", "vbroadcastss", "vaddps", 4);
tile!(fp64, fetch_wide_a, "avx512f", "vfmadd231pd", "vbroadcastsd", "vaddpd", 8);
tile!(bf16, fetch_a, "avx512f,avx512bf16", "vdpbf16ps", "vbroadcastss", "vaddps", 4);
tile!(int8, fetch_a, "avx512f,avx512vnni", "vpdpbusd", "vpbroadcastd", "vpaddd", 4);

tile!(fp32_packing, pack_b, "avx512f", "vfmadd231ps", "vbroadcastss", "vaddps", 4);
tile!(fp64_packing, pack_b, "avx512f", "vfmadd231pd", "vbroadcastsd", "vaddpd", 8);

/// The tiles of 1 to 14 rows.
macro_rules! tiles {
    ($tile:ident) => {
        [
            $tile::<1>,
            $tile::<2>,
            $tile::<3>,
            $tile::<4>,
            $tile::<5>,
            $tile::<6>,
            $tile::<7>,
            $tile::<8>,
            $tile::<9>,
            $tile::<10>,
            $tile::<11>,
            $tile::<12>,
            $tile::<13>,
            $tile::<14>,
        ]
    };
}

const FP32_TILES: [Tile; 14] = tiles!(fp32);
const FP64_TILES: [Tile; 14] = tiles!(fp64);
const BF16_TILES: [Tile; 14] = tiles!(bf16);
const INT8_TILES: [Tile; 14] = tiles!(int8);
const FP32_PACKING_TILES: [Tile; 14] = tiles!(fp32_packing);
const FP64_PACKING_TILES: [Tile; 14] = tiles!(fp64_packing);

//! Micro-kernels in plain Rust for processors without one of their own: the compiler chooses the
//! instructions, so they are a lower bound.
//!
//! Not here: assembly. Packing widens BF16 to FP32 and INT8 to 32 bits.

use super::pack::{self, Panel};
use super::single_row::{self, RowCall};
use super::tile::{Call, Tile, TileKernel};
use crate::bench::ElementFormat;

/// Columns of a tile.
const N_COLUMNS: usize = 8;

/// One for each format.
pub(super) const KERNELS: [TileKernel; 4] = [FP64, FP32, BF16, INT8];

const FP64: TileKernel = TileKernel {
    format: ElementFormat::Fp64,
    backend: "portable",
    instruction: "the compiler's choice",
    n_columns: N_COLUMNS,
    step: 1,
    step_bytes: 8,
    reads_plain_a: true,
    tiles: &[fp64::<1>, fp64::<2>, fp64::<3>, fp64::<4>],
    packing_tiles: None,
    pack_row: pack::copy_row::<8>,
    pack_panel: panel_fp64,
    row_product: row_fp64,
};

const FP32: TileKernel = TileKernel {
    format: ElementFormat::Fp32,
    step_bytes: 4,
    tiles: &FP32_TILES,
    pack_row: pack::copy_row::<4>,
    pack_panel: panel_fp32,
    row_product: row_fp32,
    ..FP64
};

const FP32_TILES: [Tile; 4] = [fp32::<1>, fp32::<2>, fp32::<3>, fp32::<4>];

const BF16: TileKernel = TileKernel {
    format: ElementFormat::Bf16,
    reads_plain_a: false,
    pack_row: row_widened_bf16,
    pack_panel: panel_bf16,
    row_product: row_bf16,
    ..FP32
};

const INT8: TileKernel = TileKernel {
    format: ElementFormat::Int8,
    tiles: &[int32::<1>, int32::<2>, int32::<3>, int32::<4>],
    reads_plain_a: false,
    pack_row: row_widened_int8,
    pack_panel: panel_int8,
    row_product: row_int8,
    ..FP32
};

/// Factors and sums of one type.
///
/// # Safety
/// As [`Tile`] says.
#[inline(always)]
unsafe fn tile<S: Copy + Default, const ROWS: usize>(
    call: &Call,
    multiply_add: impl Fn(S, S, S) -> S,
    add: impl Fn(S, S) -> S,
) {
    let mut sums = [[S::default(); N_COLUMNS]; ROWS];
    for step_idx in 0..call.n_steps {
        // SAFETY: the caller's promise: so many steps of `N_COLUMNS` lanes.
        let b = unsafe { &*call.b.add(step_idx * call.b_stride).cast::<[S; N_COLUMNS]>() };
        for (row_idx, row) in sums.iter_mut().enumerate() {
            // SAFETY: the caller's promise: `ROWS` rows of so many steps.
            let a = unsafe { *call.a.add(row_idx * call.a_stride).cast::<S>().add(step_idx) };
            for (sum, &b) in row.iter_mut().zip(b) {
                *sum = multiply_add(a, b, *sum);
            }
        }
    }
    for (row_idx, row) in sums.iter().enumerate() {
        // SAFETY: the caller's promise: `ROWS` rows of C, this thread's alone.
        let c = unsafe { &mut *call.c.add(row_idx * call.c_stride).cast::<[S; N_COLUMNS]>() };
        for (c, &sum) in c.iter_mut().zip(row) {
            *c = if call.accumulates == 0 { sum } else { add(*c, sum) };
        }
    }
}

/// Fused where the processor's baseline has it, since elsewhere that is a library call.
fn multiply_add_fp32(a: f32, b: f32, sum: f32) -> f32 {
    match cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        true => a.mul_add(b, sum),
        false => a * b + sum,
    }
}

/// As with FP32.
fn multiply_add_fp64(a: f64, b: f64, sum: f64) -> f64 {
    match cfg!(any(target_arch = "aarch64", target_feature = "fma")) {
        true => a.mul_add(b, sum),
        false => a * b + sum,
    }
}

/// # Safety
/// As [`Tile`] says.
unsafe fn fp64<const ROWS: usize>(call: &Call) {
    // SAFETY: the caller's promise.
    unsafe { tile::<f64, ROWS>(call, multiply_add_fp64, |c, sum| c + sum) };
}

/// # Safety
/// As [`Tile`] says.
unsafe fn fp32<const ROWS: usize>(call: &Call) {
    // SAFETY: the caller's promise.
    unsafe { tile::<f32, ROWS>(call, multiply_add_fp32, |c, sum| c + sum) };
}

/// # Safety
/// As [`Tile`] says.
unsafe fn int32<const ROWS: usize>(call: &Call) {
    let multiply_add = |a: i32, b: i32, sum: i32| sum.wrapping_add(a.wrapping_mul(b));
    // SAFETY: the caller's promise.
    unsafe { tile::<i32, ROWS>(call, multiply_add, i32::wrapping_add) };
}

/// # Safety
/// As [`pack::PackRow`] says.
unsafe fn row_widened_bf16(source: *const u8, n_factors: usize, target: *mut u8, n_bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { pack::widen_row(source, n_factors, target, n_bytes, pack::widen_bf16) };
}

/// # Safety
/// As [`pack::PackRow`] says.
unsafe fn row_widened_int8(source: *const u8, n_factors: usize, target: *mut u8, n_bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { pack::widen_row(source, n_factors, target, n_bytes, |factor: u8| i32::from(factor)) };
}

/// # Safety
/// As [`pack::PackPanel`] says.
unsafe fn panel_fp64(panel: &Panel) {
    // SAFETY: the caller's promise.
    unsafe { pack::panel::<u64, u64, 1, N_COLUMNS>(panel, |[factor]| factor) };
}

/// # Safety
/// As [`pack::PackPanel`] says.
unsafe fn panel_fp32(panel: &Panel) {
    // SAFETY: the caller's promise.
    unsafe { pack::panel::<u32, u32, 1, N_COLUMNS>(panel, |[factor]| factor) };
}

/// # Safety
/// As [`pack::PackPanel`] says.
unsafe fn panel_bf16(panel: &Panel) {
    // SAFETY: the caller's promise.
    unsafe { pack::panel::<u16, u32, 1, N_COLUMNS>(panel, |[factor]| pack::widen_bf16(factor)) };
}

/// # Safety
/// As [`pack::PackPanel`] says.
unsafe fn panel_int8(panel: &Panel) {
    // SAFETY: the caller's promise.
    unsafe { pack::panel::<i8, i32, 1, N_COLUMNS>(panel, |[factor]| i32::from(factor)) };
}

/// # Safety
/// As [`single_row::RowProduct`] says.
unsafe fn row_fp64(call: &RowCall) {
    // SAFETY: the caller's promise.
    unsafe { single_row::product(call, |a: f64| a, multiply_add_fp64) };
}

/// # Safety
/// As [`single_row::RowProduct`] says.
unsafe fn row_fp32(call: &RowCall) {
    // SAFETY: the caller's promise.
    unsafe { single_row::product(call, |a: f32| a, multiply_add_fp32) };
}

/// # Safety
/// As [`single_row::RowProduct`] says.
unsafe fn row_bf16(call: &RowCall) {
    let multiply_add = |a, b, sum| multiply_add_fp32(a, single_row::from_bf16(b), sum);
    // SAFETY: the caller's promise.
    unsafe { single_row::product(call, single_row::from_bf16, multiply_add) };
}

/// # Safety
/// As [`single_row::RowProduct`] says.
unsafe fn row_int8(call: &RowCall) {
    let widen = |a: u8| i32::from(a);
    // SAFETY: the caller's promise.
    unsafe { single_row::product(call, widen, single_row::multiply_add_int8) };
}

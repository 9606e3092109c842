//! Products of one row: B is read once, row by row, and nothing is packed; memory is the limit.
//!
//! Not here: two rows and more (`driver.rs`). C is a sum of rows of B, each times a factor of A:
//! eight rows of B at a time, so that C is read and written once for eight. Plain Rust, compiled
//! once for each instruction set: it only has to be faster than memory.

use std::ops::Range;

/// Rows of B that are added at a time.
const N_ROWS: usize = 8;
/// Columns at a time: their sums stay in the first cache.
const N_COLUMNS: usize = 4096;

/// One row of A times some columns of B.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowCall {
    /// First factor of the row.
    pub(super) a: *const u8,
    /// Its factors.
    pub(super) depth: usize,
    /// First factor of B.
    pub(super) b: *const u8,
    /// Bytes between rows of B.
    pub(super) b_stride: usize,
    /// First sum.
    pub(super) c: *mut u8,
    /// Columns.
    pub(super) n_columns: usize,
}

/// Multiplies, overwriting C.
///
/// # Safety
/// All that the call speaks of is valid, aligned and of the kernel's format, C for writing by this
/// thread alone; the instructions are there.
pub(super) type RowProduct = unsafe fn(&RowCall);

/// Factors `A` and `B`, sums `S`.
///
/// # Safety
/// As [`RowProduct`] says, but for the instructions.
#[inline(always)]
pub(super) unsafe fn product<A: Copy, B: Copy, S: Copy + Default>(
    call: &RowCall,
    widen_a: impl Fn(A) -> S,
    multiply_add: impl Fn(S, B, S) -> S,
) {
    // SAFETY: the caller's promise: the row holds its factors, C its sums.
    let (a, c) = unsafe {
        let a = std::slice::from_raw_parts(call.a.cast::<A>(), call.depth);
        (a, std::slice::from_raw_parts_mut(call.c.cast::<S>(), call.n_columns))
    };
    c.fill(S::default());
    let row_of_b = |depth: usize, columns: &Range<usize>| {
        // SAFETY: the caller's promise: `depth` is below the number of rows, columns are in B.
        unsafe {
            let row = call.b.add(depth * call.b_stride).cast::<B>();
            std::slice::from_raw_parts(row.add(columns.start), columns.len())
        }
    };
    for first_column in (0..call.n_columns).step_by(N_COLUMNS) {
        let columns = first_column..call.n_columns.min(first_column + N_COLUMNS);
        let sums = &mut c[columns.clone()];
        let (groups, rest) = a.as_chunks::<N_ROWS>();
        for (group_idx, group) in groups.iter().enumerate() {
            let factors = group.map(&widen_a);
            let first_row = group_idx * N_ROWS;
            let rows = std::array::from_fn(|row_idx| row_of_b(first_row + row_idx, &columns));
            add_rows(sums, factors, rows, &multiply_add);
        }
        for (factor_idx, &factor) in rest.iter().enumerate() {
            let rows = [row_of_b(groups.len() * N_ROWS + factor_idx, &columns)];
            add_rows(sums, [widen_a(factor)], rows, &multiply_add);
        }
    }
}

/// Adds rows times factors to the sums.
#[inline(always)]
fn add_rows<B: Copy, S: Copy, const N: usize>(
    sums: &mut [S],
    factors: [S; N],
    rows: [&[B]; N],
    multiply_add: &impl Fn(S, B, S) -> S,
) {
    let rows = rows.map(|row| &row[..sums.len()]);
    for (column, sum) in sums.iter_mut().enumerate() {
        let mut total = *sum;
        for row_idx in 0..N {
            total = multiply_add(factors[row_idx], rows[row_idx][column], total);
        }
        *sum = total;
    }
}

/// BF16 as the FP32 that it is the upper half of.
#[inline(always)]
pub(super) fn from_bf16(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// Sums of INT8 wrap, as the instructions' do.
#[inline(always)]
pub(super) fn multiply_add_int8(a: i32, b: i8, sum: i32) -> i32 {
    sum.wrapping_add(a.wrapping_mul(i32::from(b)))
}

/// Compiles the four formats for a set of instructions that has fused multiply-adds.
#[cfg(target_arch = "x86_64")]
macro_rules! row_products {
    ($features:literal) => {
        row_product!(fp64, $features, |a: f64| a, |a: f64, b: f64, sum| a.mul_add(b, sum));
        row_product!(fp32, $features, |a: f32| a, |a: f32, b: f32, sum| a.mul_add(b, sum));
        row_product!(bf16, $features, super::from_bf16, |a: f32, b, sum| {
            a.mul_add(super::from_bf16(b), sum)
        });
        row_product!(int8, $features, |a: u8| i32::from(a), super::multiply_add_int8);
    };
}

/// Compiles one format for a set of instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! row_product {
    ($name:ident, $features:literal, $widen_a:expr, $multiply_add:expr) => {
        /// # Safety
        /// As [`RowProduct`](super::RowProduct) says.
        #[target_feature(enable = $features)]
        pub(in crate::cpu::gemm) unsafe fn $name(call: &super::RowCall) {
            // SAFETY: the caller's promise.
            unsafe { super::product(call, $widen_a, $multiply_add) };
        }
    };
}

/// For AVX2 with FMA.
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    row_products!("avx2,fma");
}

/// For AVX-512.
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    row_products!("avx512f,avx512bw,fma");
}

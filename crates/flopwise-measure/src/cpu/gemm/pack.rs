//! Packing: a part of A or B copied into the order in which micro-kernels read it.
//!
//! Not here: when and how much (`driver.rs`). Rows of A are copied as they are, perhaps widened;
//! panels of B become step after step of neighbouring columns. The loops are plain Rust, compiled
//! once for each instruction set: moving is not what is measured, but it has to keep up.

/// Rows of B asked for ahead of the one that is packed: the next ones lie a whole row of the
/// matrix apart, where no hardware looks.
const ROWS_AHEAD: usize = 12;

/// Packs `n_factors` of a row of A from `source` and fills `n_bytes` at `target` up with zeros.
///
/// # Safety
/// `source` is valid for the factors, `target` for the bytes, which hold at least the factors'
/// packed form; the instructions are there; no overlap.
pub(super) type PackRow =
    unsafe fn(source: *const u8, n_factors: usize, target: *mut u8, n_bytes: usize);

/// Packs a [`Panel`].
///
/// # Safety
/// The panel's promise; the instructions are there.
pub(super) type PackPanel = unsafe fn(&Panel);

/// Some columns of some rows of B, and where they go.
///
/// Whoever makes one promises: `source` is valid for `n_columns` factors in each of `depth` rows
/// that are `stride` bytes apart, aligned as they are; `target` is aligned to 64 and valid for all
/// steps of a whole panel; no overlap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Panel {
    pub(super) source: *const u8,
    pub(super) stride: usize,
    pub(super) depth: usize,
    pub(super) n_columns: usize,
    pub(super) target: *mut u8,
}

/// A row as it is, of factors of `BYTES`.
///
/// # Safety
/// As [`PackRow`] says.
pub(super) unsafe fn copy_row<const BYTES: usize>(
    source: *const u8,
    n_factors: usize,
    target: *mut u8,
    n_bytes: usize,
) {
    let n_copied = n_factors * BYTES;
    debug_assert!(n_copied <= n_bytes);
    // SAFETY: the caller's promise.
    unsafe {
        target.copy_from_nonoverlapping(source, n_copied);
        target.add(n_copied).write_bytes(0, n_bytes - n_copied);
    }
}

/// A row whose factors `F` become `W`.
///
/// # Safety
/// As [`PackRow`] says, but for the instructions.
#[inline(always)]
pub(super) unsafe fn widen_row<F: Copy, W: Copy>(
    source: *const u8,
    n_factors: usize,
    target: *mut u8,
    n_bytes: usize,
    widen: impl Fn(F) -> W,
) {
    let n_widened = n_factors * size_of::<W>();
    debug_assert!(n_widened <= n_bytes);
    // SAFETY: the caller's promise: both hold so many factors and do not overlap.
    unsafe {
        let factors = std::slice::from_raw_parts(source.cast::<F>(), n_factors);
        let widened = std::slice::from_raw_parts_mut(target.cast::<W>(), n_factors);
        for (widened, &factor) in widened.iter_mut().zip(factors) {
            *widened = widen(factor);
        }
        target.add(n_widened).write_bytes(0, n_bytes - n_widened);
    }
}

/// A panel of `COLUMNS` whose lanes `L` join `STEP` factors `F` of one column; what lies beyond the
/// matrix is zero.
///
/// # Safety
/// The panel's promise.
#[inline(always)]
pub(super) unsafe fn panel<F: Copy + Default, L, const STEP: usize, const COLUMNS: usize>(
    panel: &Panel,
    join: impl Fn([F; STEP]) -> L,
) {
    let Panel { source, stride, depth, n_columns, target } = *panel;
    let target: *mut L = target.cast();
    let n_whole = if n_columns == COLUMNS { depth / STEP } else { 0 };
    for step_idx in 0..n_whole {
        // SAFETY: rows below `depth` of `COLUMNS` factors each are in the matrix, and the steps in
        // the target; asking ahead touches nothing.
        unsafe {
            let first = source.add(step_idx * STEP * stride);
            for row_idx in 0..STEP {
                ask_for(
                    first.wrapping_add((row_idx + ROWS_AHEAD) * stride),
                    COLUMNS * size_of::<F>(),
                );
            }
            let rows: [&[F; COLUMNS]; STEP] =
                std::array::from_fn(|row_idx| &*first.add(row_idx * stride).cast());
            let lanes = &mut *target.add(step_idx * COLUMNS).cast::<[L; COLUMNS]>();
            for (column_idx, lane) in lanes.iter_mut().enumerate() {
                *lane = join(std::array::from_fn(|row_idx| rows[row_idx][column_idx]));
            }
        }
    }
    for step_idx in n_whole..depth.div_ceil(STEP) {
        for column_idx in 0..COLUMNS {
            let factors = std::array::from_fn(|row_idx| {
                let row = step_idx * STEP + row_idx;
                match row < depth && column_idx < n_columns {
                    // SAFETY: inside the matrix, as just asked.
                    true => unsafe { *source.add(row * stride).cast::<F>().add(column_idx) },
                    false => F::default(),
                }
            });
            // SAFETY: the target holds whole steps.
            unsafe { target.add(step_idx * COLUMNS + column_idx).write(join(factors)) };
        }
    }
}

/// Asks for the cache lines of so many bytes; nothing is read.
#[inline(always)]
fn ask_for(start: *const u8, n_bytes: usize) {
    #[cfg(target_arch = "x86_64")]
    for offset in (0..n_bytes).step_by(64) {
        // SAFETY: a hint that faults nowhere; SSE is part of x86-64.
        unsafe {
            std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(
                start.wrapping_add(offset).cast(),
            );
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, n_bytes);
}

/// BF16 is the upper half of FP32.
#[inline(always)]
pub(super) fn widen_bf16(factor: u16) -> u32 {
    u32::from(factor) << 16
}

/// Two factors of 16 bits, the first one low.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn join_pair([first, second]: [u16; 2]) -> u32 {
    u32::from(first) | u32::from(second) << 16
}

/// Four factors of 8 bits, the first one lowest.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn join_quad([first, second, third, fourth]: [u8; 4]) -> u32 {
    u32::from(first) | u32::from(second) << 8 | u32::from(third) << 16 | u32::from(fourth) << 24
}

/// Compiles a way of packing a panel for a set of instructions.
#[cfg(target_arch = "x86_64")]
macro_rules! pack_panel {
    ($name:ident, $features:literal, $factor:ty, $lane:ty, $step:literal, $columns:literal,
     $join:expr) => {
        /// # Safety
        /// As [`PackPanel`](super::PackPanel) says.
        #[target_feature(enable = $features)]
        pub(in crate::cpu::gemm) unsafe fn $name(panel: &super::Panel) {
            // SAFETY: the caller's promise.
            unsafe { super::panel::<$factor, $lane, $step, $columns>(panel, $join) };
        }
    };
}

/// For AVX2: panels of two registers.
#[cfg(target_arch = "x86_64")]
pub(super) mod avx2 {
    pack_panel!(copy_panel_fp64, "avx2", u64, u64, 1, 8, |[factor]| factor);
    pack_panel!(copy_panel_fp32, "avx2", u32, u32, 1, 16, |[factor]| factor);
    pack_panel!(widen_panel_bf16, "avx2", u16, u32, 1, 16, |[factor]| super::widen_bf16(factor));
    pack_panel!(widen_panel_s8, "avx2", i8, u32, 2, 16, |factors: [i8; 2]| {
        super::join_pair(factors.map(|factor| i16::from(factor).cast_unsigned()))
    });

    /// # Safety
    /// As [`PackRow`](super::PackRow) says.
    #[target_feature(enable = "avx2")]
    pub(in crate::cpu::gemm) unsafe fn widen_row_bf16(
        source: *const u8,
        n_factors: usize,
        target: *mut u8,
        n_bytes: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { super::widen_row(source, n_factors, target, n_bytes, super::widen_bf16) };
    }

    /// # Safety
    /// As [`PackRow`](super::PackRow) says.
    #[target_feature(enable = "avx2")]
    pub(in crate::cpu::gemm) unsafe fn widen_row_u8(
        source: *const u8,
        n_factors: usize,
        target: *mut u8,
        n_bytes: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            super::widen_row(source, n_factors, target, n_bytes, |factor: u8| u16::from(factor))
        };
    }
}

/// For AVX-512: panels of two registers.
#[cfg(target_arch = "x86_64")]
pub(super) mod avx512 {
    pack_panel!(copy_panel_fp64, "avx512f", u64, u64, 1, 16, |[factor]| factor);
    pack_panel!(copy_panel_fp32, "avx512f", u32, u32, 1, 32, |[factor]| factor);
    pack_panel!(pair_panel_bf16, "avx512f,avx512bw", u16, u32, 2, 32, super::join_pair);
    pack_panel!(quad_panel_s8, "avx512f,avx512bw", u8, u32, 4, 32, super::join_quad);
}
